"""What a form of the data lists: for each split and class, its images.

Nothing is decoded here. What is listed is sorted, so the same data gives the
same order on every machine.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reptile_tf.datasets import files
from reptile_tf.errors import InputError

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class Image:
    """One image that has not been read yet.

    Attributes:
      place: for error messages.
      read: returns its bytes (JPEG, PNG) or pixels uint8 [H, W, C].
    """

    place: str
    read: Callable[[], bytes | np.ndarray]


# split -> class -> images
Listing = dict[str, dict[str, list[Image]]]


@dataclass(frozen=True)
class Form:
    """Data that was recognised.

    Attributes:
      name: of the form, for people.
      fingerprint: changes when the files do; cheap.
      listing: reads what is needed to list the images.
      warnings: for the reader, such as of files that are not read.
    """

    name: str
    fingerprint: str
    listing: Callable[[], Listing]
    warnings: tuple[str, ...] = ()


def stats(paths: Iterable[os.DirEntry | Path], names: Iterable[str] = ()
          ) -> str:
    """A digest of paths, sizes and times; and of what they are in the data,
    where their folders, which may be links, say that."""
    real = functools.lru_cache(os.path.realpath)

    def line(path: os.DirEntry | Path) -> str:
        # How a folder is named, or linked to, makes no other data.
        folder, name = os.path.split(path)
        name = os.path.join(real(folder), name)
        try:
            found = path.stat()
        except OSError:  # A link to nothing: its decoding will say so.
            return f"{name}\0"
        return f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n"

    return hashlib.sha256("".join(
        [*sorted(map(line, paths)), *sorted(names)]).encode(
        errors="surrogateescape")).hexdigest()


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def file_image(path: str | os.PathLike) -> Image:
    """An image that is a file of its own."""
    return Image(os.fspath(path), lambda: files.read(path))


def missing_part(folder: Path, names: tuple[str, ...], what: str) -> None:
    """Raise if some of the names are there and some are not."""
    missing = [n for n in names if not (folder / n).exists()]
    if missing:
        files.refuse_dead_links(*(folder / n for n in missing))
        raise InputError(
            f"--data_dir={folder} holds {what} but not "
            f"{' and '.join(missing)}: copy all of {', '.join(names)}"
            + ("; of your own images set some classes apart for each"
               if names == SPLITS else ""))
