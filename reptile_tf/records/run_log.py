"""The log of a run: standard output, and run.log."""

import logging
import sys
from pathlib import Path


def logger() -> logging.Logger:
    """The run's log: plain lines on standard output, and run.log later."""
    log = logging.getLogger("reptile_tf")
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    return log


def log_to(log: logging.Logger, directory: Path) -> None:
    """Also write the log to <directory>/run.log, with times."""
    handler = logging.FileHandler(directory / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)


def log_error(message: str) -> None:
    """An error on standard error, and in run.log once there is one."""
    print(message, file=sys.stderr)
    for handler in logging.getLogger("reptile_tf").handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logging.LogRecord(
                "reptile_tf", logging.ERROR, "", 0, message, None, None))
