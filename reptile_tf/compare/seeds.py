"""One number of several seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class OverSeeds:
    """A mean over seeds and what follows its ±.

    Attributes:
      values: of the seeds.
      mean: over the seeds.
      std: sample standard deviation over the seeds, as the paper's; None for
        one seed, NaN if a run diverged.
      ci95: of one seed, the 95 % interval over its tasks, if there is one.
    """

    values: tuple[float, ...]
    mean: float
    std: float | None
    ci95: float | None

    @property
    def interval(self) -> float | None:
        """What follows the ±."""
        return self.ci95 if self.std is None else self.std


def over_seeds(values: Sequence[float], ci95: float | None) -> OverSeeds:
    """Of the values of all seeds, and the first's interval over tasks."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return OverSeeds(tuple(values), mean, None, ci95)
    with np.errstate(invalid="ignore"):
        return OverSeeds(tuple(values), mean,
                         float(np.std(values, ddof=1)), None)
