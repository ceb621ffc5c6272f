"""What only a GPU can show; the other tests marked so hold on a CPU too."""

import json
import signal

import numpy as np
import pytest
import tensorflow as tf
from forks import ROOT, Fork
from processes import newest, wait_for

from reptile_tf.execution import devices, memory
from reptile_tf.records.checkpoints import Checkpoints

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow lists no GPU")


def test_memory_is_taken_as_it_is_needed():
    free = memory.available()
    kept = tf.zeros([2**28])  # 1 GiB
    info = tf.config.experimental.get_memory_info("GPU:0")
    assert 2**30 <= info["current"] < 2 * 2**30
    assert 2**30 / 2 < free - memory.available() < 3 * 2**30
    del kept


def test_products_are_float32_and_repeat():
    x = tf.random.stateless_normal([512, 4096], [1, 2])
    product = tf.function(lambda x: tf.matmul(x, x, transpose_b=True),
                          autograph=False, jit_compile=True)
    got = product(x)
    np.testing.assert_array_equal(got, product(x))
    want = tf.matmul(*[tf.cast(x, tf.float64)] * 2, transpose_b=True)
    # TF32's 10 bits are off by 3e-4 here; float32's are, added one after the
    # other, by up to 1e-6.
    assert float(tf.norm(tf.cast(got, tf.float64) - want)
                 / tf.norm(want)) < 1e-5
    assert devices.deterministic()


def test_a_run_that_was_killed_ends_as_an_undisturbed_one(tmp_path):
    """Bit for bit: the paper's network, by the kernels of the GPU."""
    def start(run):
        return Fork(
            ROOT / "run_omniglot.py", f"--run_dir={run}", "--data=synthetic",
            "--meta_iters=400", "--eval_interval=100", "--shots=1",
            "--eval_interval_samples=8", "--eval_samples=64", "--noexport",
            PYTHONPATH=str(ROOT))

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    processes = start(whole), start(killed)
    wait_for(processes[1], lambda: newest(killed) >= 200)
    processes[1].send_signal(signal.SIGKILL)
    assert processes[1].wait() == -9, processes[1].output()
    again = start(killed)
    for process in (processes[0], again):
        assert process.wait() == 0, process.output()
    assert "going on from meta-iteration 2" in again.output()
    a, b = (json.loads((run / "result.json").read_text())
            for run in (whole, killed))
    assert not a["device"].startswith("CPU") and a["results"] == b["results"]
    a, b = (Checkpoints(run / "checkpoints").load(print)
            for run in (whole, killed))
    assert a[1]["sampler"] == b[1]["sampler"]
    for name in b[0]:
        np.testing.assert_array_equal(a[0][name], b[0][name])
