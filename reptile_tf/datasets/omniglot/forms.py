"""The forms in which people hold Omniglot: each as its drawings."""

import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from reptile_tf.datasets import files
from reptile_tf.datasets.omniglot.drawings import Drawing
from reptile_tf.datasets.prepared_tfds import (
    tensorflow_datasets,
    tfds_version,
)
from reptile_tf.errors import InputError, first_line

NAME = "omniglot"
ARCHIVES = ("images_background.zip", "images_evaluation.zip")
ADDRESS = "https://github.com/brendenlake/omniglot/raw/master/python/"
REMEDIES = (
    "use --data_dir with a folder that holds a prepared "
    "tensorflow-datasets omniglot, the two archives or alphabets of PNG "
    f"folders; or fetch the archives {ADDRESS}{ARCHIVES[0]} and "
    f"{ADDRESS}{ARCHIVES[1]} into that folder; or --data=synthetic for the "
    "built-in glyphs"
)


def _from_archives(folder: Path) -> Iterator[Drawing]:
    for name in ARCHIVES:
        try:
            with zipfile.ZipFile(folder / name) as archive:
                for member in archive.namelist():
                    parts = member.split("/")
                    if (_is_drawing(parts[-1]) and "__MACOSX" not in member
                            and len(parts) > 2):
                        yield (*parts[-3:-1], f"{folder / name}: {member}",
                               archive.read(member))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError,
                RuntimeError) as e:
            raise InputError(
                f"{folder / name} is not a whole zip archive ({e}): fetch it "
                f"again from {ADDRESS}{name}") from e


def _drawings(folder: Path) -> list[Path]:
    """The files <alphabet>/character<nn>/*.png below a folder.

    Raises:
      InputError: there are some, and beside them what cannot be read.
    """
    drawings, faults, ahead, seen = [], [], [folder], set()
    while ahead:
        here = ahead.pop()
        real = os.path.realpath(here)
        if real in seen:  # By a link, which may lead back up.
            continue
        seen.add(real)
        inner, content = files.entries(here, faults)
        ahead += [here / e.name for e in inner]
        if here.name.startswith("character"):
            drawings += [here / e.name for e in content
                         if _is_drawing(e.name)]
    if drawings:
        files.refuse(faults)
    return sorted(drawings)


def _is_drawing(name: str) -> bool:
    return name.lower().endswith(".png") and not name.startswith(".")


def _from_files(drawings: Iterable[Path]) -> Iterator[Drawing]:
    for path in drawings:
        try:
            content = files.read(path)
        except files.Unreadable as e:
            raise InputError(f"{path} {e}: copy it again") from e
        yield path.parent.parent.name, path.parent.name, str(path), content


def _from_tfds(folder: Path) -> Iterator[Drawing]:
    tfds = tensorflow_datasets(
        "a prepared omniglot of tensorflow-datasets")

    try:
        builder = tfds.builder_from_directory(str(folder))
        names = builder.info.features["alphabet"].names
        decoders = {"image": tfds.decode.SkipDecoding()}
        for split in ("train", "test"):
            records = builder.as_dataset(split=split, decoders=decoders)
            for number, row in enumerate(tfds.as_numpy(records)):
                yield (names[row["alphabet"]],
                       f"character{row['alphabet_char_id'] + 1:02d}",
                       f"{folder}: {split} record {number}", row["image"])
    except InputError:
        raise
    except Exception as e:
        raise InputError(
            f"{folder} is not a whole prepared omniglot of tensorflow-datasets "
            f"({type(e).__name__}: {first_line(e)}): prepare it "
            "again, or use another --data_dir") from e


def recognize(folder: Path) -> tuple[Iterable[Drawing], str]:
    """The drawings in a folder, and what was found there.

    Raises:
      InputError: nothing that is Omniglot, or a part of it.
    """
    if not folder.is_dir():
        raise InputError(f"--data_dir={folder} is not a folder: {REMEDIES}")
    present = [n for n in ARCHIVES if (folder / n).exists()]
    if len(present) == 2:
        return _from_archives(folder), f"archives in {folder}"
    prepared = tfds_version(folder, NAME)
    if prepared:
        return _from_tfds(prepared), f"tensorflow-datasets in {prepared}"
    if present:
        missing = next(n for n in ARCHIVES if n not in present)
        raise InputError(
            f"--data_dir={folder} holds {present[0]} but not {missing}: fetch "
            f"{ADDRESS}{missing} into it")
    drawings = _drawings(folder)
    if drawings:
        return _from_files(drawings), f"PNG folders in {folder}"
    raise InputError(f"--data_dir={folder} holds no Omniglot: {REMEDIES}")
