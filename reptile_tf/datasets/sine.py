"""Sine waves: a task is a function to be fitted from p points (section 4).

Amplitude, phase and test points are uniform. Training runs on the 50 equally
spaced points of a task, as in the authors' demonstration; evaluation adapts
to p points drawn from the same range and is scored on the 50.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from reptile_tf import networks, tasks
from reptile_tf.configuration.config import Config
from reptile_tf.configuration.run_flags import flag
from reptile_tf.datasets.splits import start_name
from reptile_tf.datasets.task_source import TaskSource
from reptile_tf.errors import InputError
from reptile_tf.learning.evaluation import Score
from reptile_tf.learning.losses import squared_error
from reptile_tf.learning.measures import mean_squared_error
from reptile_tf.tasks import Batches, EvaluationTasks

NAME = "sine"
FILLS_A_THREAD = False
# The paper gives none; these are the authors' demonstration's.
DEFAULTS = {
    "shots": (10,), "train_shots": 50, "inner_batch": 10, "inner_iters": 5,
    "learning_rate": 0.02, "inner_optimizer": "sgd", "inner_loss": "mean",
    "meta_step": 0.1, "meta_step_final": 0.0, "meta_batch": 1,
    "meta_iters": 30_000, "eval_batch": (10,), "eval_iters": 32,
    "eval_samples": 1000, "eval_interval": 5000, "eval_interval_samples": 1000}
# FOMAML and MAML give the last mini-batch's gradient alone: an outer Adam sets
# its scale.
_OUTER_ADAM = {"outer_optimizer": "adam", "meta_step": 0.001,
               "meta_step_final": 0.001}
BY_ALGORITHM = {"fomaml": _OUTER_ADAM, "maml": _OUTER_ADAM}
GRID_POINTS = 50


@dataclass(frozen=True)
class SineConfig(Config):
    """Flags of the sine tasks."""

    shots: tuple[int, ...] = flag(
        (10,), "p, points of a task seen in evaluation; a list evaluates one "
        "training several times")
    train_shots: int = flag(
        50, "equally spaced points of a training task; 0 means --shots", True)
    activation: str = flag(
        "tanh", "of the network's two hidden layers", True, ("tanh", "relu"))
    amplitude: tuple[float, ...] = flag(
        (0.1, 5.0), "a, range of the amplitudes", True)
    phase: tuple[float, ...] = flag(
        (0.0, 2 * math.pi), "b, range of the phases, in radians", True)
    x_range: tuple[float, ...] = flag(
        (-5.0, 5.0), "range of x", True)
    compare: bool = flag(
        False, "train every algorithm but gradient_sum from the same seed on "
        "the same tasks, and draw them in one figure")

    @property
    def eval_steps(self) -> tuple[int, ...]:
        """0, 1, 2, 4, ... and eval_iters."""
        doubling = [0, *(2**i for i in range(self.eval_iters.bit_length()))]
        return (*(s for s in doubling if s < self.eval_iters),
                self.eval_iters)

    def check(self) -> None:
        super().check()
        for name in ("amplitude", "phase", "x_range"):
            values = getattr(self, name)
            text = ",".join(map(str, values))
            if len(values) != 2 or not values[0] < values[1]:
                raise InputError(
                    f"{name}={text} is an empty range: give the lower and the "
                    "upper end, such as -5,5")
            if not all(map(math.isfinite, values)):
                raise InputError(f"{name}={text} must be finite numbers")

    def check_one_of_several(self) -> None:
        if self.compare:
            raise InputError(
                "--compare trains every algorithm from one seed: give one "
                "--algorithm and one --seed, or drop --compare")


class Sines(TaskSource):
    """f(x) = a sin(x + b).

    Args:
      config: the flags.
    """

    splits = ("test",)
    loss = staticmethod(squared_error)
    measure = staticmethod(mean_squared_error)
    iterations_per_call = 200

    def __init__(self, config: SineConfig) -> None:
        self.config = config
        self.grid = np.linspace(*config.x_range, GRID_POINTS,
                                dtype=np.float32)[:, None]
        self.source = (
            f"sine waves, amplitude {_range(config.amplitude)}, phase "
            f"{_range(config.phase)}, x {_range(config.x_range)}; "
            f"{config.activation} network")

    def describe(self) -> str:
        return self.source

    def fingerprint(self) -> int:
        c = self.config
        return zlib.crc32(repr((c.amplitude, c.phase, c.x_range)).encode())

    def network(self) -> keras.Model:
        return networks.sine(self.config.seed, self.config.activation)

    def wave(self, rng: np.random.Generator
             ) -> Callable[[np.ndarray], np.ndarray]:
        """Draw a task: its function of x."""
        amplitude = rng.uniform(*self.config.amplitude)
        phase = rng.uniform(*self.config.phase)
        return lambda x: (amplitude * np.sin(x + phase)).astype(np.float32)

    def sampler(self, rng: np.random.Generator) -> tasks.Sampler:
        config = self.config.task
        points = np.linspace(*self.config.x_range, config.train_shots,
                             dtype=np.float32)[:, None]

        def draw() -> tuple[np.ndarray, ...]:
            values = self.wave(rng)(points)
            steps = tasks.with_tail(config, rng)
            return (points[steps.batches], values[steps.batches],
                    points[steps.last], values[steps.last])

        return lambda number: tasks.stacked(
            Batches, [draw() for _ in range(number)])

    def evaluation_tasks(self, split, shots, batch, number, rng):
        c = self.config

        def draw() -> tuple[np.ndarray, ...]:
            wave = self.wave(rng)
            x = rng.uniform(*c.x_range, (shots, 1)).astype(np.float32)
            steps = tasks.mini_batches(shots, batch, c.eval_iters,
                                       c.replacement, rng)
            return x, wave(x), steps, self.grid, wave(self.grid)

        return tasks.stacked(EvaluationTasks, [draw() for _ in range(number)])

    def row(self, split: str, shots: int, batch: int, score: Score
            ) -> dict[str, Any]:
        return {"split": split, "points": shots, "steps": score.steps,
                "tasks": score.tasks, "mse": score.mean, "ci95": score.ci95}

    def curve_values(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        return {f"mse_{r['points']}points_{r['steps']}steps": r["mse"]
                for r in rows}

    def headline(self, rows: list[dict[str, Any]]) -> str:
        return "  ".join(
            f"{r['points']} points, {r['steps']} steps: mse {r['mse']:.3g}"
            for r in rows if r["steps"] == self.config.eval_iters)

    def facts(self, network: Callable[[Any], Any]) -> dict[str, Any]:
        return {"mean_abs_initialization": float(
            np.abs(network(self.grid)).mean())}


CONFIG = SineConfig


def load(config: SineConfig) -> Sines:
    """The tasks that the flags describe."""
    return Sines(config)


def table(result: dict[str, Any]) -> list[str]:
    """Mean squared error by steps, before and after meta-training."""
    number = {kind: result[kind][0]["tasks"]
              for kind in ("untrained", "results")}
    lines = ["mean squared error on test tasks (95 % interval over "
             f"{number['untrained']:,} and {number['results']:,} tasks)",
             f"  {'points':>6} {'steps':>6}{start_name(result):>20}"
             f"{'meta-trained':>20}"]
    for old, new in zip(result["untrained"], result["results"], strict=True):
        cells = "".join(f"{r['mse']:>11.3f} ±{r['ci95'] or 0:>7.3f}"
                        for r in (old, new))
        lines.append(f"  {new['points']:>6} {new['steps']:>6}{cells}")
    lines.append("  mean |f| of the initialization: "
                 f"{result['mean_abs_initialization']:.3f}")
    return lines


def _range(ends: tuple[float, ...]) -> str:
    return f"{ends[0]:.4g} to {ends[1]:.4g}"
