"""The rows of a comparison for people: text and Markdown."""

import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterable

from reptile_tf.compare.for_programs import as_csv, as_json
from reptile_tf.compare.rows import Row
from reptile_tf.reporting.durations import duration
from reptile_tf.reporting.tables import markdown_table, plain_table

NARROW, WIDE = 80, 120  # Columns of a terminal that are made use of.
MARK = "*"
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
    if any(r.paper for r in rows):
        unmarked = " " if any(r.unlike for r in rows) else ""
        columns["paper"] = [
            _value(r.paper.accuracy, r.paper.interval, decimals)
            if r.paper else "" for r in rows]
        columns["diff" + unmarked] = [
            f"{r.difference:+.{decimals}f}{MARK if r.unlike else unmarked}"
            if r.paper else "" for r in rows]
    return columns | {
        "seeds": [str(len(r.seeds)) for r in rows],
        "iterations": [f"{r.meta_iters:,}" for r in rows],
        "time": [duration(r.seconds) for r in rows]}


def _tables(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """(title, rows) of each table."""
    found = []
    for title, of_table in itertools.groupby(rows, lambda r: r.table):
        of_table = list(of_table)
        tasks = sorted({r.tasks for r in of_table})
        span = " to ".join(f"{n:,}" for n in dict.fromkeys(
            (tasks[0], tasks[-1])))
        found.append((f"{title}; {span} test tasks", of_table))
    return found


def _unlike(rows: list[Row]) -> list[str]:
    """For each marked row of a table, what its mark means."""
    cells: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for row in rows:
        if row.unlike:
            cells.setdefault(row.group.name, {}).setdefault(
                row.unlike, []).append(row.cell)
    return [
        f"{MARK} {name}"
        + (f" ({', '.join(of_cells)})" if len(of_name) > 1 else "")
        + f" is not as published: {'; '.join(unlike)}."
        for name, of_name in cells.items()
        for unlike, of_cells in of_name.items()]


def _notes(rows: list[Row], left_out: list[str]) -> list[str]:
    """What stands below the tables."""
    notes = ["± is the standard deviation over seeds; of one seed, the 95 % "
             "interval over tasks."]
    if any(r.paper for r in rows):
        notes.append("The paper's ±: the standard deviation over 3 runs; of "
                     "maml and fomaml, the 95 % interval over tasks.")
    notes.append("time: of a run, training and evaluation, the mean over "
                 "seeds.")
    return notes + [f"not counted: {line}" for line in left_out]


def _wrapped(lines: Iterable[str], width: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(
        line, width, subsequent_indent="  ", break_long_words=False,
        break_on_hyphens=False)]


def _body(rows: list[Row], columns: dict[str, list[str]], width: int
          ) -> list[str]:
    """The header, and the rows below the names of their cells.

    A name that leaves the numbers no room in `width` goes on below itself.
    """
    header = METRICS[rows[0].metric][0]
    numbers = list(zip(*columns.values(), strict=True))
    room = width - len(plain_table(["", *columns], [
        ["", *cells] for cells in numbers])[0])
    names = [textwrap.wrap(
        row.group.name, max(room, len(header)), initial_indent="  ",
        subsequent_indent="    ", break_long_words=False,
        break_on_hyphens=False) for row in rows]
    first, *body = plain_table(
        [header, *columns], [[name[0], *cells] for name, cells in zip(
            names, numbers, strict=True)])
    lines = [first]
    for cell, of_cell in itertools.groupby(
            zip(rows, names, body, strict=True), lambda row: row[0].cell):
        lines += [cell, *(line for _, name, numbers in of_cell
                          for line in (numbers, *name[1:]))]
    return lines


def text(rows: list[Row], left_out: list[str]) -> list[str]:
    """For a terminal as wide as it is; else 80 columns."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    width = min(max(columns, NARROW), WIDE) - 1
    lines = []
    for title, of_table in _tables(rows):
        lines += [*_wrapped([title], width), "",
                  *_body(of_table, _columns(of_table), width),
                  *_wrapped(_unlike(of_table), width), ""]
    lines += _wrapped(_notes(rows, left_out), width)
    return [line.rstrip() for line in lines]


def markdown(rows: list[Row], left_out: list[str]) -> list[str]:
    """For a README."""
    lines = []
    for title, of_table in _tables(rows):
        columns = _columns(of_table)
        table = markdown_table(
            [METRICS[of_table[0].metric][0], "algorithm",
             *map(str.strip, columns)],
            [[row.cell, row.group.name, *map(str.strip, cells)]
             for row, cells in zip(of_table, zip(
                 *columns.values(), strict=True), strict=True)])
        unlike = [f"- {note}" for note in _unlike(of_table)]
        lines += [f"**{title}**", "", *map(_escaped, table), "",
                  *map(_escaped, unlike), *[""] * bool(unlike)]
    return lines + [_escaped(f"- {note}") for note in _notes(rows, left_out)]


def _escaped(line: str) -> str:
    return line.replace("*", "\\*")


FORMATS = {"text": text, "markdown": markdown, "csv": as_csv, "json": as_json}
