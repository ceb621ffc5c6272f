"""Memory needed against memory available, before anything long starts."""

import math
import os

import numpy as np
import psutil
import pynvml
import tensorflow as tf

from reptile_tf.errors import InputError


def available() -> float:
    """Free bytes where tensors live: on the first GPU, or on the host.

    Infinity where the GPU's driver does not say.
    """
    if not tf.config.list_physical_devices("GPU"):
        return psutil.virtual_memory().available
    # What TensorFlow has taken and does not use now is free for it, too.
    own = tf.config.experimental.get_memory_info("GPU:0")
    try:
        return _free_on_gpu() + own["peak"] - own["current"]
    except pynvml.NVMLError:
        return math.inf


def _free_on_gpu() -> int:
    """Bytes that no process has taken of the first GPU that is visible."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    pynvml.nvmlInit()
    try:
        device = (pynvml.nvmlDeviceGetHandleByIndex(int(first))
                  if first.isdecimal()
                  else pynvml.nvmlDeviceGetHandleByUUID(first))
        return pynvml.nvmlDeviceGetMemoryInfo(device).free
    finally:
        pynvml.nvmlShutdown()


def require(needed: int, purpose: str, remedy: str) -> None:
    """Raise InputError unless `needed` bytes are there.

    Args:
      needed: bytes.
      purpose: that needs them.
      remedy: what to do where there are fewer.
    """
    there = available()
    if needed > there:
        raise InputError(
            f"{purpose} needs about {gigabytes(needed)} of memory, "
            f"{gigabytes(there)} are available: {remedy}")


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB"


def activations(model) -> int:
    """Bytes of all layers' outputs for one example, in float32."""
    return 4 * sum(int(np.prod(layer.output.shape[1:]))
                   for layer in model.layers)
