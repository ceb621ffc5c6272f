"""Runs beside each other and beside the paper.

    python -m reptile_tf.compare DIR... [--format=text|markdown|csv|json]
                                        [--figure=FILE.png]

reads every run in and below the folders, averages those that differ in the
seed alone, and prints their test accuracy (or mean squared error) with the
paper's number where there is one. What is not finished is named, not counted.
"""

import argparse  # noqa: I001  (TensorFlow must be imported quietly, first)
import statistics
import string
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reptile_tf import quiet  # noqa: F401

import numpy as np

from reptile_tf import finished_runs, learning_curves, paper, tables
from reptile_tf.errors import InputError
from reptile_tf.finished_runs import Run
from reptile_tf.meta_updates import REGISTRY


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone.

    Attributes:
      table: what it is compared within: data set, ways and data.
      algorithm: of the runs.
      variant: a letter where a table has several of one algorithm.
      differs: the flags that differ between these.
      runs: by seed.
    """

    table: str
    algorithm: str
    variant: str
    differs: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The algorithm and the variant."""
        return f"{self.algorithm} {self.variant}".strip()


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
    published: paper.Published | None

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


def group(runs: Iterable[Run]) -> list[Group]:
    """Runs that differ in the seed alone, together."""
    found: dict[tuple[str, str], dict[tuple[str, ...], list[Run]]] = {}
    for run in runs:
        r = run.result
        ways = f", {r['ways']}-way" if r["ways"] > 1 else ""
        table = f"{r['dataset']}{ways}: {run.data}"
        found.setdefault((table, r["algorithm"]), {}).setdefault(
            run.settings, []).append(run)
    groups = []
    for (table, algorithm), variants in found.items():
        lines = {settings: same[0].material
                 for settings, same in variants.items()}
        differ = [name for name in sorted(set().union(*lines.values()))
                  if len({each.get(name) for each in lines.values()}) > 1]
        for i, (settings, same) in enumerate(sorted(variants.items())):
            groups.append(Group(
                table, algorithm, _letters(i) if len(variants) > 1 else "",
                tuple(lines[settings].get(name, f"--{name} unset")
                      for name in differ),
                tuple(sorted(same, key=lambda run: run.result["seed"]))))
    order = [*REGISTRY]
    return sorted(groups, key=lambda g: (
        g.table, order.index(g.algorithm) if g.algorithm in order
        else len(order), g.algorithm, len(g.variant), g.variant))


def _letters(i: int) -> str:
    """a, b, ..., z, ba, bb, ..."""
    more, last = divmod(i, 26)
    return (_letters(more) if more else "") + string.ascii_lowercase[last]


def rows_of(groups: Iterable[Group]) -> list[Row]:
    """The rows of all tables, in their order."""
    rows = [_row(one, i) for one in groups
            for i in range(len(one.runs[0].test_rows))]
    tables_in_order = list(dict.fromkeys(row.group.table for row in rows))
    return sorted(rows, key=lambda row: (
        tables_in_order.index(row.group.table), row.metric, row.key))


def _row(of: Group, i: int) -> Row:
    # The same flags make the same rows in the same order.
    rows = [run.test_rows[i] for run in of.runs]
    first, result = rows[0], of.runs[0].result
    if "mse" in first:
        metric, scale, published = "mse", 1.0, None
        key = ("points", "steps")
        cell = f"{first['points']} points, {first['steps']} steps"
    else:
        metric, scale = "accuracy", 100.0
        key = ("shots", "transductive")
        cell = f"{first['shots']}-shot" + (
            " + transduction" if first["transductive"] else "")
        published = paper.published(
            result["dataset"], result["ways"], first["shots"], of.algorithm,
            first["transductive"]) if of.runs[0].has_papers_data else None
    values = [scale * row[metric] for row in rows]
    ci95 = first["ci95"] if len(rows) == 1 else None
    return Row(
        of, cell, tuple((k, first[k]) for k in key), metric,
        statistics.fmean(values), _std(values) if len(values) > 1 else None,
        None if ci95 is None else scale * ci95, first["tasks"], published)


def _std(values: Sequence[float]) -> float:
    """The sample standard deviation; NaN if a run diverged."""
    with np.errstate(invalid="ignore"):
        return float(np.std(values, ddof=1))


def show(folders: Sequence[Path | str], form: str = "text",
         figure: Path | str | None = None) -> None:
    """Print the table of the runs in and below the folders; draw a figure.

    Args:
      folders: each searched for runs.
      form: a key of `tables.FORMATS`.
      figure: a .png file for the learning curves; the .svg goes beside it.

    Raises:
      InputError: a folder without any run, no finished run, or no learning
        curve to draw.
    """
    runs, left_out = finished_runs.find(folders)
    if not runs:
        raise InputError("no finished run: " + "; ".join(left_out))
    groups = group(runs)
    print("\n".join(tables.FORMATS[form](rows_of(groups), left_out)))
    if form == "csv":  # Nowhere in the table.
        for line in left_out:
            print(f"not counted: {line}", file=sys.stderr)
    if figure:
        for path in learning_curves.save(groups, Path(figure)):
            print(f"figure: {path}", file=sys.stderr)


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit status, 1 after an error."""
    parser = argparse.ArgumentParser(
        "python -m reptile_tf.compare", allow_abbrev=False,
        description="Runs beside each other and beside the paper: the mean "
        "over seeds, its standard deviation, the difference.")
    parser.add_argument("folders", metavar="DIR", nargs="+",
                        help="searched for runs, it and below it")
    parser.add_argument("--format", choices=[*tables.FORMATS], default="text",
                        help="of the table, on standard output")
    parser.add_argument("--figure", metavar="FILE.png",
                        help="draw the learning curves: mean and standard "
                        "deviation over seeds; FILE.svg goes beside it")
    arguments = parser.parse_args(argv[1:])
    try:
        show(arguments.folders, arguments.format, arguments.figure)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
