"""How CPU threads are divided, each case in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
from types import SimpleNamespace as Of
import tensorflow as tf
from reptile_tf.execution import threads
from reptile_tf.records import provenance
from reptile_tf.learning.meta_config import MetaConfig as Meta
threads.cpus = lambda: 4
threads.use_threads(
    Of(num_threads={0}, meta=Meta(meta_batch={1}, task_order={2!r}),
       jit_compile={4!r}), Of(FILLS_A_THREAD={3}))
print(tf.config.threading.get_intra_op_parallelism_threads(),
      tf.config.threading.get_inter_op_parallelism_threads(),
      provenance.environment()["num_threads"])
tf.constant(1) + 1
threads.use_threads(
    Of(num_threads=3, meta=Meta(meta_batch=1), jit_compile="auto"),
    Of(FILLS_A_THREAD=False))
print(provenance.environment()["num_threads"])
"""


@pytest.mark.parametrize("case, want", [
    ((0, 5, "parallel", True, "auto"), "1 4 4"),  # A thread for each task.
    ((0, 3, "parallel", True, "auto"), "4 4 4"),  # Too few tasks for that.
    ((2, 3, "parallel", True, "off"), "1 2 2"),
    ((0, 5, "parallel", True, "on"), "4 4 4"),
    ((0, 5, "sequential", True, "auto"), "4 4 4"),
    ((2, 5, "parallel", False, "auto"), "2 2 2")])
def test_threads(case, want):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(*case)],
                          cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    # Once TensorFlow runs, it keeps what it has.
    assert lines == [want, want.split()[-1]], done.stderr
