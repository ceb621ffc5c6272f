"""The forms in which people hold Mini-ImageNet, recognised by content."""

import os
from pathlib import Path

from reptile_tf.datasets import files
from reptile_tf.datasets.mini_imagenet import (
    cache_pickles,
    csv_files,
    folders,
    tfds_form,
)
from reptile_tf.datasets.mini_imagenet.listing import SPLITS, Form
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
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"--data_dir={folder} is not a folder that can be "
                         f"read; it may hold {FORMS}")
    for form in (tfds_form.recognize, cache_pickles.recognize,
                 _whole_folders, csv_files.recognize, folders.recognize):
        found = form(folder)
        if found is not None:
            return found
    files.refuse_dead_links(*(folder / s for s in SPLITS))
    inner, beside = files.entries(folder, [])
    content = ", ".join(sorted(e.name for e in (*inner, *beside))[:5])
    deeper = [e.path for e in inner
              if any(os.path.isdir(os.path.join(e, s)) for s in SPLITS)]
    raise InputError(
        f"--data_dir={folder} holds no Mini-ImageNet (it holds "
        f"{content or 'nothing'}): "
        + (f"did you mean --data_dir={deeper[0]}? " if deeper else "")
        + f"it may hold {FORMS}")


def _whole_folders(folder: Path) -> Form | None:
    """Folders of images, if every split has some, whatever is beside them."""
    return folders.recognize(folder) if folders.are_whole(folder) else None
