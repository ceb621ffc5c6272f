"""Mini-ImageNet, and any other images in folders (paper, section 6.1).

100 classes of 600 images, 64/16/20 of them for training, validation and test
(Ravi and Larochelle). It cannot be downloaded or passed on: people hold it in
the forms of `forms`, which are decoded once (`prepared`). Original files are
turned upright by EXIF before they are resized, which the authors' code does
not do; result.json says of how many.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from reptile_tf import networks
from reptile_tf.datasets import few_shot, files
from reptile_tf.datasets.few_shot import FewShotImages
from reptile_tf.datasets.mini_imagenet import forms, prepared
from reptile_tf.datasets.mini_imagenet.config import MiniImageNetConfig
from reptile_tf.datasets.mini_imagenet.listing import SPLITS, SUFFIXES
from reptile_tf.errors import InputError
from reptile_tf.execution import devices, memory

NAME = "miniimagenet"
FILLS_A_THREAD = True
DEFAULTS = {"shots": (1,), "train_shots": 15, "inner_iters": 8}
BY_ALGORITHM: dict = {}
CLASSES = {"train": 64, "val": 16, "test": 20}
PER_CLASS = 600
NETWORKS = {"reptile": networks.mini_imagenet,
            "maml": networks.maml_mini_imagenet}
# Of a GPU's free memory, what images may take; the rest is for training.
DEVICE_SHARE = 0.5


def load(config: MiniImageNetConfig) -> FewShotImages:
    """The images of --data_dir, decoded once and checked.

    Raises:
      InputError: data that is not there, not whole, not readable or, without
        --allow_partial, not Mini-ImageNet's numbers.
    """
    folder = Path(config.data_dir)
    form = forms.recognize(folder)

    def check(classes: prepared.Counts) -> None:
        check_classes(classes, folder, config.allow_partial)
        config.check_data(_splits(classes), classes)

    log = logging.getLogger("reptile_tf")
    for line in form.warnings:
        log.warning("warning: %s", line)
    found = prepared.open_or_prepare(
        form, folder, config.pixels, config.cache, check, log)
    resize = config.resize_filter or "none"
    data = few_shot.ImageData(
        found.images, _splits(found.classes),
        f"{form.name} in {folder}, {len(found.images):,} images, resize filter "
        f"{resize}", found.checksum, {"resize_filter": resize}, found.changes)
    if str(found.changes):
        data.facts["image_changes"] = str(found.changes)
    # Of two results by it: whether they are of the same images and classes.
    data.facts["data_checksum"] = f"{data.fingerprint():08x}"
    return FewShotImages(data, config, network_of(config),
                         _on_device(config, found.images.nbytes))


def _splits(classes: prepared.Counts) -> dict[str, list[np.ndarray]]:
    """For each class of each split the places of its images."""
    splits, start = {}, 0
    for split in SPLITS:
        splits[split] = []
        for count in classes[split].values():
            splits[split].append(np.arange(start, start + count))
            start += count
    return splits


def check_classes(classes: prepared.Counts, folder: Path,
                  allow_partial: bool) -> None:
    """Raise InputError for classes in two splits, empty ones, and, unless
    `allow_partial`, for other numbers than Mini-ImageNet's."""
    for i, one in enumerate(SPLITS):
        for other in SPLITS[i + 1:]:
            both = sorted(classes[one].keys() & classes[other].keys())
            if both:
                raise InputError(
                    f"class {both[0]} is in {one} and in {other} of {folder}"
                    + (f", and {len(both) - 1} others" if len(both) > 1
                       else "")
                    + ": a class belongs to one split, remove it from one")
    for split, counts in classes.items():
        empty = [label for label, count in counts.items() if not count]
        if empty:
            raise InputError(
                f"class {empty[0]} of {split} in {folder} has no images "
                f"({', '.join(SUFFIXES)})"
                + (f", nor have {files.some(empty[1:])}" if empty[1:] else "")
                + ": add some, or remove its folder")
    lines = [
        f"{split}: {len(counts)} classes of {CLASSES[split]}, "
        f"{sum(counts.values()):,} images of "
        f"{CLASSES[split] * PER_CLASS:,}"
        for split, counts in classes.items()]
    short = [f"{split}/{label}: {count} images of {PER_CLASS}"
             for split, counts in classes.items()
             for label, count in counts.items() if count != PER_CLASS]
    complete = all(len(classes[s]) == CLASSES[s] for s in classes) and not short
    if not complete and not allow_partial:
        raise InputError("\n  ".join([
            f"{folder} is not the whole Mini-ImageNet. Complete it, or, if "
            "these are images of your own, give --allow_partial:", *lines,
            *short]))


def network_of(config: MiniImageNetConfig
               ) -> Callable[[int, int], keras.Model]:
    """(ways, seed) -> the network that --network names, of the images' size.
    """
    def build(ways: int, seed: int) -> keras.Model:
        return NETWORKS[config.network](ways, seed, config.image_size,
                                        config.channels)
    return build


def _on_device(config: MiniImageNetConfig, nbytes: int) -> bool:
    # Read whole before they are handed over: on the CPU to itself, to a GPU
    # through the host.
    needed = memory.Estimate(2 * nbytes, 2 * nbytes if devices.gpus() else 0)
    if config.device_images == "on":
        memory.require(needed, "keeping all images on the device",
                       "use --device_images=off")
        return True
    if config.device_images == "off":
        return False
    if not devices.gpus():
        return False  # Host memory is the device's: the map itself is best.
    there = memory.available()
    return math.isfinite(there) and nbytes < DEVICE_SHARE * there and (
        memory.fits(needed))
