"""The forms in which people hold Mini-ImageNet, recognised by content.

A form lists, for each split and class, where every image is; nothing is
decoded here. What is listed is sorted, so the same data gives the same order
on every machine.
"""

import csv
import hashlib
import os
import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reptile_tf.datasets import tfds_version
from reptile_tf.errors import InputError

SPLITS = ("train", "val", "test")
TFDS_SPLITS = {"train": "train", "val": "validation", "test": "test"}
SUFFIXES = (".jpeg", ".jpg", ".png")
TAR_NAME = "ILSVRC2012_img_train.tar"
FORMS = (
    "folders train/, val/ and test/ with one folder of images per class; "
    "mini-imagenet-cache-{train,val,test}.pkl; train.csv, val.csv and "
    "test.csv beside images/; those three beside ILSVRC2012's folders "
    f"<wnid>/ or {TAR_NAME}; or a dataset prepared with `tfds build`")


@dataclass(frozen=True)
class Image:
    """One image that has not been read yet.

    Attributes:
      place: for error messages.
      read: returns its bytes (JPEG, PNG) or pixels uint8 [H, W, C].
    """

    place: str
    read: Callable[[], bytes | np.ndarray]


# split -> class -> images
Listing = dict[str, dict[str, list[Image]]]


@dataclass(frozen=True)
class Form:
    """Data that was recognised.

    Attributes:
      name: of the form, for people.
      fingerprint: changes when the files do; cheap.
      listing: reads what is needed to list the images.
    """

    name: str
    fingerprint: str
    listing: Callable[[], Listing]


def recognize(folder: Path) -> Form:
    """The form of the data in `folder`.

    Raises:
      InputError: no folder, none of the forms, or part of one.
    """
    if not folder.is_dir():
        raise InputError(f"--data_dir={folder} is not a folder; it may hold "
                         f"{FORMS}")
    for form in (_tfds, _pickles, _csv, _folders):
        found = form(folder)
        if found is not None:
            return found
    content = ", ".join(sorted(p.name for p in folder.iterdir())[:5])
    raise InputError(f"--data_dir={folder} holds no Mini-ImageNet (it holds "
                     f"{content or 'nothing'}): it may hold {FORMS}")


def _stats(paths: Iterator[os.DirEntry | Path]) -> str:
    """A digest of names, sizes and times."""
    digest = hashlib.sha256()
    for line in sorted(f"{p}\0{s.st_size}\0{s.st_mtime_ns}\n"
                       for p in paths for s in [p.stat()]):
        digest.update(line.encode())
    return digest.hexdigest()


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _file(path: str | Path) -> Image:
    return Image(str(path), lambda: Path(path).read_bytes())


def _missing_part(folder: Path, names: tuple[str, ...], what: str) -> None:
    """Raise if some of the names are there and some are not."""
    missing = [n for n in names if not (folder / n).exists()]
    if missing:
        raise InputError(
            f"--data_dir={folder} holds {what} but not "
            f"{' and '.join(missing)}: copy all of {', '.join(names)}")


# -- folders ----------------------------------------------------------------


def _folders(folder: Path) -> Form | None:
    if not any((folder / s).is_dir() for s in SPLITS):
        return None
    _missing_part(folder, SPLITS, "some splits")
    entries: dict[str, dict[str, list[os.DirEntry]]] = {}
    for split in SPLITS:
        entries[split] = {}
        for label in sorted(os.scandir(folder / split), key=lambda e: e.name):
            if label.is_dir() and not label.name.startswith("."):
                entries[split][label.name] = sorted(
                    (e for e in os.scandir(label.path) if _is_image(e.name)),
                    key=lambda e: e.name)
    fingerprint = _stats(e for classes in entries.values()
                         for files in classes.values() for e in files)

    def listing() -> Listing:
        return {split: {label: [_file(e.path) for e in files]
                        for label, files in classes.items()}
                for split, classes in entries.items()}

    return Form("folders of images", fingerprint, listing)


# -- cache pickles ------------------------------------------------------------


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


def _pickles(folder: Path) -> Form | None:
    names = tuple(f"mini-imagenet-cache-{s}.pkl" for s in SPLITS)
    if not any((folder / n).exists() for n in names):
        return None
    _missing_part(folder, names, "some cache pickles")

    def listing() -> Listing:
        return {split: _of_pickle(folder / name)
                for split, name in zip(SPLITS, names, strict=True)}

    return Form("cache pickles", _stats(folder / n for n in names), listing)


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


# -- CSV files with images/, or with ILSVRC2012 -------------------------------


def _rows(path: Path) -> list[tuple[str, str]]:
    """(file name, class) of a split's CSV."""
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    if not rows or [c.strip() for c in rows[0][:2]] != ["filename", "label"]:
        raise InputError(f"{path} does not start with the header "
                         "filename,label: use Ravi and Larochelle's file")
    return [(row[0].strip(), row[1].strip()) for row in rows[1:] if row]


def _csv(folder: Path) -> Form | None:
    names = tuple(f"{s}.csv" for s in SPLITS)
    if not any((folder / n).exists() for n in names):
        return None
    _missing_part(folder, names, "some CSV files")
    rows = {s: _rows(folder / n) for s, n in zip(SPLITS, names, strict=True)}
    tables = _stats(folder / n for n in names)
    if (folder / "images").is_dir():
        entries = {e.name: e for e in os.scandir(folder / "images")}
        if any(name in entries for name, _ in rows["train"]):
            def listing() -> Listing:
                return _by_class(rows, lambda name, label: _file(
                    folder / "images" / name))

            return Form("CSV files with images/",
                        tables + _stats(iter(entries.values())), listing)
    wnids = sorted({label for split in rows.values() for _, label in split})
    for home in (folder, folder / "images", folder / "train"):
        if any((home / wnid).is_dir() for wnid in wnids):
            return _ilsvrc(rows, tables, wnids, home)
    if (folder / TAR_NAME).exists():
        return _ilsvrc_tar(rows, tables, wnids, folder / TAR_NAME)
    raise InputError(
        f"--data_dir={folder} holds {', '.join(names)} but no images: put "
        f"images/, ILSVRC2012's folders <wnid>/ or {TAR_NAME} beside them")


def _by_class(rows: dict[str, list[tuple[str, str]]],
              image: Callable[[str, str], Image]) -> Listing:
    listing: Listing = {}
    for split, pairs in rows.items():
        classes: dict[str, list[Image]] = {}
        for name, label in sorted(pairs, key=lambda row: row[::-1]):
            classes.setdefault(label, []).append(image(name, label))
        listing[split] = classes
    return listing


def _number(name: str) -> int:
    """7 of n01532829_7.JPEG."""
    return int(Path(name).stem.rpartition("_")[2])


def _ranked(ordered: dict[str, list[Image]]) -> Callable[[str, str], Image]:
    """The image that a CSV's name means: <wnid><rank, counted from 1>.jpg.

    The rank is among the class's ILSVRC2012 images, sorted by number.
    """
    def image(name: str, label: str) -> Image:
        rank = int(Path(name).stem[-4:])
        images = ordered.get(label, [])
        if not 1 <= rank <= len(images):
            raise InputError(
                f"{name} is image {rank} of class {label}, of which "
                f"ILSVRC2012 here has {len(images)}: the class is missing or "
                "incomplete, copy its folder again")
        return images[rank - 1]
    return image


def _ilsvrc(rows, tables: str, wnids: list[str], home: Path) -> Form:
    missing = [w for w in wnids if not (home / w).is_dir()]
    if missing:
        raise InputError(
            f"{home} has no folder {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + " of the classes that the CSV files name: copy ILSVRC2012's "
            "training folders of all of them")
    entries = {w: sorted((e for e in os.scandir(home / w)
                          if _is_image(e.name)), key=lambda e: _number(e.name))
               for w in wnids}

    def listing() -> Listing:
        return _by_class(rows, _ranked({
            w: [_file(e.path) for e in files]
            for w, files in entries.items()}))

    return Form("ILSVRC2012 folders with CSV files", tables + _stats(
        e for files in entries.values() for e in files), listing)


def _ilsvrc_tar(rows, tables: str, wnids: list[str], path: Path) -> Form:
    def listing() -> Listing:
        ordered: dict[str, list[Image]] = {}
        try:
            with tarfile.open(path) as outer:
                for member in outer:
                    wnid = Path(member.name).stem
                    if wnid in wnids:
                        ordered[wnid] = _of_inner_tar(path, outer, member)
        except tarfile.TarError as e:
            raise InputError(f"{path} is not a whole tar archive ({e}): "
                             "fetch it again") from e
        missing = [w for w in wnids if w not in ordered]
        if missing:
            raise InputError(f"{path} has no {missing[0]}.tar, a class that "
                             "the CSV files name: fetch the archive again")
        return _by_class(rows, _ranked(ordered))

    return Form("ILSVRC2012 tar with CSV files", tables + _stats(
        iter([path])), listing)


def _of_inner_tar(path: Path, outer: tarfile.TarFile,
                  member: tarfile.TarInfo) -> list[Image]:
    """Images of one class's tar, read later straight from the outer file."""
    start, images = member.offset_data, []
    with tarfile.open(fileobj=outer.extractfile(member)) as inner:
        for one in inner:
            if _is_image(one.name):
                images.append((_number(one.name), Image(
                    f"{path}: {one.name}",
                    _piece(path, start + one.offset_data, one.size))))
    return [image for _, image in sorted(images, key=lambda pair: pair[0])]


def _piece(path: Path, offset: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)
    return read


# -- tensorflow-datasets ------------------------------------------------------


def _tfds(folder: Path) -> Form | None:
    home = tfds_version(folder, "mini_imagenet")
    if home is None:
        return None
    return Form("tensorflow-datasets",
                _stats(p for p in home.iterdir() if p.is_file()),
                lambda: _of_tfds(home))


def _of_tfds(home: Path) -> Listing:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(home))
        found = {}
        for split, stored in TFDS_SPLITS.items():
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
