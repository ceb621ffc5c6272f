"""Omniglot's drawings: decoded, shrunk, sorted and counted."""

from collections.abc import Iterable

import numpy as np

from reptile_tf.datasets import pictures
from reptile_tf.errors import InputError

CHARACTERS, DRAWINGS, RAW_SIZE, SIZE = 1623, 20, 105, 28
# (alphabet, character, where it was found, the drawing's bytes)
Drawing = tuple[str, str, str, bytes]


def shrink(images: np.ndarray) -> np.ndarray:
    """Nearest neighbour [..., 105, 105] -> [..., 28, 28], Pillow's pixels."""
    pick = ((np.arange(SIZE) + 0.5) * (RAW_SIZE / SIZE)).astype(int)
    return images[..., pick[:, None], pick]


def decode(content: bytes, place: str
           ) -> tuple[np.ndarray, pictures.Changes]:
    """uint8 [28, 28], paper 255 and ink 0, and what was done to the image."""
    try:
        image, changes = pictures.decode(content, "L")
    except Exception as e:  # Pillow raises whatever its decoders do.
        raise InputError(
            f"{place} is not a readable image ({e}): copy it again from the "
            "archives") from e
    if image.size != (RAW_SIZE, RAW_SIZE):
        raise InputError(
            f"{place} is {image.size[0]}x{image.size[1]}; Omniglot's drawings "
            f"are {RAW_SIZE}x{RAW_SIZE}: use the original images")
    pixels = shrink(np.asarray(image))
    return np.where(pixels > 127, np.uint8(255), np.uint8(0)), changes


def collect(found: Iterable[Drawing], source: str
            ) -> tuple[np.ndarray, pictures.Changes]:
    """Drawings uint8 [1623, 20, 28, 28], sorted, and what was done to them.

    Characters are sorted by alphabet and number. Not every form of the data
    names the drawings, so within a character they are sorted by their pixels:
    the same seed gives the same tasks from all forms.

    Raises:
      InputError: not 1,623 characters of 20 drawings.
    """
    characters: dict[tuple[str, str], list[np.ndarray]] = {}
    changes = pictures.Changes()
    for alphabet, character, place, content in found:
        pixels, change = decode(content, place)
        characters.setdefault((alphabet, character), []).append(pixels)
        changes += change
    short = [k for k, v in sorted(characters.items()) if len(v) != DRAWINGS]
    if len(characters) != CHARACTERS or short:
        detail = "".join(f"; {'/'.join(k)} has {len(characters[k])} drawings"
                         for k in short[:1])
        raise InputError(
            f"{source} is incomplete: {len(characters)} characters{detail}; "
            f"Omniglot has {CHARACTERS} characters of {DRAWINGS} drawings: "
            "copy it again, both of images_background.zip and "
            "images_evaluation.zip")
    return np.stack([
        np.stack(sorted(characters[key], key=bytes))
        for key in sorted(characters)
    ]), changes
