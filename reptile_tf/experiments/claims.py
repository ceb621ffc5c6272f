"""What the paper states, as differences with 95 % intervals; in %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reptile_tf.compare.seeds import over_seeds
from reptile_tf.experiments.outcomes import Column, Estimate, Outcome


@dataclass(frozen=True)
class Claim:
    """What the paper states, as a difference that should be above 0.

    Attributes:
      text: what it is.
      estimate: measured.
    """

    text: str
    estimate: Estimate

    @property
    def verdict(self) -> str:
        """Whether it shows, beyond the 95 % interval."""
        if abs(self.estimate.mean) <= self.estimate.interval:
            return "unclear"
        return "shows" if self.estimate.mean > 0 else "opposite"

    def __str__(self) -> str:
        return f"{self.text}: {self.estimate.mean:+.2f} ± " \
            f"{self.estimate.interval:.2f} ({self.verdict})"


def combination(parts: Sequence[tuple[float, Outcome]], column: Column
                ) -> Estimate:
    """sum_i c_i accuracy_i and its 95 % interval.

    Of several seeds by Student's t from their values, taken seed by seed: the
    settings share a seed's tasks. Of one seed from the intervals over tasks,
    as if they were not shared: too wide rather than too narrow.
    """
    values = sum(c * np.array(o.accuracies(column)) for c, o in parts)
    number = len(values)
    if number == 1:
        interval = math.sqrt(sum((c * o.ci95(column)) ** 2 for c, o in parts))
    else:
        interval = over_seeds(values, None).ci95
    return Estimate(float(values.mean()), float(interval))


def difference(a: Outcome, b: Outcome, column: Column) -> Estimate:
    """accuracy of a - accuracy of b."""
    return combination([(1, a), (-1, b)], column)
