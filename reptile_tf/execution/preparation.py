"""The machine, set up as programs here use it."""

from reptile_tf.execution.devices import prepare_gpus
from reptile_tf.execution.threads import use_threads


def prepare_devices(meta_batch: int = 5, num_threads: int = 0,
                    tf32: bool = False, deterministic: bool = True) -> None:
    """Divide the CPU threads and set GPUs up; what a run does by itself.

    Before TensorFlow's first operation: a program that has used TensorFlow
    before keeps its threads, and all of the GPU's memory if it took that.

    Args:
      meta_batch: tasks side by side. Where they occupy all threads, each
        operation runs on one, which is faster for convolutions. 0 for
        networks without them: XLA runs one operation at a time, on all
        threads.
      num_threads: CPU threads; 0 means all.
      tf32: products in TF32, with 10 bits; else float32, as published.
      deterministic: XLA's kernels for GPUs repeat bit for bit. What is in
        the environment variable XLA_FLAGS about them wins.
    """
    use_threads(meta_batch, num_threads)
    prepare_gpus(tf32, deterministic)
