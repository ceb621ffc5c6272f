"""Section 5.2: Reptile on tasks whose optimal solutions are known manifolds.

A task's loss is half the squared distance of phi to its manifold W_tau, whose
gradient is phi - P_tau(phi): one inner SGD step of alpha = 1 minimizes it
fully, and W is the nearest point (eq. 46-50). The outer loop that trains
networks then should find the point of least mean squared distance.
"""

from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.execution.engine import Engine
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.losses import Loss
from reptile_tf.learning.meta_config import MetaConfig
from reptile_tf.learning.meta_training import MetaTrainer
from reptile_tf.learning.optimizers import InnerConfig
from reptile_tf.reporting import plotting
from reptile_tf.reporting.plotting import Figure
from reptile_tf.tasks import Batches, Sampler

ITERATIONS = 400
DIMENSIONS, SUBSPACES = 12, 5


def point(start: np.ndarray) -> keras.Model:
    """A model whose weights are the point itself: 1 -> phi."""
    model = keras.Sequential([
        keras.Input([1], dtype="float64"),
        keras.layers.Dense(len(start), use_bias=False, dtype="float64")])
    model.set_weights([np.reshape(start, [1, -1])])
    return model


def half_squared_distance_to_points(targets: tf.Tensor, outputs: tf.Tensor
                                    ) -> tf.Tensor:
    """[B] of points [B, d] and curves given as points [B, M, d]."""
    distances = tf.reduce_sum(tf.square(outputs[:, None] - targets), -1)
    return tf.reduce_min(distances, -1) / 2


def half_squared_distance_to_subspace(targets: tf.Tensor, outputs: tf.Tensor
                                      ) -> tf.Tensor:
    """[B] of points [B, d] and affine subspaces [B, d, d + 1].

    A subspace {b + y : Q y = 0} is given as (Q, b), with Q the projector onto
    its normals.
    """
    normals, base = targets[..., :-1], targets[..., -1]
    return tf.reduce_sum(tf.square(
        tf.linalg.matvec(normals, outputs - base)), -1) / 2


def sampler_of(manifolds: np.ndarray, alternate: bool) -> Sampler:
    """All tasks in every meta-batch, or one after the other in turn."""
    def batches(chosen: np.ndarray) -> Batches:
        number = len(chosen)
        ones = np.ones([number, 1, 1])
        none = np.zeros([number, 0])
        return Batches(none[..., None, None], none, ones, chosen[:, None])

    turn = 0

    def draw(num_tasks: int) -> Batches:
        nonlocal turn
        if not alternate:
            return batches(manifolds)
        turn += 1
        return batches(manifolds[[(turn - 1) % len(manifolds)]])

    return draw


def iterates(start: np.ndarray, manifolds: np.ndarray, loss: Loss,
             *, alternate: bool = False, iterations: int = ITERATIONS
             ) -> Iterator[np.ndarray]:
    """phi [d] before and after each meta-iteration of Reptile.

    Args:
      start: the first phi [d].
      manifolds: targets of `loss`, one of each task.
      loss: half the squared distance.
      alternate: one task a meta-iteration in turn, instead of all.
      iterations: over which epsilon is annealed from 1 to 0.
    """
    trainer = MetaTrainer(
        Learner(point(start), InnerConfig(1.0, "sgd"), loss,
                engine=Engine(True, False)),
        MetaConfig("reptile", meta_step=1.0, meta_step_final=0.0,
                   meta_batch=1 if alternate else len(manifolds),
                   meta_iters=iterations))
    yield start
    for _ in trainer.train(sampler_of(manifolds, alternate)):
        yield trainer.weights[0].numpy()[0]


def affine_subspaces(seed: int = 0) -> np.ndarray:
    """Random ones [SUBSPACES, d, d + 1], of unequal dimensions."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(SUBSPACES):
        normals, _ = np.linalg.qr(rng.normal(size=(DIMENSIONS, 3 + i)))
        found.append(np.column_stack([normals @ normals.T,
                                      rng.normal(size=DIMENSIONS)]))
    return np.array(found)


def closed_form(subspaces: np.ndarray) -> np.ndarray:
    """argmin of the mean squared distance: sum Q_i phi = sum Q_i b_i."""
    normals, base = subspaces[..., :-1], subspaces[..., -1]
    return np.linalg.solve(normals.sum(0),
                           np.einsum("ijk,ik->j", normals, base))


def line(base: tuple[float, float], angle: float) -> np.ndarray:
    """Points [M, 2] of a line."""
    s = np.linspace(-6, 6, 4001)[:, None]
    return np.array(base) + s * [np.cos(angle), np.sin(angle)]


def curve(height: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Points [M, 2] of a graph."""
    x = np.linspace(-6, 6, 4001)
    return np.stack([x, height(x)], 1)


# Two tasks each: what they are, and where phi starts.
PICTURES = {
    "two lines": (np.stack([line((0, 0), 0.1), line((1, 0.5), 1.2)]),
                  np.array([-2.5, 2.2])),
    "a line and a curve that do not meet": (
        np.stack([line((0, -1.2), -0.15),
                  curve(lambda x: 0.25 * x**2 + 0.4)]),
        np.array([-2.6, 0.3])),
}


def affine_error() -> tuple[float, float]:
    """Relative error of Reptile's last phi, and of its first."""
    subspaces = affine_subspaces()
    best = closed_form(subspaces)
    path = list(iterates(np.full(DIMENSIONS, 3.0), subspaces,
                         half_squared_distance_to_subspace))
    first, last = (float(np.linalg.norm(phi - best) / np.linalg.norm(best))
                   for phi in (path[0], path[-1]))
    return last, first


def table() -> list[str]:
    """What `python -m reptile_tf.analysis` says of section 5.2."""
    last, first = affine_error()
    return [f"Reptile on {SUBSPACES} affine subspaces of R^{DIMENSIONS}, full "
            f"minimization, all tasks in every meta-batch, {ITERATIONS} "
            "meta-iterations, epsilon 1 to 0:",
            "relative error against the point of least mean squared distance "
            f"(closed form): {last:.1e}, from {first:.1f} at the start"]


def draw() -> Figure:
    """Figure 2: iterates that move alternately towards two manifolds."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    for axes, (name, (manifolds, start)) in zip(
            figure.subplots(1, 2), PICTURES.items(), strict=True):
        path = np.array(list(iterates(
            start, manifolds, half_squared_distance_to_points,
            alternate=True, iterations=40)))
        target = list(iterates(start, manifolds,
                               half_squared_distance_to_points))[-1]
        for i, points in enumerate(manifolds):
            axes.plot(*points.T, color=plotting.COLOURS[i], lw=2,
                      linestyle=plotting.LINE_STYLES[i],
                      label=f"optimal solutions of task {i + 1}")
        axes.plot(*path.T, color="black", lw=0.8, marker="o", ms=3,
                  label="iterates, tasks in turn")
        axes.plot(*target, marker="*", ms=14, color=plotting.COLOURS[4],
                  markeredgecolor="black", linestyle="none",
                  label="both tasks in every meta-batch: "
                  "least mean squared distance")
        axes.set(xlim=(-3, 3), ylim=(-2.2, 2.6), aspect="equal", title=name)
        axes.annotate("start", path[0], xytext=(6, 6),
                      textcoords="offset points")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8,
                  loc="outside lower center", ncols=4)
    figure.suptitle("Reptile moves towards the tasks' nearest solutions in "
                    "turn (section 5.2)")
    return figure
