"""Losses of examples: what the inner loop sums or averages."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# (targets [B, ...], outputs [B, ...]) -> the examples' losses, [B] or [B, ...]
Loss = Callable[[Any, tf.Tensor], tf.Tensor]


def cross_entropy(labels: Any, logits: tf.Tensor) -> tf.Tensor:
    """Softmax cross-entropy [B] of integer labels [B] and logits [B, N]."""
    hot = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -tf.reduce_sum(hot * tf.nn.log_softmax(logits), -1)


def squared_error(targets: Any, outputs: tf.Tensor) -> tf.Tensor:
    """Squared error, elementwise."""
    return tf.square(outputs - targets)
