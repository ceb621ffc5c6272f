"""Images of a listing decoded into one file, all faults at once."""

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from reptile_tf.datasets import files
from reptile_tf.datasets.mini_imagenet.listing import Image, Listing
from reptile_tf.datasets.mini_imagenet.pixels import (
    FILTERS,
    Pixels,
    WrongSize,
)
from reptile_tf.datasets.pictures import Changes
from reptile_tf.errors import InputError
from reptile_tf.execution import limits
from reptile_tf.reporting.progress import Progress

# Scans often hold 10 or 12 bits in 16: little would be left of them.
LEAST_BRIGHT = 2**15
PART = 4096  # Images that are waited for together.
MOST_SIZES = 10  # Images of other sizes that an error names.


class _Preparing(Progress):
    label = "preparing"


def write(listing: Listing, pixels: Pixels, path: Path, log
          ) -> tuple[str, Changes]:
    """Write the images, one split after the other, as an array.

    Returns:
      the checksum of all pixels, and what decoding did.

    Raises:
      InputError: images that cannot be used, all of them; or dark ones.
    """
    images = [image for classes in listing.values()
              for of_class in classes.values() for image in of_class]
    array = _allocate(path, (len(images), *pixels.shape))
    changes = Changes()
    bad: list[tuple[Image, Exception]] = []
    with ThreadPoolExecutor(limits.cpus()) as pool, _Preparing().bar(
            log, len(images), 0, "image") as bar:
        try:
            for i, outcome in enumerate(_decoded(pool, images, pixels,
                                                 array)):
                bar.update()
                if isinstance(outcome, Changes):
                    changes += outcome
                else:
                    bad.append((images[i], outcome))
        except BaseException:  # A signal: what is queued is dropped.
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    array.flush()
    if bad:
        raise InputError(_complaint(bad))
    if changes.deep and changes.brightest < LEAST_BRIGHT:
        raise InputError(
            f"the brightest pixel of "
            f"{files.number(changes.deep, 'image', 'images')} of 16 bits is "
            f"{changes.brightest:,} of 65,535, and the upper 8 bits are read: "
            "stretch the pixels to all 16 bits, or store them in 8")
    return f"{zlib.crc32(array):08x}", changes


def _decoded(pool: ThreadPoolExecutor, images: list[Image], pixels: Pixels,
             array: np.ndarray) -> Iterator[Changes | Exception]:
    """Decode into the array; yields each image's changes, or its fault."""
    def one(i: int) -> Changes | Exception:
        try:
            array[i], changes = pixels.of(images[i])
        except Exception as e:  # Pillow raises whatever its decoders do.
            return e
        return changes

    # A part at a time: a map of millions holds a future for each.
    for start in range(0, len(images), PART):
        yield from pool.map(one, range(start, min(start + PART, len(images))))


def _allocate(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A writable memory map whose space on disk is reserved.

    Unreserved, a full disk would end the process with SIGBUS.
    """
    np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()
    if hasattr(os, "posix_fallocate") and path.stat().st_size:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return np.load(path, mmap_mode="r+")


def _complaint(bad: list[tuple[Image, Exception]]) -> str:
    sizes = [pair for pair in bad if isinstance(pair[1], WrongSize)]
    others = [pair for pair in bad if not isinstance(pair[1], WrongSize)]
    remedies = []
    if sizes:
        remedies.append("images of other sizes need --resize_filter="
                        f"{{{','.join(FILTERS)}}}")
    if others:
        remedies.append("replace or remove the files that cannot be read")
    return "\n  ".join([
        f"{files.number(len(bad), 'image', 'images')} cannot be used; "
        f"{'; '.join(remedies)}:",
        *(f"{image.place} {_what(error)}"
          for image, error in others + sizes[:MOST_SIZES]),
        *([f"and {len(sizes) - MOST_SIZES:,} more of other sizes"]
          if len(sizes) > MOST_SIZES else [])])


def _what(error: Exception) -> str:
    if isinstance(error, (WrongSize, files.Unreadable)):
        return str(error)
    return f"does not decode ({type(error).__name__}: {error})"
