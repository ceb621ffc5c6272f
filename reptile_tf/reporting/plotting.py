"""What all figures share: colours, curves with bands, the two files."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from reptile_tf.errors import of_extra

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError:  # Who draws calls `require` first.
    Axes = Figure = None

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
           "#000000")
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def require(feature: str) -> None:
    """Raise InputError where Matplotlib is missing, which the feature needs."""
    of_extra("matplotlib", "plots", feature)


def plain_text() -> AbstractContextManager[None]:
    """In which $ is a letter, as in paths, and no mathematics."""
    return matplotlib.rc_context({"text.parse_math": False})


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write <name>.png and <name>.svg, the same bytes for the same figure."""
    paths = [folder / f"{name}.{kind}" for kind in ("png", "svg")]
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and standard deviation [n] over the rows of [seeds, n].

    The sample standard deviation; 0 for one row.
    """
    return values.mean(0), (values.std(0, ddof=1) if len(values) > 1
                            else np.zeros_like(values[0]))


def mean_and_band(axes: Axes, x: Sequence[float], values: np.ndarray,
                  **style: Any) -> None:
    """The mean over the rows of values [seeds, n] against x [n].

    The band is the standard deviation over the rows; one row has none.
    """
    mean, std = band(values)
    [line] = axes.plot(x, mean, **style)
    if len(values) > 1:
        axes.fill_between(x, mean - std, mean + std, lw=0, alpha=0.15,
                          color=line.get_color())
