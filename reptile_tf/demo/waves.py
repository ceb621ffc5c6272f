"""What the sine page asks for: f before and after inner steps (section 4)."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reptile_tf import networks
from reptile_tf.datasets import sine
from reptile_tf.errors import InputError
from reptile_tf.learning.learner import Learner

UNTRAINED = "random"


class Waves:
    """Initializations of sine networks, and one that is random.

    Args:
      directories: that `Learner.save`, or runs of run_sine.py, wrote.

    Attributes:
      grid: the x [50] where f is shown.

    Raises:
      InputError: no learner is there, or one of other examples.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        config = sine.SineConfig(**sine.DEFAULTS)
        self.grid = np.linspace(*config.x_range, sine.GRID_POINTS,
                                dtype=np.float32)
        self._lock = threading.Lock()
        self._learners = [(_name(d), _load(d)) for d in directories]
        self._learners.append((UNTRAINED, Learner(
            networks.sine(config.seed, config.activation), config.inner,
            sine.Sines.loss)))
        for number, steps in ((1, 1), (2, 2)):
            self.curves(np.zeros([number, 2], np.float32), steps)

    def curves(self, points: np.ndarray, steps: int) -> list[dict[str, Any]]:
        """One of each initialization: name, and f at the grid [50].

        Each inner step is on all points, as in the authors' demonstration.

        Args:
          points: x and f(x), [p, 2].
          steps: inner steps; 0 gives f before.
        """
        x, y = points[:, :1], points[:, 1:]
        with self._lock:
            return [{"name": name, "y": learner.adapt(
                x, y, steps, batch=len(points)).predict(
                    self.grid[:, None], True).numpy()[:, 0].tolist()}
                for name, learner in self._learners]


def _name(directory: Path) -> str:
    """runs/sine-compare-seed0/maml/initialization is maml."""
    return (directory.parent if directory.name == "initialization"
            else directory).name


def _load(directory: Path) -> Learner:
    learner = Learner.load(directory)
    shapes = [tuple(x[0].shape[1:]) for x in (
        learner.architecture.inputs,
        learner.architecture.outputs)]
    if shapes != [(1,), (1,)]:
        raise InputError(
            f"{directory} is not of a network from x to f(x): give an "
            "initialization that run_sine.py made")
    return learner
