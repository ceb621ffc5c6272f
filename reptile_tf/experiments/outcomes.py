"""What finished runs say: accuracies, learning curves, claims; all in %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reptile_tf import learning_curves
from reptile_tf.config import Config
from reptile_tf.datasets.few_shot import mode_name
from reptile_tf.run_directory import RunDirectory

# Student's t, 97.5 %, for 1, 2, ... degrees of freedom; the last for more.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
# (shots, transductive): what one accuracy is of.
Column = tuple[int, bool]


@dataclass(frozen=True)
class Setting:
    """What is trained once for each seed.

    Attributes:
      name: for the reader.
      folder: of its runs, before "-seed<seed>".
      flagfile: in configs/.
      flags: that differ from the flagfile's.
    """

    name: str
    folder: str
    flagfile: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """A mean and what follows the ±."""

    mean: float
    interval: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.interval:.2f}"


@dataclass(frozen=True)
class Outcome:
    """The finished runs of a setting.

    Attributes:
      setting: which.
      configs: of the runs, one per seed.
      results: contents of their result.json.
    """

    setting: Setting
    configs: tuple[Config, ...]
    results: tuple[dict[str, Any], ...]

    @property
    def columns(self) -> list[Column]:
        """What was evaluated."""
        return [(r["shots"], r["transductive"])
                for r in self.results[0]["results"] if r["split"] == "test"]

    def _rows(self, column: Column) -> list[dict[str, Any]]:
        return [row for result in self.results for row in result["results"]
                if row["split"] == "test"
                and (row["shots"], row["transductive"]) == column]

    def accuracies(self, column: Column) -> list[float]:
        """Final test accuracy of each seed."""
        return [100 * row["accuracy"] for row in self._rows(column)]

    def ci95(self, column: Column) -> float:
        """Of the first seed, over its tasks."""
        return 100 * (self._rows(column)[0]["ci95"] or 0.0)

    def final(self, column: Column) -> Estimate:
        """Test accuracy of the final initialization.

        The interval is the standard deviation across seeds, as the paper's;
        of one seed, the 95 % interval over its tasks.
        """
        values = self.accuracies(column)
        return Estimate(
            float(np.mean(values)), self.ci95(column) if len(values) == 1
            else float(np.std(values, ddof=1)))

    def curve(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Meta-iterations [n] and accuracies [seeds, n] on the way."""
        metric = f"accuracy_{column[0]}shot_{mode_name(column[1])}"
        seeds = []
        for config in self.configs:
            curves = learning_curves.read(
                RunDirectory(Path(config.run_dir)).metrics)
            seeds += [curve for (_, name), curve in curves.items()
                      if name == metric]
        if not seeds:  # No periodic evaluation.
            return np.zeros(0), np.zeros([len(self.configs), 0])
        iterations = sorted(set.intersection(*map(set, seeds)))
        return np.array(iterations), np.array(
            [[seed[i] for i in iterations] for seed in seeds])


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
        interval = T_975[min(number - 1, len(T_975)) - 1] * (
            np.std(values, ddof=1) / math.sqrt(number))
    return Estimate(float(values.mean()), float(interval))


def difference(a: Outcome, b: Outcome, column: Column) -> Estimate:
    """accuracy of a - accuracy of b."""
    return combination([(1, a), (-1, b)], column)
