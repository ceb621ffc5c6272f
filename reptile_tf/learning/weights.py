"""The weights of a network as tensors, in the model's order."""

import zlib

import tensorflow as tf

Weights = list[tf.Tensor]


def checksum(weights: Weights) -> int:
    """Of all values: equal of equal weights, bit for bit."""
    return zlib.crc32(b"".join(w.numpy().tobytes() for w in weights))
