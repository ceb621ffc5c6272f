"""Trained initializations that come with the package, by their names.

Each is a folder of `initializations`: what `Learner.save` wrote, the run's
result.json, a card (README.md) that says what it was trained on, how well it
does and what it is not for, and the checksums of all but the card.
"""

import hashlib
from pathlib import Path

from reptile_tf import shipped
from reptile_tf.errors import InputError
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.losses import Loss

FOLDER = shipped.folder("initializations")
CHECKSUMS = "SHA256SUMS"


def names() -> list[str]:
    """Of all that are there."""
    return sorted(p.parent.name for p in FOLDER.glob(f"*/{CHECKSUMS}"))


def folder_of(name: str) -> Path | None:
    """Of one of `names`, unless a folder of that path lies here."""
    return (FOLDER / name if name in names() and not Path(name).exists()
            else None)


def load(name: str) -> Learner:
    """The learner of an initialization that comes with the package.

    Args:
      name: one of `names`, such as "omniglot_5way_1shot_fomaml".

    Raises:
      InputError: another name, or files that are not those published.
    """
    there = names()
    if not there:
        raise InputError(f"{FOLDER} holds no initialization: install the "
                         "package, or check the repository out, again")
    if name not in there:
        raise InputError(
            f"no initialization {name!r} comes with the package: use "
            f"{' or '.join(there)}; Learner.load reads a run's folder")
    return load_from(FOLDER / name)


def load_from(folder: Path, loss: Loss | None = None) -> Learner:
    """`Learner.load`; of a published folder the checksums are compared.

    Raises:
      InputError: no learner is there, or not the one that was published.
    """
    there = folder.resolve()
    if there.parent == FOLDER.resolve() and (there / CHECKSUMS).exists():
        for line in (there / CHECKSUMS).read_text().splitlines():
            digest, _, file = line.partition("  ")
            path = folder / file
            if not path.exists() or digest_of(path) != digest:
                raise InputError(
                    f"{path} is not the published file: install the package, "
                    "or check the repository out, again")
    return Learner.load(folder, loss)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
