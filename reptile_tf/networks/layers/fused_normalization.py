"""Batch normalization of images by TensorFlow's fused operation."""

import tensorflow as tf


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
