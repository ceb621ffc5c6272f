"""Memory that this process holds itself: anonymous pages, not mapped files.

Linux: RssAnon of /proc/self/status. Pages of TensorFlow's libraries and of
memory-mapped images are files', and the system takes them back at will.
"""

import ctypes
import re
import threading
import time
from pathlib import Path

import tensorflow as tf

SAMPLE_SECONDS = 0.001


def anonymous() -> int:
    """Bytes of anonymous memory now."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s*(\d+)", status)[1])


def trimmed() -> int:
    """The same after freed memory went back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    return anonymous()


def _pooled(reset: bool = False) -> int:
    """Peak bytes of the tensors in TensorFlow's own pool.

    With oneDNN those of 256 KB or more, whose pages the process never gives
    back; else there is no pool.

    Args:
      reset: begin a new peak, with the tensors that are there now.
    """
    try:
        if reset:
            tf.config.experimental.reset_memory_stats("CPU:0")
        return tf.config.experimental.get_memory_info("CPU:0")["peak"]
    except ValueError:
        return 0


class Peak:
    """The highest level inside `with`, sampled by a thread.

    Attributes:
      bytes: the peak so far, the whole pool included.
      pooled: at the end, what tensors in TensorFlow's pool took at most above
        those that were there before.
    """

    def __init__(self) -> None:
        self.bytes, self.pooled, self._stop = 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.bytes = max(self.bytes, anonymous())
            time.sleep(SAMPLE_SECONDS)

    def __enter__(self) -> "Peak":
        self._pool = _pooled(reset=True)
        self._thread.start()
        return self

    def __exit__(self, *raised) -> None:
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.bytes, anonymous())
        self.pooled = _pooled() - self._pool
