"""What a result depends on besides its flags: machine, versions, commit."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import reptile_tf


def environment() -> dict[str, Any]:
    """What bit-for-bit repetition depends on."""
    gpus = tf.config.list_physical_devices("GPU")
    device = (tf.config.experimental.get_device_details(gpus[0]).get(
        "device_name", "GPU") if gpus else f"CPU {_cpu_name()}")
    return {
        "versions": {"python": platform.python_version(),
                     "tensorflow": tf.__version__, "keras": keras.__version__,
                     "numpy": np.__version__,
                     "reptile_tf": reptile_tf.__version__},
        "device": device,
        "num_threads": (tf.config.threading.get_inter_op_parallelism_threads()
                        or _cpus())}


def use_threads(config, dataset, processes: int = 1) -> None:
    """Divide the CPU threads; before TensorFlow's first operation.

    Where the tasks of a meta-batch occupy all threads, each operation runs on
    one: its images stay in the cache of one core, and small batches are not
    split. XLA runs one operation at a time, on all threads.

    Args:
      config: the run's; of it num_threads (0 means all), jit_compile and
        meta.slots.
      dataset: a module of `datasets`, with LARGE.
      processes: that share the tasks, on a machine each.
    """
    threads = config.num_threads or _cpus()
    alone = (dataset.LARGE and config.jit_compile != "on"
             and config.meta.slots // processes >= threads)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(
            1 if alone else threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        pass  # A program that has used TensorFlow before keeps its threads.


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of this code, "-dirty" if changed; else its version."""
    home = Path(__file__).resolve().parent
    try:
        def git(*words):
            return subprocess.run(
                ["git", "-C", str(home), *words], check=True, text=True,
                capture_output=True).stdout.strip()
        if not git("ls-files", "experiment.py"):
            return reptile_tf.__version__
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return reptile_tf.__version__
