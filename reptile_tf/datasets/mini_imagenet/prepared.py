"""Images decoded once, to one memory-mapped uint8 file.

A preparation is written beside its place and renamed into it, so it is whole
or not there; two at once write two and one is kept.
"""

import contextlib
import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from reptile_tf.datasets.mini_imagenet.decoding import write
from reptile_tf.datasets.mini_imagenet.listing import (
    Form,
    Listing,
)
from reptile_tf.datasets.mini_imagenet.pixels import (
    Pixels,
)
from reptile_tf.datasets.pictures import Changes
from reptile_tf.errors import InputError

INDEX, IMAGES = "index.json", "images.npy"
LAYOUT = 4  # Raise it when prepared files change, or their pixels.
ABANDONED_SECONDS = 24 * 3600
KEY = "[0-9a-f]" * 20  # What a preparation's folder is called, as a pattern.
# split -> class -> number of images
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Prepared:
    """Prepared data.

    Attributes:
      images: uint8 [n, size, size, channels] of all splits, memory-mapped.
      classes: numbers of images; images are in this order.
      form: of the data it was made from.
      checksum: of all pixels.
      changes: what decoding did to the images.
    """

    images: np.ndarray
    classes: Counts
    form: str
    checksum: str
    changes: Changes


def open_or_prepare(form: Form, source: Path, pixels: Pixels, cache: Path,
                    check: Callable[[Counts], None], log) -> Prepared:
    """The data as an array, from the cache if it is there.

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
            _remove_damaged(home)
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
    _prepare(form, listing, counts, pixels, home, log)
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
    """What stands beside the images: the other fields of `Prepared`."""
    (home / INDEX).write_text(json.dumps({
        "form": form, "checksum": checksum, "classes": classes,
        "changes": asdict(changes)}))


def _open(home: Path) -> Prepared:
    index = json.loads((home / INDEX).read_text())
    return Prepared(
        np.load(home / IMAGES, mmap_mode="r"), index["classes"],
        index["form"], index["checksum"], Changes(**index["changes"]))


def _prepare(form: Form, listing: Listing, counts: Counts, pixels: Pixels,
             home: Path, log) -> None:
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        # By mkdir, whose permissions let others read it if files may be read.
        beside = home.parent / f".{home.name}-{uuid.uuid4().hex}"
        beside.mkdir()
    except OSError as e:
        raise InputError(f"the cache folder {home.parent} cannot be written "
                         f"({e}): name another with --cache_dir") from e
    try:
        checksum, changes = write(listing, pixels, beside / IMAGES, log)
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


def _remove_damaged(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    if home.exists():
        raise InputError(
            f"the prepared images in {home} are damaged and cannot be removed: "
            "remove them, or name another folder with --cache_dir")


def _remove_abandoned(cache: Path) -> None:
    """What preparations that were killed long ago have left."""
    for left in cache.glob(f".{KEY}-*"):
        with contextlib.suppress(OSError):  # Another's, or just finished.
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)
