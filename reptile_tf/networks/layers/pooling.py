"""Max pooling with fast derivatives of all orders, for the inner loop."""

import functools

import keras
import tensorflow as tf

from reptile_tf.networks.layers.convolutions import window_slices


class MaxPooling2D(keras.layers.MaxPooling2D):
    """MaxPooling2D over windows side by side, for the CPU without XLA.

    Its gradient spreads, linearly: each output's to the first maximum of its
    window. The gradient of spreading picks at those maxima, and that of
    picking spreads. TensorFlow has a fast kernel of the first only, and uses
    it only beside the pooling itself: so that is repeated.
    """

    @classmethod
    def supports(cls, layer: keras.layers.Layer) -> bool:
        """Whether this class can replace `layer`."""
        return (type(layer) is keras.layers.MaxPooling2D
                and layer.data_format == "channels_last"
                and tuple(layer.pool_size) == tuple(layer.strides))

    def call(self, inputs):
        @tf.custom_gradient
        def pooled(x):
            return self._max(x), lambda upstream: self._spread(x, upstream)

        return pooled(inputs)

    def _max(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.max_pool2d(x, self.pool_size, self.strides,
                                self.padding.upper())

    def _mean(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(x, self.pool_size, self.strides,
                                self.padding.upper())

    def _to_maxima(self, x: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """One value per window of x, put at its first maximum."""
        window = [1, *self.pool_size, 1]
        return tf.raw_ops.MaxPoolGrad(
            orig_input=x, orig_output=self._max(x), grad=values, ksize=window,
            strides=window, padding=self.padding.upper())

    def _spread(self, x: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def spread(values):
            return self._to_maxima(x, values), lambda upstream: self._pick(
                x, upstream)

        return spread(values)

    def _pick(self, x: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def pick(values):
            maxima = self._to_maxima(x, tf.ones_like(self._max(x)))
            # The quotient is exact at windows that the padding cuts, too.
            return self._mean(values * maxima) / self._mean(
                maxima), lambda upstream: self._spread(x, upstream)

        return pick(values)


class _Sliced:
    """Max pooling as a choice between slices, over any number of axes.

    Vectorizes over tasks, and XLA fuses it. The first maximum of a window is
    chosen, and the gradient goes where the value came from: exact in all
    orders. (XLA's own pooling compares in lower precision in the second.)
    """

    @classmethod
    def supports(cls, layer: keras.layers.Layer) -> bool:
        """Whether this class can replace `layer`."""
        return type(layer) is cls.__bases__[1]

    def call(self, inputs):
        if self.data_format == "channels_last":
            return self._pooled(inputs)
        pooled = self._pooled(keras.ops.moveaxis(inputs, 1, -1))
        return keras.ops.moveaxis(pooled, -1, 1)


class _SlicedWindows(_Sliced):
    """Windows of one size."""

    slices = staticmethod(window_slices)

    def _pooled(self, inputs):
        return _first_maximum(self.slices(
            inputs, self.pool_size, self.strides, self.padding,
            inputs.dtype.min))


class _SlicedParts(_Sliced):
    """So many windows, as alike in size as they can be, axis by axis."""

    def _pooled(self, inputs):
        for axis, outputs in enumerate(self.output_size, 1):
            positions = tf.unstack(inputs, axis=axis)
            size = len(positions)
            inputs = tf.stack([
                _first_maximum(positions[i * size // outputs:
                                         -(-(i + 1) * size // outputs)])
                for i in range(outputs)], axis)
        return inputs


class _Whole(_Sliced):
    """One window: the first maximum of all positions, by its place.

    TensorFlow's gradient looks for the elements that equal the maximum. XLA
    may compute both anew, with other roundings, and find none: 0 / 0.
    """

    def _pooled(self, inputs):
        shape = tf.shape(inputs)
        flat = tf.reshape(inputs, [shape[0], -1, shape[-1]])
        place = tf.range(tf.shape(flat)[1], dtype=tf.int64)[:, None]
        chosen = place == tf.argmax(tf.stop_gradient(flat), 1)[:, None]
        pooled = tf.reduce_sum(
            tf.where(chosen, flat, tf.zeros_like(flat)), 1)
        return (tf.reshape(pooled, [-1, *[1] * (len(inputs.shape) - 2),
                                    inputs.shape[-1]])
                if self.keepdims else pooled)


def _first_maximum(values: list[tf.Tensor]) -> tf.Tensor:
    """The first of the greatest, elementwise."""
    highest = tf.stop_gradient(functools.reduce(tf.maximum, values))
    chosen = values[-1]
    for value in values[-2::-1]:
        chosen = tf.where(value >= highest, value, chosen)
    return chosen


class SlicedMaxPooling1D(_SlicedWindows, keras.layers.MaxPooling1D):
    """[B, L, C]."""


class SlicedMaxPooling2D(_SlicedWindows, keras.layers.MaxPooling2D):
    """[B, H, W, C]."""


class SlicedMaxPooling3D(_SlicedWindows, keras.layers.MaxPooling3D):
    """[B, D, H, W, C]."""


class SlicedAdaptiveMaxPooling1D(
        _SlicedParts, keras.layers.AdaptiveMaxPooling1D):
    """[B, L, C]."""


class SlicedAdaptiveMaxPooling2D(
        _SlicedParts, keras.layers.AdaptiveMaxPooling2D):
    """[B, H, W, C]."""


class SlicedAdaptiveMaxPooling3D(
        _SlicedParts, keras.layers.AdaptiveMaxPooling3D):
    """[B, D, H, W, C]."""


class GlobalMaxPooling1D(_Whole, keras.layers.GlobalMaxPooling1D):
    """[B, L, C]."""


class GlobalMaxPooling2D(_Whole, keras.layers.GlobalMaxPooling2D):
    """[B, H, W, C]."""


class GlobalMaxPooling3D(_Whole, keras.layers.GlobalMaxPooling3D):
    """[B, D, H, W, C]."""


GLOBAL_MAX_POOLINGS = (
    GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D)
# Every pooling that chooses in windows.
SLICED_POOLINGS = (
    SlicedMaxPooling1D, SlicedMaxPooling2D, SlicedMaxPooling3D,
    SlicedAdaptiveMaxPooling1D, SlicedAdaptiveMaxPooling2D,
    SlicedAdaptiveMaxPooling3D)
