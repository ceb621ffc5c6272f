"""Gradients of weights: dense, and zero where there is none."""

from typing import Any

import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.learning.weights import Weights


def gradients(tape: tf.GradientTape, target: Any, weights: Weights,
              upstream: Any = None) -> Weights:
    """The tape's gradients of `target`, of the weights' shapes.

    TensorFlow's gradient of a look-up, which Embedding is, names rows only.

    Raises:
      InputError: an operation that TensorFlow has no derivative of.
    """
    try:
        found = tape.gradient(target, weights, upstream,
                              unconnected_gradients="zero")
    except LookupError as e:
        raise InputError(
            f"the network has an operation without a derivative ({e}): "
            "write it with others, or use a rule of first order, such as "
            "reptile") from e
    return [tf.convert_to_tensor(g) for g in found]
