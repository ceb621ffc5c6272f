"""Images decoded once, to one memory-mapped uint8 file per split.

A preparation is written beside its place and renamed into it, so it is whole
or not there; two at once write two and one is kept.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from reptile_tf.datasets import files
from reptile_tf.datasets.mini_imagenet.listing import (
    SPLITS,
    Form,
    Image,
    Listing,
)
from reptile_tf.datasets.mini_imagenet.pixels import (
    FILTERS,
    Pixels,
    WrongSize,
)
from reptile_tf.datasets.pictures import Changes
from reptile_tf.errors import InputError
from reptile_tf.execution import limits

INDEX = "index.json"
LAYOUT = 2  # Raise it when prepared files change, or their pixels.
ABANDONED_SECONDS = 24 * 3600
KEY = "[0-9a-f]" * 20  # What a preparation's folder is called, as a pattern.
MOST_SIZES = 10  # Images of other sizes that an error names.
# split -> class -> number of images
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Prepared:
    """Prepared data.

    Attributes:
      images: split -> uint8 [n, size, size, channels], memory-mapped.
      classes: numbers of images; images are in this order.
      form: of the data it was made from.
      checksum: of all pixels.
      changes: what decoding did to the images.
    """

    images: dict[str, np.ndarray]
    classes: Counts
    form: str
    checksum: str
    changes: Changes


def open_or_prepare(form: Form, source: Path, pixels: Pixels, cache: Path,
                    check: Callable[[Counts], None], log) -> Prepared:
    """The data as arrays, from the cache if it is there.

    Args:
      form: of the data.
      source: its folder.
      pixels: what to make.
      cache: the folder of all preparations.
      check: raises InputError if the numbers of images do not do; called
        before anything is decoded.
      log: for the reader.

    Raises:
      InputError: images that cannot be read, all of them; no space; a folder
        that cannot be written.
    """
    home = home_of(form, source, pixels, cache)
    _remove_abandoned(cache)
    if home.exists():
        try:
            found = _open(home)
        except (FileNotFoundError, EOFError, ValueError, KeyError, TypeError):
            log.warning("warning: %s is damaged, and is prepared again", home)
            shutil.rmtree(home, ignore_errors=True)
        except OSError as e:  # It may be whole: others may be reading it.
            raise InputError(
                f"the prepared images in {home} cannot be opened ({e}): see to "
                "that, or name another folder with --cache_dir") from e
        else:
            check(found.classes)
            return found
    log.info("preparing %s of %s in %s, once", form.name, source, home)
    listing = form.listing()
    counts = {split: {label: len(images) for label, images in classes.items()}
              for split, classes in listing.items()}
    check(counts)
    _prepare(form, listing, counts, pixels, home)
    return _open(home)


def home_of(form: Form, source: Path, pixels: Pixels, cache: Path) -> Path:
    """The folder of one preparation; arguments as of `open_or_prepare`."""
    key = hashlib.sha256(json.dumps([
        LAYOUT, str(source.resolve()), form.name, form.fingerprint,
        pixels.size, pixels.channels, pixels.resize_filter,
    ]).encode()).hexdigest()[:20]
    return cache / key


def write_index(home: Path, form: str, checksum: str, classes: Counts,
                changes: Changes) -> None:
    """What stands beside the arrays: the other fields of `Prepared`."""
    (home / INDEX).write_text(json.dumps({
        "form": form, "checksum": checksum, "classes": classes,
        "changes": asdict(changes)}))


def _open(home: Path) -> Prepared:
    index = json.loads((home / INDEX).read_text())
    return Prepared(
        {s: np.load(home / f"{s}.npy", mmap_mode="r") for s in SPLITS},
        index["classes"], index["form"], index["checksum"],
        Changes(**index["changes"]))


def _prepare(form: Form, listing: Listing, counts: Counts, pixels: Pixels,
             home: Path) -> None:
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        # By mkdir, whose permissions let others read it if files may be read.
        beside = home.parent / f".{home.name}-{uuid.uuid4().hex}"
        beside.mkdir()
    except OSError as e:
        raise InputError(f"the cache folder {home.parent} cannot be written "
                         f"({e}): name another with --cache_dir") from e
    try:
        checksum, changes = _write(listing, pixels, beside)
        write_index(beside, form.name, checksum, counts, changes)
        try:
            beside.rename(home)
        except OSError:
            if not (home / INDEX).exists():  # Else another run was first.
                raise
    except OSError as e:
        raise InputError(
            f"{home.parent} could not take the prepared images ({e}): free "
            "space there, or name another folder with --cache_dir") from e
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _remove_abandoned(cache: Path) -> None:
    """What preparations that were killed long ago have left."""
    for left in cache.glob(f".{KEY}-*"):
        with contextlib.suppress(OSError):  # Another's, or just finished.
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)


def _write(listing: Listing, pixels: Pixels, folder: Path
           ) -> tuple[str, Changes]:
    """Write each split's file; returns the checksum and changes of all."""
    checksum, changes = 0, Changes()
    flat = {split: [image for images in classes.values() for image in images]
            for split, classes in listing.items()}
    bad: list[tuple[Image, Exception]] = []
    with ThreadPoolExecutor(limits.cpus()) as pool, tqdm(
            total=sum(map(len, flat.values())), unit="image", leave=False,
            desc="preparing", file=sys.stdout,
            disable=not sys.stdout.isatty(),
            ncols=shutil.get_terminal_size().columns) as bar:
        for split, images in flat.items():
            array = _allocate(folder / f"{split}.npy",
                              (len(images), *pixels.shape))
            decoded = _decoded(pool, images, pixels, array)
            try:
                for i, outcome in enumerate(decoded):
                    bar.update()
                    if isinstance(outcome, Changes):
                        changes += outcome
                    else:
                        bad.append((images[i], outcome))
            except BaseException:  # A signal: what is queued is dropped.
                pool.shutdown(wait=True, cancel_futures=True)
                raise
            array.flush()
            checksum = zlib.crc32(array, checksum)
    if bad:
        raise InputError(_complaint(bad))
    return f"{checksum:08x}", changes


def _decoded(pool: ThreadPoolExecutor, images: list[Image], pixels: Pixels,
             array: np.ndarray) -> Iterator[Changes | Exception]:
    """Decode into the array; yields each image's changes, or its fault."""
    def one(i: int) -> Changes | Exception:
        try:
            array[i], changes = pixels.of(images[i])
        except Exception as e:  # Pillow raises whatever its decoders do.
            return e
        return changes

    return pool.map(one, range(len(images)))


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
