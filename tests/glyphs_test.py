"""The built-in characters."""

import json

import numpy as np
import pytest

from reptile_tf.datasets import glyphs, omniglot
from reptile_tf.runs import command_line as experiment


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


@pytest.mark.slow
def test_meta_training_and_more_shots_help(tmp_path):
    assert experiment.main(omniglot, [
        "run_omniglot.py", "--data=synthetic", "--meta_iters=400",
        "--eval_interval=0", "--eval_interval_samples=100",
        "--eval_samples=100", "--noexport", f"--run_dir={tmp_path}"]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    rows = {kind: {(r["shots"], r["transductive"]): r for r in result[kind]
                   if r["split"] == "test"}
            for kind in ("results", "untrained")}
    for cell, row in rows["results"].items():
        old = rows["untrained"][cell]
        assert row["accuracy"] - row["ci95"] > old["accuracy"] + old["ci95"]
    for kind in rows.values():
        for mode in (True, False):
            one, five = kind[1, mode], kind[5, mode]
            assert five["accuracy"] - five["ci95"] > (
                one["accuracy"] + one["ci95"])


def test_a_page_shows_one_class_a_row():
    page = glyphs.page(classes=3, drawings=4, seed=2)
    assert page.shape == (3 * 30, 4 * 30)
    np.testing.assert_array_equal(page[31:59, 61:89],
                                  glyphs.draw(2, 3, 4)[1, 2])
