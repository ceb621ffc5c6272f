"""Memory needed against memory available, before anything long starts."""

import numpy as np
import psutil
import tensorflow as tf

from reptile_tf.errors import InputError


def available() -> int:
    """Free bytes where tensors live: on the first GPU, or on the host."""
    if not tf.config.list_physical_devices("GPU"):
        return psutil.virtual_memory().available
    limit = 70 * 2**30
    return limit - tf.config.experimental.get_memory_info("GPU:0")["current"]


def require(needed: int, what: str, remedy: str) -> None:
    """Raise InputError unless `needed` bytes are there.

    Args:
      needed: bytes.
      what: that needs them.
      remedy: what to do where there are fewer.
    """
    there = available()
    if needed > there:
        raise InputError(
            f"{what} needs about {gigabytes(needed)} of memory, "
            f"{gigabytes(there)} are available: {remedy}")


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB"


def activations(model) -> int:
    """Bytes of all layers' outputs for one example, in float32."""
    return 4 * sum(int(np.prod(layer.output.shape[1:]))
                   for layer in model.layers)
