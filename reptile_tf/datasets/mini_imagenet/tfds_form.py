"""A mini_imagenet that tensorflow-datasets prepared with our builder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow.python.lib.io import tf_record

from reptile_tf.datasets.mini_imagenet.listing import (
    Form,
    Image,
    Listing,
    stats,
)
from reptile_tf.datasets.prepared_tfds import (
    tensorflow_datasets,
    tfds_version,
)
from reptile_tf.errors import InputError, first_line

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
    tfds = tensorflow_datasets(
        "a prepared mini_imagenet of tensorflow-datasets")

    try:
        info = tfds.builder_from_directory(str(home)).info
        found = {}
        for split, stored in STORED_SPLITS.items():
            classes: dict[str, list[Image]] = {}
            for path in info.splits[stored].filepaths:
                for label, image in _records(os.fspath(path)):
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
            f"{first_line(e)}): build it again with `tfds build`"
        ) from e


def _records(path: str) -> Iterator[tuple[str, Image]]:
    """(class, image) of a TFRecord file; the images stay in it."""
    reader = tf_record.tf_record_random_reader(path)
    offset, end = 0, os.path.getsize(path)
    while offset < end:
        features, following = _features(reader, offset)
        yield features["label"].decode(), Image(
            f"{path}: {features['file_name'].decode()}",
            _image_at(path, offset))
        offset = following


def _features(reader, offset: int) -> tuple[dict[str, bytes], int]:
    """The example at an offset, and the offset after it."""
    record, following = reader.read(offset)
    features = tf.train.Example.FromString(record).features.feature
    return {name: features[name].bytes_list.value[0]
            for name in features}, following


def _image_at(path: str, offset: int) -> Callable[[], bytes]:
    # A reader of its own: images are read by several threads.
    return lambda: _features(
        tf_record.tf_record_random_reader(path), offset)[0]["image"]
