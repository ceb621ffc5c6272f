"""The CPU threads, divided between the tasks and inside operations."""

import os

import tensorflow as tf


def use_threads(config, dataset, processes: int = 1) -> None:
    """Divide the CPU threads; before TensorFlow's first operation.

    Where the tasks of a meta-batch occupy all threads, each operation runs on
    one: its images stay in the cache of one core, and small batches are not
    split. XLA runs one operation at a time, on all threads.

    Args:
      config: the run's; of it num_threads (0 means all), jit_compile and
        meta.slots.
      dataset: a module of `datasets`, with FILLS_A_THREAD.
      processes: that share the tasks, on a machine each.
    """
    threads = config.num_threads or cpus()
    thread_per_task = (dataset.FILLS_A_THREAD and config.jit_compile != "on"
                       and config.meta.slots // processes >= threads)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(
            1 if thread_per_task else threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        pass  # A program that has used TensorFlow before keeps its threads.


def cpus() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
