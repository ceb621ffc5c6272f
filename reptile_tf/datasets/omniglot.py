"""Omniglot: 1,623 characters, 20 drawings each (paper, section 6.1).

All characters of both of the data set's own halves are taken together and
split anew: 1,200 drawn by the seed train, 423 test. Each training character
turned by 90, 180 and 270 degrees is a further class. Pixels as in the authors'
code: 105 -> 28 by nearest neighbour, then the rotation; paper 1, ink 0.
"""

import io
import os
import queue
import threading
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from reptile_tf import models, tasks
from reptile_tf.config import flag
from reptile_tf.datasets import few_shot, glyphs, tfds_version
from reptile_tf.datasets.few_shot import ImageData
from reptile_tf.errors import InputError

NAME = "omniglot"
LARGE = True
DEFAULTS: dict = {}
table = few_shot.table

CHARACTERS, DRAWINGS, RAW_SIZE, SIZE = 1623, 20, 105, 28
TRAINING_CHARACTERS = 1200
ARCHIVES = ("images_background.zip", "images_evaluation.zip")
ADDRESS = "https://github.com/brendenlake/omniglot/raw/master/python/"
PROBE_SECONDS = 10
REMEDIES = (
    "use --data_dir with a folder that holds a prepared "
    "tensorflow-datasets omniglot, the two archives or alphabets of PNG "
    f"folders; or fetch the archives {ADDRESS}{ARCHIVES[0]} and "
    f"{ADDRESS}{ARCHIVES[1]} into that folder; or --data=synthetic for the "
    "built-in glyphs"
)


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
        "official zip archives or alphabets of PNG folders")


CONFIG = OmniglotConfig
# (alphabet, character, where it was found, the drawing's bytes)
Drawing = tuple[str, str, str, bytes]


def shrink(images: np.ndarray) -> np.ndarray:
    """Nearest neighbour [..., 105, 105] -> [..., 28, 28], Pillow's pixels."""
    pick = ((np.arange(SIZE) + 0.5) * (RAW_SIZE / SIZE)).astype(int)
    return images[..., pick[:, None], pick]


def _decode(content: bytes, place: str) -> np.ndarray:
    """uint8 [28, 28], paper 255 and ink 0."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            size = image.size
            pixels = np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise InputError(
            f"{place} is not a readable image ({e}): copy it again from the "
            "archives") from e
    if size != (RAW_SIZE, RAW_SIZE):
        raise InputError(
            f"{place} is {size[0]}x{size[1]}; Omniglot's drawings are "
            f"{RAW_SIZE}x{RAW_SIZE}: use the original images")
    return np.where(shrink(pixels) > 127, np.uint8(255), np.uint8(0))


def _from_archives(folder: Path) -> Iterator[Drawing]:
    for name in ARCHIVES:
        try:
            with zipfile.ZipFile(folder / name) as archive:
                for member in archive.namelist():
                    parts = member.split("/")
                    if (member.endswith(".png") and "__MACOSX" not in member
                            and len(parts) > 2):
                        yield (*parts[-3:-1], f"{folder / name}: {member}",
                               archive.read(member))
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError,
                RuntimeError) as e:
            raise InputError(
                f"{folder / name} is not a whole zip archive ({e}): fetch it "
                f"again from {ADDRESS}{name}") from e


def _from_folders(folder: Path) -> Iterator[Drawing]:
    for path in sorted(folder.rglob("character*/*.png")):
        try:
            content = path.read_bytes()
        except OSError as e:
            raise InputError(f"{path} cannot be read ({e})") from e
        yield path.parent.parent.name, path.parent.name, str(path), content


def _from_tfds(folder: Path) -> Iterator[Drawing]:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
        names = builder.info.features["alphabet"].names
        decoders = {"image": tfds.decode.SkipDecoding()}
        for split in ("train", "test"):
            records = builder.as_dataset(split=split, decoders=decoders)
            for number, row in enumerate(tfds.as_numpy(records)):
                yield (names[row["alphabet"]],
                       f"character{row['alphabet_char_id'] + 1:02d}",
                       f"{folder}: {split} record {number}", row["image"])
    except InputError:
        raise
    except Exception as e:
        raise InputError(
            f"{folder} is not a whole prepared omniglot of tensorflow-datasets "
            f"({type(e).__name__}: {str(e).splitlines()[0]}): prepare it "
            "again, or use another --data_dir") from e


def _recognize(folder: Path) -> tuple[Iterable[Drawing], str]:
    if not folder.is_dir():
        raise InputError(f"--data_dir={folder} is not a folder: {REMEDIES}")
    present = [n for n in ARCHIVES if (folder / n).exists()]
    if len(present) == 2:
        return _from_archives(folder), f"archives in {folder}"
    prepared = tfds_version(folder, NAME)
    if prepared:
        return _from_tfds(prepared), f"tensorflow-datasets in {prepared}"
    if present:
        missing = next(n for n in ARCHIVES if n not in present)
        raise InputError(
            f"--data_dir={folder} holds {present[0]} but not {missing}: fetch "
            f"{ADDRESS}{missing} into it")
    if next(folder.rglob("character*/*.png"), None):
        return _from_folders(folder), f"PNG folders in {folder}"
    raise InputError(f"--data_dir={folder} holds no Omniglot: {REMEDIES}")


def _open(address: str) -> None:
    request = urllib.request.Request(address, method="HEAD")
    urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()


def _reachable(address: str, attempt: Callable[[str], None] = _open) -> None:
    """Raise OSError within PROBE_SECONDS if there is no network."""
    outcome: queue.Queue = queue.Queue()

    def probe():
        try:
            attempt(address)
            outcome.put(None)
        except Exception as e:
            outcome.put(e)

    # In a thread, because resolving a name knows no timeout.
    threading.Thread(target=probe, daemon=True).start()
    try:
        error = outcome.get(timeout=PROBE_SECONDS)
    except queue.Empty:
        raise TimeoutError(
            f"no answer within {PROBE_SECONDS} s") from None
    if error is not None:
        raise error


def _download(folder: Path) -> None:
    import tensorflow_datasets as tfds

    tfds.builder(NAME, data_dir=str(folder)).download_and_prepare()


def _automatic(
    probe: Callable[[str], None] | None = None,
    download: Callable[[Path], None] | None = None,
) -> tuple[Iterable[Drawing], str]:
    """tensorflow-datasets' own folder, else its download."""
    folder = Path(os.path.expanduser(os.environ.get(
        "TFDS_DATA_DIR", "~/tensorflow_datasets")))
    if not (folder.is_dir() and tfds_version(folder, NAME)):
        try:
            (probe or _reachable)(ADDRESS + ARCHIVES[0])
            (download or _download)(folder)
        except Exception as e:
            raise InputError(
                f"Omniglot is not in {folder} and could not be downloaded "
                f"({type(e).__name__}: {e}): {REMEDIES}") from e
    return _recognize(folder)


def collect(found: Iterable[Drawing], source: str) -> np.ndarray:
    """Drawings uint8 [1623, 20, 28, 28], sorted.

    Characters are sorted by alphabet and number. Not every form of the data
    names the drawings, so within a character they are sorted by their pixels:
    the same seed gives the same tasks from all forms.

    Raises:
      InputError: not 1,623 characters of 20 drawings.
    """
    characters: dict[tuple[str, str], list[np.ndarray]] = {}
    for alphabet, character, place, content in found:
        characters.setdefault((alphabet, character), []).append(
            _decode(content, place))
    short = [k for k, v in sorted(characters.items()) if len(v) != DRAWINGS]
    if len(characters) != CHARACTERS or short:
        detail = "".join(f"; {'/'.join(k)} has {len(characters[k])} drawings"
                         for k in short[:1])
        raise InputError(
            f"{source} is incomplete: {len(characters)} characters{detail}; "
            f"Omniglot has {CHARACTERS} characters of {DRAWINGS} drawings: "
            f"copy it again, both of {' and '.join(ARCHIVES)}")
    return np.stack([
        np.stack(sorted(characters[key], key=bytes))
        for key in sorted(characters)
    ])


def split(drawings: np.ndarray, seed: int, val_classes: int, source: str
          ) -> ImageData:
    """Draw the split and add the rotations.

    Args:
      drawings: uint8 [1623, m, 28, 28].
      seed: draws the 1,200 training characters.
      val_classes: of those, how many are set apart for validation.
      source: for the log.
    """
    if not 0 <= val_classes < TRAINING_CHARACTERS:
        raise InputError(
            f"val_classes={val_classes} are taken out of the "
            f"{TRAINING_CHARACTERS} training characters: use 0 to "
            f"{TRAINING_CHARACTERS - 1}")
    number, each = drawings.shape[:2]
    order = tasks.generator(seed, tasks.SPLIT_STREAM).permutation(number)
    cut = TRAINING_CHARACTERS - val_classes
    train, val, test = np.split(order, [cut, TRAINING_CHARACTERS])
    turned = [np.rot90(drawings[train], turns, (2, 3)) for turns in range(4)]
    images = np.concatenate([*turned, drawings[val], drawings[test]])
    classes = list(np.arange(images.shape[0] * each).reshape(-1, each))
    splits = {"train": classes[:4 * cut],
              "val": classes[4 * cut:4 * cut + val_classes],
              "test": classes[4 * cut + val_classes:]}
    if not val_classes:
        del splits["val"]
    return ImageData(images.reshape(-1, SIZE, SIZE, 1), splits, source)


def load(config: OmniglotConfig) -> few_shot.FewShotImages:
    """The data that the flags --data, --data_dir, --seed, --val_classes name.

    Raises:
      InputError: no data, or an incomplete or unreadable copy; never a silent
        fall-back to other data.
    """
    if config.data == "synthetic":
        source = "built-in glyphs (synthetic)"
        drawings = glyphs.draw()
    else:
        found, source = (_recognize(Path(config.data_dir)) if config.data_dir
                         else _automatic())
        drawings = collect(found, source)
    data = split(drawings, config.seed, config.val_classes, source)
    return few_shot.FewShotImages(data, config, models.omniglot)
