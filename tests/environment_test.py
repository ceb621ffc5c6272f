"""Threads, oneDNN and XLA's flags, each case in a process of its own.

A fork, before TensorFlow runs anything: one import serves all.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from reptile_tf.execution import devices

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
NAME = "TF_ENABLE_ONEDNN_OPTS"
CASES = [
    ((0, 5, "parallel", True, "auto"), "1 4 4"),  # A thread for each task.
    ((0, 3, "parallel", True, "auto"), "4 4 4"),  # Too few tasks for that.
    ((2, 3, "parallel", True, "off"), "1 2 2"),
    ((0, 5, "parallel", True, "on"), "4 4 4"),
    ((0, 5, "sequential", True, "auto"), "4 4 4"),
    ((2, 5, "parallel", False, "auto"), "2 2 2")]
PROGRAM = f"""
import os, sys
from types import SimpleNamespace as Of
import tensorflow as tf
import reptile_tf
from reptile_tf.execution import devices, threads
from reptile_tf.learning.meta_config import MetaConfig as Meta
from reptile_tf.records import provenance
from reptile_tf.runs.run import prepared_replicas
threads.cpus = lambda: 4
for case, _ in {CASES}:
    if os.fork():
        os.wait()
        continue
    number, meta_batch, order, large, jit = case
    prepared_replicas(
        Of(FILLS_A_THREAD=large), Of(
            num_threads=number, jit_compile=jit, tf32=False,
            meta=Meta(meta_batch=meta_batch, task_order=order),
            deterministic=True, distribution="none"), Of(info=print))
    print(case, tf.config.threading.get_intra_op_parallelism_threads(),
          tf.config.threading.get_inter_op_parallelism_threads(),
          provenance.environment()["num_threads"], sep="; ")
    tf.constant(1) + 1
    reptile_tf.prepare_devices(num_threads=3)
    print(case, provenance.environment()["num_threads"], sep="; ")
    break
else:
    if not os.fork():
        reptile_tf.prepare_devices()
        print("own", tf.config.threading.get_intra_op_parallelism_threads(),
              provenance.environment()["num_threads"], sep="; ", flush=True)
        os._exit(0)
    os.wait()
    for name in devices.DETERMINISTIC:
        if os.fork():
            os.wait()
            continue
        os.environ["XLA_FLAGS"] = devices.with_determinism(f"--{{name}}", True)
        double = tf.function(lambda x: 2 * x, autograph=False,
                             jit_compile=True)
        print(name, int(double(21)), sep="; ")
        break
"""


@pytest.fixture(scope="module")
def done():
    return subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT,
                          capture_output=True, text=True)


@pytest.mark.parametrize("case, want", CASES)
def test_threads(done, case, want):
    lines = [line.partition("; ")[2].replace(";", "")
             for line in done.stdout.splitlines()
             if line.startswith(f"{case};")]
    # Once TensorFlow runs, it keeps what it has.
    assert lines == [want, want.split()[-1]], done.stderr


def test_threads_of_a_program_of_ones_own(done):
    """As those of a run: five tasks side by side occupy the four."""
    assert "own; 1; 4" in done.stdout.splitlines(), done.stderr


def test_xla_knows_the_flags_that_make_it_repeat(done):
    """One it does not know would end the process where it compiles first."""
    for name in devices.DETERMINISTIC:
        assert f"{name}; 42" in done.stdout, done.stderr


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"),
                    reason="measured on x86-64 alone")
@pytest.mark.parametrize("asked, want", [({}, True), ({NAME: "0"}, False)])
def test_onednn_is_on_and_recorded_unless_switched_off(asked, want):
    program = ("from reptile_tf.records import provenance;"
               "print(provenance.environment()['onednn'])")
    env = {k: v for k, v in os.environ.items() if k != NAME}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT,
                          capture_output=True, text=True, env=env | asked)
    assert done.stdout.split() == [str(want)], done.stderr
