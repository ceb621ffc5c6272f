"""Ravi and Larochelle's CSV files, beside images/ or beside ILSVRC2012."""

import csv
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

from reptile_tf.datasets import files
from reptile_tf.datasets.mini_imagenet.listing import (
    SPLITS,
    Form,
    Image,
    Listing,
    file_image,
    is_image,
    missing_part,
    stats,
)
from reptile_tf.errors import InputError

TAR_NAME = "ILSVRC2012_img_train.tar"


def _rows(path: Path) -> list[tuple[str, str]]:
    """(file name, class) of a split's CSV."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"{path} cannot be read ({e}): use Ravi and "
                         "Larochelle's file") from e
    if not rows or [c.strip() for c in rows[0][:2]] != ["filename", "label"]:
        raise InputError(f"{path} does not start with the header "
                         "filename,label: use Ravi and Larochelle's file")
    for number, row in enumerate(rows, 1):
        if row and (len(row) < 2 or not row[0].strip() or not row[1].strip()):
            raise InputError(
                f"line {number} of {path} is {','.join(row)!r}, not "
                "filename,label: use Ravi and Larochelle's whole file")
    return [(files.composed(row[0].strip()), files.composed(row[1].strip()))
            for row in rows[1:] if row]


def recognize(folder: Path) -> Form | None:
    """The form, if the folder holds it."""
    names = tuple(f"{s}.csv" for s in SPLITS)
    if not any((folder / n).exists() for n in names):
        return None
    missing_part(folder, names, "some CSV files")
    rows = {s: _rows(folder / n) for s, n in zip(SPLITS, names, strict=True)}
    tables = stats(folder / n for n in names)
    if (folder / "images").is_dir():
        faults: list[str] = []
        entries = {files.composed(e.name): e for e in files.entries(
            folder / "images", faults)[1]}
        if any(name in entries for name, _ in rows["train"]):
            def listing() -> Listing:
                return _by_class(rows, lambda name, label: file_image(
                    entries.get(name, folder / "images" / name)))

            return Form("CSV files with images/",
                        tables + stats(
                            entries[name] for split in rows.values()
                            for name, _ in split if name in entries), listing)
        files.refuse(faults)
    wnids = sorted({label for split in rows.values() for _, label in split})
    for home in (folder, folder / "images", folder / "train"):
        if any((home / wnid).is_dir() for wnid in wnids):
            return _ilsvrc(rows, tables, wnids, home)
    if (folder / TAR_NAME).exists():
        return _ilsvrc_tar(rows, tables, wnids, folder / TAR_NAME)
    files.refuse_dead_links(folder / "images", folder / TAR_NAME)
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


def _number(name: str) -> int | None:
    """7 of n01532829_7.JPEG; None if the name is of another kind."""
    path = Path(name)
    found = re.fullmatch(r".*_(\d+)", path.stem)
    return int(found[1]) if found and is_image(path.name) else None


def _ranked(ordered: dict[str, list[Image]]) -> Callable[[str, str], Image]:
    """The image that a CSV's name means: <wnid><rank, counted from 1>.jpg.

    The rank is among the class's ILSVRC2012 images, sorted by number.
    """
    def image(name: str, label: str) -> Image:
        digits = re.fullmatch(re.escape(label) + r"(\d+)", Path(name).stem)
        if not digits:
            raise InputError(
                f"the CSV files' name {name} is not {label} and the image's "
                "rank, such as n0153282900000007.jpg: use Ravi and "
                "Larochelle's files")
        rank = int(digits[1])
        images = ordered.get(label, [])
        if not 1 <= rank <= len(images):
            raise InputError(
                f"{name} is image {rank} of class {label}, of which "
                f"ILSVRC2012 here has {len(images)}: the class is missing or "
                "incomplete, copy its folder again")
        return images[rank - 1]
    return image


def _ilsvrc(rows, tables: str, wnids: list[str], home: Path) -> Form:
    files.refuse_dead_links(*(home / w for w in wnids))
    missing = [w for w in wnids if not (home / w).is_dir()]
    if missing:
        raise InputError(
            f"{home} has no folder {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + " of the classes that the CSV files name: copy ILSVRC2012's "
            "training folders of all of them")
    faults: list[str] = []
    entries = {w: sorted((e for e in files.entries(home / w, faults)[1]
                          if _number(e.name) is not None),
                         key=lambda e: _number(e.name))
               for w in wnids}
    files.refuse(faults)

    def listing() -> Listing:
        return _by_class(rows, _ranked({
            w: [file_image(e.path) for e in of_class]
            for w, of_class in entries.items()}))

    return Form("ILSVRC2012 folders with CSV files", tables + stats(
        e for of_class in entries.values() for e in of_class), listing)


def _ilsvrc_tar(rows, tables: str, wnids: list[str], path: Path) -> Form:
    def listing() -> Listing:
        ordered: dict[str, list[Image]] = {}
        try:
            with tarfile.open(path) as outer:
                for member in outer:
                    wnid = Path(member.name).stem
                    if wnid in wnids and member.isfile():
                        ordered[wnid] = _of_inner_tar(path, outer, member)
        except tarfile.TarError as e:
            raise InputError(f"{path} is not a whole tar archive ({e}): "
                             "fetch it again") from e
        missing = [w for w in wnids if w not in ordered]
        if missing:
            raise InputError(f"{path} has no {missing[0]}.tar, a class that "
                             "the CSV files name: fetch the archive again")
        return _by_class(rows, _ranked(ordered))

    return Form("ILSVRC2012 tar with CSV files", tables + stats(
        iter([path])), listing)


def _of_inner_tar(path: Path, outer: tarfile.TarFile,
                  member: tarfile.TarInfo) -> list[Image]:
    """Images of one class's tar, read later straight from the outer file."""
    start, images = member.offset_data, []
    with tarfile.open(fileobj=outer.extractfile(member)) as inner:
        for one in inner:
            number = _number(one.name)
            if number is not None:
                images.append((number, Image(
                    f"{path}: {one.name}",
                    _piece(path, start + one.offset_data, one.size))))
    return [image for _, image in sorted(images, key=lambda pair: pair[0])]


def _piece(path: Path, offset: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(size)
    return read
