"""Checkpoints: everything that a run continues from, in one file each.

Our own, as NumPy files: Keras's and TensorFlow's cannot be moved to another
number of slots or processes, and do not hold the sampler.
"""

import errno
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reptile_tf.errors import InputError
from reptile_tf.whole_files import beside, replacing

KEEP = 3
# Of a file that may be whole.
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
_META = "meta"
_NAME = re.compile(r"checkpoint-(\d{9,})\.npz")


class Checkpoints:
    """The checkpoints of one run: the last KEEP, each whole or absent.

    A file is written beside its final name, flushed to the disk and then
    renamed, so a kill at any moment leaves the earlier ones as they were.

    Args:
      directory: where; made if needed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    def paths(self) -> list[Path]:
        """The checkpoints, oldest first; files of other names are no one's."""
        return sorted((p for p in self.directory.glob("checkpoint-*.npz")
                       if _NAME.fullmatch(p.name)), key=_iteration)

    def save(self, iteration: int, arrays: dict[str, np.ndarray],
             meta: dict[str, Any]) -> Path:
        """Write one.

        Args:
          iteration: meta-iterations done.
          arrays: by name.
          meta: whatever JSON can hold.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"checkpoint-{iteration:09d}.npz"
        # Not into the file: some NumPys leave a broken one open on an error.
        content = io.BytesIO()
        np.savez(content, **arrays, **{_META: np.array(json.dumps(meta))})
        try:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                file.write(content.getbuffer())
        except OSError as e:
            e.filename = e.filename or str(path)
            raise
        killed = self.directory.glob(beside(Path("checkpoint-*.npz")).name)
        for old in (*self.paths()[:-KEEP], *killed):
            old.unlink()
        return path

    def load(self, warn: Callable[[str], None]
             ) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The newest readable (arrays, meta); None if there is none at all.

        Args:
          warn: told of each corrupt checkpoint passed over.

        Raises:
          InputError: there are checkpoints and all are corrupt.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                with open(path, "rb") as opened, np.load(
                        opened, allow_pickle=False) as file:
                    arrays = {name: file[name] for name in file.files}
                meta = json.loads(str(arrays.pop(_META)))
            except (OSError, ValueError, KeyError, TypeError, EOFError,
                    RuntimeError, zipfile.BadZipFile, zlib.error) as e:
                if getattr(e, "errno", None) in _UNREADABLE:
                    raise
                warn(f"{path} is corrupt ({type(e).__name__}: {e}); using "
                     "the checkpoint before it")
                continue
            return arrays, meta
        if paths:
            raise InputError(
                f"all {len(paths)} checkpoints in {self.directory} are "
                "corrupt: restore one from a copy, or use another --run_dir")
        return None

    def iterations(self) -> list[int]:
        """Iterations of the checkpoints, ascending."""
        return [_iteration(p) for p in self.paths()]


def _iteration(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])
