"""Folders train/, val/ and test/ with one folder of images per class."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from reptile_tf.datasets import files
from reptile_tf.datasets.mini_imagenet.listing import (
    SPLITS,
    SUFFIXES,
    Form,
    Listing,
    file_image,
    is_image,
    missing_part,
    stats,
)
from reptile_tf.errors import InputError

_OTHERS = "files or folders"


@dataclass
class _Found:
    """What lies below the three folders.

    Attributes:
      images: split -> class -> its images.
      stray: split -> images that lie in its folder, in no class.
      deep: folders of a split that hold no image, but folders that do.
      unread: other files, and folders in a class's folder.
      faults: what cannot be read.
    """

    images: dict[str, dict[str, list[os.DirEntry]]] = field(
        default_factory=dict)
    stray: dict[str, list[str]] = field(default_factory=dict)
    deep: dict[str, list[str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add_split(self, home: Path) -> None:
        """Look into a split's folder."""
        classes, beside = files.entries(home, self.faults)
        self.stray[home.name] = [e.path for e in beside if is_image(e.name)]
        self.unread += [e.path for e in beside if not is_image(e.name)]
        of_split = self.images[home.name] = {}
        for label in classes:
            inner, content = files.entries(label.path, self.faults)
            images = [e for e in content if is_image(e.name)]
            within = [] if images else [
                e.name for e in inner if _holds_images(e.path)]
            if within:
                self.deep[label.path] = within
            name = files.composed(label.name)
            if name in of_split:
                self.faults.append(
                    f"{label.path} is another folder of the name {name}, its "
                    "accents stored in another way: merge the two, or rename "
                    "one")
            of_split[name] = images
            self.faults += [f"{e.path} is a folder" for e in inner
                            if is_image(e.name)]
            self.unread += sorted(e.path for e in (*inner, *content)
                                  if not is_image(e.name))


def _holds_images(folder: str) -> bool:
    """Whether there are any in it or below it."""
    return any(any(map(is_image, names)) for _, _, names in os.walk(folder))


def are_whole(folder: Path) -> bool:
    """Whether every split has images in a class's folder."""
    def has_images(split: Path) -> bool:
        return any(is_image(e.name)
                   for label in files.entries(split, [])[0]
                   for e in files.entries(label.path, [])[1])

    return all(has_images(folder / s) for s in SPLITS)


def recognize(folder: Path) -> Form | None:
    """The form, if the folder holds it.

    Raises:
      InputError: a split is missing, something cannot be read, or images do
        not lie in the folders of classes.
    """
    if not any((folder / s).is_dir() for s in SPLITS):
        return None
    missing_part(folder, SPLITS, "some splits")
    found = _Found()
    for split in SPLITS:
        found.add_split(folder / split)
    files.refuse(found.faults)
    _check_depth(folder, found)

    def listing() -> Listing:
        return {split: {label: [file_image(e.path) for e in images]
                        for label, images in classes.items()}
                for split, classes in found.images.items()}

    all_of_them = [(f"{split}/{label}/{e.name}\n", e)
                   for split, classes in found.images.items()
                   for label, images in classes.items() for e in images]
    names, entries = zip(*all_of_them, strict=True) if all_of_them else ((), ())
    return Form("folders of images", stats(entries, names), listing,
                tuple(_warnings(found)))


def _check_depth(folder: Path, found: _Found) -> None:
    """Raise InputError for images above or below the folders of classes."""
    for path, within in found.deep.items():
        label, split = Path(path), Path(path).parent
        alike = len(found.deep) - 1
        raise InputError(
            f"{label} holds no images itself, but folders of them "
            f"({files.some(within)})"
            + (f", as do {files.number(alike, 'folder', 'folders')} more"
               if alike else "")
            + f". Images must lie in {split.name}/<class>/: if "
            f"{within[0]} is a class, move what is in {label.name} up into "
            f"{split}; if {label.name} is one, move the images up into it")
    for split, stray in found.stray.items():
        if stray and not found.images[split]:
            raise InputError(
                f"{folder / split} holds "
                f"{files.number(len(stray), 'image', 'images')} "
                f"({files.some(map(os.path.basename, stray))}) and no folders "
                "of classes: make one for each class, and move its images "
                "into it")


def _warnings(found: _Found) -> list[str]:
    lines = []
    stray = [path for paths in found.stray.values() for path in paths]
    if stray:
        lines.append(
            f"not read: {files.number(len(stray), 'image', 'images')} in no "
            f"class's folder ({files.some(stray)}); move each into its class")
    if found.unread:
        lines.append(
            "not read: "
            f"{files.number(len(found.unread), 'file or folder', _OTHERS)} "
            f"beside the images ({files.some(found.unread)}); images end in "
            f"{', '.join(SUFFIXES)}")
    return lines
