"""Max pooling with fast derivatives, against Keras's own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from reptile_tf import networks as models
from reptile_tf.networks.layers import MaxPooling2D, SlicedMaxPooling2D

KINDS = {"gathered": MaxPooling2D, "sliced": SlicedMaxPooling2D}


def pair(kind, size, window, padding, strides=None):
    """A model of one stock pooling and its clone."""
    model = keras.Sequential([
        keras.Input([*size, 3]),
        keras.layers.MaxPooling2D(window, strides, padding)])
    return model, models.inner_clone(model, kind)


def derivatives(layer, x, weight, *directions):
    """The output, and derivatives of three orders along directions."""
    with tf.GradientTape() as third:
        third.watch(x)
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                y = layer(x)
                loss = tf.reduce_sum(weight * tf.sin(y))
            one = first.gradient(loss, x)
            along = tf.reduce_sum(one * directions[0] * x)
        two = second.gradient(along, x)
        along = tf.reduce_sum(two * directions[1])
    return y, one, two, third.gradient(along, x)


@pytest.mark.parametrize("kind, jit", [
    ("gathered", False), ("sliced", False), ("sliced", True)])
@pytest.mark.parametrize("size, window, padding", [
    ((6, 9), (2, 2), "same"), ((7, 5), (2, 2), "same"),
    ((7, 8), (2, 3), "same"), ((7, 8), (2, 3), "valid")])
def test_equals_the_stock_layer_to_third_order(rng, kind, jit, size, window,
                                               padding):
    """Whole numbers: most windows hold their maximum more than once."""
    model, clone = pair(kind, size, window, padding)
    assert type(clone.layers[0]) is KINDS[kind]
    x = tf.constant(rng.integers(-1, 2, (4, *size, 3)), tf.float32)
    weight = rng.normal(size=model(x).shape).astype("float32")
    directions = rng.normal(size=(2, *x.shape)).astype("float32")
    compiled = tf.function(derivatives, jit_compile=jit)
    for want, got in zip(derivatives(model, x, weight, *directions),
                         compiled(clone, x, weight, *directions),
                         strict=True):
        assert np.abs(want).max() > 0.5
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_windows_that_overlap_stay_with_the_stock_layer():
    for kind in KINDS:
        _, clone = pair(kind, (7, 8), 3, "same", strides=2)
        assert type(clone.layers[0]) is keras.layers.MaxPooling2D
