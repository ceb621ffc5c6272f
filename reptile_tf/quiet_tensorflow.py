"""Imports TensorFlow without its chatter; the scripts import this first.

TF_CPP_MIN_LOG_LEVEL silences most of it, but some lines are written to the
process's standard error before that is read. What was written is shown after
all if the import fails, or if the caller has set the level.
"""

import os
import signal
import sys
import tempfile
import threading
from typing import IO


def _import_tensorflow() -> None:
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import tensorflow  # noqa: F401
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # Ctrl-C during the seconds of importing ends as it does later, quietly.
    main = threading.current_thread() is threading.main_thread()
    if main:  # Others may not say what a signal does.
        interrupt = signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    sys.stderr.flush()
    saved = os.dup(2)
    with _capture() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            import tensorflow

            # Several runs in one process each trace their own functions.
            tensorflow.get_logger().setLevel("ERROR")
            failed = False
        except BaseException:
            failed = True
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            if main:
                signal.signal(signal.SIGINT, interrupt)
            if failed:
                captured.seek(0)
                os.write(2, captured.read())


def _capture() -> IO[bytes]:
    """To hold what is written meanwhile."""
    try:
        return tempfile.TemporaryFile()
    except OSError:  # No folder that can be written, as in some containers.
        return open(os.devnull, "w+b")


def quietly(kind, error, traceback, otherwise=sys.excepthook) -> None:
    """Ctrl-C before a script's main runs ends it without a traceback."""
    if not issubclass(kind, KeyboardInterrupt):
        otherwise(kind, error, traceback)


sys.excepthook = quietly
_import_tensorflow()
