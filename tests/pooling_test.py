"""Max pooling with fast derivatives, against Keras's own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from reptile_tf import networks as models
from reptile_tf.networks.layers import (
    GLOBAL_MAX_POOLINGS,
    SLICED_POOLINGS,
    MaxPooling2D,
    SlicedMaxPooling2D,
)

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


POOLINGS = {
    "1D": ((7, 3), lambda: keras.layers.MaxPooling1D(3, 2)),
    "2D that overlap": ((6, 5, 3), lambda: keras.layers.MaxPooling2D(
        3, 2, "same")),
    "3D": ((4, 3, 5, 2), lambda: keras.layers.MaxPooling3D(2, 1)),
    "adaptive 1D": ((7, 3), lambda: keras.layers.AdaptiveMaxPooling1D(3)),
    "adaptive 2D": ((5, 6, 2), lambda: keras.layers.AdaptiveMaxPooling2D(
        (2, 4))),
    "adaptive 3D": ((4, 3, 5, 2), lambda: keras.layers.AdaptiveMaxPooling3D(
        2)),
    "of all positions 1D": ((7, 9), lambda: keras.layers.GlobalMaxPooling1D()),
    "of all positions 2D": ((5, 6, 9), lambda: keras.layers.GlobalMaxPooling2D(
        keepdims=True)),
    "of all positions 3D": ((9, 4, 3, 5), lambda: (
        keras.layers.GlobalMaxPooling3D(data_format="channels_first"))),
    "channels first": ((2, 5, 6), lambda: keras.layers.MaxPooling2D(
        2, data_format="channels_first")),
}


def assert_same_derivatives(model, clone, x, rng, jit, least, atol):
    """The compiled clone's and the stock model's, none of them all small."""
    weight = rng.normal(size=model(x).shape).astype("float32")
    directions = rng.normal(size=(2, *x.shape)).astype("float32")
    compiled = tf.function(derivatives, autograph=False,
                           jit_compile=jit)
    for want, got in zip(derivatives(model, x, weight, *directions),
                         compiled(clone, x, weight, *directions),
                         strict=True):
        assert np.abs(want).max() > least
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", POOLINGS)
def test_every_pooling_that_chooses_is_exact_under_xla(rng, name):
    """Against TensorFlow's own kernels, without XLA; values are apart."""
    shape, make = POOLINGS[name]
    model = keras.Sequential([keras.Input(shape), make()])
    clone = models.inner_clone(model, "compiled")
    assert type(clone.layers[0]) in (*SLICED_POOLINGS, *GLOBAL_MAX_POOLINGS)
    x = tf.constant(rng.permutation(2 * int(np.prod(shape))).reshape(
        2, *shape) / 50, tf.float32)
    assert_same_derivatives(model, clone, x, rng, True, least=0.1,
                            atol=1e-5)


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
    assert_same_derivatives(model, clone, x, rng, jit, least=0.5,
                            atol=1e-6)


def test_windows_that_overlap_are_gathered_by_the_stock_layer():
    _, clone = pair("gathered", (7, 8), 3, "same", strides=2)
    assert type(clone.layers[0]) is keras.layers.MaxPooling2D
