"""Flags of Mini-ImageNet and of one's own images."""

import os
from dataclasses import dataclass
from pathlib import Path

from reptile_tf.configuration.run_flags import flag
from reptile_tf.datasets.few_shot import ImageConfig
from reptile_tf.datasets.mini_imagenet import forms, pixels
from reptile_tf.errors import InputError, require_at_least

SMALLEST_OF_MAML = 2**4


@dataclass(frozen=True)
class MiniImageNetConfig(ImageConfig):
    """Flags of Mini-ImageNet and of one's own images."""

    data_dir: str = flag("", f"folder with one of: {forms.FORMS}", path=True)
    image_size: int = flag(84, "height and width of the images, pixels", True)
    channels: int = flag(3, "3 for colour, 1 for grey", True)
    resize_filter: str = flag(
        "", "how images of other sizes are resized; empty: none may be", True,
        ("", *pixels.FILTERS))
    allow_partial: bool = flag(
        False, "take other numbers of classes and images than "
        "Mini-ImageNet's: for one's own images")
    cache_dir: str = flag(
        "", "folder of decoded images; empty means reptile_tf in "
        "$XDG_CACHE_HOME, without it in ~/.cache",
        path=True)
    device_images: str = flag(
        "auto", "keep all images on the device (on), or gather each "
        "mini-batch on the host (off); auto: on a GPU where they fit", False,
        ("auto", "on", "off"))

    def check(self) -> None:
        super().check()
        require_at_least(1, image_size=self.image_size)
        if self.network == "maml" and self.image_size < SMALLEST_OF_MAML:
            raise InputError(
                f"image_size={self.image_size}: four poolings of whole windows "
                f"leave nothing of it with --network=maml: use "
                f"{SMALLEST_OF_MAML} or more, or --network=reptile")
        if self.channels not in pixels.MODES:
            raise InputError(f"channels={self.channels} is neither 1 nor 3")
        if not self.data_dir:
            raise InputError(
                "Mini-ImageNet cannot be downloaded: give --data_dir, a "
                f"folder with one of: {forms.FORMS}")

    @property
    def pixels(self) -> pixels.Pixels:
        """What images are made into."""
        return pixels.Pixels(self.image_size, self.channels,
                               self.resize_filter)

    @property
    def cache(self) -> Path:
        """The folder of decoded images."""
        if self.cache_dir:
            return Path(self.cache_dir)
        return Path(os.environ.get("XDG_CACHE_HOME")  # It may be empty.
                    or Path.home() / ".cache") / "reptile_tf"
