"""Shared fixtures. Tests never read the network or the home folder."""

import os
from pathlib import Path

import keras_home  # noqa: F401  (before anything imports Keras)
import numpy as np
import pytest

from reptile_tf import quiet_tensorflow  # noqa: F401  (before anything imports TensorFlow)
from reptile_tf.execution import devices, engine
from reptile_tf.execution.engine import Engine

devices.prepare_gpus()
# Each task of a compiled call is a sub-graph to trace: here, on the CPU, that
# is most of what a run of a few small tasks costs.
engine.CPU_TASKS_PER_CALL = 2
ENGINES = {
    "graph-unrolled": Engine(False, False, "gathered", unrolled_steps=5),
    "graph-stock": Engine(False, False, "stock"),
    "graph-vectorized": Engine(True, False, "sliced"),
    "xla-unrolled": Engine(False, True, "compiled"),
    "xla-vectorized": Engine(True, True, "sliced"),
}


def slow_but(*fast):
    """All engines as parameters; slow, but for these."""
    return [pytest.param(name, marks=[] if name in fast
                         else [pytest.mark.slow]) for name in ENGINES]


# A run chooses the first and the last by itself. What the engines share, and
# XLA takes long to compile, is fast without XLA alone.
EACH_ENGINE = slow_but("graph-unrolled", "xla-vectorized")
EACH_ENGINE_SLOWLY = slow_but("graph-unrolled")


def pytest_addoption(parser):
    parser.addoption("--drills", type=int, default=30,
                     help="stops at random moments, in each slow drill")


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of REPTILE_DATA; skips, with the reason, without it."""
    folder = os.environ.get("REPTILE_DATA")
    if not folder:
        pytest.skip("REPTILE_DATA is not set")
    return Path(folder)
