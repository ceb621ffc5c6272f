"""Images and the classes of each split."""

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reptile_tf.datasets.pictures import UNCHANGED, Changes


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

    images: np.ndarray
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

    def classes(self, split: str) -> list[str]:
        """A checksum of each class's images; of those unturned, if a task
        turns them."""
        checksums = []
        for rows in map(np.atleast_2d, self.splits[split]):
            value = 0
            for i in rows[0]:  # One by one: together they may take GiB.
                value = zlib.crc32(np.ascontiguousarray(self.images[i]), value)
            checksums.append(f"{value:08x}")
        return checksums
