"""A mini_imagenet that tensorflow-datasets prepared with our builder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf

from reptile_tf.datasets import tfds_version
from reptile_tf.datasets.mini_imagenet.listing import (
    Form,
    Image,
    Listing,
    piece,
    stats,
)
from reptile_tf.errors import InputError

STORED_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def recognize(folder: Path) -> Form | None:
    """The form, if the folder holds it."""
    home = tfds_version(folder, "mini_imagenet")
    if home is None:
        return None
    return Form("tensorflow-datasets",
                stats(p for p in home.iterdir() if p.is_file()),
                lambda: _of_tfds(home))


def _of_tfds(home: Path) -> Listing:
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder_from_directory(str(home)).info
        found = {}
        for split, stored in STORED_SPLITS.items():
            classes: dict[str, list[Image]] = {}
            for path in info.splits[stored].filepaths:
                for label, image in _records(Path(path)):
                    classes.setdefault(label, []).append(image)
            count = sum(map(len, classes.values()))
            if count != info.splits[stored].num_examples:
                raise ValueError(f"{stored} has {count} images of "
                                 f"{info.splits[stored].num_examples}")
            found[split] = {
                label: sorted(classes[label], key=lambda i: i.place)
                for label in sorted(classes)}
        return found
    except Exception as e:
        raise InputError(
            f"{home} is not a whole prepared mini_imagenet of "
            f"tensorflow-datasets ({type(e).__name__}: "
            f"{str(e).splitlines()[0]}): build it again with `tfds build`"
        ) from e


def _records(path: Path) -> Iterator[tuple[str, Image]]:
    """(class, image) of a TFRecord file; the images stay in it.

    A record is its length, 8 bytes; their checksum, 4; the example; and its
    checksum, 4.
    """
    end, offset = path.stat().st_size, 0
    with open(path, "rb") as file:
        while offset < end:
            size = int.from_bytes(file.read(8), "little")
            file.seek(4, os.SEEK_CUR)
            if offset + size + 16 > end:
                raise ValueError(f"{path.name} is cut")
            features = _features(file.read(size))
            file.seek(4, os.SEEK_CUR)
            yield features["label"].decode(), Image(
                f"{path.parent}: {features['file_name'].decode()}",
                _image_of(piece(path, offset + 12, size)))
            offset += size + 16


def _features(record: bytes) -> dict[str, bytes]:
    features = tf.train.Example.FromString(record).features.feature
    return {name: features[name].bytes_list.value[0] for name in features}


def _image_of(read: Callable[[], bytes]) -> Callable[[], bytes]:
    return lambda: _features(read())["image"]
