"""The built-in characters."""

import numpy as np

from reptile_tf.datasets import glyphs


def test_shapes_polarity_and_seed():
    drawn = glyphs.draw(3, characters=40, drawings=6)
    assert drawn.shape == (40, 6, 28, 28) and drawn.dtype == np.uint8
    assert set(np.unique(drawn)) == {0, 255}
    np.testing.assert_array_equal(drawn, glyphs.draw(3, 40, 6))
    assert not np.array_equal(drawn, glyphs.draw(4, 40, 6))


def test_drawings_hold_ink_and_mostly_paper():
    ink = (glyphs.draw(0, characters=60) == 0).mean((2, 3))
    assert ink.min() > 0.002 and ink.max() < 0.5


def test_drawings_of_a_class_are_alike_and_not_the_same():
    drawn = glyphs.draw(0, characters=60, drawings=8) == 0
    flat = drawn.reshape(60, 8, -1)
    assert all(len({d.tobytes() for d in c}) == 8 for c in flat)

    def overlap(a, b):
        return (a & b).sum(-1) / (a | b).sum(-1)
    within = overlap(flat[:, 0], flat[:, 1]).mean()
    between = overlap(flat[:, 0], np.roll(flat[:, 1], 1, 0)).mean()
    assert within > 1.5 * between


def test_a_page_shows_one_class_a_row():
    page = glyphs.page(classes=3, drawings=4, seed=2)
    assert page.shape == (3 * 30, 4 * 30)
    np.testing.assert_array_equal(page[31:59, 61:89],
                                  glyphs.draw(2, 3, 4)[1, 2])
