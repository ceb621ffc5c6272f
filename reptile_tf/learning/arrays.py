"""What an array or a tensor holds, as it is asked before it is used."""

from typing import Any

import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError


def require_finite(array: Any, name: str) -> None:
    """Raise InputError if an array that is not symbolic holds NaN or
    infinity."""
    values = values_of(array)
    if values is not None and not finite(values):
        raise InputError(f"{name} hold NaN or infinity: remove or replace "
                         "those values")


def tensor_of(array: Any, name: str) -> tf.Tensor:
    """As a tensor; InputError for what is no array of numbers or strings."""
    try:
        return tf.convert_to_tensor(array)
    except (ValueError, TypeError) as e:
        raise InputError(
            f"{name} are no array, but objects of Python, or of several "
            "shapes: give an array of numbers, by .astype('float32'), of one "
            "shape") from e


def finite(array: Any) -> bool:
    """Whether no value of an array is NaN or infinite; no string is."""
    values = np.asarray(array)
    if is_whole(values) or is_text(values):
        return True
    return bool(np.isfinite(values).all())


def is_text(array: Any) -> bool:
    """Whether an array or a tensor is of strings, NumPy's or Python's."""
    if tf.is_tensor(array):
        return array.dtype == tf.string
    array = np.asarray(array)
    return array.dtype.kind in "SU" or (
        array.dtype.kind == "O" and array.size > 0
        and isinstance(array.flat[0], str | bytes))


def is_whole(array: Any) -> bool:
    """Whether an array's or a tensor's type is of whole numbers."""
    if tf.is_tensor(array):
        return array.dtype.is_integer or array.dtype.is_bool
    return np.asarray(array).dtype.kind in "iub"


def values_of(array: Any) -> np.ndarray | None:
    """As NumPy; None of a symbolic tensor."""
    if tf.is_tensor(array) and not hasattr(array, "numpy"):
        return None
    return np.asarray(array)


def shape_text(shape: Any) -> str:
    """A shape for people: [any, 28, 28, 1]."""
    return "[" + ", ".join("any" if d is None else str(d)
                           for d in tuple(shape)) + "]"
