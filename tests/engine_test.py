"""Which engine a model gets."""

import keras
import pytest
import tensorflow as tf

from reptile_tf import networks as models
from reptile_tf.execution import engine

DENSE = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
SMALL, LARGE = models.omniglot(2), models.mini_imagenet(2)


@pytest.mark.parametrize("gpus, model, flag, want, reason", [
    ([], DENSE, "auto", (True, True, "sliced"), "without convolutions"),
    ([], SMALL, "auto", (False, False, "gathered"), "on the CPU"),
    ([], LARGE, "auto", (False, False, "gathered"), "on the CPU"),
    (["GPU"], SMALL, "auto", (True, True, "sliced"), "on a GPU"),
    (["GPU"], LARGE, "auto", (True, True, "sliced"), "on a GPU"),
    ([], SMALL, "on", (True, True, "sliced"), "--jit_compile=on"),
    ([], LARGE, "on", (False, True, "compiled"), "--jit_compile=on"),
    ([], LARGE, "off", (False, False, "gathered"), "--jit_compile=off"),
    (["GPU"], SMALL, "off", (False, False, "stock"), "--jit_compile=off")])
def test_the_engine_of_a_model(monkeypatch, gpus, model, flag, want, reason):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: gpus)
    chosen = engine.choose(model, flag)
    assert (chosen.vectorized, chosen.jit, chosen.convolutions) == want
    # A sub-graph for each of hundreds of tasks would compile for minutes.
    assert chosen.tasks_per_call == (
        engine.GPU_TASKS_PER_CALL if gpus and want[0]
        else engine.CPU_TASKS_PER_CALL)
    assert reason in str(chosen)


@pytest.mark.parametrize("gpus, want", [([], 1), (["GPU"], 20)])
def test_a_gpu_makes_many_meta_iterations_a_call(monkeypatch, gpus, want):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: gpus)
    assert engine.iterations_per_call() == want
