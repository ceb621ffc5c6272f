"""Small weights as one vector: fewer operations, the same numbers."""

import tensorflow as tf

from reptile_tf.learning.weights import Weights

# Where operations are not fused, the call of one costs more than its
# arithmetic on fewer elements than this.
SMALL = 4096


def packed(tensors: Weights) -> Weights:
    """The tensors, with all those of less than SMALL elements made into one."""
    large = [t for t in tensors if _size(t) >= SMALL]
    small = [tf.reshape(t, [-1]) for t in tensors if _size(t) < SMALL]
    return large + ([tf.concat(small, 0)] if small else [])


def unpacked(tensors: Weights, like: Weights) -> Weights:
    """What `packed` made of tensors of the shapes of `like`, undone."""
    sizes = [_size(t) for t in like if _size(t) < SMALL]
    large = iter(tensors)
    small = iter(tf.split(tensors[-1], sizes) if sizes else [])
    return [tf.reshape(next(small), t.shape) if _size(t) < SMALL
            else next(large) for t in like]


def _size(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements()
