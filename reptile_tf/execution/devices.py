"""The GPUs, set up as all programs here use them."""

import tensorflow as tf


def prepare_gpus(tf32: bool = False) -> None:
    """Before TensorFlow's first operation.

    Memory is taken as it is needed, so that others can use the GPU too.

    Args:
      tf32: products in TF32, with 10 bits; else float32, as published.
    """
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
