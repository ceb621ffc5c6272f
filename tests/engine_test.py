"""Which engine a model gets."""

import keras
import pytest
import tensorflow as tf

from reptile_tf import engine, models

DENSE = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
SMALL, LARGE = models.omniglot(2), models.mini_imagenet(2)


@pytest.mark.parametrize("gpus, model, flag, vectorized, jit, reason", [
    ([], DENSE, "auto", True, True, "without convolutions"),
    ([], SMALL, "auto", False, False, "on the CPU"),
    ([], LARGE, "auto", False, False, "on the CPU"),
    (["GPU"], SMALL, "auto", True, True, "on a GPU"),
    (["GPU"], LARGE, "auto", False, True, "on a GPU"),
    ([], SMALL, "on", True, True, "--jit_compile=on"),
    ([], LARGE, "on", False, True, "--jit_compile=on"),
    (["GPU"], DENSE, "off", False, False, "--jit_compile=off")])
def test_the_engine_of_a_model(monkeypatch, gpus, model, flag, vectorized,
                               jit, reason):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: gpus)
    chosen = engine.choose(model, flag)
    assert (chosen.vectorized, chosen.jit) == (vectorized, jit)
    assert chosen.patches == vectorized
    assert reason in str(chosen)
