"""Normalizations with exact derivatives of all orders, for the inner loop.

Keras's take their statistics from tf.nn.moments, which stops the gradient of
the mean inside the variance: right for first derivatives only, and MAML's
meta-gradient needs second ones.
"""

import keras
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.networks.layers.convolutions import built_shape
from reptile_tf.networks.layers.fused_normalization import fused


def standardized(x: tf.Tensor, axes: list[int], epsilon: float,
                 mask: tf.Tensor | None = None) -> tf.Tensor:
    """(x - mean) / sqrt(variance + epsilon), statistics over `axes`.

    Args:
      x: of any shape.
      axes: that the statistics are taken over.
      epsilon: added to the variance.
      mask: booleans of the shape of x: what the statistics are of; None is
        everything. Of nothing they are 0, as in Keras.
    """
    if mask is None:
        def mean_of(values):
            return tf.reduce_mean(values, axes, keepdims=True)
    else:
        count = keras.config.epsilon() + tf.reduce_sum(
            tf.cast(mask, x.dtype), axes, keepdims=True)

        def mean_of(values):
            return tf.reduce_sum(tf.where(mask, values, tf.zeros_like(
                values)), axes, keepdims=True) / count

    centred = x - mean_of(x)
    return centred * tf.math.rsqrt(mean_of(tf.square(centred)) + epsilon)


def normalized(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor,
               epsilon: float) -> tf.Tensor:
    """gamma h + beta, h standardized over all axes but the last.

    With n values of a feature and r = 1 / sqrt(variance + epsilon), the
    gradient along dy is

        dx = gamma r (dy - sum(dy) / n - h sum(dy h) / n),
        dgamma = sum(dy h), dbeta = sum(dy),

    which reads what is large once for its sums and once for dx, where
    differentiating `standardized` reads it three times for the sums. It is
    differentiated again as it stands.

    Args:
      x: [B, ..., F].
      gamma, beta: [F].
      epsilon: added to the variance.
    """
    axes = list(range(len(x.shape) - 1))

    def statistics(x):
        centred = x - tf.reduce_mean(x, axes, keepdims=True)
        variance = epsilon + tf.reduce_mean(tf.square(centred), axes,
                                            keepdims=True)
        # Of a variance that overflows NaN, not 0: what follows is named then.
        return centred * tf.math.rsqrt(variance), (
            tf.sqrt(variance) / variance)

    @tf.custom_gradient
    def scaled(x, gamma, beta):
        def gradient(dy):
            h, r = statistics(x)
            n = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
            dgamma, dbeta = tf.reduce_sum(dy * h, axes), tf.reduce_sum(
                dy, axes)
            return gamma * r * (dy - dbeta / n - h * (dgamma / n)
                                ), dgamma, dbeta

        return statistics(x)[0] * gamma + beta, gradient

    return scaled(x, gamma, beta)


class _Normalization(keras.layers.Layer):
    """Statistics and their use in float32 or more, whatever the inputs' type.

    What derives from it has `gamma` and `beta`, or None.
    """

    @classmethod
    def supports(cls, layer: keras.layers.Layer) -> bool:
        """Whether this class can replace `layer`."""
        return type(layer) is cls.__bases__[1]

    def call(self, inputs):
        exact = keras.backend.result_type(inputs.dtype, "float32")
        return tf.cast(self._normalized(tf.cast(inputs, exact)),
                       self.compute_dtype)

    def _scaled(self, x, shape):
        """gamma x + beta, both of `shape`."""
        if self.gamma is not None:
            x *= tf.cast(tf.reshape(self.gamma, shape), x.dtype)
        if self.beta is not None:
            x += tf.cast(tf.reshape(self.beta, shape), x.dtype)
        return x


class LayerNormalization(_Normalization, keras.layers.LayerNormalization):
    """LayerNormalization with exact second derivatives."""

    @classmethod
    def supports(cls, layer):
        return super().supports(layer) and not layer.rms_scaling

    def _normalized(self, x):
        axes = [axis % len(x.shape) for axis in self.axis]
        return self._scaled(
            standardized(x, axes, self.epsilon),
            [x.shape[i] if i in axes else 1 for i in range(len(x.shape))])


class GroupNormalization(_Normalization, keras.layers.GroupNormalization):
    """GroupNormalization with exact second derivatives."""

    def _normalized(self, x):
        x = keras.ops.moveaxis(x, self.axis, -1)
        channels = x.shape[-1]
        grouped = tf.reshape(x, [tf.shape(x)[0], -1, self.groups,
                                 channels // self.groups])
        normalized = tf.reshape(standardized(grouped, [1, 3], self.epsilon),
                                tf.shape(x))
        return keras.ops.moveaxis(
            self._scaled(normalized, [channels]), -1, self.axis)


class BatchNormalization(keras.layers.Layer):
    """Batch normalization by the statistics of the batch in hand.

    Training and testing alike (paper, section 6.1: "transduction"); there are
    no moving averages.

    Args:
      epsilon: added to the variance.
      center: whether there is a beta.
      scale: whether there is a gamma.
      fused: use `fused` for float32 images. Much faster on large ones; it
        does not vectorize over tasks.
    """

    def __init__(
        self,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        fused: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon, self.center, self.scale = epsilon, center, scale
        self.fused = fused
        self.supports_masking = True

    @classmethod
    def from_stock(
        cls, layer: keras.layers.BatchNormalization, fused: bool
    ) -> "BatchNormalization":
        """The exact twin of a stock layer, with fresh weights.

        Raises:
          InputError: a feature axis other than the last, or renorm.
        """
        if layer.renorm:
            raise InputError(
                f"layer {layer.name!r} has renorm=True, which uses moving "
                "averages; here statistics are always those of the batch in "
                "hand: set renorm=False")
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        if axis not in (-1, len(built_shape(layer)) - 1):
            raise InputError(
                f"layer {layer.name!r} normalizes axis {axis}; only the last "
                "axis is supported: use data_format='channels_last'"
            )
        return cls(layer.epsilon, layer.center, layer.scale, fused=fused,
                   name=layer.name, dtype=layer.dtype_policy)

    def build(self, input_shape) -> None:
        shape = (input_shape[-1],)
        if self.scale:
            self.gamma = self.add_weight(shape=shape, initializer="ones",
                                         name="gamma", autocast=False)
        if self.center:
            self.beta = self.add_weight(shape=shape, initializer="zeros",
                                        name="beta", autocast=False)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs, training=None, mask=None):
        # In mixed precision statistics are taken in the weights' type.
        return tf.cast(self._normalized(
            tf.cast(inputs, self.variable_dtype), mask), self.compute_dtype)

    def _normalized(self, inputs, mask):
        features, dtype = inputs.shape[-1:], inputs.dtype
        gamma = self.gamma.value if self.scale else tf.ones(features, dtype)
        beta = self.beta.value if self.center else tf.zeros(features, dtype)
        if (self.fused and len(inputs.shape) == 4 and dtype == tf.float32
                and mask is None):
            return fused(inputs, gamma, beta, self.epsilon)
        if mask is None:
            return normalized(inputs, gamma, beta, self.epsilon)
        mask = tf.broadcast_to(mask[..., None], tf.shape(inputs))
        return beta + gamma * standardized(
            inputs, list(range(len(inputs.shape) - 1)), self.epsilon, mask)
