"""What MAML, FOMAML and Reptile do to leading order (section 5.1).

The coefficients of AvgGrad and AvgGradInner beside the paper's (eq. 33-35 for
k = 2; 37, 39, 41), and the residual of the expansion against alpha. The rules
are those that train, `rules.REGISTRY`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.analysis.leading_terms import Family, LeadingTerms, flat
from reptile_tf.execution.engine import Engine, side_by_side
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import squared_error
from reptile_tf.learning.optimizers import InnerConfig
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.networks import inner_clone
from reptile_tf.reporting import plotting
from reptile_tf.reporting.plotting import Figure
from reptile_tf.reporting.tables import markdown_table
from reptile_tf.tasks import Batches

STEPS = tuple(range(2, 9))
ALPHAS = (3e-6, 3e-5, 3e-4, 3e-3)
# Coefficients of AvgGrad and of alpha * AvgGradInner in E[g] (eq. 37, 39, 41).
PAPER: dict[str, Callable[[int], tuple[float, float]]] = {
    "maml": lambda k: (1, -2 * (k - 1)),
    "fomaml": lambda k: (1, -(k - 1)),
    "reptile": lambda k: (k, -k * (k - 1) / 2),
}
ENGINE = Engine(True, False)


def meta_gradients(model: keras.Model, name: str, batches: Batches,
                   alpha: float) -> tf.Tensor:
    """g = D / alpha of each sequence [S, weights], by the rule that trains."""
    update = REGISTRY[name]
    inner_loop = InnerLoop(
        inner_clone(model), InnerConfig(alpha, "sgd", "sum"),
        squared_error, unrolled_steps=math.inf)
    phi = [w.value.value() for w in inner_loop.model.trainable_variables]

    @tf.function(autograph=False)
    def displacements(batches):
        return side_by_side(
            lambda task: update.rule(inner_loop, phi,
                                     inner_loop.initial_state(),
                                     task)[0], batches, ENGINE)

    return flat(displacements(batches), 1) / alpha


@dataclass(frozen=True)
class Measurement:
    """One rule at one k.

    Attributes:
      name, k: which.
      paper: its coefficients of AvgGrad and alpha AvgGradInner.
      measured: those fitted, by least squares at the smallest alpha.
      residuals: |E[g] - the paper's two terms| / |AvgGrad| at each alpha.
      slope: of log residual against log alpha.
    """

    name: str
    k: int
    paper: tuple[float, float]
    measured: tuple[float, float]
    residuals: tuple[float, ...]
    slope: float


def measure(model: keras.Model, family: Family, terms: LeadingTerms,
            name: str, k: int) -> Measurement:
    """E[g] over all sequences, at every alpha, against the expansion."""
    batches, residuals = family.sequences(k), []
    paper, measured = PAPER[name](k), (0.0, 0.0)
    for alpha in ALPHAS:
        mean = meta_gradients(model, name, batches, alpha).numpy().mean(0)
        columns = np.stack([terms.avg_grad, alpha * terms.avg_grad_inner], 1)
        if alpha == ALPHAS[0]:
            # Scaled, because alpha makes the second column tiny.
            scale = np.linalg.norm(columns, axis=0)
            fit, *_ = np.linalg.lstsq(columns / scale, mean, rcond=None)
            measured = tuple(float(c) for c in fit / scale)
        residuals.append(float(np.linalg.norm(mean - columns @ paper)
                               / np.linalg.norm(terms.avg_grad)))
    slope = np.polyfit(np.log(ALPHAS), np.log(residuals), 1)[0]
    return Measurement(name, k, paper, measured, tuple(residuals),
                       float(slope))


def table(measurements: list[Measurement]) -> list[str]:
    """Paper and measured, as Markdown."""
    return markdown_table(
        ["rule", "k", "AvgGrad: paper", "measured",
         "alpha AvgGradInner: paper", "measured", "residual ~ alpha^"],
        [[m.name, str(m.k), f"{m.paper[0]:g}", f"{m.measured[0]:.4f}",
          f"{m.paper[1]:g}", f"{m.measured[1]:.4f}", f"{m.slope:.3f}"]
         for m in measurements])


def draw(measurements: list[Measurement]) -> Figure:
    """The residual against alpha, one panel per rule."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, len(PAPER), sharey=True)
    for axes, name in zip(panels, PAPER, strict=True):
        lines = [m for m in measurements if m.name == name]
        for i, m in enumerate(lines):
            axes.loglog(ALPHAS, m.residuals, marker="o", ms=3,
                        color=plotting.COLOURS[i],
                        linestyle=plotting.LINE_STYLES[
                            i % len(plotting.LINE_STYLES)],
                        label=f"k = {m.k}, slope {m.slope:.2f}")
        start = min(m.residuals[0] for m in lines) / 4
        axes.loglog(ALPHAS, start * (np.array(ALPHAS) / ALPHAS[0]) ** 2,
                    color="#999999", lw=1, label="alpha²")
        axes.set(title=name, xlabel="alpha, inner step size")
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("|E[g] - two leading terms| / |AvgGrad|")
    figure.suptitle("What the expansion of section 5.1 leaves out falls as "
                    "alpha²")
    return figure
