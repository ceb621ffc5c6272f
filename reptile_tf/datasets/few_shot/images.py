"""Images and the classes of each split."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reptile_tf.datasets.pictures import UNCHANGED, Changes


class Parts:
    """Arrays [n_i, ...], memory-mapped ones too, seen as one [n, ...].

    Args:
      arrays: of equal shapes but for the first axis.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self._arrays = list(arrays)
        self._ends = np.cumsum([len(a) for a in self._arrays])
        self.shape = (int(self._ends[-1]), *self._arrays[0].shape[1:])
        self.dtype = self._arrays[0].dtype
        self.nbytes = sum(a.nbytes for a in self._arrays)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Rows [*indices.shape, ...], copied."""
        flat = np.ravel(indices)
        rows = np.empty((flat.size, *self.shape[1:]), self.dtype)
        part = np.searchsorted(self._ends, flat, side="right")
        for i in np.unique(part):
            start = self._ends[i] - len(self._arrays[i])
            rows[part == i] = self._arrays[i][flat[part == i] - start]
        return rows.reshape(*np.shape(indices), *self.shape[1:])


@dataclass(frozen=True)
class ImageData:
    """Images and the classes of each split.

    Attributes:
      images: uint8 [n, H, W, C], all splits in one table.
      splits: for "train", "test" and perhaps "val", for each class the
        indices [m] of its images; or [turns, m], of which a task is given one
        row.
      source: where they came from.
      key: stands for the pixels in the fingerprint, where reading them all
        would take long.
      facts: further keys of result.json.
      changes: what decoding did to the images.
    """

    images: np.ndarray | Parts
    splits: dict[str, list[np.ndarray]]
    source: str
    key: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    changes: Changes = UNCHANGED

    def fingerprint(self) -> int:
        """A checksum of pixels and splits."""
        value = zlib.crc32(np.ascontiguousarray(self.images)
                           if self.key is None else self.key.encode())
        for name in sorted(self.splits):
            for indices in self.splits[name]:
                value = zlib.crc32(
                    np.ascontiguousarray(indices, np.int64), value)
        return value
