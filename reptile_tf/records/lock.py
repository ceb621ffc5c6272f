"""One process at a time in a run's folder."""

import contextlib
import errno
import json
import os
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import psutil

from reptile_tf.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: only runs need it.
    fcntl = None

BEAT_SECONDS, STALE_SECONDS = 30, 300


class Lock:
    """A file that names who works in a folder, while it does.

    It is locked by the kernel (flock), which ends with the process however
    that ends: a file left by a killed process of this machine does not count,
    in another container neither: a machine is known by its kernel's start.
    Not every shared disk passes such locks on to other hosts, so a file that
    another host left counts as long as it is touched: its process does so
    every BEAT_SECONDS, and after STALE_SECONDS without it is taken over. So
    does, on a disk without locks, the file of a process that runs here.
    Ages are between the disk's own times, not between two hosts' clocks.

    Args:
      path: the file, in the folder; removed at the end.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._file, self._end = None, threading.Event()
        self._claim: dict[str, Any] = {}

    def acquire(self) -> None:
        """Take it, or raise InputError that names who has it."""
        if fcntl is None:
            raise InputError("runs need Linux or macOS, whose locks of files "
                             "they use: on Windows use WSL2")
        file, locked = self._locked_file()
        holder = _read(file)
        here = {"host": socket.gethostname(), "machine": _machine(),
                "pid": os.getpid(),
                "started": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        known = "machine" if "machine" in holder else "host"
        elsewhere = holder.get(known, here[known]) != here[known]
        if (elsewhere or not locked and psutil.pid_exists(
                holder.get("pid", -1))) and self._age(file) < STALE_SECONDS:
            file.close()
            raise self._taken(holder)
        file.seek(0)
        file.truncate()
        json.dump(here, file)
        file.flush()
        os.fsync(file.fileno())  # Other hosts read it.
        self._file, self._claim = file, here
        self._end.clear()
        threading.Thread(target=self._beat, daemon=True).start()

    def release(self) -> None:
        """Give it back; nothing if it is not held."""
        if self._file is None:
            return
        self._end.set()
        with contextlib.suppress(OSError):  # Its end does not undo the run.
            if self._own():
                self.path.unlink()
        self._file.close()
        self._file = None

    def require(self) -> None:
        """Raise InputError if it was held and is no more.

        As after this process was suspended for long.
        """
        try:
            if self._file and not self._own():
                raise self._taken(_content(self.path))
        except OSError as e:  # The disk may be away for a while.
            if e.errno == errno.ENOENT and self.path.parent.exists():
                raise InputError(
                    f"{self.path} is gone: another process has taken "
                    "the folder over and ended, or the file was removed. The "
                    "same command goes on from what is there now") from e

    def _own(self) -> bool:
        return _content(self.path) == self._claim

    def _locked_file(self) -> tuple[TextIO, bool]:
        """The file, opened and locked, and still the one of that name.

        Whether it is locked, too: some disks have no locks.
        """
        while True:
            try:
                file = open(self.path, "a+", opener=_no_link)
            except OSError as e:
                if e.errno == errno.ELOOP:
                    raise InputError(f"{self.path} is a link, and would be "
                                     "written over: remove it") from e
                raise
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with file:
                    raise self._taken(_read(file)) from None
            except OSError:
                return file, False  # Its content decides.
            try:
                if os.path.samestat(os.stat(self.path), os.fstat(
                        file.fileno())):
                    return file, True
            except FileNotFoundError:
                pass
            file.close()  # Its holder has just removed it.

    def _taken(self, holder: dict[str, Any]) -> InputError:
        return InputError(
            f"--run_dir={self.path.parent} is in use by process "
            f"{holder.get('pid', 'unknown')} on "
            f"{holder.get('host', 'this host')}, since "
            f"{holder.get('started', 'just now')}: wait for it or stop it, or "
            "name another folder; if that host is gone, its claim ends "
            f"{STALE_SECONDS // 60} minutes after its last sign of life")

    def _age(self, file) -> float:
        """Seconds since its last sign of life."""
        with tempfile.TemporaryFile(dir=self.path.parent) as new:
            now = os.fstat(new.fileno()).st_mtime
        return now - os.fstat(file.fileno()).st_mtime

    def _beat(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                if not self._own():
                    continue
            # A disk may be away for a while, or the folder removed.
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _no_link(path: str, flags: int) -> int:
    """Opened to be written over, so not another file by a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _machine() -> str:
    """This one until its next start, the same in all of its containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _content(path: Path) -> dict[str, Any]:
    with open(path, opener=_no_link) as file:
        return _read(file)


def _read(file) -> dict[str, Any]:
    """Who has it; nothing of a file that is not whole."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
