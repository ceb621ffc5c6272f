"""The forms in which people hold Mini-ImageNet, recognised by content."""

import os
from pathlib import Path

from reptile_tf.datasets.mini_imagenet import (
    cache_pickles,
    csv_files,
    tfds_form,
)
from reptile_tf.datasets.mini_imagenet.listing import (
    SPLITS,
    Form,
    Listing,
    file_image,
    is_image,
    missing_part,
    stats,
)
from reptile_tf.errors import InputError

FORMS = (
    "folders train/, val/ and test/ with one folder of images per class; "
    "mini-imagenet-cache-{train,val,test}.pkl; train.csv, val.csv and "
    "test.csv beside images/; those three beside ILSVRC2012's folders "
    f"<wnid>/ or {csv_files.TAR_NAME}; or a dataset prepared with `tfds build`")


def recognize(folder: Path) -> Form:
    """The form of the data in `folder`.

    Raises:
      InputError: no folder, none of the forms, or part of one.
    """
    if not folder.is_dir():
        raise InputError(f"--data_dir={folder} is not a folder; it may hold "
                         f"{FORMS}")
    for form in (tfds_form.recognize, cache_pickles.recognize,
                 _whole_folders, csv_files.recognize, _folders):
        found = form(folder)
        if found is not None:
            return found
    content = ", ".join(sorted(p.name for p in folder.iterdir())[:5])
    raise InputError(f"--data_dir={folder} holds no Mini-ImageNet (it holds "
                     f"{content or 'nothing'}): it may hold {FORMS}")


def _whole_folders(folder: Path) -> Form | None:
    """Folders of images, if every split has some, whatever is beside them."""
    if all((folder / s).is_dir() and any(
            label.is_dir() and any(map(is_image, os.listdir(label)))
            for label in (folder / s).iterdir()) for s in SPLITS):
        return _folders(folder)
    return None


def _folders(folder: Path) -> Form | None:
    if not any((folder / s).is_dir() for s in SPLITS):
        return None
    missing_part(folder, SPLITS, "some splits")
    entries: dict[str, dict[str, list[os.DirEntry]]] = {}
    unread: list[str] = []
    for split in SPLITS:
        entries[split] = {}
        for label in sorted(os.scandir(folder / split), key=lambda e: e.name):
            if label.is_dir() and not label.name.startswith("."):
                beside = sorted(os.scandir(label.path), key=lambda e: e.name)
                entries[split][label.name] = [
                    e for e in beside if is_image(e.name)]
                unread += [e.path for e in beside if not (
                    is_image(e.name) or e.name.startswith("."))]
    fingerprint = stats(e for classes in entries.values()
                        for files in classes.values() for e in files)

    def listing() -> Listing:
        return {split: {label: [file_image(e.path) for e in files]
                        for label, files in classes.items()}
                for split, classes in entries.items()}

    return Form("folders of images", fingerprint, listing, tuple(unread))
