"""The rows of a comparison: a cell of the test tasks, of one group."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reptile_tf.compare.groups import Group
from reptile_tf.compare.published import Published
from reptile_tf.compare.published import published as published_number
from reptile_tf.compare.seeds import over_seeds


@dataclass(frozen=True)
class Row:
    """One cell of the test tasks, of one group.

    Attributes:
      group: the runs.
      cell: such as "5-shot + transduction" or "10 points, 32 steps".
      key: the same as in result.json: shots and transductive, or points and
        steps.
      metric: "accuracy", in %, or "mse".
      mean: over the seeds.
      std: sample standard deviation over the seeds; None for one seed.
      ci95: of one seed, the 95 % interval over its tasks; else None.
      tasks: test tasks of a seed.
      published: the paper's number.
    """

    group: Group
    cell: str
    key: tuple[tuple[str, Any], ...]
    metric: str
    mean: float
    std: float | None
    ci95: float | None
    tasks: int
    published: Published | None

    @property
    def meta_iters(self) -> int:
        """Of the training."""
        return self.group.runs[0].result["meta_iters"]

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [run.result["seed"] for run in self.group.runs]

    @property
    def seconds(self) -> float:
        """Mean wall time of a run, training and evaluation."""
        return statistics.mean(
            run.result["wall_seconds"] for run in self.group.runs)

    @property
    def difference(self) -> float | None:
        """From the paper's number, in percentage points."""
        return self.published and self.mean - self.published.accuracy

    @property
    def shorter(self) -> bool:
        """Whether the paper trained for longer."""
        return bool(self.published
                    and self.meta_iters < self.published.meta_iters)


def rows_of(groups: Iterable[Group]) -> list[Row]:
    """The rows of all tables, in their order."""
    rows = [_row(group, i) for group in groups
            for i in range(len(group.runs[0].test_rows))]
    tables_in_order = list(dict.fromkeys(row.group.table for row in rows))
    return sorted(rows, key=lambda row: (
        tables_in_order.index(row.group.table), row.metric, row.key))


def _row(group: Group, i: int) -> Row:
    # The same flags make the same rows in the same order.
    rows = [run.test_rows[i] for run in group.runs]
    first, result = rows[0], group.runs[0].result
    if "mse" in first:
        metric, scale, published = "mse", 1.0, None
        key = ("points", "steps")
        cell = f"{first['points']} points, {first['steps']} steps"
    else:
        metric, scale = "accuracy", 100.0
        key = ("shots", "transductive")
        cell = f"{first['shots']}-shot" + (
            " + transduction" if first["transductive"] else "")
        published = published_number(
            result["dataset"], result["ways"], first["shots"], group.algorithm,
            first["transductive"]) if group.runs[0].has_papers_data else None
    ci95 = first["ci95"]
    measured = over_seeds([scale * row[metric] for row in rows],
                          None if ci95 is None else scale * ci95)
    return Row(
        group, cell, tuple((k, first[k]) for k in key), metric, measured.mean,
        measured.std, measured.ci95, first["tasks"], published)
