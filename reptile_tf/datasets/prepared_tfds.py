"""What tensorflow-datasets has prepared in a folder."""

import re
from pathlib import Path
from types import ModuleType

from reptile_tf.errors import InputError, of_extra


def tensorflow_datasets(feature: str) -> ModuleType:
    """The package, which an extra brings; InputError if it is not whole."""
    tfds = of_extra("tensorflow_datasets", "tfds", feature)
    # It logs that protobuf is too old for its descriptions, and goes on empty.
    if not hasattr(tfds, "builder"):
        raise InputError(
            f"{feature}: tensorflow-datasets is installed and cannot be used, "
            "mostly for its description of data wants a newer protobuf than "
            "TensorFlow has: pip install 'tensorflow-metadata<1.18'")
    return tfds


def tfds_version(folder: Path, name: str) -> Path | None:
    """The folder of a prepared tensorflow-datasets `name` in `folder`.

    The newest version if there are several; None if there is none.
    """
    for base in (folder, folder / name):
        versions = [p.parent for p in base.glob("*/dataset_info.json")
                    if not p.parent.name.startswith("incomplete.")]
        versions += [base] if (base / "dataset_info.json").exists() else []
        if versions:
            return max(versions, key=lambda p: [
                int(number) for number in re.findall(r"\d+", p.name)])
    return None
