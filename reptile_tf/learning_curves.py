"""Learning curves: the mean over seeds, and its standard deviation."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from reptile_tf.errors import InputError
from reptile_tf.experiments import plotting

if TYPE_CHECKING:
    from reptile_tf.compare import Group

# {(split, metric): {iteration: value}}
Curves = dict[tuple[str, str], dict[int, float]]
COLUMNS = 4


def read(path: Path) -> Curves:
    """The curves of a metrics.csv; accuracies in %.

    Raises:
      InputError: it is not whole.
    """
    curves: Curves = {}
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                scale = 100 if row["metric"].startswith("accuracy") else 1
                curves.setdefault((row["split"], row["metric"]), {})[
                    int(row["iteration"])] = scale * float(row["value"])
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as e:
        raise InputError(
            f"{path} is not a run's metrics.csv ({type(e).__name__}: {e}): "
            "without its result.json the run's command makes both again, from "
            "its checkpoint") from e
    return curves


def band(curves: Sequence[dict[int, float]]
         ) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Iterations that all seeds have, mean [n] and standard deviation [n].

    The sample standard deviation; 0 for one seed.
    """
    iterations = sorted(set.intersection(*map(set, curves)))
    values = np.array([[c[i] for i in iterations] for c in curves])
    return iterations, values.mean(0), (
        values.std(0, ddof=1) if len(values) > 1 else 0 * values[0])


def save(groups: Sequence["Group"], path: Path) -> list[Path]:
    """Draw the curves of all groups; a row of panels for each table.

    Args:
      groups: the runs.
      path: a .png file; the .svg goes beside it.

    Raises:
      InputError: another kind of file, one that cannot be written, or runs
        without curves.
    """
    if path.suffix != ".png":
        raise InputError(f"--figure={path} must end in .png (the .svg is "
                         "written beside it)")
    panels: dict[tuple[str, str, str], list] = {}
    for one in groups:
        curves = [read(run.directory.metrics) for run in one.runs]
        for key in dict.fromkeys(k for c in curves for k in c):
            drawn = [c[key] for c in curves if key in c]
            panels.setdefault((one.table, *key), []).append((one, drawn))
    if not panels:
        raise InputError("no learning curve to draw: the runs have "
                         "--eval_interval=0 or --meta_iters=0")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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


def _panel(axes, split: str, metric: str, lines: list) -> None:
    kind, _, cell = metric.partition("_")
    for i, (one, curves) in enumerate(lines):
        iterations, mean, std = band(curves)
        seeds = f"{len(curves)} seed{'s' * (len(curves) > 1)}"
        colour = plotting.COLOURS[i % len(plotting.COLOURS)]
        axes.plot(iterations, mean, color=colour, marker="o", ms=3,
                  linestyle=plotting.LINE_STYLES[
                      i % len(plotting.LINE_STYLES)],
                  label=f"{one.name}, {seeds}")
        axes.fill_between(iterations, mean - std, mean + std, color=colour,
                          alpha=0.2, lw=0)
    axes.set(title=cell.replace("_", " "), xlabel="meta-iterations",
             ylabel=f"{split} accuracy, %" if kind == "accuracy"
             else f"{split} mean squared error")
    axes.title.set_fontsize(9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
