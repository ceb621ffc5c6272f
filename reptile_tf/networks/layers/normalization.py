"""Batch normalization by the statistics of the batch, for the inner loop."""

import keras
import tensorflow as tf

from reptile_tf.errors import InputError


def fused(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor,
          epsilon: float) -> tf.Tensor:
    """[B, H, W, C] normalized, by TensorFlow's fused operation.

    With n = B H W elements of a channel, mean m, r = 1 / sqrt(variance +
    epsilon) and h = (x - m) r, the gradient along dy is, channel by channel,

        dx = gamma r (dy - sum(dy) / n - h sum(dy h) / n),
        dgamma = sum(dy h), dbeta = sum(dy).

    TensorFlow differentiates these in more than twenty passes over the images;
    here their derivatives along (u, u_gamma, u_beta) are worked out, and need
    one more call of the gradient's operation and a linear combination of u, dy
    and x. Third derivatives are refused.
    """
    @tf.custom_gradient
    def normalized(x, gamma, beta):
        batch = _FusedBatch(x, gamma, beta, epsilon)
        return batch.normalized, lambda dy: batch.gradient(dy, x, gamma)

    return normalized(x, gamma, beta)


class _FusedBatch:
    """One normalization, and what its derivatives need of it.

    Args:
      x, gamma, beta, epsilon: as of `fused`.

    Attributes:
      normalized: [B, H, W, C].
    """

    def __init__(self, x, gamma, beta, epsilon: float) -> None:
        self._x, self._gamma, self._epsilon = x, gamma, epsilon
        self.normalized, self._mean, self._variance, *self._saved = (
            tf.raw_ops.FusedBatchNormV3(
                x=x, scale=gamma, offset=beta, mean=[], variance=[],
                epsilon=epsilon, is_training=True))

    def _along(self, dy):
        """dx, dgamma and dbeta along dy."""
        return tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=dy, x=self._x, scale=self._gamma,
            reserve_space_1=self._saved[0], reserve_space_2=self._saved[1],
            reserve_space_3=self._saved[2], epsilon=self._epsilon,
            is_training=True)[:3]

    def gradient(self, dy, x, gamma):
        """The same, with a derivative of its own."""
        @tf.custom_gradient
        def gradient(dy, x, gamma):
            dx, dgamma, dbeta = self._along(dy)

            @tf.custom_gradient
            def second(u, u_gamma, u_beta, dy, x, gamma):
                return self._second(u, u_gamma, u_beta, dy, x, gamma, dgamma,
                                    dbeta), _refuse

            return (dx, dgamma, dbeta), lambda *along_u: second(
                *along_u, dy, x, gamma)

        return gradient(dy, x, gamma)

    def _second(self, u, u_gamma, u_beta, dy, x, gamma, dgamma, dbeta):
        """Derivatives by dy, x and gamma along (u, u_gamma, u_beta)."""
        n = tf.cast(tf.size(x) / x.shape[-1], x.dtype)
        biased = self._variance * (1 - 1 / n)  # `_variance` is unbiased.
        r = tf.math.rsqrt(biased + self._epsilon)

        def affine(scale, offset):
            """scale h + offset."""
            return tf.raw_ops.FusedBatchNormV3(
                x=x, scale=scale, offset=offset, mean=self._mean,
                variance=biased, epsilon=self._epsilon,
                is_training=False)[0]

        # sum(u h) and sum(u) come with the projection of u.
        projected, u_h, u_sum = self._along(u)
        u_dy = tf.reduce_sum(u * dy, [0, 1, 2]) - u_sum * dbeta / n
        # sum(u dx) = gamma d_gamma.
        d_gamma = r * (u_dy - u_h * dgamma / n)
        of_u = -gamma * r * r * dgamma / n
        of_dy = r * (u_gamma - gamma * r * u_h / n)
        of_h = (-of_u * u_h - of_dy * dgamma - gamma * r * d_gamma) / n
        constant = -(of_u * u_sum + of_dy * dbeta) / n
        d_x = tf.add_n([of_u * u, of_dy * dy, affine(of_h, constant)])
        return projected + affine(u_gamma, u_beta), d_x, d_gamma


def _refuse(*_):
    raise NotImplementedError(
        "fused batch normalization has derivatives of two orders")


class BatchNormalization(keras.layers.Layer):
    """Batch normalization by the statistics of the batch in hand.

    Training and testing alike (paper, section 6.1: "transduction"); there are
    no moving averages. The mean inside the variance is differentiated
    through, unlike keras.layers.BatchNormalization on TensorFlow, whose
    tf.nn.moments stops it and makes MAML's meta-gradient wrong.

    Args:
      epsilon: added to the variance.
      center: whether there is a beta.
      scale: whether there is a gamma.
      axis: the features' axis; only the last one.
      fused: use `fused` for float32 images. Much faster on large ones; it
        does not vectorize over tasks.
    """

    def __init__(
        self,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        axis: int = -1,
        fused: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon, self.center, self.scale = epsilon, center, scale
        self.axis, self.fused = axis, fused

    @classmethod
    def from_stock(
        cls, layer: keras.layers.BatchNormalization, fused: bool
    ) -> "BatchNormalization":
        """The exact twin of a stock layer, with fresh weights.

        Raises:
          InputError: a feature axis other than the last, or a frozen layer.
        """
        if not layer.trainable:
            raise InputError(
                f"layer {layer.name!r} is a frozen BatchNormalization, which "
                "would use its moving averages; here statistics are always "
                "those of the batch in hand: set trainable=True or remove it"
            )
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        rank = len(layer.get_build_config()["input_shape"])
        if axis not in (-1, rank - 1):
            raise InputError(
                f"layer {layer.name!r} normalizes axis {axis}; only the last "
                "axis (channels_last) is supported"
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

    def call(self, inputs, training=None):
        # In mixed precision statistics are taken in the weights' type.
        return tf.cast(self._normalized(tf.cast(inputs, self.variable_dtype)),
                       self.compute_dtype)

    def _normalized(self, inputs):
        if (self.fused and len(inputs.shape) == 4 and self.scale
                and self.center and inputs.dtype == tf.float32):
            return fused(inputs, self.gamma.value, self.beta.value,
                         self.epsilon)
        axes = list(range(len(inputs.shape) - 1))
        mean = tf.reduce_mean(inputs, axes, keepdims=True)
        centred = inputs - mean
        variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
        outputs = centred * tf.math.rsqrt(variance + self.epsilon)
        if self.scale:
            outputs = outputs * self.gamma
        return outputs + self.beta if self.center else outputs
