"""Data sets: one module each, all with the same contract.

A module has NAME, DEFAULTS (flag values that differ from `config.Config`'s),
`load(config) -> ImageData` and `build_model(ways, seed) -> keras.Model`.
"""

import zlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ImageData:
    """Images and the classes of each split.

    Attributes:
      images: uint8 [n, H, W, C], all splits in one table.
      splits: for "train", "test" and perhaps "val", for each class the
        indices [m] of its images.
      source: where they came from, for the log and result.json.
    """

    images: np.ndarray
    splits: dict[str, list[np.ndarray]]
    source: str

    def fingerprint(self) -> int:
        """A checksum of pixels and splits: resuming needs the same data."""
        value = zlib.crc32(np.ascontiguousarray(self.images))
        for name in sorted(self.splits):
            for indices in self.splits[name]:
                value = zlib.crc32(np.asarray(indices, np.int64), value)
        return value
