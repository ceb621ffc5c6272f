"""The flagfiles that come with the package, from any folder."""

import os
from collections.abc import Sequence
from pathlib import Path

from reptile_tf import shipped

FOLDER = shipped.folder("configs")


def resolved(argv: Sequence[str]) -> list[str]:
    """A command line whose --flagfile=configs/NAME.cfg, or =NAME, is found.

    A file that lies where it is typed comes first.
    """
    words, is_file = [], False
    for word in argv:
        name, equals, file = word.partition("=")
        if is_file:
            words.append(_found(word))
        elif name in ("--flagfile", "-flagfile") and equals:
            words.append(f"{name}={_found(file)}")
        else:
            words.append(word)
        is_file = word in ("--flagfile", "-flagfile")
    return words


def _found(file: str) -> str:
    path = Path(os.path.expanduser(file))
    if path.exists():
        return str(path)
    ours = FOLDER / path.with_suffix(".cfg").name
    typed = str(path.parent) in (".", "configs") and ours.exists()
    return str(ours) if typed else file
