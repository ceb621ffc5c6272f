"""The rows of a comparison: a cell of the evaluation, of one group."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reptile_tf.compare.finished_runs import Run
from reptile_tf.compare.groups import Group, group_by_flags
from reptile_tf.compare.published import Published, published
from reptile_tf.compare.seeds import OverSeeds, over_seeds


@dataclass(frozen=True)
class Row:
    """One cell of the evaluation, of one group.

    Attributes:
      table: what it is compared within: data set, ways, split and data.
      group: the runs.
      cell: such as "5-shot + transduction" or "10 points, 32 steps".
      key: the same as in result.json: shots and transductive, or points and
        steps.
      metric: "accuracy", in %, or "mse".
      measured: of the seeds.
      split: whose classes the tasks are of.
      tasks: of a seed.
      paper: its number.
      unlike: in what the run behind it was another, flag by flag.
    """

    table: str
    group: Group
    cell: str
    key: tuple[tuple[str, Any], ...]
    metric: str
    measured: OverSeeds
    split: str
    tasks: int
    paper: Published | None
    unlike: tuple[str, ...]

    @property
    def meta_iters(self) -> int:
        """Of the training."""
        return self.group.runs[0].result["meta_iters"]

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [run.seed for run in self.group.runs]

    @property
    def seconds(self) -> float:
        """Mean wall time of a run, training and evaluation."""
        return statistics.mean(
            run.result["wall_seconds"] for run in self.group.runs)

    @property
    def difference(self) -> float | None:
        """From the paper's number, in percentage points."""
        return self.paper and self.measured.mean - self.paper.accuracy


def rows_of(runs: Iterable[Run]) -> list[Row]:
    """The rows of all tables, in their order."""
    tables: dict[str, dict[tuple, list[Run]]] = {}
    for run in runs:
        for row in run.rows:
            tables.setdefault(run.table, {}).setdefault(
                _key(row), []).append(run)
    return [_row(table, key, group)
            for table, cells in sorted(tables.items())
            for key, of_cell in sorted(cells.items(), key=lambda c: c[0])
            for group in group_by_flags(of_cell, key[0][1])]


def doubled(rows: Iterable[Row]) -> list[str]:
    """A line for each run that is left out of a cell for another's sake."""
    cells: dict[tuple[Run, Run], list[str]] = {}
    for row in rows:
        for pair in row.group.doubled:
            cells.setdefault(pair, []).append(row.cell)
    return [f"{run.directory.path}: the same seed and flags as "
            f"{counted.directory.path}, which is counted"
            + ("" if len(of_run) == len(run.rows)
               else f" ({', '.join(of_run)})")
            for (run, counted), of_run in cells.items()]


def _key(row: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What a row is of; the first is K."""
    names = ("points", "steps") if "mse" in row else ("shots", "transductive")
    return tuple((name, row[name]) for name in names)


def _row(table: str, key: tuple, group: Group) -> Row:
    rows = [next(r for r in run.rows if _key(r) == key)
            for run in group.runs]
    first, run = rows[0], group.runs[0]
    (_, shots), (_, second) = key
    if "mse" in first:
        metric, scale, paper = "mse", 1.0, None
        cell = f"{shots} points, {second} steps"
    else:
        metric, scale = "accuracy", 100.0
        cell = f"{shots}-shot" + (" + transduction" if second else "")
        paper = published(
            run.result["dataset"], run.result["ways"], shots, group.algorithm,
            second) if run.has_papers_data else None
    tasks, ci95 = min(r["tasks"] for r in rows), first["ci95"]
    measured = over_seeds([scale * r[metric] for r in rows],
                          None if ci95 is None else scale * ci95)
    return Row(
        table, group, cell, key, metric, measured, run.split, tasks, paper,
        paper.unlike(run, shots, tasks) if paper else ())
