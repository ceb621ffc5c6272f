"""Convolutions as matrix products, against Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from reptile_tf import networks as models
from reptile_tf.networks.layers import (
    GatheredConv2D,
    SlicedConv2D,
    convolutions,
)

SHAPES = [
    ((7, 10), (3, 3), (2, 2), "same"), ((8, 5), (3, 2), (1, 2), "same"),
    ((7, 10), (2, 3), (2, 1), "valid"), ((6, 4), (1, 1), (1, 1), "same")]
KINDS = {"sliced": SlicedConv2D, "gathered": GatheredConv2D}


def pair(kind, size, kernel, strides, padding, dtype="float32"):
    """A model of one stock convolution and its clone."""
    model = keras.Sequential([
        keras.Input([*size, 3], dtype=dtype),
        keras.layers.Conv2D(
            4, kernel, strides=strides, padding=padding, activation="tanh",
            bias_initializer="normal", dtype=dtype)])
    clone = models.inner_clone(model, kind)
    assert type(clone.layers[0]) is KINDS[kind]
    return model, clone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_are_the_stock_ones(rng, shape, kind):
    model, clone = pair(kind, *shape)
    x = rng.normal(size=(2, *shape[0], 3)).astype("float32")
    np.testing.assert_allclose(clone(x), model(x), atol=1e-5)


def derivatives(model, x, weight, direction, along):
    """First derivatives, and second ones along a direction."""
    weights = [w.value for w in model.trainable_variables]
    with tf.GradientTape() as outer:
        outer.watch([x, *weights])
        with tf.GradientTape() as inner:
            inner.watch([x, *weights])
            y = model.stateless_call(weights, [], x, training=True)[0]
            loss = tf.reduce_sum(weight * y * y)
        first = inner.gradient(loss, [x, *weights])
        product = tf.reduce_sum(first[0] * direction) + tf.reduce_sum(
            first[1] * along)
    return first + outer.gradient(product, [x, *weights])


@pytest.mark.parametrize("kind, jit", [
    ("gathered", False), ("sliced", False), ("sliced", True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_are_the_stock_ones(monkeypatch, rng, shape, kind, jit):
    """In float64, of both orders, with respect to inputs and kernel.

    The kernel's gradient is the sum of several products.
    """
    monkeypatch.setattr(convolutions, "CHUNK", 7)
    model, clone = pair(kind, *shape, dtype="float64")
    x = tf.constant(rng.normal(size=(5, *shape[0], 3)))
    weight = rng.normal(size=model(x).shape)
    direction = rng.normal(size=x.shape)
    along = rng.normal(size=model.trainable_variables[0].shape)
    compiled = tf.function(derivatives, autograph=False,
                           jit_compile=jit)
    for want, got in zip(derivatives(model, x, weight, direction, along),
                         compiled(clone, x, weight, direction, along),
                         strict=True):
        assert np.abs(want).max() > 0.1
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def test_only_small_convolutions_are_gathered():
    """Up to 14 x 14 outputs: Mini-ImageNet's last, all of Omniglot's."""
    for build, want in ((models.omniglot, [True] * 4),
                        (models.mini_imagenet, [False, False, False, True])):
        clone = models.inner_clone(build(3), "gathered")
        assert [isinstance(layer, GatheredConv2D) for layer in clone.layers
                if layer.name.startswith("conv")] == want


@pytest.mark.parametrize("rows, chunk, want", [
    (12, 4, 3), (12, 5, 2), (12, 100, 1), (13, 4, 1), (6, 1, 6)])
def test_a_gradient_is_of_parts_of_equally_many_rows(
        monkeypatch, rows, chunk, want):
    """As many parts as can be, none of fewer rows than a chunk."""
    monkeypatch.setattr(convolutions, "CHUNK", chunk)
    assert convolutions.parts(rows) == want
