"""The weights of a network as tensors, in the model's order."""

import tensorflow as tf

Weights = list[tf.Tensor]
