"""Image files decoded as a viewer shows them: upright, on white, 8 bits.

A file may hold its picture turned, with the way up beside it (EXIF), and
pixels that are not to be seen, of any colour. Taken as they lie, phone
pictures are on their side and drawings on a transparent ground black on black.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

# EXIF's orientations (its tag 274) and what turns each upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90}
# PNG's transparent colour has the file's bits, Pillow's pixels have 8.
_TO_EIGHT_BITS = {"L;2": lambda key: 85 * key, "L;4": lambda key: 17 * key,
                  "RGB;16B": lambda key: key >> 8}
# Not what else Pillow opens, such as PostScript, which is a program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Changes:
    """What decoding did to images beyond reading their pixels.

    Attributes:
      transparent: how many had transparency, and were put on white.
      turned: how many were turned or mirrored by their EXIF orientation.
      deep: how many had 16 bits.
      brightest: the largest pixel of those, of 16 bits.
    """

    transparent: int = 0
    turned: int = 0
    deep: int = 0
    brightest: int = 0

    def __add__(self, other: "Changes") -> "Changes":
        return Changes(self.transparent + other.transparent,
                       self.turned + other.turned, self.deep + other.deep,
                       max(self.brightest, other.brightest))

    def __str__(self) -> str:
        return ", ".join(
            f"{number:,} {what}" for number, what in (
                (self.transparent, "with transparency, put on white"),
                (self.turned, "turned upright by EXIF"),
                (self.deep, "of 16 bits, of which the upper 8 are kept"),
            ) if number)


UNCHANGED = Changes()


def decode(content: bytes | np.ndarray, mode: str
           ) -> tuple[Image.Image, Changes]:
    """The first frame of an image.

    Args:
      content: a file's bytes, or pixels uint8 [H, W, C].
      mode: "RGB" or "L", what it is made.

    Raises:
      Exception: it does not decode, whatever the decoder raises; ValueError
        for pixels that are not of 1 to 16 bits.
    """
    with _open(content) as picture:
        # Before it is loaded: the layout that the file itself has.
        layout = picture.tile[0].args if picture.format == "PNG" else None
        picture.load()
        opaque, transparent = _on_white(picture, layout)
        brightest = _brightest(picture, layout)
        turn = _UPRIGHT.get(_orientation(picture))
        opaque = opaque.convert(mode)
    return (opaque if turn is None else opaque.transpose(turn),
            Changes(int(transparent), int(turn is not None),
                    int(brightest is not None), brightest or 0))


def _open(content: bytes | np.ndarray) -> Image.Image:
    if isinstance(content, np.ndarray):
        return Image.fromarray(
            content[..., 0] if content.shape[-1] == 1 else content)
    if not content:
        raise ValueError("the file is empty")
    with _quiet():
        try:
            return Image.open(io.BytesIO(content), formats=FORMATS)
        except (Image.DecompressionBombWarning,
                Image.DecompressionBombError) as e:
            raise ValueError(
                f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels: make "
                "it smaller") from e
        except Image.UnidentifiedImageError as e:
            raise ValueError("it is no image of a kind that is read here: "
                             f"make it one of {', '.join(FORMATS)}") from e


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Pillow's warnings of odd headers unsaid, the one of huge images raised.

    Locked, since Python's filters are those of all threads.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _orientation(picture: Image.Image) -> int | None:
    with _quiet():
        try:
            return picture.getexif().get(ExifTags.Base.Orientation)
        except Exception:  # Damaged EXIF is as none: the pixels are whole.
            return None


def _on_white(picture: Image.Image, layout: str | None
              ) -> tuple[Image.Image, bool]:
    """The picture without transparency, and whether it had any."""
    if not picture.has_transparency_data:
        return _eight_bits(picture), False
    if picture.mode in ("1", "L", "I;16", "RGB"):  # One colour is unseen.
        key = np.atleast_1d(picture.info["transparency"])
        pixels = np.asarray(picture).reshape(*picture.size[::-1], -1)
        if picture.mode != "1":
            key = _TO_EIGHT_BITS.get(layout, lambda key: key)(key)
        unseen = (pixels == key.astype(pixels.dtype)).all(-1)
        opaque = _eight_bits(picture).convert(
            "RGB" if picture.mode == "RGB" else "L")
        opaque.paste("white", mask=Image.fromarray(unseen))
        return opaque, bool(unseen.any())
    seen = picture.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    return (Image.alpha_composite(white, seen).convert("RGB"),
            seen.getchannel("A").getextrema()[0] < 255)


def _brightest(picture: Image.Image, layout: str | None) -> int | None:
    """The largest pixel of 16 bits; None of an image of fewer."""
    if picture.mode.startswith("I;16"):
        return int(np.asarray(picture).max())  # getextrema refuses some.
    if "16" not in str(layout):
        return None
    colours = [band for band in picture.getbands() if band != "A"]
    # Pillow has kept the upper 8.
    return max(picture.getchannel(band).getextrema()[1]
               for band in colours) * 256 + 255


def _eight_bits(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # convert() would clip.
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode}, not 8 or 16 bits")
    return picture
