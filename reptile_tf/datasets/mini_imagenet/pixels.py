"""What the images of a run are made into: size, channels, filter."""

from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from reptile_tf.datasets import pictures
from reptile_tf.datasets.mini_imagenet.listing import Image

FILTERS = {
    "nearest": Pillow.Resampling.NEAREST,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
    "area": Pillow.Resampling.BOX,
}
MODES = {1: "L", 3: "RGB"}


class WrongSize(ValueError):
    """An image of another size, and no filter to resize it with."""


@dataclass(frozen=True)
class Pixels:
    """What images are made into.

    Attributes:
      size: height and width.
      channels: 1 or 3.
      resize_filter: a key of FILTERS, or "" for images that are at the size.
    """

    size: int
    channels: int
    resize_filter: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: height, width, channels."""
        return self.size, self.size, self.channels

    def of(self, image: Image) -> tuple[np.ndarray, pictures.Changes]:
        """uint8 [size, size, channels], and what was done to the image.

        Images that are at the size are left alone.

        Raises:
          WrongSize: it needs a filter that is not given.
          Exception: it does not decode, whatever the decoder raises.
        """
        picture, changes = pictures.decode(image.read(), MODES[self.channels])
        if picture.size != (self.size, self.size):
            if not self.resize_filter:
                raise WrongSize(f"is {picture.size[0]}x{picture.size[1]}")
            picture = picture.resize((self.size, self.size),
                                     FILTERS[self.resize_filter])
        return np.asarray(picture).reshape(self.shape), changes
