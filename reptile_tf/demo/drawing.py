"""A drawing as the network sees it: strokes to 28x28 pixels.

As Omniglot's pixels come about: ink on 105x105 paper, 1 bit, shrunk to 28x28
by nearest neighbour, paper 1 and ink 0. The pen, the place and the sizes are
those of Omniglot's drawings, measured over 3,000 of them: a nib of 5 pixels,
the middle of a drawing at 51 +- 6 of 105, its longer side 44 to 88 pixels in
nine of ten.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from reptile_tf.datasets.omniglot.drawings import RAW_SIZE, shrink

# A stroke: the points [n, 2] that the pen goes through, x to the right and y
# down, in units of the paper's side.
Strokes = Sequence[np.ndarray]

PEN = 5
CENTRE = 51.5  # Of pixel 51, which reaches from 51 to 52.
SMALLEST, LARGEST = 44, 88
# Drawn so many times larger: a pixel is ink where half of it is.
FINE = 4


def picture(strokes: Strokes) -> np.ndarray:
    """float32 [28, 28, 1], paper 1 and ink 0.

    Args:
      strokes: at least one; a stroke of one point is a dot.
    """
    return (1 - shrink(ink(strokes)).astype(np.float32))[..., None]


def ink(strokes: Strokes) -> np.ndarray:
    """bool [105, 105]: the strokes in their place, drawn with Omniglot's pen.
    """
    side = RAW_SIZE * FINE
    paper = Image.new("L", (side, side))
    draw, radius = ImageDraw.Draw(paper), (PEN * FINE - 1) / 2
    for stroke in placed(strokes):
        # Pillow's coordinates are of the middles of pixels.
        points = stroke * FINE - 0.5
        draw.line([tuple(p) for p in points], 1, PEN * FINE)
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), 1)
    covered = np.asarray(paper).reshape(
        RAW_SIZE, FINE, RAW_SIZE, FINE).sum((1, 3))
    return covered * 2 >= FINE**2


def placed(strokes: Strokes) -> list[np.ndarray]:
    """The strokes in pixels of 105, in the middle of the paper.

    A drawing of a size that Omniglot's have keeps it; a larger or a smaller
    one is drawn in the nearest of them.
    """
    points = np.concatenate(list(strokes)) * RAW_SIZE
    low, high = points.min(0), points.max(0)
    side = (high - low).max() + PEN
    # The pen is as thick in all sizes. A dot has no size to change.
    scale = 1.0 if side == PEN else (
        np.clip(side, SMALLEST, LARGEST) - PEN) / (side - PEN)
    return [(stroke * RAW_SIZE - (low + high) / 2) * scale + CENTRE
            for stroke in strokes]
