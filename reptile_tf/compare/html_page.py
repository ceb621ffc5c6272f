"""A comparison as one page of HTML that needs nothing from elsewhere."""

import itertools
from collections.abc import Iterable
from html import escape

from reptile_tf.compare import html_curves, learning_curves
from reptile_tf.compare.content import (
    METRICS,
    columns_of,
    marks_of,
    notes_of,
    tables_of,
)
from reptile_tf.compare.finished_runs import Run
from reptile_tf.compare.rows import Row
from reptile_tf.errors import InputError

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;padding:0 12px 40px;
max-width:1080px;color:#1a1a1a;background:#fff}
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
td,th{padding:3px 10px 3px 0;text-align:right;white-space:nowrap}
td:first-child,th:first-child{text-align:left;white-space:normal;
overflow-wrap:anywhere}
tbody th{border-bottom:1px solid #999;padding-top:10px}
td{font-variant-numeric:tabular-nums;border-bottom:1px solid #ddd}
li,summary{overflow-wrap:anywhere}
.curves{display:flex;flex-wrap:wrap;gap:16px}
figure{margin:0;flex:1 1 300px;max-width:420px;min-width:0}
figure>svg{width:100%;height:auto;touch-action:pan-y}
figure ul{list-style:none;margin:0;padding:0;font-size:13px}
figure li svg{width:30px;height:8px;margin-right:6px}
figcaption{font-weight:600}small{display:block;font-weight:400;color:#555}
output{display:block;min-height:1.5em;font-size:13px}
text{font-size:11px;fill:#444}.grid,.line{fill:none}
.grid{stroke:#ddd}.line{stroke-width:2}.band{opacity:.15}
.at{stroke:#000;stroke-width:2}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px}
@media(max-width:640px){
thead{display:none}tbody tr{display:block;padding:4px 0}
tbody tr.run{border-bottom:1px solid #ddd}
td{display:flex;justify-content:space-between;border:0;padding:1px 0}
td:first-child{font-weight:600}
td:not(:first-child)::before{content:attr(data-of);color:#555}
td:empty{display:none}}
"""
_SCRIPT = """
for (const figure of document.querySelectorAll("figure")) {
  const points = [...figure.querySelectorAll("circle")];
  const output = figure.querySelector("output");
  const show = event => {
    let near = null, least = Infinity;
    for (const point of points) {
      const box = point.getBoundingClientRect();
      const distance = Math.hypot(box.x + box.width / 2 - event.clientX,
                                  box.y + box.height / 2 - event.clientY);
      if (distance < least) { least = distance; near = point; }
    }
    for (const point of points) point.classList.toggle("at", point === near);
    if (near) output.textContent = near.dataset.value;
  };
  figure.addEventListener("pointermove", show);
  figure.addEventListener("pointerdown", show);
}
"""


def as_html(rows: list[Row], left_out: list[str]) -> list[str]:
    """The tables, curves, flags of each run, and what is not counted."""
    runs = list(dict.fromkeys(
        run for row in rows for run in row.group.runs))
    try:
        panels, fault = learning_curves.panels_of(runs), ""
    except InputError as e:
        panels, fault = {}, f"No learning curves: {e}"
    parts = []
    for title, of_table in tables_of(rows):
        curves = html_curves.grid(panels, of_table[0].table)
        parts += [f"<h2>{escape(title)}</h2>", _table(of_table),
                  _list(marks_of(of_table)), curves]
    if fault:
        parts.append(f"<p>{escape(fault)}</p>")
    if left_out:
        parts += ["<h2>Not counted</h2>", _list(left_out)]
    parts += [_list(notes_of(rows, [])), "<h2>The flags of each run</h2>",
              *map(_flags, runs)]
    return [
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Runs compared</title><style>{_STYLE}</style></head><body>"
        "<h1>Runs beside each other and beside the paper</h1>",
        *filter(None, parts), f"<script>{_SCRIPT}</script></body></html>"]


def _table(rows: list[Row]) -> str:
    columns = {name.strip(): cells for name, cells in columns_of(rows).items()}
    head = "".join(f"<th>{escape(name)}</th>" for name in (
        METRICS[rows[0].metric][0], *columns))
    lines = []
    for cell, of_cell in itertools.groupby(
            zip(rows, *columns.values(), strict=True),
            lambda line: line[0].cell):
        lines.append(f'<tr><th colspan="{len(columns) + 1}">{escape(cell)}'
                     "</th></tr>")
        for row, *values in of_cell:
            lines.append(f'<tr class="run"><td>{escape(row.group.name)}</td>'
                         + "".join(
                f'<td data-of="{escape(name)}">{escape(value.strip())}</td>'
                for name, value in zip(columns, values, strict=True))
                         + "</tr>")
    return (f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}"
            "</tbody></table>")


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _flags(run: Run) -> str:
    lines = "\n".join(run.flags.values())
    return (f"<details><summary>{escape(str(run.directory.path))}</summary>"
            f"<pre>{escape(lines)}</pre></details>")
