"""How CPU threads are divided, in a process of its own."""

import pytest
from forks import ROOT, Fork

# What follows another result differs from it: it was not left as it was.
CASES = [
    ((0, 5, "parallel", True, "auto"), "1 4 4"),  # A thread for each task.
    ((0, 3, "parallel", True, "auto"), "4 4 4"),  # Too few tasks for that.
    ((2, 3, "parallel", True, "off"), "1 2 2"),
    ((0, 5, "parallel", True, "on"), "4 4 4"),
    ((2, 5, "parallel", False, "auto"), "2 2 2"),
    ((0, 5, "sequential", True, "auto"), "4 4 4")]
PROGRAM = f"""
from types import SimpleNamespace as Of
import tensorflow as tf
from reptile_tf.execution import threads
from reptile_tf.learning.meta_config import MetaConfig as Meta
from reptile_tf.records import provenance
threads.cpus = lambda: 4
def use(number, meta_batch, order, large, jit):
    threads.use_threads(
        Of(num_threads=number, meta=Meta(meta_batch=meta_batch,
                                         task_order=order),
           jit_compile=jit), Of(FILLS_A_THREAD=large))
    print(tf.config.threading.get_intra_op_parallelism_threads(),
          tf.config.threading.get_inter_op_parallelism_threads(),
          provenance.environment()["num_threads"])
for case, _ in {CASES}:
    use(*case)
tf.constant(1) + 1
use(3, 1, "parallel", False, "auto")
"""


@pytest.fixture(scope="module")
def lines():
    fork = Fork("-c", PROGRAM, PYTHONPATH=str(ROOT))
    assert fork.wait() == 0, fork.output()
    return fork.output().splitlines()


@pytest.mark.parametrize("place, want", [
    *enumerate(want for _, want in CASES)])
def test_threads(lines, place, want):
    assert lines[place] == want


def test_once_tensorflow_runs_it_keeps_its_threads(lines):
    assert lines[-1] == lines[-2] == "4 4 4"
