"""The cache pickles mini-imagenet-cache-{train,val,test}.pkl."""

import pickle
import re
from pathlib import Path
from typing import Any

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

NAMES = tuple(f"mini-imagenet-cache-{s}.pkl" for s in SPLITS)


class _Dtype:
    """Stands for numpy.dtype: plain numbers and texts, no fields or objects.

    NumPy's own can be told by a pickle to take an array's bytes for pointers.
    """

    PLAIN = re.compile(r"[<>|=]?[biufSU]\d+")

    def __init__(self, code: bytes | str, *_) -> None:
        if not self.PLAIN.fullmatch(_text(code)):
            raise pickle.UnpicklingError(
                f"it asks for an array of type {_text(code)!r}")
        self.dtype = np.dtype(_text(code))

    def __setstate__(self, state: tuple) -> None:
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("it asks for an array with fields")
        self.dtype = self.dtype.newbyteorder(_text(state[1]))


class _Array:
    """Stands for numpy.ndarray, as `array`."""

    def __init__(self, *_) -> None:
        self.array = np.zeros(0, np.uint8)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.array = _from_buffer(content, dtype, shape,
                                  "F" if fortran else "C")


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple, order: str,
                 axes: tuple | None = None) -> np.ndarray:
    flat = np.frombuffer(content, dtype.dtype)
    if axes is not None:  # NumPy's order "K".
        return flat.reshape(shape).transpose(axes)
    return flat.reshape(shape, order=order)


def _scalar(dtype: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, dtype.dtype)[0]


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays and plain containers, and runs nothing else."""

    ALLOWED = {
        "multiarray._reconstruct": _Array, "multiarray.scalar": _scalar,
        "numeric._frombuffer": _from_buffer, "ndarray": _Array,
        "dtype": _Dtype}

    def find_class(self, module: str, name: str):
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        place = re.sub(r"^numpy\.(_?core\.)?", "", f"{module}.{name}")
        if module.split(".")[0] != "numpy" or place not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not a NumPy array")
        return self.ALLOWED[place]


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
            OverflowError, MemoryError, OSError) as e:
        head = b""
        if path.is_file():
            with open(path, "rb") as file:
                head = file.read(64).lstrip()
        hint = (" (it is a web page, not the file: the download failed)"
                if head.startswith(b"<") else "")
        raise InputError(f"{path} cannot be read: {e}{hint}: fetch it again "
                         "from where you have it") from e


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    return value.array if isinstance(value, _Array) else value


def recognize(folder: Path) -> Form | None:
    """The form, if the folder holds it."""
    if not any((folder / n).exists() for n in NAMES):
        return None
    missing_part(folder, NAMES, "some cache pickles")

    def listing() -> Listing:
        return {split: _of_pickle(folder / name)
                for split, name in zip(SPLITS, NAMES, strict=True)}

    return Form("cache pickles", stats(folder / n for n in NAMES), listing)


def _of_pickle(path: Path) -> dict[str, list[Image]]:
    content = read_pickle(path)
    try:
        content = {_text(k): v for k, v in content.items()}
        images = _plain(content["image_data"])
        classes = {_text(k): [int(i) for i in _plain(v)]
                   for k, v in content["class_dict"].items()}
        if not isinstance(images, np.ndarray):
            raise TypeError("image_data is no array")
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
