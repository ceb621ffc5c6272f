"""Learning curves as SVG within a page of HTML."""

import itertools
import math
from collections.abc import Sequence
from html import escape

import numpy as np

from reptile_tf.compare.groups import Group
from reptile_tf.compare.learning_curves import caption_of, common, label_of
from reptile_tf.errors import of_extra
from reptile_tf.reporting.plotting import COLOURS, band

WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 8, 26  # Of the frame, for the numbers.
DASHES = ("", "7 3", "7 3 2 3", "2 3")
TICKS = 4

# A pair of (group, the curves of its runs).
Lines = Sequence[tuple[Group, list[dict[int, float]]]]


class _Scale:
    """From values to places between two ends, with round ticks to `most`."""

    def __init__(self, values: np.ndarray, start: float, end: float,
                 most: float = math.inf) -> None:
        ticker = of_extra("matplotlib.ticker", "plots", "a page of curves")
        locator = ticker.MaxNLocator(TICKS)
        # One value, or the same ones, are widened to a range.
        ticks = locator.tick_values(
            *locator.nonsingular(values.min(), values.max()))
        self.ticks = ticks[ticks <= most]
        self._low, self._high = ticks[0], max(self.ticks[-1], values.max())
        self._start, self._end = start, end

    def __call__(self, value: float) -> str:
        share = (value - self._low) / (self._high - self._low)
        return f"{self._start + share * (self._end - self._start):.1f}"


def panel(split: str, metric: str, lines: Lines) -> str:
    """A figure: mean and, of several seeds, the band of one deviation.

    Values that are not finite are left out.
    """
    title, unit = caption_of(split, metric)
    curves = [(group, len(runs), *_finite(runs)) for group, runs in lines]
    every = [c for c in curves if len(c[2])]
    drawing = "<p>no finite value</p>"
    if every:
        x = _Scale(np.concatenate([c[2] for c in every]), LEFT, WIDTH - RIGHT)
        y = _Scale(np.concatenate([m + s * sign for *_, m, s in every
                                   for sign in (1, -1)]), HEIGHT - BOTTOM, TOP,
                   100 if "%" in unit else math.inf)
        drawing = "".join((
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="'
            f'{escape(f"{title}: {unit}")}">', *_frame(x, y),
            *(_curve(x, y, i, *c) for i, c in enumerate(curves) if len(c[2])),
            "</svg>"))
    legend = "".join(
        '<li><svg viewBox="0 0 30 8"><path class="line" d="M0 4H30" '
        f"{_style(i)}/></svg>"
        f"{escape(label_of(group, number))}</li>"
        for i, (group, number, *_) in enumerate(curves))
    return (f"<figure><figcaption>{escape(title)}<small>{escape(unit)}, by "
            f"meta-iterations</small></figcaption>{drawing}<output></output>"
            f"<ul>{legend}</ul></figure>")


def _finite(curves: list[dict[int, float]]
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Iterations [n], mean [n] and deviation [n] over the seeds."""
    iterations, values = common(curves)
    values = values.reshape(len(curves), len(iterations))
    kept = np.isfinite(values).all(0)
    return np.array(iterations)[kept], *band(values[:, kept])


def _frame(x: _Scale, y: _Scale) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    return [
        *(f'<path class="grid" d="M{LEFT} {y(t)}H{right}"/><text x="{LEFT - 5}"'
          f' y="{y(t)}" dy=".35em" text-anchor="end">{t:g}</text>'
          for t in y.ticks),
        *(f'<path class="grid" d="M{x(t)} {TOP}V{bottom}"/><text x="{x(t)}" '
          f'y="{bottom + 16}" text-anchor="middle">{_short(t)}</text>'
          for t in x.ticks)]


def _short(iterations: float) -> str:
    return (f"{iterations / 1000:g}k" if iterations and not iterations % 100
            and iterations >= 1000 else f"{iterations:g}")


def _style(i: int) -> str:
    return (f'stroke="{COLOURS[i % len(COLOURS)]}" '
            f'stroke-dasharray="{DASHES[i % len(DASHES)]}"')


def _curve(x: _Scale, y: _Scale, i: int, group: Group, seeds: int,
           iterations: np.ndarray, mean: np.ndarray, std: np.ndarray) -> str:
    def path(values: np.ndarray, at: np.ndarray) -> str:
        return "M" + "L".join(f"{x(a)} {y(v)}" for a, v in zip(
            at, values, strict=True))

    there_and_back = np.concatenate([mean + std, (mean - std)[::-1]])
    area = (f'<path class="band" fill="{COLOURS[i % len(COLOURS)]}" d="'
            f"{path(there_and_back, np.append(iterations, iterations[::-1]))}"
            'Z"/>' if seeds > 1 else "")
    name = escape(group.name)
    points = "".join(
        f'<circle cx="{x(a)}" cy="{y(v)}" r="2.5" fill="'
        f'{COLOURS[i % len(COLOURS)]}" data-value="{name}, {a:,}: {v:.4g}'
        f'{f" ± {s:.2g}" if seeds > 1 else ""}"/>'
        for a, v, s in zip(iterations, mean, std, strict=True))
    return (f'{area}<path class="line" {_style(i)} '
            f'd="{path(mean, iterations)}"/>{points}')


def grid(panels: dict[tuple[str, str, str], Lines], table: str) -> str:
    """The figures of one table, side by side where there is room."""
    return "".join(itertools.chain(
        ['<div class="curves">'],
        (panel(split, metric, lines)
         for (name, split, metric), lines in panels.items() if name == table),
        ["</div>"]))
