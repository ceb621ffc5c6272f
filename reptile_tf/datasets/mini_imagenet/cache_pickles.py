"""The cache pickles mini-imagenet-cache-{train,val,test}.pkl."""

import pickle
from pathlib import Path

import numpy as np

from reptile_tf.datasets.mini_imagenet.listing import (
    SPLITS,
    Form,
    Image,
    Listing,
    missing_part,
    stats,
)
from reptile_tf.errors import InputError


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and plain containers, and runs nothing else."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy", "ndarray"), ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str):
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not a NumPy array")
        return super().find_class(
            module.replace("numpy.core", "numpy._core"), name)


def _latin1(text: str, encoding: str) -> bytes:
    """What Python 3 writes an array's bytes through in protocols 0 to 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


def read_pickle(path: Path) -> dict:
    """A cache pickle of Python 2 or 3.

    Raises:
      InputError: not a whole pickle, or one that holds more than arrays.
    """
    try:
        with open(path, "rb") as file:
            return _ArrayUnpickler(file, encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError,
            AttributeError, ImportError, IndexError, KeyError,
            UnicodeDecodeError, OverflowError) as e:
        with open(path, "rb") as file:
            head = file.read(64).lstrip()
        hint = (" (it is a web page, not the file: the download failed)"
                if head.startswith(b"<") else "")
        raise InputError(f"{path} cannot be read: {e}{hint}: fetch it again "
                         "from where you have it") from e


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def recognize(folder: Path) -> Form | None:
    """The form, if the folder holds it."""
    names = tuple(f"mini-imagenet-cache-{s}.pkl" for s in SPLITS)
    if not any((folder / n).exists() for n in names):
        return None
    missing_part(folder, names, "some cache pickles")

    def listing() -> Listing:
        return {split: _of_pickle(folder / name)
                for split, name in zip(SPLITS, names, strict=True)}

    return Form("cache pickles", stats(folder / n for n in names), listing)


def _of_pickle(path: Path) -> dict[str, list[Image]]:
    content = read_pickle(path)
    try:
        content = {_text(k): v for k, v in content.items()}
        images = np.asarray(content["image_data"])
        classes = {_text(k): [int(i) for i in v]
                   for k, v in content["class_dict"].items()}
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"image_data is {images.dtype} "
                             f"{list(images.shape)}")
        if any(not 0 <= i < len(images) for v in classes.values() for i in v):
            raise ValueError("class_dict names images that are not there")
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(
            f"{path} is not a Mini-ImageNet cache ({type(e).__name__}: {e}): "
            "it must hold image_data, uint8 [n, H, W, 3], and class_dict"
        ) from e

    def image(i: int) -> Image:
        return Image(f"{path}: image {i}", lambda: images[i])

    return {label: [image(i) for i in classes[label]]
            for label in sorted(classes)}
