"""The GPUs, set up as all programs here use them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pynvml
import tensorflow as tf

# XLA reads this variable when it compiles for the first time.
XLA_FLAGS = "XLA_FLAGS"
# No kernel whose sums depend on the order of its threads, and none chosen by
# timing. The second asks for the former alone; the first implies it.
DETERMINISTIC = ("xla_gpu_deterministic_ops",
                 "xla_gpu_exclude_nondeterministic_ops")


def prepare_gpus(tf32: bool = False, deterministic: bool = True) -> None:
    """Before TensorFlow's first operation, and XLA's first compilation.

    Memory is taken as it is needed, so that others can use the GPU too.

    Args:
      tf32: products in TF32, with 10 bits; else float32, as published.
      deterministic: XLA's kernels for GPUs repeat bit for bit. What is in
        the environment variable XLA_FLAGS about them wins.
    """
    take_memory_as_needed()
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    if gpus():
        os.environ[XLA_FLAGS] = with_determinism(
            os.environ.get(XLA_FLAGS, ""), deterministic)


def gpus() -> list[tf.config.PhysicalDevice]:
    """Those that TensorFlow may use."""
    return tf.config.get_visible_devices("GPU")


def hide_gpus() -> None:
    """Everything on the CPU, if TensorFlow has not begun."""
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        pass  # A program that has used TensorFlow before keeps its way.


def take_memory_as_needed() -> None:
    """Not all of every GPU's memory at once, if TensorFlow has not begun."""
    for gpu in gpus():
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            pass  # A program that has used TensorFlow before keeps its way.


def with_determinism(xla_flags: str, deterministic: bool) -> str:
    """XLA_FLAGS with the choice added, unless one of them is there already."""
    if asked_of_xla(xla_flags) is not None:
        return xla_flags
    return f"{xla_flags} --{DETERMINISTIC[0]}={str(deterministic).lower()}"


def asked_of_xla(xla_flags: str) -> bool | None:
    """Whether XLA_FLAGS ask for kernels that repeat; None: they do not say.

    Of one that is there twice the last counts, as for XLA.
    """
    asked = {name: value.lower() not in ("=false", "=0")
             for name, value in re.findall(
                 rf"(?<!\S)--({'|'.join(DETERMINISTIC)})(=\S*)?(?!\S)",
                 xla_flags)}
    return any(asked.values()) if asked else None


def deterministic(jit: bool = True) -> bool:
    """Whether computing repeats bit for bit: on the CPU always.

    Args:
      jit: whether XLA compiles it; of other kernels for GPUs nothing is
        known.
    """
    return not gpus() or jit and bool(
        asked_of_xla(os.environ.get(XLA_FLAGS, "")))


def unused_gpu() -> str | None:
    """A warning, where TensorFlow does not use the GPU that is there."""
    return warning_of_unused(
        nvidia_gpu(), tf.config.list_physical_devices("GPU"),
        os.environ.get("CUDA_VISIBLE_DEVICES"))


def warning_of_unused(nvidia: bool, listed: Sequence, visible: str | None
                      ) -> str | None:
    """`unused_gpu`, from the facts.

    Args:
      nvidia: whether an NVIDIA GPU is there.
      listed: the GPUs that TensorFlow lists.
      visible: CUDA_VISIBLE_DEVICES; empty or -1 hides all from TensorFlow.
    """
    if not nvidia or listed or visible in ("", "-1"):
        return None
    return ("warning: an NVIDIA GPU is there, but TensorFlow does not use it: "
            "install reptile_tf[gpu], that is tensorflow[and-cuda], or set "
            "CUDA_VISIBLE_DEVICES=-1 to run on the CPU without this warning")


def nvidia_gpu() -> bool:
    """Whether the NVIDIA driver is there, and a GPU as far as it says."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Path("/proc/driver/nvidia").exists()
    try:
        return pynvml.nvmlDeviceGetCount() > 0
    except pynvml.NVMLError:
        return False
    finally:
        pynvml.nvmlShutdown()
