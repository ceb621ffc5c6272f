"""Memory that this process holds itself: anonymous pages, not mapped files.

Linux: RssAnon of /proc/self/status. Pages of TensorFlow's libraries and of
memory-mapped images are files', and the system takes them back at will.
"""

import ctypes
import re
import threading
import time
from pathlib import Path

SAMPLE_SECONDS = 0.001


def anonymous() -> int:
    """Bytes of anonymous memory now."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s*(\d+)", status)[1])


def trimmed() -> int:
    """The same after freed memory went back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    return anonymous()


class Peak:
    """The highest level inside `with`, sampled by a thread.

    Attributes:
      bytes: the peak so far.
    """

    def __init__(self) -> None:
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.bytes = max(self.bytes, anonymous())
            time.sleep(SAMPLE_SECONDS)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *raised) -> None:
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.bytes, anonymous())
