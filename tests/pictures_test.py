"""Decoding image files: oracles are Pillow's own pixels and hand-made PNGs."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from reptile_tf.datasets.pictures import Changes, decode


def encode(image, format="PNG", **more):
    content = io.BytesIO()
    image.save(content, format, **more)
    return content.getvalue()


def pixels(content, mode="RGB"):
    return np.asarray(decode(content, mode)[0])


def coloured(seed=0, height=5, width=7):
    return np.random.default_rng(seed).integers(
        0, 256, (height, width, 3)).astype(np.uint8)


def hand_made(bits, colour_type, rows, transparent=b"", palette=b""):
    """A PNG of the given rows of bytes: depths that Pillow does not write."""
    def chunk(kind, body):
        whole = kind + body
        return (struct.pack(">I", len(body)) + whole
                + struct.pack(">I", zlib.crc32(whole)))

    width = 8 * len(rows[0]) // bits // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[
        colour_type]
    return b"\x89PNG\r\n\x1a\n" + b"".join((
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits,
                                   colour_type, 0, 0, 0)),
        chunk(b"PLTE", palette) if palette else b"",
        chunk(b"tRNS", transparent) if transparent else b"",
        chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r for r in rows))),
        chunk(b"IEND", b"")))


@pytest.mark.parametrize("format", ["EPS", "PPM", "PCX"])
def test_no_other_formats_are_opened(format):
    """PostScript would be run by Ghostscript."""
    content = encode(Image.fromarray(coloured()), format)
    Image.open(io.BytesIO(content))
    with pytest.raises(ValueError, match="no image of a kind.*one of JPEG"):
        decode(content, "RGB")


def test_plain_images_are_pillows_pixels():
    image = Image.fromarray(coloured())
    for name, content in {
            "jpeg": encode(image, "JPEG"), "png": encode(image),
            "grey": encode(image.convert("L")),
            "bilevel": encode(image.convert("1")),
            "palette": encode(image.convert("P")),
            "cmyk": encode(image.convert("CMYK"), "JPEG"),
            "gif": encode(image, "GIF"),
            "webp": encode(image, "WEBP", lossless=True)}.items():
        for mode in ("RGB", "L"):
            got, changes = decode(content, mode)
            np.testing.assert_array_equal(
                got, np.asarray(Image.open(io.BytesIO(content)).convert(mode)),
                name)
            assert changes == Changes() and str(changes) == "", name


def test_ycck_is_cmyk_in_other_words():
    """Of one colour: ink c, m, y, k shows (255 - c) (255 - k) / 255."""
    content = encode(Image.new("CMYK", (8, 8), (200, 100, 0, 50)), "JPEG",
                     quality=100)
    np.testing.assert_allclose(pixels(content)[0, 0], [44, 125, 205], atol=2)


def alpha(shape=(5, 7)):
    values = np.full(shape, 255, np.uint8)
    values[1], values[2] = 0, 100
    return values


def over_white(colour, alpha):
    """Each pixel alpha of itself, the rest white; worked out in floats."""
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def transparent_files():
    """{name: (file, the colours, their alpha)}."""
    rgb, a = coloured(), alpha()
    grey = rgb[..., :1].repeat(3, -1)
    rgba = Image.fromarray(np.dstack([rgb, a]))
    indexed = np.arange(35, dtype=np.uint8).reshape(5, 7)
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
    paletted = Image.fromarray(indexed, "L").convert("L")
    paletted.putpalette(palette.tobytes())
    one = np.where(indexed == 9, 0, 255).astype(np.uint8)
    some = np.where(indexed < 20, 12 * indexed, 255).astype(np.uint8)
    deep = np.random.default_rng(2).integers(0, 2**16, (5, 7, 4)).astype(">u2")
    deep[..., 3] = a.astype(int) * 257
    la = deep[..., [0, 3]]
    return {
        "RGBA": (encode(rgba), rgb, a),
        "WebP": (encode(rgba, "WEBP", lossless=True, exact=True), rgb, a),
        "TIFF": (encode(rgba, "TIFF"), rgb, a),
        "LA": (encode(Image.fromarray(np.dstack([grey[..., 0], a]))), grey, a),
        "P, one colour": (encode(paletted, transparency=9), palette[indexed],
                          one),
        "P, a table": (encode(paletted, transparency=bytes(
            min(12 * i, 255) if i < 20 else 255 for i in range(256))),
            palette[indexed], some),
        "GIF": (encode(paletted, "GIF", transparency=9), palette[indexed],
                one),
        "16-bit RGBA": (hand_made(16, 6, [r.tobytes() for r in deep]),
                        deep[..., :3] >> 8, a),
        "16-bit LA": (hand_made(16, 4, [r.tobytes() for r in la]),
                      (la[..., :1] >> 8).repeat(3, -1), a)}


@pytest.mark.parametrize("name", transparent_files())
def test_alpha_is_put_on_white(name):
    content, colour, a = transparent_files()[name]
    want = over_white(colour, a)
    got, changes = decode(content, "RGB")
    np.testing.assert_allclose(got, want, atol=1)
    expected = Changes(transparent=1)
    if "16" in name:
        expected = Changes(1, 0, 1, int(colour.max()) * 256 + 255)
    assert changes == expected
    grey, changes = decode(content, "L")
    np.testing.assert_allclose(
        grey, want @ [0.299, 0.587, 0.114], atol=2)
    assert changes == expected


@pytest.mark.parametrize("bits, colour_type, rows, key, want", [
    (8, 0, [bytes([0, 90, 7])], b"\0\7", [0, 90, 255]),
    (1, 0, [bytes([0b01000000])], b"\0\0", [255] * 8),
    (1, 0, [bytes([0b01000000])], b"\0\1", [0, 255, *[0] * 6]),
    (2, 0, [bytes([0b00011011])], b"\0\2", [0, 85, 255, 255]),
    (4, 0, [bytes([0x03, 0x5f])], b"\0\5", [0, 51, 255, 255]),
    # Of 16 bits, all 16 must be the key's.
    (16, 0, [b"\x12\x34\x12\x35\xff\x00"], b"\x12\x34", [255, 0x12, 255])])
def test_a_transparent_grey(bits, colour_type, rows, key, want):
    content = hand_made(bits, colour_type, rows, key)
    for mode in ("L", "RGB"):
        got, changes = decode(content, mode)
        assert np.asarray(got)[0].reshape(len(want), -1)[:, 0].tolist() == want
        assert changes == (Changes(1, 0, 1, 0xff00) if bits == 16
                           else Changes(transparent=1))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour(bits):
    values = np.array([[[1, 2, 3], [1, 2, 4], [9, 9, 9]]])
    wide = (values * (257 if bits == 16 else 1)).astype(f">u{bits // 8}")
    content = hand_made(bits, 2, [wide[0].tobytes()], (
        wide[0, 0] if bits == 16 else values[0, 0].astype(">u2")).tobytes())
    np.testing.assert_array_equal(
        pixels(content), [[[255] * 3, [1, 2, 4], [9] * 3]])


def test_alpha_that_hides_nothing_is_none():
    rgb = coloured()
    for opaque in (
            encode(Image.fromarray(rgb).convert("RGBA")),
            encode(Image.fromarray(rgb), transparency=(0, 0, 0))):
        got, changes = decode(opaque, "RGB")
        np.testing.assert_array_equal(got, rgb)
        assert changes == Changes()


def test_arrays_may_have_alpha():
    rgba = np.dstack([coloured(), alpha()])
    got, changes = decode(rgba, "RGB")
    np.testing.assert_allclose(got, over_white(rgba[..., :3], alpha()), atol=1)
    assert changes.transparent == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "MPO"])
def test_every_orientation(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(Image.fromarray(coloured()), format, exif=exif)
    got, changes = decode(content, "RGB")
    stored = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(
        got, ImageOps.exif_transpose(stored).convert("RGB"))
    assert got.size == ((5, 7) if orientation > 4 else (7, 5))
    assert changes == Changes(turned=int(orientation > 1))


def test_a_picture_on_its_side_by_hand():
    """Orientation 6: the file's left is up, so its first column is the top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    assert pixels(encode(Image.fromarray(stored), exif=exif),
                  "L").tolist() == [[4, 1], [5, 2], [6, 3]]


@pytest.mark.parametrize("exif", [
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0nonsense", b"",
    b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\x09\0\0"])
def test_damaged_or_unknown_orientation_is_none(exif):
    image = Image.fromarray(coloured())
    got, changes = decode(encode(image, "JPEG", exif=exif), "RGB")
    np.testing.assert_array_equal(got, pixels(encode(image, "JPEG")))
    assert changes == Changes()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(format):
    first, second = (Image.new("RGB", (4, 4), c) for c in ("red", "blue"))
    content = encode(first, format, save_all=True, append_images=[second])
    np.testing.assert_allclose(pixels(content)[0, 0], [255, 0, 0], atol=3)


@pytest.mark.parametrize("content, message", [
    (b"", "empty"), (b"\xff\xd8\xff", "no image"), (b"Hello, world", "no im"),
    (encode(Image.new("F", (3, 3)), "TIFF"), "mode F"),
    (encode(Image.fromarray(coloured(0, 60, 60)))[:3000], "truncated")])
def test_what_is_no_image(content, message):
    with pytest.raises((ValueError, OSError), match=message):
        decode(content, "RGB")


@pytest.mark.parametrize("most", [40, 80])
def test_a_huge_image(monkeypatch, most):
    """Pillow warns above its limit, and raises above twice that."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(ValueError, match=f"more than {most} pixels"):
        decode(encode(Image.new("L", (9, 9))), "L")


def test_changes_add_up():
    total = Changes(2, 0, 1, 70) + Changes(1200, 3, 4, 60)
    assert str(total) == (
        "1,202 with transparency, put on white, 3 turned upright by EXIF, "
        "5 of 16 bits, of which the upper 8 are kept")
    assert total.brightest == 70
