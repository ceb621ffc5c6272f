"""The cells of a final evaluation that are scored: kept while it lasts.

On a CPU a final evaluation takes hours. What a stop or a kill interrupts goes
on at the cell that it was in.
"""

import json
from pathlib import Path
from typing import Any

from reptile_tf.whole_files import replacing

Rows = list[dict[str, Any]]


class ScoredCells:
    """The rows of each cell, in the order in which they are scored.

    Args:
      path: of the file; whole after each cell.
      key: what the rows depend on; those of another key count for nothing.
      writes: whether this process does; of several, one.

    Attributes:
      seconds: of the run until the last of them.
      others: cells that were there, of another key.
    """

    def __init__(self, path: Path, key: dict[str, Any], writes: bool = True
                 ) -> None:
        self._path, self._key, self._writes = path, key, writes
        self._cells: list[Rows] = []
        self.seconds, self.others = 0.0, 0
        try:
            found = json.loads(path.read_text())
            if found["key"] == json.loads(json.dumps(key)):
                self._cells = found["cells"]
                self.seconds = found["seconds"]
            else:
                self.others = len(found["cells"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # None yet, or not whole: they are scored again.

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: int) -> Rows:
        return self._cells[index]

    def keep(self, number: int) -> None:
        """Forget all but the first."""
        del self._cells[number:]

    def add(self, rows: Rows, seconds: float) -> None:
        """Those of the next cell, and the seconds of the run until then."""
        self._cells.append(rows)
        self.seconds = seconds
        if self._writes:
            with replacing(self._path) as temporary:
                temporary.write_text(json.dumps(
                    {"key": self._key, "cells": self._cells,
                     "seconds": self.seconds}))

    def remove(self) -> None:
        """Once their numbers are elsewhere."""
        if self._writes:
            self._path.unlink(missing_ok=True)
