"""Files and folders that are there as a whole, or as they were before.

A process that is killed while it puts a folder in another's place may leave
none there: both then lie beside it, and the next `replacing` first puts the
old one back.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def beside(path: Path) -> Path:
    """Where what will replace `path` is written; a killed process leaves it."""
    return path.with_name(f".{path.name}.reptile_tf")


def _aside(path: Path) -> Path:
    """Where a folder is kept until the new one is in its place."""
    return path.with_name(f".{path.name}.reptile_tf-before")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """The path to write in a with block, which becomes `path` at its end.

    After an error nothing is left of it: it may have filled the disk.

    Args:
      path: a file, or a folder, which is replaced as a whole by a folder.
    """
    path = path.resolve()  # A link stays, and leads to the new one.
    temporary, before = beside(path), _aside(path)
    try:
        _remove(temporary)
        if before.exists() and not path.exists():  # Killed in between.
            os.rename(before, path)
        _remove(before)
        for left in (temporary, before):
            if os.path.lexists(left):
                raise PermissionError(
                    errno.EACCES, "left of an earlier try, it cannot be "
                    "removed", str(left))
        yield temporary
        if path.is_dir() and temporary.is_dir():
            # Removing it takes long, and may fail half-way.
            os.rename(path, before)
            try:
                os.rename(temporary, path)
            except BaseException:
                os.rename(before, path)
                raise
            os.rename(before, temporary)  # From here on it is not whole.
            _remove(temporary)
        else:
            if temporary.is_file():  # After a power cut, too.
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def content_of(folder: Path) -> list[str]:
    """The names in a folder, without what systems leave where people look."""
    return sorted(p.name for p in folder.iterdir() if not (
        p.name in (".DS_Store", "Thumbs.db", "desktop.ini")
        or p.name.startswith("._")))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
