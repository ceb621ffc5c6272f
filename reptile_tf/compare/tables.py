"""The rows of a comparison as text and Markdown."""

import itertools
import shutil
import sys
import textwrap
from collections.abc import Iterable

from reptile_tf.compare.content import (
    METRICS,
    columns_of,
    marks_of,
    notes_of,
    tables_of,
)
from reptile_tf.compare.rows import Row
from reptile_tf.reporting.tables import markdown_table, plain_table

NARROW, WIDE = 80, 120  # Columns of a terminal that are made use of.


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
    for title, of_table in tables_of(rows):
        lines += [*_wrapped([title], width), "",
                  *_body(of_table, columns_of(of_table), width),
                  *_wrapped(marks_of(of_table), width), ""]
    lines += _wrapped(notes_of(rows, left_out), width)
    return [line.rstrip() for line in lines]


def markdown(rows: list[Row], left_out: list[str]) -> list[str]:
    """For a README."""
    lines = []
    for title, of_table in tables_of(rows):
        columns = columns_of(of_table)
        table = markdown_table(
            [METRICS[of_table[0].metric][0], "algorithm",
             *map(str.strip, columns)],
            [[row.cell, row.group.name, *map(str.strip, cells)]
             for row, cells in zip(of_table, zip(
                 *columns.values(), strict=True), strict=True)])
        unlike = [f"- {note}" for note in marks_of(of_table)]
        lines += [f"**{title}**", "", *map(_escaped, table), "",
                  *map(_escaped, unlike), *[""] * bool(unlike)]
    return lines + [_escaped(f"- {note}") for note in notes_of(rows, left_out)]


def _escaped(line: str) -> str:
    return line.replace("*", "\\*")
