"""Characters drawn by a program: Omniglot's shapes with nothing to download.

A class is a random arrangement of one to four curved strokes. Each drawing of
it has its own jitter of the control points, position, scale, slant and pen
width.
"""

import sys
from typing import NamedTuple

import numpy as np
from PIL import Image

CHARACTERS, DRAWINGS, SIZE = 1623, 20, 28
MAX_STROKES, CONTROL_POINTS, CURVE_POINTS = 4, 4, 56
PEN_ANGLES = 6
JITTER = 0.08


class Curves(NamedTuple):
    """Drawings as the way of a pen.

    Attributes:
      points: [characters, drawings, 4 strokes, 56, 2], x and y in pixels.
      pen: its radius in pixels, [characters, drawings, 1, 1, 1].
      used: [characters, 4], which of the strokes a character has.
    """

    points: np.ndarray
    pen: np.ndarray
    used: np.ndarray


def curves(
    seed: int = 0, characters: int = CHARACTERS, drawings: int = DRAWINGS
) -> Curves:
    """The strokes of `characters` classes; the same for the same seed."""
    rng = np.random.default_rng(seed)
    strokes = rng.integers(1, MAX_STROKES + 1, characters)
    used = np.arange(MAX_STROKES) < strokes[:, None]
    start = rng.uniform(0.05, 0.95, (characters, MAX_STROKES, 1, 2))
    turn = rng.normal(0, 0.8, (characters, MAX_STROKES, CONTROL_POINTS - 1))
    turn[..., 0] = rng.uniform(0, 2 * np.pi, (characters, MAX_STROKES))
    heading = np.cumsum(turn, -1)
    length = rng.uniform(0.15, 0.4, heading.shape)
    moves = length[..., None] * np.stack(
        [np.cos(heading), np.sin(heading)], -1)
    control = np.concatenate([start, start + np.cumsum(moves, -2)], -2)
    control = _centred(control, used)

    shape = (characters, drawings)
    control = control[:, None] + rng.normal(
        0, JITTER, (*shape, MAX_STROKES, CONTROL_POINTS, 2))
    scale = rng.uniform(0.6, 1.05, (*shape, 1, 1, 2))
    slant = rng.normal(0, 0.25, (*shape, 1, 1))
    shift = rng.normal(0, 0.08, (*shape, 1, 1, 2))
    pen = rng.uniform(0.3, 0.75, (*shape, 1, 1, 1))

    # Cubic Bezier curves at equally spaced parameters.
    s = np.linspace(0, 1, CURVE_POINTS)
    bernstein = np.stack([(1 - s) ** 3, 3 * s * (1 - s) ** 2,
                          3 * s**2 * (1 - s), s**3], -1)
    curve = (bernstein @ control.reshape(-1, CONTROL_POINTS, 2)).reshape(
        *shape, MAX_STROKES, CURVE_POINTS, 2)
    curve[..., 0] += slant * curve[..., 1]
    return Curves((curve * scale + shift) * (0.8 * SIZE) + SIZE / 2, pen,
                  used)


def draw(
    seed: int = 0, characters: int = CHARACTERS, drawings: int = DRAWINGS
) -> np.ndarray:
    """Draw `characters` classes; the same for the same seed.

    Returns:
      uint8 [characters, drawings, 28, 28], paper 255 and ink 0.
    """
    curve, pen, used = curves(seed, characters, drawings)
    shape = (characters, drawings)
    angles = np.arange(PEN_ANGLES) * (2 * np.pi / PEN_ANGLES)
    nib = np.concatenate([
        [[0.0, 0.0]], np.stack([np.cos(angles), np.sin(angles)], -1)])
    images = np.full((characters * drawings, SIZE, SIZE), 255, np.uint8)
    which = np.arange(characters * drawings).reshape(*shape, 1, 1)
    for offset in nib:
        points = np.floor(curve + pen * offset).astype(np.int64)
        inside = ((points >= 0) & (points < SIZE)).all(-1)
        inside &= used[:, None, :, None]
        x, y = points[inside].T
        images[np.broadcast_to(which, inside.shape)[inside], y, x] = 0
    return images.reshape(*shape, SIZE, SIZE)


def _centred(control: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Each character's used strokes moved and scaled to a unit box at 0."""
    outside = ~used[:, :, None, None]
    low = np.where(outside, np.inf, control).min((1, 2), keepdims=True)
    high = np.where(outside, -np.inf, control).max((1, 2), keepdims=True)
    size = (high - low).max(-1, keepdims=True)
    return (control - (low + high) / 2) / size


def page(classes: int = 10, drawings: int = 20, seed: int = 0) -> np.ndarray:
    """A picture uint8 [H, W] of the first classes, one row for each."""
    cells = np.pad(draw(seed, classes, drawings),
                   [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=220)
    return cells.transpose(0, 2, 1, 3).reshape(
        classes * cells.shape[2], drawings * cells.shape[3])


if __name__ == "__main__":
    # python -m reptile_tf.datasets.glyphs FILE.png
    Image.fromarray(page()).resize((1200, 600), Image.Resampling.NEAREST).save(
        sys.argv[1])
