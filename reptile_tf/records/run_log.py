"""The log of a run: standard output, and run.log."""

import contextlib
import logging
import sys
from pathlib import Path

from reptile_tf.reporting.streams import print_any_name


def logger() -> logging.Logger:
    """The run's log: plain lines on standard output, and run.log later."""
    log = logging.getLogger("reptile_tf")
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    print_any_name()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    return log


class _FileHandler(logging.FileHandler):
    """A log that cannot be written is an error, not a traceback beside it."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise  # noqa: PLE0704  (logging calls it where it has caught it)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # Of what it could not write.
            super().close()


def log_to(log: logging.Logger, directory: Path) -> None:
    """Also write the log to <directory>/run.log, with times."""
    handler = _FileHandler(directory / "run.log", encoding="utf-8",
                           errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)


def log_error(message: str) -> None:
    """An error on standard error, and in run.log once there is one."""
    print(message, file=sys.stderr)
    for handler in logging.getLogger("reptile_tf").handlers:
        if isinstance(handler, logging.FileHandler):
            with contextlib.suppress(OSError):  # That is the error, perhaps.
                handler.emit(logging.LogRecord(
                    "reptile_tf", logging.ERROR, "", 0, message, None, None))
