"""The figure of learning curves: a row of panels for each table."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reptile_tf.compare.finished_runs import Run
from reptile_tf.compare.groups import Group, group_by_flags
from reptile_tf.errors import InputError
from reptile_tf.records import metrics
from reptile_tf.reporting import plotting
from reptile_tf.reporting.plotting import Figure

COLUMNS = 4


def common(curves: Sequence[dict[int, float]]
           ) -> tuple[list[int], np.ndarray]:
    """Iterations [n] that all seeds have, and values [seeds, n]."""
    iterations = sorted(set.intersection(*map(set, curves)))
    return iterations, np.array([[c[i] for i in iterations] for c in curves])


def panels_of(runs: Sequence[Run]) -> dict[tuple[str, str, str], list]:
    """By (table, split, metric) the (group, curves of its runs) there."""
    curves = {run: metrics.read(run.directory.metrics) for run in runs}
    tables = sorted({run.table for run in runs})
    keys = dict.fromkeys((table, *key) for table in tables for run in runs
                         if run.table == table for key in curves[run])
    panels = {}
    for table, *key in keys:
        shots = re.search(r"_(\d+)(?:shot|points)", key[1])
        panels[table, *key] = [
            (group, [curves[run][tuple(key)] for run in group.runs])
            for group in group_by_flags(
                [run for run in runs if run.table == table
                 and tuple(key) in curves[run]],
                int(shots[1]) if shots else None)]
    return panels


def save(runs: Sequence[Run], path: Path) -> list[Path]:
    """Draw the curves of all runs; a row of panels for each table.

    Args:
      runs: finished ones.
      path: a .png file; the .svg goes beside it.

    Raises:
      InputError: another kind of file, one that cannot be written, or runs
        without curves.
    """
    plotting.require("--figure")
    path = path.expanduser()
    if path.suffix != ".png":
        raise InputError(f"--figure={path} must end in .png (the .svg is "
                         "written beside it)")
    panels = panels_of(runs)
    if not panels:
        raise InputError("no learning curve to draw: the runs have "
                         "--eval_interval=0 or --meta_iters=0")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with plotting.plain_text():
            return plotting.save(_draw(panels), path.parent, path.stem)
    except OSError as e:
        raise InputError(f"--figure={path} cannot be written ({e})") from e


def _draw(panels: dict[tuple[str, str, str], list]) -> Figure:
    tables = list(dict.fromkeys(table for table, _, _ in panels))
    heights = {t: math.ceil(sum(p[0] == t for p in panels) / COLUMNS)
               for t in tables}
    width = min(COLUMNS, max(sum(p[0] == t for p in panels) for t in tables))
    figure = Figure(figsize=(max(3.6 * width, 5),
                             3.4 * sum(heights.values()) + 0.6),
                    layout="constrained")
    parts = figure.subfigures(len(tables), 1, squeeze=False,
                              height_ratios=list(heights.values()))[:, 0]
    for table, part in zip(tables, parts, strict=True):
        part.suptitle(table, fontsize=10)
        grid = part.subplots(heights[table], width, squeeze=False).ravel()
        here = [(key, lines) for key, lines in panels.items()
                if key[0] == table]
        for axes, ((_, split, metric), lines) in zip(grid, here,
                                                     strict=False):
            _panel(axes, split, metric, lines)
        for axes in grid[len(here):]:
            axes.remove()
    return figure


def caption_of(split: str, metric: str) -> tuple[str, str]:
    """A panel's title, and what it shows against the meta-iterations."""
    kind, _, cell = metric.partition("_")
    return cell.replace("_", " "), f"{split} " + (
        "accuracy, %" if kind == "accuracy" else "mean squared error")


def label_of(group: Group, runs: int) -> str:
    """A curve in a legend."""
    return f"{group.name}, {runs} seed{'s' * (runs > 1)}"


def _panel(axes, split: str, metric: str, lines: list) -> None:
    for i, (group, curves) in enumerate(lines):
        iterations, values = common(curves)
        plotting.mean_and_band(
            axes, iterations, values, marker="o", ms=3,
            color=plotting.COLOURS[i % len(plotting.COLOURS)],
            linestyle=plotting.LINE_STYLES[i % len(plotting.LINE_STYLES)],
            label=label_of(group, len(curves)))
    title, unit = caption_of(split, metric)
    axes.set(title=title, xlabel="meta-iterations", ylabel=unit)
    axes.title.set_fontsize(9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
