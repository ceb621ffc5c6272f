"""The rows of a comparison as text and Markdown, CSV and JSON."""

import csv
import io
import itertools
import json
import math
import textwrap
from typing import Any

from reptile_tf.compare.rows import Row
from reptile_tf.reporting.durations import duration
from reptile_tf.reporting.tables import markdown_table, plain_table

WIDTH = 79
# What a metric's column is called, and its decimals.
METRICS = {"accuracy": ("accuracy, %", 2), "mse": ("mean squared error", 4)}


def _value(mean: float, spread: float | None, decimals: int) -> str:
    text = f"{mean:.{decimals}f}"
    return text if spread is None else f"{text} ± {spread:.{decimals}f}"


def _columns(rows: list[Row]) -> dict[str, list[str]]:
    """The columns of a table after its first, by their headers."""
    decimals = METRICS[rows[0].metric][1]
    columns = {"this code": [
        _value(r.mean, r.ci95 if r.std is None else r.std, decimals)
        for r in rows]}
    if any(r.published for r in rows):
        columns["paper"] = [
            _value(r.published.accuracy, r.published.interval, decimals)
            if r.published else "" for r in rows]
        columns["diff"] = [f"{r.difference:+.{decimals}f}" if r.published
                           else "" for r in rows]
    return columns | {
        "seeds": [str(len(r.seeds)) for r in rows],
        "iterations": [f"{r.meta_iters:,}{'*' if r.shorter else ''}"
                       for r in rows],
        "time": [duration(r.seconds) for r in rows]}


def _tables(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """(title, rows) of each table."""
    found = []
    for title, of_table in itertools.groupby(rows, lambda r: r.group.table):
        of_table = list(of_table)
        tasks = sorted({r.tasks for r in of_table})
        span = " to ".join(f"{n:,}" for n in dict.fromkeys(
            (tasks[0], tasks[-1])))
        found.append((f"{title}; {span} test tasks", of_table))
    return found


def _notes(rows: list[Row], left_out: list[str]) -> list[str]:
    """What stands below the tables."""
    notes = ["± is the standard deviation over seeds; of one seed, the 95 % "
             "interval over tasks."]
    published = [r for r in rows if r.published]
    if published:
        notes.append("The paper's ±: the standard deviation over 3 runs; of "
                     "maml and fomaml, the 95 % interval over tasks.")
    shorter = dict.fromkeys((r.group.algorithm, r.published.meta_iters)
                            for r in published if r.shorter)
    if shorter:
        notes.append("* Fewer meta-iterations than the paper's: " + ", ".join(
            f"{algorithm} {n:,}" for algorithm, n in shorter) + ".")
    notes.append("time: of a run, training and evaluation, the mean over "
                 "seeds.")
    notes += dict.fromkeys(f"{r.group.name}: {' '.join(r.group.differs)}"
                           for r in rows if r.group.variant)
    return notes + [f"not counted: {line}" for line in left_out]


def text(rows: list[Row], left_out: list[str]) -> list[str]:
    """For a terminal: 80 columns, where the names allow it."""
    lines = []
    for title, of_table in _tables(rows):
        columns = _columns(of_table)
        header, *body = plain_table(
            [METRICS[of_table[0].metric][0], *columns],
            [[f"  {row.group.name}", *cells] for row, cells in zip(
                of_table, zip(*columns.values(), strict=True), strict=True)])
        lines += [title, "", header]
        for cell, pairs in itertools.groupby(
                zip(of_table, body, strict=True), lambda pair: pair[0].cell):
            lines += [cell, *(line for _, line in pairs)]
        lines.append("")
    notes = [line for note in _notes(rows, left_out) for line in textwrap.wrap(
        note, WIDTH, subsequent_indent="  ", break_long_words=False,
        break_on_hyphens=False)]
    return [line.rstrip() for line in lines + notes]


def markdown(rows: list[Row], left_out: list[str]) -> list[str]:
    """For a README."""
    lines = []
    for title, of_table in _tables(rows):
        columns = _columns(of_table)
        table = markdown_table(
            [METRICS[of_table[0].metric][0], "algorithm", *columns],
            [[row.cell, row.group.name, *cells] for row, cells in zip(
                of_table, zip(*columns.values(), strict=True), strict=True)])
        lines += [f"**{title}**", "",
                  *(line.replace("*", "\\*") for line in table), ""]
    return lines + [f"- {note}".replace("*", "\\*")
                    for note in _notes(rows, left_out)]


def _record(row: Row) -> dict[str, Any]:
    """All there is to know of a row; accuracies in %."""
    first = row.group.runs[0].result
    return {
        "dataset": first["dataset"], "data": row.group.runs[0].data,
        "ways": first["ways"], "algorithm": row.group.algorithm,
        "variant": row.group.variant, "cell": row.cell, **dict(row.key),
        "metric": row.metric, "mean": row.mean, "std": row.std,
        "ci95": row.ci95, "tasks": row.tasks, "seeds": row.seeds,
        "meta_iters": row.meta_iters, "wall_seconds": row.seconds,
        "paper": row.published and row.published.accuracy,
        "paper_interval": row.published and row.published.interval,
        "paper_meta_iters": row.published and row.published.meta_iters,
        "difference": row.difference,
        "differs": list(row.group.differs),
        "runs": [str(run.directory.path) for run in row.group.runs]}


def as_json(rows: list[Row], left_out: list[str]) -> list[str]:
    """One object: the rows, and the runs that are not counted.

    JSON has no infinity and no NaN: null.
    """
    records = [{key: None if isinstance(value, float)
                and not math.isfinite(value) else value
                for key, value in _record(r).items()} for r in rows]
    return [json.dumps({"rows": records, "not_counted": left_out}, indent=1)]


def as_csv(rows: list[Row], left_out: list[str]) -> list[str]:
    """A line per row; lists have spaces between their values."""
    records = [{key: " ".join(map(str, value)) if isinstance(value, list)
                else value for key, value in _record(r).items()}
               for r in rows]
    names = list(dict.fromkeys(key for r in records for key in r))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue().splitlines()


FORMATS = {"text": text, "markdown": markdown, "csv": as_csv, "json": as_json}
