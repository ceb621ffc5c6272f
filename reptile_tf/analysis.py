"""Section 5, measured: what MAML, FOMAML and Reptile do to leading order.

    python -m reptile_tf.analysis [--out=DIR]

prints the coefficients of AvgGrad and AvgGradInner beside the paper's (eq.
33-35 for k = 2; 37, 39, 41), draws the residual of the expansion against
alpha, and figure 2 (`manifolds`). A small smooth network in float64 and a
finite family of tasks, each with a few mini-batches drawn independently: all
sequences are enumerated, so expectations are exact. The rules are those that
train, `meta_updates.REGISTRY`.
"""

import itertools  # noqa: I001  (TensorFlow must be imported quietly, first)
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reptile_tf import quiet  # noqa: F401

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from matplotlib.figure import Figure

from reptile_tf import manifolds, models
from reptile_tf.engine import Engine, side_by_side
from reptile_tf.experiments import plotting
from reptile_tf.inner_loop import InnerConfig, InnerLoop, squared_error
from reptile_tf.meta_updates import REGISTRY
from reptile_tf.tasks import Batches

STEPS = tuple(range(2, 9))
ALPHAS = (3e-6, 3e-5, 3e-4, 3e-3)
TASKS, MINI_BATCHES, EXAMPLES, INPUTS = 3, 2, 4, 2
# Coefficients of AvgGrad and of alpha * AvgGradInner in E[g] (eq. 37, 39, 41).
PAPER: dict[str, Callable[[int], tuple[float, float]]] = {
    "maml": lambda k: (1, -2 * (k - 1)),
    "fomaml": lambda k: (1, -(k - 1)),
    "reptile": lambda k: (k, -k * (k - 1) / 2),
}
ENGINE = Engine(True, False)


def network(seed: int = 0) -> keras.Model:
    """A smooth float64 network of 17 weights."""
    kernels = (keras.initializers.RandomNormal(0, 0.7, seed + i)
               for i in range(4))
    return keras.Sequential([
        keras.Input([INPUTS], dtype="float64"),
        keras.layers.Dense(4, "tanh", dtype="float64",
                           kernel_initializer=next(kernels),
                           bias_initializer=next(kernels)),
        keras.layers.Dense(1, dtype="float64",
                           kernel_initializer=next(kernels),
                           bias_initializer=next(kernels))])


@dataclass(frozen=True)
class Family:
    """A finite p(tau): inputs and targets of every mini-batch.

    Attributes:
      inputs: [tasks, mini-batches, B, inputs].
      targets: [tasks, mini-batches, B, 1].
    """

    inputs: np.ndarray
    targets: np.ndarray

    @classmethod
    def draw(cls, seed: int = 0) -> "Family":
        """Noisy regression tasks."""
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(TASKS, MINI_BATCHES, EXAMPLES, INPUTS))
        slopes = rng.normal(size=(TASKS, 1, INPUTS, 1))
        return cls(x, np.sin(x @ slopes) + 0.3 * rng.normal(
            size=(TASKS, MINI_BATCHES, EXAMPLES, 1)))

    def sequences(self, k: int) -> Batches:
        """Every sequence of k mini-batches of every task, equally likely."""
        order = np.array(list(itertools.product(
            range(self.inputs.shape[1]), repeat=k)))
        shape = (-1, k, *self.inputs.shape[2:])
        return Batches.from_steps(
            self.inputs[:, order].reshape(shape),
            self.targets[:, order].reshape(*shape[:-1], 1))


def flat(tensors: list[tf.Tensor], leading: int = 0) -> tf.Tensor:
    """Weights as one vector, after `leading` axes."""
    return tf.concat([tf.reshape(x, [*x.shape[:leading], -1])
                      for x in tensors], -1)


def meta_gradients(model: keras.Model, name: str, batches: Batches,
                   alpha: float) -> tf.Tensor:
    """g = D / alpha of each sequence [S, weights], by the rule that trains."""
    update = REGISTRY[name]
    inner = InnerLoop(
        models.inner_clone(model), InnerConfig(alpha, "sgd", "sum"),
        squared_error, unroll=True)
    phi = [w.value.value() for w in inner.model.trainable_variables]

    @tf.function(autograph=False)
    def displacements(batches):
        return side_by_side(
            lambda task: update.rule(inner, phi, inner.initial_state(),
                                     task)[0], batches, ENGINE)

    return flat(displacements(batches), 1) / alpha


class LeadingTerms:
    """gbar_i, Hbar_i gbar_j at phi, and their averages (eq. 28, 29).

    Args:
      model: at phi.
      family: the tasks.

    Attributes:
      gradients: gbar [tasks, mini-batches, weights].
      products: Hbar_i gbar_j [tasks, i, j, weights], Hessian-vector products.
      avg_grad: AvgGrad [weights].
      avg_grad_inner: AvgGradInner [weights], from the products.
      avg_grad_inner_by_eq32: the same as d/dphi of gbar_1 . gbar_2, halved.
    """

    def __init__(self, model: keras.Model, family: Family) -> None:
        self._inner = InnerLoop(
            models.inner_clone(model), InnerConfig(inner_loss="sum"),
            squared_error)
        self._phi = [w.value.value()
                     for w in self._inner.model.trainable_variables]
        tasks, number = family.inputs.shape[:2]
        gradients, products, by_eq32 = [], [], []
        for x, y in zip(family.inputs, family.targets, strict=True):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(self._phi)
                g = [self._gradient(x[i], y[i]) for i in range(number)]
                inner_products = {
                    (i, j): tf.reduce_sum(g[i] * tf.stop_gradient(g[j]))
                    for i in range(number) for j in range(number)}
                both = sum(tf.reduce_sum(a * b) for a in g for b in g)
            gradients.append(g)
            products.append([
                [flat(tape.gradient(inner_products[i, j], self._phi))
                 for j in range(number)] for i in range(number)])
            by_eq32.append(flat(tape.gradient(both, self._phi))
                           / (2 * number**2))
        self.gradients = np.array(gradients)
        self.products = np.array(products)
        self.avg_grad = self.gradients.mean((0, 1))
        self.avg_grad_inner = self.products.mean((0, 1, 2))
        self.avg_grad_inner_by_eq32 = np.mean(by_eq32, 0)

    def _gradient(self, x, y) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(self._phi)
            loss = self._inner.loss(self._phi, x, y)
        return flat(tape.gradient(loss, self._phi))


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
    lines = ["| rule | k | AvgGrad: paper | measured | alpha AvgGradInner: "
             "paper | measured | residual ~ alpha^ |",
             "|---|---|---|---|---|---|---|"]
    return lines + [
        f"| {m.name} | {m.k} | {m.paper[0]:g} | {m.measured[0]:.4f} | "
        f"{m.paper[1]:g} | {m.measured[1]:.4f} | {m.slope:.3f} |"
        for m in measurements]


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


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag")
    out = Path(flags.FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    model, family = network(), Family.draw()
    terms = LeadingTerms(model, family)
    difference = np.abs(
        terms.avg_grad_inner - terms.avg_grad_inner_by_eq32).max()
    measurements = [measure(model, family, terms, name, k)
                    for name in PAPER for k in STEPS]
    lines = [
        f"{TASKS} tasks x {MINI_BATCHES} mini-batches, all sequences of k; "
        f"alpha {ALPHAS[0]:.0e} to {ALPHAS[-1]:.0e}",
        "AvgGradInner from Hessian-vector products and by eq. 32 differ by "
        f"at most {difference:.1e}", "", *table(measurements), "",
        *manifolds.table()]
    print("\n".join(lines))
    (out / "analysis.md").write_text("\n".join(lines) + "\n")
    for name, figure in (("section5", draw(measurements)),
                         ("figure2", manifolds.draw())):
        for path in plotting.save(figure, out, name):
            print(f"figure: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/analysis", "folder of table and figures")
    app.run(main)
