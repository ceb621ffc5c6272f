"""What finished runs of a setting say: accuracies and curves; all in %."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reptile_tf.compare.learning_curves import common
from reptile_tf.compare.seeds import over_seeds
from reptile_tf.configuration.config import Config
from reptile_tf.datasets.few_shot import mode_name
from reptile_tf.datasets.splits import (
    SPLIT_NAMES,
    reported_rows,
    reported_split,
)
from reptile_tf.records import metrics
from reptile_tf.records.run_directory import RunDirectory

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
                for r in reported_rows(self.results[0])]

    @property
    def split(self) -> str:
        """Whose classes the final accuracies are of: test, or validation,
        evaluated alone."""
        return reported_split(self.results[0])

    def _rows(self, column: Column) -> list[dict[str, Any]]:
        return [row for result in self.results for row in reported_rows(result)
                if (row["shots"], row["transductive"]) == column]

    def accuracies(self, column: Column) -> list[float]:
        """Final accuracy of each seed."""
        return [100 * row["accuracy"] for row in self._rows(column)]

    def ci95(self, column: Column) -> float:
        """Of the first seed, over its tasks."""
        return 100 * (self._rows(column)[0]["ci95"] or 0.0)

    def final(self, column: Column) -> Estimate:
        """Accuracy of the final initialization.

        The interval is the standard deviation across seeds, as the paper's;
        of one seed, the 95 % interval over its tasks.
        """
        measured = over_seeds(self.accuracies(column), self.ci95(column))
        return Estimate(measured.mean, measured.interval)

    def curve(self, column: Column) -> tuple[np.ndarray, np.ndarray]:
        """Meta-iterations [n] and accuracies [seeds, n] on the way."""
        metric = f"accuracy_{column[0]}shot_{mode_name(column[1])}"
        seeds = [curve for curves in self._curves()
                 for (_, name), curve in curves.items() if name == metric]
        if not seeds:  # No periodic evaluation.
            return np.zeros(0), np.zeros([len(self.configs), 0])
        iterations, accuracies = common(seeds)
        return np.array(iterations), accuracies

    @property
    def curve_split(self) -> str:
        """Whose classes those are of: validation where there are any."""
        split = next((split for split, _ in self._curves()[0]), None)
        return SPLIT_NAMES[split] if split else self.split

    def _curves(self) -> list[metrics.Curves]:
        """Of each seed."""
        return [metrics.read(RunDirectory(Path(config.run_dir)).metrics)
                for config in self.configs]
