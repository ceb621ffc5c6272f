"""Processes stopped at random moments, and the same command again.

`pytest -m slow tests/drills_test.py --drills=1000` does more of them.
"""

import signal
import time

import numpy as np
import pytest
from forks import ROOT, Fork
from PIL import Image

from reptile_tf.records.checkpoints import Checkpoints

pytestmark = pytest.mark.slow
# How a process ends on each, if not by itself before: by default, or by its
# own handler.
ENDS = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 143)}
EXPORT = """
import sys
from reptile_tf import quiet_tensorflow
import keras
from reptile_tf import Learner
keras.utils.set_random_seed(1)
Learner(keras.Sequential([keras.Input([4]), keras.layers.Dense(
    3, kernel_initializer="ones")])).save(sys.argv[1])
"""
PREPARE = """
import sys
from reptile_tf import quiet_tensorflow
from reptile_tf.configuration import flags
from reptile_tf.datasets import mini_imagenet as dataset
dataset.load(flags.parse(
    ["", *sys.argv[1:], "--allow_partial", "--shots=1",
     "--resize_filter=bilinear"],
    dataset.CONFIG, dataset.DEFAULTS))
"""


@pytest.fixture
def drills(request):
    return request.config.getoption("--drills")


def stopped_at_random(start, number, seconds, interrupted=(1, 130)):
    """`start()`ed and stopped `number` times, then left to its end.

    Args:
      start: begins the process.
      number: of stops; one that comes after the end does not count, and
        there are at most three times as many.
      seconds: that a process takes, about.
      interrupted: how it may end on a Ctrl-C, 1 in a program without our
        handler; None: in whatever way.
    """
    seed = np.random.SeedSequence().entropy
    print("drill", seed)  # Shown where it fails.
    rng, stops = np.random.default_rng(seed), 0
    ends_on = {**ENDS, signal.SIGINT: interrupted}
    for _ in range(3 * number):
        process = start()
        time.sleep(rng.uniform(0, seconds))
        ends = ()
        if process.poll() is None:
            chosen = int(rng.choice([*ends_on]))
            process.send_signal(chosen)
            ends, stops = ends_on[chosen], stops + 1
        status, output = process.wait(), process.output()
        if ends is not None:
            assert status in (0, *ends), output
            assert status != 1 or "KeyboardInterrupt" in output, output
        if stops == number:
            break
    process = start()
    assert process.wait() == 0, process.output()


def timed(process):
    begun = time.monotonic()
    assert process.wait() == 0, process.output()
    return time.monotonic() - begun


def test_training(tmp_path, drills):
    def start(folder):
        return Fork(
            ROOT / "tests" / "tiny.py", f"--run_dir={folder}",
            f"--meta_iters={200 * drills}", "--eval_interval=40", "--shots=1",
            "--num_threads=1", "--eval_samples=40", PYTHONPATH=str(ROOT))

    seconds = timed(start(tmp_path / "whole"))
    stopped_at_random(lambda: start(tmp_path / "run"), drills,
                      max(seconds / 4, 5))
    whole, run = tmp_path / "whole", tmp_path / "run"
    for name in ("metrics.csv", "flags.cfg"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    a, b = (Checkpoints(r / "checkpoints").load(print) for r in (run, whole))
    for name in b[0]:
        np.testing.assert_array_equal(a[0][name], b[0][name])
    assert a[1]["sampler"] == b[1]["sampler"]


def test_preparing_images(tmp_path, drills):
    rng = np.random.default_rng(0)
    for i, split in enumerate(("train", "val", "test") * 5):
        label = tmp_path / "photos" / split / f"class{i}"
        label.mkdir(parents=True)
        for j in range(60):
            Image.fromarray(rng.integers(0, 256, (250, 200, 3), np.uint8)
                            ).save(label / f"{j}.png")

    def start(cache):
        return Fork("-c", PREPARE, f"--data_dir={tmp_path / 'photos'}",
                    f"--cache_dir={cache}", PYTHONPATH=str(ROOT))

    seconds = timed(start(tmp_path / "whole"))
    stopped_at_random(lambda: start(tmp_path / "run"), drills, 1.2 * seconds)
    # What a killed one left is hidden, and removed when it is a day old.
    whole, run = (
        [path for path in (tmp_path / name).iterdir() if path.name[0] != "."]
        for name in ("whole", "run"))
    assert len(whole) == len(run) == 1 and whole[0].name == run[0].name
    assert {path.name for path in run[0].iterdir()} == {
        path.name for path in whole[0].iterdir()}
    for path in whole[0].iterdir():
        assert (run[0] / path.name).read_bytes() == path.read_bytes()


def test_writing_the_export(tmp_path, drills):
    def start(folder):
        return Fork("-c", EXPORT, folder, PYTHONPATH=str(ROOT))

    seconds = timed(start(tmp_path / "whole"))
    # What TensorFlow makes of a Ctrl-C inside its tracing is its own: a failed
    # assertion of its stacks, and a segmentation fault was seen.
    stopped_at_random(lambda: start(tmp_path / "run"), drills, 1.2 * seconds,
                      interrupted=None)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"whole", "run"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()}
    for part in ("variables/variables.index", "learner.json"):
        assert (tmp_path / "run" / part).read_bytes() == (
            tmp_path / "whole" / part).read_bytes()
