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


class SlicedMaxPooling2D(MaxPooling2D):
    """MaxPooling2D over windows side by side as a choice between slices.

    Vectorizes over tasks, and XLA fuses it. The first maximum of a window is
    chosen, and the gradient goes where the value came from: exact in all
    orders. (XLA's own pooling compares in lower precision in the second.)
    """

    def call(self, inputs):
        values = window_slices(inputs, self.pool_size, self.strides,
                               self.padding, inputs.dtype.min)
        highest = tf.stop_gradient(functools.reduce(tf.maximum, values))
        chosen = values.pop()
        while values:
            value = values.pop()
            chosen = tf.where(value >= highest, value, chosen)
        return chosen
