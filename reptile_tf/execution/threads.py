"""The CPU threads, divided between the tasks and inside operations."""

import tensorflow as tf

from reptile_tf.execution.limits import cpus


def use_threads(tasks: int, number: int = 0) -> None:
    """Divide the CPU threads; before TensorFlow's first operation.

    Where the tasks of a meta-batch occupy all threads, each operation runs on
    one: its images stay in the cache of one core, and small batches are not
    split. XLA runs one operation at a time, on all threads.

    Args:
      tasks: side by side, without XLA, each of which keeps a thread busy.
      number: of threads; 0 means all.
    """
    threads = number or cpus()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(
            1 if tasks >= threads else threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        pass  # A program that has used TensorFlow before keeps its threads.
