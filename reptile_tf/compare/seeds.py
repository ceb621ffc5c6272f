"""One number of several seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Student's t, 97.5 %, for 1, 2, ... degrees of freedom; the last for more.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class OverSeeds:
    """A mean over seeds and what follows its ±.

    Attributes:
      values: of the seeds.
      mean: over the seeds.
      std: sample standard deviation over the seeds, as the paper's; None for
        one seed, NaN if a run diverged.
      ci95: half of the 95 % interval: of one seed over its tasks, if there is
        one; of more, of their mean, by Student's t.
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
        std = float(np.std(values, ddof=1))
    t = T_975[min(len(values) - 1, len(T_975)) - 1]
    return OverSeeds(tuple(values), mean, std, t * std / math.sqrt(len(values)))
