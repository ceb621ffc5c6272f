"""What lies in a folder of images: nothing of it is passed over unsaid."""

import os
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from reptile_tf.errors import InputError

_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"),
          (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"))
MOST_NAMED = 10


class Unreadable(OSError):
    """No file that can be read; the text says why, after its path."""


def read(path: str | Path) -> bytes:
    """The bytes of a file.

    Raises:
      Unreadable: it is missing, cannot be read, or is something else than a
        file, such as a named pipe, which would keep the reader waiting.
    """
    fault = fault_of(path)
    if fault:
        raise Unreadable(fault)
    try:
        return Path(path).read_bytes()
    except OSError as e:
        raise Unreadable(f"cannot be read ({e.strerror})") from e


def fault_of(path: str | Path) -> str:
    """Why there is no file to read at `path`: "is a link to nothing"; or ""."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return ("is a link to nothing" if os.path.lexists(path)
                else "is missing")
    except OSError as e:
        return f"cannot be read ({e.strerror})"
    if stat.S_ISREG(mode):
        return ""
    return "is " + next(name for is_kind, name in _KINDS if is_kind(mode))


def entries(folder: str | Path, faults: list[str]
            ) -> tuple[list[os.DirEntry], list[os.DirEntry]]:
    """The folders and the files in a folder, links followed, by name.

    Hidden ones are left out. What is neither, or cannot be read, is added to
    `faults`.
    """
    try:
        found = sorted(os.scandir(folder), key=lambda e: composed(e.name))
    except OSError as e:
        faults.append(f"{os.fspath(folder)} cannot be read ({e.strerror})")
        return [], []
    folders, files = [], []
    for entry in found:
        if entry.name.startswith("."):
            continue
        try:
            kind = (folders if entry.is_dir() else
                    files if entry.is_file() else None)
        except OSError:
            kind = None
        if kind is None:
            faults.append(f"{entry.path} {fault_of(entry.path)}")
        else:
            kind.append(entry)
    return folders, files


def composed(name: str) -> str:
    """A name in the one form of its accents: systems store é as é or as e´,
    and the order of classes, by which tasks are drawn, is of the name."""
    return unicodedata.normalize("NFC", name)


def refuse(faults: list[str]) -> None:
    """Raise InputError that names them, if there are any."""
    if faults:
        raise InputError("\n  ".join([
            f"{number(len(faults), 'entry', 'entries')} of the data's folders "
            "cannot be used; replace or remove:", *faults[:MOST_NAMED],
            *([f"and {len(faults) - MOST_NAMED:,} more"]
              if len(faults) > MOST_NAMED else [])]))


def refuse_dead_links(*paths: Path) -> None:
    """Raise InputError if some of the paths are links to nothing."""
    refuse([f"{path} {fault_of(path)}" for path in paths
            if path.is_symlink() and not path.exists()])


def number(count: int, one: str, more: str) -> str:
    """1 image, 2,000 images."""
    return f"{count:,} {one if count == 1 else more}"


def some(names: Iterable[str]) -> str:
    """a, b, c and 4 more."""
    names = list(names)
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
