"""A mini_imagenet that tensorflow-datasets prepared with our builder."""

from collections.abc import Callable
from pathlib import Path

from reptile_tf.datasets import tfds_version
from reptile_tf.datasets.mini_imagenet.listing import (
    Form,
    Image,
    Listing,
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
        builder = tfds.builder_from_directory(str(home))
        found = {}
        for split, stored in STORED_SPLITS.items():
            classes: dict[str, list[Image]] = {}
            for row in tfds.as_numpy(builder.as_dataset(
                    split=stored, decoders={
                        "image": tfds.decode.SkipDecoding()})):
                name = row["file_name"].decode()
                classes.setdefault(row["label"].decode(), []).append(
                    Image(f"{home}: {name}", _bytes(row["image"])))
            found[split] = {
                label: sorted(classes[label], key=lambda i: i.place)
                for label in sorted(classes)}
        return found
    except InputError:
        raise
    except Exception as e:
        raise InputError(
            f"{home} is not a whole prepared mini_imagenet of "
            f"tensorflow-datasets ({type(e).__name__}: "
            f"{str(e).splitlines()[0]}): build it again with `tfds build`"
        ) from e


def _bytes(content: bytes) -> Callable[[], bytes]:
    return lambda: content
