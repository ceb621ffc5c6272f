"""Omniglot: 1,623 characters, 20 drawings each (paper, section 6.1).

All characters of both of the data set's own halves are taken together and
split anew: 1,200 drawn by the seed train, 423 test. Each training character
turned by 90, 180 and 270 degrees is a further class; in Finn et al.'s code
(--network=maml) a task turns each of its characters at random instead, in
validation and test too. Pixels as in the authors' code: 105 -> 28 by nearest
neighbour, then the rotation; paper 1, ink 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from reptile_tf import networks
from reptile_tf.configuration.run_flags import flag
from reptile_tf.datasets import few_shot, glyphs
from reptile_tf.datasets.few_shot import ImageData
from reptile_tf.datasets.omniglot.download import automatic
from reptile_tf.datasets.omniglot.drawings import SIZE, collect
from reptile_tf.datasets.omniglot.forms import recognize
from reptile_tf.datasets.pictures import UNCHANGED, Changes
from reptile_tf.errors import InputError
from reptile_tf.tasks import SPLIT_STREAM, generator

FILLS_A_THREAD = True
DEFAULTS: dict = {}
BY_ALGORITHM: dict = {}
TRAINING_CHARACTERS = 1200
NETWORKS = {"reptile": networks.omniglot, "maml": networks.maml_omniglot}


@dataclass(frozen=True)
class OmniglotConfig(few_shot.ImageConfig):
    """Flags of Omniglot."""

    val_classes: int = flag(
        0, "training characters set apart for validation", True)
    data: str = flag(
        "auto", "auto: --data_dir, else tensorflow-datasets' folder, else "
        "its download; synthetic: built-in glyphs", False,
        ("auto", "synthetic"))
    data_dir: str = flag(
        "", "folder with a prepared tensorflow-datasets omniglot, the "
        "official zip archives or alphabets of PNG folders", path=True)


def split(drawings: np.ndarray, seed: int, val_classes: int, source: str,
          changes: Changes = UNCHANGED, network: str = "reptile"
          ) -> ImageData:
    """Draw the split and add the rotations.

    Args:
      drawings: uint8 [1623, m, 28, 28].
      seed: draws the 1,200 training characters.
      val_classes: of those, how many are set apart for validation.
      source, changes: for the log.
      network: whose classes: one turn of a character each ("reptile"), or a
        character in all four ("maml").
    """
    if not 0 <= val_classes < TRAINING_CHARACTERS:
        raise InputError(
            f"val_classes={val_classes} are taken out of the "
            f"{TRAINING_CHARACTERS} training characters: use 0 to "
            f"{TRAINING_CHARACTERS - 1}")
    number, count = drawings.shape[:2]
    order = generator(seed, SPLIT_STREAM).permutation(number)
    cut = TRAINING_CHARACTERS - val_classes
    images, splits, start = [], {}, 0
    for name, characters in zip(
            ("train", "val", "test"),
            np.split(order, [cut, TRAINING_CHARACTERS]), strict=True):
        turns = 4 if name == "train" or network == "maml" else 1
        images += [np.rot90(drawings[characters], i, (2, 3))
                   for i in range(turns)]
        places = start + np.arange(turns * len(characters) * count).reshape(
            turns, len(characters), count)
        start += places.size
        splits[name] = list(places.swapaxes(0, 1) if network == "maml"
                            else places.reshape(-1, count))
    if not val_classes:
        del splits["val"]
    return ImageData(np.concatenate(images).reshape(-1, SIZE, SIZE, 1),
                     splits, source, changes=changes)


def load(config: OmniglotConfig) -> few_shot.FewShotImages:
    """The data that the flags --data, --data_dir, --seed, --val_classes name.

    Raises:
      InputError: no data, or an incomplete or unreadable copy; never a silent
        fall-back to other data.
    """
    changes = UNCHANGED
    if config.data == "synthetic":
        source = "built-in glyphs (synthetic)"
        drawings = glyphs.draw()
    else:
        found, source = (recognize(Path(config.data_dir)) if config.data_dir
                         else automatic())
        drawings, changes = collect(found, source)
    data = split(drawings, config.seed, config.val_classes, source, changes,
                 config.network)
    return few_shot.FewShotImages(data, config, network_of(config))


def network_of(config: OmniglotConfig) -> Callable[[int, int], keras.Model]:
    """(ways, seed) -> the network that --network names."""
    return NETWORKS[config.network]
