"""Layers of TensorFlow Lite's own operations, gradients of first order too.

Its built-in operations have no gradient of a convolution, of a strided slice,
of ReLU or of a max pooling; those of reshapes, unstacking, slices and choices
it has.
"""

import itertools
from collections.abc import Sequence

import keras
import tensorflow as tf

from reptile_tf.networks.layers.convolutions import SlicedConv2D, frame
from reptile_tf.networks.layers.pooling import SlicedMaxPooling2D


def relu(x: tf.Tensor) -> tf.Tensor:
    """max(x, 0) as a choice."""
    return tf.where(x > 0, x, tf.zeros_like(x))


def window_slices(images: tf.Tensor, windows: Sequence[int],
                  strides: Sequence[int], padding: str, value: float = 0.0
                  ) -> list[tf.Tensor]:
    """As `convolutions.window_slices`, of images [B, H, W, C]."""
    frames = frame(images.shape[1:3], windows, strides, padding)
    # Behind the windows too, up to a multiple of the stride.
    sizes = [-(-max(size + before + after, (window - 1) // stride * stride
                    + stride * outputs) // stride) * stride
             for size, window, stride, (outputs, before, after) in zip(
                 images.shape[1:3], windows, strides, frames, strict=True)]
    margins = [[before, total - before - size] for size, total, (_, before, _)
               in zip(images.shape[1:3], sizes, frames, strict=True)]
    images = tf.pad(images, [[0, 0], *margins, [0, 0]], constant_values=value)
    (down, across), channels = strides, images.shape[-1]
    phases = [
        tf.unstack(rows, axis=3) for rows in tf.unstack(tf.reshape(
            images, [-1, sizes[0] // down, down, sizes[1] // across, across,
                     channels]), axis=2)]
    return [
        tf.slice(phases[i % down][j % across],
                 [0, i // down, j // across, 0],
                 [-1, frames[0][0], frames[1][0], channels])
        for i, j in itertools.product(*map(range, windows))]


class LiteConv2D(SlicedConv2D):
    """Conv2D as slices and a matrix product."""

    slices, product = staticmethod(window_slices), staticmethod(tf.matmul)


class LiteMaxPooling2D(SlicedMaxPooling2D):
    """MaxPooling2D as a choice between slices."""

    slices = staticmethod(window_slices)

    @classmethod
    def supports(cls, layer: keras.layers.Layer) -> bool:
        """Whether this class can replace `layer`."""
        return type(layer) is keras.layers.MaxPooling2D


class LiteReLU(keras.layers.ReLU):
    """ReLU as a choice."""

    @classmethod
    def supports(cls, layer: keras.layers.Layer) -> bool:
        """Whether this class can replace `layer`."""
        return type(layer) is keras.layers.ReLU and (
            layer.max_value, layer.negative_slope, layer.threshold) == (
                None, 0, 0)

    def call(self, inputs):
        return relu(inputs)


LITE_FUNCTIONS = {keras.activations.relu: relu}
