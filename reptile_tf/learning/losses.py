"""Losses of examples: what the inner loop sums or averages."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# (targets [B, ...], outputs [B, ...]) -> the examples' losses, [B] or [B, ...]
Loss = Callable[[Any, tf.Tensor], tf.Tensor]
ONE_HOT = (tf.uint8, tf.int8, tf.int32, tf.int64)  # What tf.one_hot takes.


def cross_entropy(labels: Any, logits: tf.Tensor) -> tf.Tensor:
    """Softmax cross-entropy [B] of integer labels [B] and logits [B, N]."""
    labels = tf.convert_to_tensor(labels)
    if labels.dtype.is_integer and labels.dtype not in ONE_HOT:
        labels = tf.cast(labels, tf.int64)
    hot = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -tf.reduce_sum(hot * tf.nn.log_softmax(logits), -1)


def squared_error(targets: Any, outputs: tf.Tensor) -> tf.Tensor:
    """Squared error, elementwise."""
    return tf.square(outputs - targets)
