"""Mini-ImageNet: every form of the data, its preparation, and bad copies."""

import contextlib
import io
import itertools
import json
import logging
import os
import pickle
import re
import shutil
import signal
import socket
import tarfile
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reptile_tf import tasks
from reptile_tf.compare import command as compare
from reptile_tf.configuration import flags
from reptile_tf.datasets import mini_imagenet
from reptile_tf.datasets.mini_imagenet import (
    cache_pickles,
    csv_files,
    decoding,
    prepared,
)
from reptile_tf.datasets.pictures import Changes
from reptile_tf.errors import InputError
from reptile_tf.execution import memory
from reptile_tf.runs import command_line as experiment

SIZE = 8
# Unequal: classes of a split, and images of each class.
CLASSES = {"train": {"n01": 5, "n02": 6, "n03": 4}, "val": {"n11": 4, "n12": 5},
           "test": {"n21": 7, "n22": 4}}


def picture(label, i, size=SIZE):
    """Pixels uint8 [size, size, 3] of image i of a class."""
    rng = np.random.default_rng([int(label[1:]), i])
    return rng.integers(0, 256, (size, size, 3)).astype(np.uint8)


def png(pixels, mode=None, format="PNG"):
    content = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(content, format)
    return content.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def folders(home):
    for split, classes in CLASSES.items():
        for label, count in classes.items():
            for i in range(count):
                write(home / split / label / f"{i:03d}.png",
                      png(picture(label, i)))


def pickles(home, protocol=2):
    home.mkdir(parents=True, exist_ok=True)
    for split, classes in CLASSES.items():
        images, where = [], {}
        for label, count in classes.items():
            where[label] = list(range(len(images), len(images) + count))
            images += [picture(label, i) for i in range(count)]
        where = dict(reversed(where.items()))  # In no order of their names.
        with open(home / f"mini-imagenet-cache-{split}.pkl", "wb") as file:
            pickle.dump({"image_data": np.array(images), "class_dict": where},
                        file, protocol)


def csv_name(label, rank):
    return f"{label}{rank:08d}.jpg"


def csvs(home):
    home.mkdir(parents=True, exist_ok=True)
    for split, classes in CLASSES.items():
        rows = [f"{csv_name(label, i + 1)},{label}"
                for label, count in classes.items() for i in range(count)]
        # In no order of their names.
        (home / f"{split}.csv").write_text("\n".join(
            ["filename,label", *reversed(rows)]) + "\n")


def csv_images(home):
    csvs(home)
    for classes in CLASSES.values():
        for label, count in classes.items():
            for i in range(count):
                write(home / "images" / csv_name(label, i + 1),
                      png(picture(label, i)))


def ilsvrc_files(label, count):
    """Names whose numbers are not in the order of the names."""
    return [(f"{label}_{n}.JPEG", png(picture(label, i))) for i, n in
            enumerate(sorted(7 * i + 3 for i in range(count)))]


def ilsvrc(home):
    csvs(home)
    for classes in CLASSES.values():
        for label, count in classes.items():
            for name, content in ilsvrc_files(label, count):
                write(home / label / name, content)


def ilsvrc_tar(home):
    csvs(home)

    def add(archive, name, content):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))

    with tarfile.open(home / csv_files.TAR_NAME, "w") as outer:
        add(outer, "n99.tar", b"not a tar, and of no class that is wanted")
        for classes in CLASSES.values():
            for label, count in classes.items():
                content = io.BytesIO()
                with tarfile.open(fileobj=content, mode="w") as inner:
                    for name, image in reversed(ilsvrc_files(label, count)):
                        # As tar writes of a folder, and macOS beside it.
                        add(inner, f"./{name}", image)
                        add(inner, f"./._{name}", b"attributes")
                add(outer, f"{label}.tar", content.getvalue())


FORMS = {"folders of images": folders, "cache pickles": pickles,
         "CSV files with images/": csv_images,
         "ILSVRC2012 folders with CSV files": ilsvrc,
         "ILSVRC2012 tar with CSV files": ilsvrc_tar}


def parse(home, *arguments):
    return flags.parse(
        ["run_miniimagenet.py", f"--data_dir={home}", "--allow_partial",
         f"--image_size={SIZE}", f"--cache_dir={home.parent / 'cache'}",
         "--classes=2", "--shots=2", "--train_shots=4", *arguments],
        mini_imagenet.CONFIG, mini_imagenet.DEFAULTS)


def load(home, *arguments):
    return mini_imagenet.load(parse(home, *arguments))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_images(tmp_path, name, monkeypatch):
    monkeypatch.setattr(decoding, "PART", 4)  # More than one, and a rest.
    home = tmp_path / "data"
    FORMS[name](home)
    source = load(home)
    assert source.source.startswith(f"{name} in {home}, 35 images")
    assert len(source.data.images) == 35
    assert source.data.splits.keys() == CLASSES.keys()
    for split, classes in CLASSES.items():
        for places, (label, count) in zip(source.data.splits[split],
                                          classes.items(), strict=True):
            np.testing.assert_array_equal(
                source.data.images[places],
                [picture(label, i) for i in range(count)])
    assert source.splits == ("test", "val", "train") and source.curve == "val"


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_of_every_age(tmp_path, protocol):
    pickles(tmp_path / "data", protocol)
    assert len(load(tmp_path / "data").data.images) == 35


def test_a_pickle_of_python_2(tmp_path):
    """As Python 2 wrote it: byte strings, and NumPy's old module name."""
    pickles(tmp_path / "data")
    array = np.arange(4 * 192).astype(np.uint8).reshape(4, 8, 8, 3)
    content = (
        b"\x80\x02}q\x00(U\nimage_dataq\x01"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02"
        b"cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
        b"(K\x01(K\x04K\x08K\x08K\x03t"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(array.tobytes()).to_bytes(4, "little") + array.tobytes()
        + b"tbU\nclass_dict}(U\x03n11](K\x00K\x01e"
        + b"U\x03n12](K\x02K\x03euu.")
    path = tmp_path / "data" / "mini-imagenet-cache-val.pkl"
    path.write_bytes(content)
    source = load(tmp_path / "data", "--shots=1", "--classes=2")
    np.testing.assert_array_equal(source.data.images[np.arange(15, 19)],
                                  array)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickles(tmp_path / "data")
    path = tmp_path / "data" / "mini-imagenet-cache-test.pkl"
    path.write_bytes(pickle.dumps({"image_data": Hostile()}))
    with pytest.raises(InputError, match="mkdir, which is not a NumPy array"):
        load(tmp_path / "data")
    assert not (tmp_path / "hostile-was-here").exists()


def test_a_web_page_saved_as_a_pickle(tmp_path):
    pickles(tmp_path / "data")
    path = tmp_path / "data" / "mini-imagenet-cache-val.pkl"
    path.write_bytes(b"<!DOCTYPE html><html>quota exceeded</html>")
    with pytest.raises(InputError, match=f"{path}.*it is a web page"):
        load(tmp_path / "data")


class Raw:
    """Pickles as whatever it is told to."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


FIELDS = (3, "|", None, ("f",), {"f": (np.dtype("u1"), 0)}, 8, 1, 0)


@pytest.mark.parametrize("dtype, message", [
    # NumPy would take the array's bytes for a pointer, and crash.
    (Raw(np.dtype, ("V8",), FIELDS), "type 'V8'"),
    (Raw(np.dtype, ("u8",), FIELDS), "fields"),
    (Raw(np.dtype, ("O",)), "type 'O'")])
def test_an_array_of_objects_is_refused(tmp_path, dtype, message):
    pickles(tmp_path / "data")
    path = tmp_path / "data" / "mini-imagenet-cache-val.pkl"
    hostile = Raw(np._core.numeric._frombuffer,
                  (b"A" * 8, dtype, (1,), "C"))
    path.write_bytes(pickle.dumps({
        "image_data": np.zeros((2, 8, 8, 3), np.uint8),
        "class_dict": {"a": hostile}}))
    with pytest.raises(InputError, match=message):
        load(tmp_path / "data")


@pytest.mark.parametrize("array", [
    np.arange(24, dtype=">i4").reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
    np.arange(24.).reshape(2, 3, 4).transpose(1, 2, 0), np.array(["ab", "c"])])
def test_arrays_come_back_as_they_were(tmp_path, array):
    for protocol in range(6):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps([array, array.flat[1]], protocol))
        whole, one = cache_pickles.read_pickle(path)
        got = cache_pickles._plain(whole)
        np.testing.assert_array_equal(got, array)
        assert got.dtype == array.dtype and one == array.flat[1]


def test_a_pickle_that_is_a_folder(tmp_path):
    pickles(tmp_path / "data")
    path = tmp_path / "data" / "mini-imagenet-cache-val.pkl"
    path.unlink()
    path.mkdir()
    assert str(path) in bad(tmp_path / "data")


@pytest.mark.parametrize("content", [
    {"image_data": np.zeros((2, 8, 8, 3), np.uint8)},
    {"image_data": np.zeros((2, 8, 8, 3)), "class_dict": {"a": [0]}},
    {"image_data": np.zeros((2, 8, 8, 3), np.uint8), "class_dict": {"a": [2]}},
    [1, 2]])
def test_a_pickle_of_something_else(tmp_path, content):
    pickles(tmp_path / "data")
    path = tmp_path / "data" / "mini-imagenet-cache-val.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=f"{path} is not a Mini-ImageNet"):
        load(tmp_path / "data")


@pytest.mark.parametrize("name, pillow", [
    ("nearest", Image.NEAREST), ("bilinear", Image.BILINEAR),
    ("bicubic", Image.BICUBIC), ("lanczos", Image.LANCZOS),
    ("area", Image.BOX)])
def test_resize_filters_are_pillows(tmp_path, name, pillow):
    home = tmp_path / "data"
    folders(home)
    # None square, two of them at the size on one side.
    large = [picture("n02", i, 21)[:height, :width]
             for i, (height, width) in enumerate(((13, 21), (8, 13), (13, 8)))]
    for i, pixels in enumerate(large):
        write(home / f"train/n02/{i:03d}.png", png(pixels))
    source = load(home, f"--resize_filter={name}")
    got = source.data.images[5 + np.arange(4)]
    for pixels, resized in zip(large, got, strict=False):
        np.testing.assert_array_equal(
            resized, Image.fromarray(pixels).resize((8, 8), pillow))
    # One that is at the size is left alone.
    np.testing.assert_array_equal(got[3], picture("n02", 3))
    assert f"resize filter {name}" in source.source
    assert source.facts(None) == {
        "resize_filter": name, "data_checksum": f"{source.fingerprint():08x}"}


def test_grey_cmyk_and_palette_images_become_rgb(tmp_path):
    home = tmp_path / "data"
    folders(home)
    pixels = picture("n01", 0)
    write(home / "train" / "n01" / "000.png", png(pixels, "L"))
    write(home / "train" / "n01" / "001.png", png(pixels, "P"))
    (home / "train" / "n01" / "002.png").unlink()
    write(home / "train" / "n01" / "002.jpg", png(pixels, "CMYK", "JPEG"))
    got = load(home).data.images[np.arange(3)]
    assert got.shape == (3, 8, 8, 3)
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(got[0], np.repeat(grey[..., None], 3, -1))


def test_sixteen_bits_become_the_upper_eight(tmp_path):
    home = tmp_path / "data"
    folders(home)
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    write(home / "train/n01/000.png", png(pixels))
    source = load(home)
    got = source.data.images[np.array([0])][0]
    np.testing.assert_array_equal(got, np.repeat(
        pixels[..., None] // 256, 3, -1))
    assert "images 1 of 16 bits, of which the upper" in source.describe()
    assert source.facts(None)["image_changes"].startswith("1 of 16 bits")
    # 15 bits in 16 are not what was meant; with a whole one beside it, dark.
    write(home / "train/n01/000.png", png(pixels // 2))
    assert ("the brightest pixel of 1 image of 16 bits is 31,500 of 65,535, "
            "and the upper 8") in bad(home)
    write(home / "train/n01/002.png", png(pixels))
    assert "images 2 of 16 bits" in load(home).describe()
    (home / "train/n01/001.png").unlink()
    write(home / "train/n01/001.jpg",
          png(pixels.astype(np.float32), format="TIFF"))
    assert "001.jpg does not decode (ValueError: pixels of mode F" in bad(home)


def test_ones_own_grey_images_of_another_size(tmp_path):
    folders(tmp_path / "data")
    source = load(tmp_path / "data", "--channels=1", "--image_size=5",
                  "--resize_filter=area")
    assert source.data.images.shape == (35, 5, 5, 1)
    assert source.network().input_shape == (None, 5, 5, 1)


def test_transparent_and_turned_images_are_counted(tmp_path, monkeypatch):
    """In the line of the data, from the prepared data too."""
    home = tmp_path / "data"
    folders(home)
    plain = load(home).describe()
    assert plain.endswith("3 train classes, 2 val classes, 2 test classes")
    drawing = np.zeros((8, 8, 4), np.uint8)  # Black on black, by its pixels.
    drawing[2:5, 3] = (0, 0, 0, 255)
    write(home / "train/n01/000.png", png(drawing))
    exif = Image.Exif()
    exif[0x0112] = 6
    for where in ("train/n02/001.png", "test/n21/006.png"):
        Image.open(home / where).save(home / where, exif=exif)
    source = load(home)
    want = plain + "; images 1 with transparency, put on white, 2 turned"
    assert source.describe().startswith(want)
    got = source.data.images[np.array([0, 5 + 1])]
    assert got[0].min() == 0 and (got[0] == 255).sum() == 3 * (64 - 3)
    np.testing.assert_array_equal(got[1], np.rot90(picture("n02", 1), -1))
    with monkeypatch.context() as m:
        m.setattr(prepared, "_prepare", None)  # It would fail.
        assert load(home).describe().startswith(want)
    for index in (tmp_path / "cache").glob("*/index.json"):
        content = json.loads(index.read_text())
        del content["changes"]  # As it was before they were counted.
        index.write_text(json.dumps(content))
    assert load(home).describe().startswith(want)


def bad(home, *arguments):
    with pytest.raises(InputError) as e:
        load(home, *arguments)
    return str(e.value)


def test_other_numbers_than_mini_imagenets_need_a_flag(tmp_path):
    folders(tmp_path / "data")
    message = bad(tmp_path / "data", "--noallow_partial")
    for text in ("--allow_partial", "train: 3 classes of 64, 15 images of "
                 "38,400", "val/n12: 5 images of 600"):
        assert text in message


def test_all_bad_images_are_named_at_once(tmp_path):
    home = tmp_path / "data"
    folders(home)
    (home / "train" / "n01" / "001.png").write_bytes(b"")
    whole = png(picture("n22", 0, 64), None, "JPEG")
    write(home / "test" / "n22" / "000.jpg", whole[:len(whole) // 2])
    write(home / "val" / "n11" / "002.png", png(picture("n11", 2, 9)))
    message = bad(home)
    assert message.startswith("3 images cannot be used")
    for text in ("train/n01/001.png does not decode", "test/n22/000.jpg",
                 "val/n11/002.png is 9x9", "--resize_filter={nearest"):
        assert text in message, text
    assert not list((tmp_path / "cache").iterdir())


def test_a_class_in_two_splits(tmp_path):
    folders(tmp_path / "data")
    shutil.copytree(tmp_path / "data/train/n02", tmp_path / "data/test/n02")
    assert "class n02 is in train and in test" in bad(tmp_path / "data")


def test_of_many_wrong_sizes_some_are_named_and_of_other_faults_all(
        tmp_path, monkeypatch):
    home = tmp_path / "data"
    folders(home)
    (home / "test/n21/003.png").write_bytes(b"")
    monkeypatch.setattr(decoding, "MOST_SIZES", 2)
    message = bad(home, "--image_size=9").splitlines()
    assert len(message) == 5 and "--resize_filter" in message[0]
    assert "test/n21/003.png does not decode" in message[1]
    assert message[2].endswith("000.png is 8x8")
    assert message[-1].strip() == "and 32 more of other sizes"


def test_folders_with_their_csv_files_beside_them(tmp_path):
    """What preparing with Finn's script leaves."""
    folders(tmp_path / "data")
    csvs(tmp_path / "data")
    (tmp_path / "data/images").mkdir()
    assert load(tmp_path / "data").source.startswith("folders of images")


def test_what_is_not_read_is_said(tmp_path, caplog):
    folders(tmp_path / "data")
    write(tmp_path / "data/train/n02/a.webp", b"")
    (tmp_path / "data/train/n02/more").mkdir()
    write(tmp_path / "data/val/n11/.DS_Store", b"")
    logging.getLogger("reptile_tf").propagate = True
    with caplog.at_level(logging.WARNING, "reptile_tf"):
        load(tmp_path / "data")
    assert "2 files or folders" in caplog.text and "a.webp" in caplog.text


@pytest.mark.parametrize("make, where", [
    (folders, "val/n11/009.png"), (csv_images, "images/n1200000002.jpg"),
    (ilsvrc, "n21/n21_1.JPEG"), (folders, "val/n13"), (ilsvrc, "n12"),
    (folders, "val"), (csv_images, "images")])
def test_a_link_to_nothing(tmp_path, make, where):
    make(tmp_path / "data")
    path = tmp_path / "data" / where
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to("/nonexistent/a")
    message = bad(tmp_path / "data")
    assert path.name in message and "a link to nothing" in message


def socket_at(path):
    listening = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(path.parent):  # Its name may not be long.
        listening.bind(path.name)
    listening.close()


@pytest.mark.parametrize("where, place, what", [
    *((where, *kind) for kind in (
        (os.mkfifo, "a named pipe"), (socket_at, "a socket"))
      for where in ("train/cat", "train/n01/a.png", "val/n12/a")),
    ("train/n01/a.png", os.mkdir, "a folder")])
def test_what_is_no_class_or_no_image(tmp_path, where, place, what):
    folders(tmp_path / "data")
    place(tmp_path / "data" / where)
    assert f"{tmp_path / 'data' / where} is {what}" in bad(tmp_path / "data")


def test_a_pipe_that_a_csv_names_is_not_waited_for(tmp_path):
    csv_images(tmp_path / "data")
    path = tmp_path / "data/images/n1200000002.jpg"
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is a named pipe" in bad(tmp_path / "data")


@pytest.mark.parametrize("make, where", [
    (folders, "train/n02"), (folders, "val"), (csv_images, "images"),
    (ilsvrc, "n12")])
def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch, make, where):
    make(tmp_path / "data")
    path, scandir = str(tmp_path / "data" / where), os.scandir

    def refused(folder):  # Whoever runs the tests, root too.
        if os.fspath(folder) == path:
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    assert f"{path} cannot be read (Permission denied)" in bad(
        tmp_path / "data")


def test_a_file_in_place_of_a_split(tmp_path):
    folders(tmp_path / "data")
    shutil.rmtree(tmp_path / "data/val")
    (tmp_path / "data/val").write_text("")
    assert "val cannot be read (Not a directory)" in bad(tmp_path / "data")


def test_folders_one_level_too_deep(tmp_path):
    """The same group in two splits is not a class in two splits."""
    home = tmp_path / "data"
    for split in CLASSES:
        for label in ("cat", "dog", "emu", "fox"):
            write(home / split / "animals" / f"{split}-{label}" / "1.jpg",
                  b"")
    message = bad(home)
    for text in (f"{home}/train/animals holds no images itself, but folders "
                 "of them (train-cat, train-dog, train-emu and 1 more), as "
                 "do 2 folders more. Images must lie in train/<class>/: if "
                 "train-cat is a class, move what is in animals up into "
                 f"{home}/train; if animals is one, move the images up"):
        assert text in message, text


def test_images_in_a_folder_within_their_classs(tmp_path):
    folders(tmp_path / "data")
    write(tmp_path / "data/train/cat/images/more/1.PNG", b"")
    assert "train/cat holds no images itself, but folders of them (images)" in (
        bad(tmp_path / "data"))


def test_images_in_no_class(tmp_path, caplog):
    home = tmp_path / "data"
    folders(home)
    for i in range(5):
        write(home / "val" / f"{i}.jpg", b"")
    logging.getLogger("reptile_tf").propagate = True
    with caplog.at_level(logging.WARNING, "reptile_tf"):
        load(home)
    assert f"not read: 5 images in no class's folder ({home}/val/0.jpg, " in (
        caplog.text) and "and 2 more)" in caplog.text
    shutil.rmtree(home / "val/n11")
    shutil.rmtree(home / "val/n12")
    assert (f"{home}/val holds 5 images (0.jpg, 1.jpg, 2.jpg and 2 more) and "
            "no folders of classes") in bad(home)


def test_upper_case_names_are_read_and_hidden_ones_are_not(tmp_path):
    home = tmp_path / "data"
    folders(home)
    (home / "train/n01/000.png").rename(home / "train/n01/000.PNG")
    for name in (".DS_Store", "._001.png", ".hidden/1.png"):
        write(home / "train/n01" / name, b"")
    write(home / "train/.git/1.png", b"")
    assert [len(c) for c in load(home).data.splits["train"]] == [5, 6, 4]


def test_a_class_that_is_too_small_is_named(tmp_path):
    home = tmp_path / "data"
    folders(home)
    write(home / "train/cat/1.png", b"")
    assert ("class train/cat has 1 image, 4 are needed (--train_shots=4): "
            "add images, remove what is too small") in bad(home, "--shots=1")
    assert ("class train/cat has 1 image, 6 are needed (--train_shots=6); 2 "
            "more of train have too few") in bad(home, "--train_shots=6")
    assert ("class train/cat has 1 image, 4 are needed (--shots=3 and one to "
            "test on): add") in bad(home, "--shots=3")
    shutil.rmtree(home / "train/cat")
    assert bad(home, "--shots=4").endswith("or use --shots=3 or fewer")
    # With 4 images a class 4 shots leave none to test on.
    assert bad(home, "--shots=3", "--train_shots=5").endswith(
        "or use --train_shots=4 or fewer")
    assert "or use" not in bad(home, "--shots=4", "--train_shots=6")


@pytest.mark.parametrize("change, message", [
    (lambda t: t + b"onlyname.jpg\n", "line 11 of .*val.csv is 'onlyname"),
    (lambda t: t + b"\xff,n11\n", "val.csv cannot be read"),
    (lambda t: t.replace(b"n1100000002.jpg", b"second.jpg"),
     "second.jpg is not n11 and the image's rank")])
def test_a_damaged_csv(tmp_path, change, message):
    ilsvrc(tmp_path / "data")
    path = tmp_path / "data/val.csv"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        load(tmp_path / "data")


def test_a_csv_with_a_byte_order_mark_and_strange_names(tmp_path):
    ilsvrc(tmp_path / "data")
    path = tmp_path / "data/val.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    write(tmp_path / "data/n21/n21_1 (copy).JPEG", b"")
    assert len(load(tmp_path / "data").data.images) == 35


@pytest.mark.parametrize("damage", [
    lambda home: (home / "images.npy").unlink(),
    lambda home: (home / "index.json").unlink(),
    lambda home: (home / "images.npy").write_bytes(
        (home / "images.npy").read_bytes()[:-1])])
def test_damaged_prepared_data_are_prepared_again(tmp_path, damage):
    folders(tmp_path / "data")
    first = load(tmp_path / "data").fingerprint()
    [home] = (tmp_path / "cache").iterdir()
    damage(home)
    assert load(tmp_path / "data").fingerprint() == first


def test_damaged_prepared_data_that_stay_are_said_before_all_is_decoded(
        tmp_path, monkeypatch):
    folders(tmp_path / "data")
    load(tmp_path / "data")
    [home] = (tmp_path / "cache").iterdir()
    (home / "index.json").unlink()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # Another's.
    with pytest.raises(InputError, match="cannot be removed: remove them"):
        load(tmp_path / "data")


def test_what_killed_preparations_left_is_removed_after_a_day(tmp_path):
    folders(tmp_path / "data")
    load(tmp_path / "data")
    [home] = (tmp_path / "cache").iterdir()
    kept = {home.name, f".{home.name}-new", ".local-share"}
    for name, age in ((f".{home.name}-old", 90_000), (".local-share", 90_000),
                      (f".{'0' * 20}-of_others", 90_000),
                      (f".{home.name}-new", 60)):
        left = home.parent / name
        left.mkdir()
        os.utime(left, (time.time() - age,) * 2)
    load(tmp_path / "data")
    assert {p.name for p in home.parent.iterdir()} == kept
    # What is kept may be read by all who may read its files.
    mask = os.umask(0)
    os.umask(mask)
    assert home.stat().st_mode & 0o777 == 0o777 & ~mask


def test_prepared_data_that_cannot_be_opened_are_kept(tmp_path, monkeypatch):
    """They may be whole, and others may be reading them."""
    folders(tmp_path / "data")
    load(tmp_path / "data")
    [home] = (tmp_path / "cache").iterdir()
    before = {p.name: p.stat().st_mtime_ns for p in home.iterdir()}

    def no_memory(*arguments, **more):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(prepared.np, "load", no_memory)
    assert "cannot be opened ([Errno 12] Cannot allocate memory)" in bad(
        tmp_path / "data")
    assert {p.name: p.stat().st_mtime_ns for p in home.iterdir()} == before


def test_a_relative_path_is_the_same_data(tmp_path, monkeypatch):
    folders(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("data")
    for data in (tmp_path / "data", Path("data"), Path("./data/../data"),
                 Path("link")):
        load(data, f"--cache_dir={tmp_path / 'cache'}")
    assert len([*(tmp_path / "cache").iterdir()]) == 1


def test_accents_in_either_form_are_one_name(tmp_path):
    """As disks keep them: the order of classes, of which tasks are drawn."""
    found = []
    for form in ("NFC", "NFD"):
        home = tmp_path / form / "data"
        folders(home)
        for label, like in (("élan", "n71"), ("fox", "n72"), ("gnu", "n73")):
            name = unicodedata.normalize(form, label)
            for i in range(4):
                write(home / "train" / name / f"{i}.png",
                      png(picture(like, i)))
        data = load(home).data
        found.append([data.images[places] for places in data.splits["train"]])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    # Names in tables, and those of the files.
    for table, files in (("NFC", "NFD"), ("NFD", "NFC")):
        home = tmp_path / table / "tables"
        csv_images(home)
        for path in home.glob("*.csv"):
            path.write_text(unicodedata.normalize(
                table, path.read_text().replace("n01", "é")), "utf-8")
        for path in (home / "images").iterdir():
            path.rename(path.with_name(unicodedata.normalize(
                files, path.name.replace("n01", "é"))))
        assert len(load(home).data.images) == 35


def test_a_name_that_is_no_text(tmp_path, capsys):
    """Of a folder, and of what is not read in it."""
    home = tmp_path / "d\udce9"
    folders(home)
    (home / "train" / "a\udcdcb.txt").touch()
    run = [*arguments(tmp_path)[1:], f"--data_dir={home}", "--meta_iters=0",
           "--eval_samples=1", "--eval_interval_samples=1", "--eval_iters=1",
           "--eval_splits=test", "--noexport", f"--run_dir={tmp_path / 'run'}"]
    assert experiment.main(mini_imagenet, ["run_miniimagenet.py", *run]) == 0
    assert "a\\udcdcb.txt" in capsys.readouterr().out
    assert "a\\udcdcb.txt" in (tmp_path / "run" / "run.log").read_text()
    assert experiment.main(mini_imagenet, ["run_miniimagenet.py", *run]) == 0
    assert "already finished" in capsys.readouterr().out
    compare.show([tmp_path / "run"], "html")
    assert "d\\udce9" in capsys.readouterr().out
    assert experiment.main(mini_imagenet, [
        "run_miniimagenet.py", f"--flagfile={tmp_path / 'run' / 'flags.cfg'}",
        ]) == 1
    assert "can't decode byte 0xe9" in capsys.readouterr().err


def test_a_signal_stops_the_preparation(tmp_path, monkeypatch):
    """At once, and with nothing left behind."""
    folders(tmp_path / "data")
    decoded, number = [], itertools.count(1)

    def slow(self, image):
        decoded.append(image)
        if next(number) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        return np.zeros((8, 8, 3), np.uint8), Changes()

    monkeypatch.setattr(prepared.Pixels, "of", slow)
    monkeypatch.setattr("reptile_tf.execution.limits.cpus", lambda: 2)
    assert experiment.main(mini_imagenet, [
        "run_miniimagenet.py", *arguments(tmp_path),
        f"--run_dir={tmp_path / 'run'}"]) == 128 + signal.SIGTERM
    assert len(decoded) < 25 and not list((tmp_path / "cache").iterdir())


def test_an_empty_split(tmp_path):
    home = tmp_path / "data"
    folders(home)
    shutil.rmtree(home / "val")
    (home / "val").mkdir()
    assert "val has 0 classes" in bad(home)


def test_numbers_are_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    folders(tmp_path / "data")
    monkeypatch.setattr(decoding, "_decoded", None)  # It would fail.
    assert "--shots=3 or fewer" in bad(tmp_path / "data", "--shots=4")
    shutil.copytree(tmp_path / "data/train/n02", tmp_path / "data/test/n02")
    assert "class n02 is in train and in test" in bad(tmp_path / "data")


def test_an_image_moved_to_another_class_is_prepared_again(tmp_path):
    home = tmp_path / "data"
    folders(home)
    assert [len(c) for c in load(home).data.splits["train"]] == [5, 6, 4]
    # Of a name that is free there: the names and times stay the same.
    (home / "train/n02/005.png").rename(home / "train/n03/005.png")
    assert [len(c) for c in load(home).data.splits["train"]] == [5, 5, 5]


def test_linked_classes_split_in_another_way_are_prepared_again(tmp_path):
    """The files are the same, and the links alone say what they are."""
    home = tmp_path / "data"
    folders(home)
    links = [home / "train/n02", home / "test/n22"]
    [train, test] = [tmp_path / link.name for link in links]
    for link, pool in zip(links, (train, test), strict=True):
        link.rename(pool)
        link.symlink_to(pool)
    before = load(home).data
    for link, pool in zip(links, (test, train), strict=True):
        link.unlink()
        link.symlink_to(pool)
    after = load(home).data
    assert before.fingerprint != after.fingerprint
    assert [len(c) for c in before.splits["train"]] != [
        len(c) for c in after.splits["train"]]


def test_a_name_with_accents_of_two_kinds_is_no_two_classes(tmp_path):
    folders(tmp_path / "data")
    for form in ("NFC", "NFD"):
        write(tmp_path / "data/train" / unicodedata.normalize(form, "é")
              / "0.png", png(picture("n01", 0)))
    assert "is another folder of the name é" in bad(tmp_path / "data")


@pytest.mark.parametrize("where, free, kept", [
    ("on", 2 * 35 * 192, True), ("auto", 4 * 35 * 192, True),
    ("auto", 35 * 192, False), ("off", 0, False)])
def test_images_stay_on_a_gpu_where_they_fit(tmp_path, monkeypatch, where,
                                             free, kept):
    folders(tmp_path / "data")
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: ["GPU"])
    monkeypatch.setattr(memory, "available", lambda: free)
    source = load(tmp_path / "data", f"--device_images={where}")
    assert (source._images is not None) == kept


def test_images_that_do_not_fit_on_the_device(tmp_path, monkeypatch):
    folders(tmp_path / "data")
    monkeypatch.setattr(memory, "available", lambda: 35 * 192 - 1)
    assert "--device_images=off" in bad(tmp_path / "data",
                                        "--device_images=on")


def test_an_empty_class(tmp_path):
    folders(tmp_path / "data")
    (tmp_path / "data/val/n13").mkdir()
    assert "class n13 of val" in bad(tmp_path / "data")


def test_a_missing_split(tmp_path):
    folders(tmp_path / "data")
    shutil.rmtree(tmp_path / "data/val")
    assert "but not val" in bad(tmp_path / "data")


def test_a_missing_wnid(tmp_path):
    ilsvrc(tmp_path / "data")
    shutil.rmtree(tmp_path / "data/n12")
    assert "no folder n12" in bad(tmp_path / "data")


def test_a_rank_beyond_the_class(tmp_path):
    ilsvrc(tmp_path / "data")
    (tmp_path / "data/n21/n21_45.JPEG").unlink()
    assert "n2100000007.jpg is image 7 of class n21" in bad(tmp_path / "data")


def test_a_missing_image_of_a_csv(tmp_path):
    csv_images(tmp_path / "data")
    (tmp_path / "data/images/n1200000002.jpg").unlink()
    assert "n1200000002.jpg is missing" in bad(tmp_path / "data")


def test_a_csv_without_its_header(tmp_path):
    csv_images(tmp_path / "data")
    (tmp_path / "data/val.csv").write_text("n1100000001.jpg,n11\n")
    assert "header" in bad(tmp_path / "data")


def test_nothing_that_is_known(tmp_path):
    (tmp_path / "data").mkdir()
    assert "holds nothing" in bad(tmp_path / "data")
    assert "is not a folder" in bad(tmp_path / "elsewhere")
    folders(tmp_path / "data/photos")
    assert f"did you mean --data_dir={tmp_path / 'data/photos'}?" in bad(
        tmp_path / "data")
    shutil.rmtree(tmp_path / "data/photos")
    csvs(tmp_path / "data")
    assert "but no images" in bad(tmp_path / "data")


def test_a_tar_of_folders(tmp_path):
    csvs(tmp_path / "data")
    with tarfile.open(tmp_path / "data" / csv_files.TAR_NAME, "w") as outer:
        for classes in CLASSES.values():
            for label in classes:
                folder = tarfile.TarInfo(label)
                folder.type = tarfile.DIRTYPE
                outer.addfile(folder)
    assert re.search(r"has no n\d+.tar, a class that", bad(tmp_path / "data"))


def test_a_cut_tar(tmp_path):
    ilsvrc_tar(tmp_path / "data")
    path = tmp_path / "data" / csv_files.TAR_NAME
    path.write_bytes(path.read_bytes()[:9000])
    assert str(path) in bad(tmp_path / "data")


def test_no_data_dir_says_what_it_may_hold():
    with pytest.raises(InputError, match="cannot be downloaded.*--data_dir"):
        flags.parse(["x"], mini_imagenet.CONFIG, mini_imagenet.DEFAULTS)


def test_prepared_data_are_used_again_and_redone_when_the_source_changes(
        tmp_path, caplog, monkeypatch):
    home = tmp_path / "data"
    folders(home)
    first = load(home).fingerprint()
    with monkeypatch.context() as m:
        m.setattr(prepared, "_prepare", None)  # It would fail.
        assert load(home).fingerprint() == first
    path = home / "val" / "n11" / "000.png"
    path.write_bytes(png(picture("n50", 0)))
    os.utime(path, (1, 1))  # However coarse the file system's clock is.
    assert load(home).fingerprint() != first
    assert len(list((tmp_path / "cache").iterdir())) == 2
    load(home, "--channels=1")
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_images_of_every_size_and_filter_are_prepared_apart(tmp_path):
    """In one cache, and of another fingerprint."""
    home, found = tmp_path / "data", set()
    folders(home)
    for size, name, pillow in ((5, "nearest", Image.NEAREST),
                               (5, "area", Image.BOX), (6, "area", Image.BOX)):
        source = load(home, f"--image_size={size}", f"--resize_filter={name}")
        np.testing.assert_array_equal(
            source.data.images[source.data.splits["test"][1][3]],
            Image.fromarray(picture("n22", 3)).resize((size, size), pillow))
        found.add(source.fingerprint())
    assert len(found) == len([*(tmp_path / "cache").iterdir()]) == 3


def test_a_killed_preparation_is_redone(tmp_path, monkeypatch):
    home = tmp_path / "data"
    folders(home)

    def killed(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(decoding, "_decoded", killed)
        with pytest.raises(KeyboardInterrupt):
            load(home)
    assert len(load(home).data.images) == 35


def test_two_preparations_at_once_do_not_harm_each_other(tmp_path):
    home = tmp_path / "data"
    folders(home)
    with ThreadPoolExecutor(4) as pool:
        sources = [*pool.map(lambda _: load(home), range(4))]
    for source in sources:
        np.testing.assert_array_equal(source.data.images[np.array([0])][0],
                                      picture("n01", 0))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_cache_folder_that_cannot_be_written(tmp_path):
    folders(tmp_path / "data")
    (tmp_path / "file").write_text("")
    assert "--cache_dir" in bad(tmp_path / "data",
                                f"--cache_dir={tmp_path / 'file'}")


def test_no_space_left(tmp_path, monkeypatch):
    folders(tmp_path / "data")

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    message = bad(tmp_path / "data")
    assert "No space left" in message and "--cache_dir" in message
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_images_on_the_device_and_on_the_host_train_the_same(tmp_path):
    folders(tmp_path / "data")
    small = ["--meta_iters=5", "--eval_interval=2", "--eval_samples=3",
             "--eval_interval_samples=2", "--eval_iters=2", "--eval_batch=2",
             "--inner_batch=3", "--inner_iters=2", "--meta_batch=2",
             "--notransductive", "--noexport"]
    results = {}
    for where in ("on", "off"):
        run = tmp_path / where
        assert experiment.main(mini_imagenet, [
            "run_miniimagenet.py", *arguments(tmp_path), *small,
            f"--device_images={where}", f"--run_dir={run}"]) == 0
        result = json.loads((run / "result.json").read_text())
        metrics = (run / "metrics.csv").read_text()
        assert ",val," in metrics and ",test," not in metrics
        assert result["resize_filter"] == "none"
        results[where] = result["results"], metrics
    assert results["on"] == results["off"]


def arguments(tmp_path):
    config = parse(tmp_path / "data")
    return [*config.lines().values(), "--shots=1"]


def test_prefetched_batches_leave_the_state_of_the_last_one_returned():
    def make(rng):
        return lambda number: tasks.Batches(*(
            rng.integers(0, 99, (number, 2)) for _ in range(4)))
    rng, plain = (np.random.default_rng(3) for _ in range(2))
    ahead, draw = tasks.Prefetched(make, rng), make(plain)
    for number in (2, 2, 5, 1, 1):
        for a, b in zip(ahead(number), draw(number), strict=True):
            np.testing.assert_array_equal(a, b)
        assert rng.bit_generator.state == plain.bit_generator.state
    # A restored state is drawn from, not what was drawn ahead.
    rng.bit_generator.state = np.random.default_rng(8).bit_generator.state
    again = make(np.random.default_rng(8))
    np.testing.assert_array_equal(ahead(3).inputs, again(3).inputs)


def test_the_log_says_what_was_prepared(tmp_path, caplog):
    folders(tmp_path / "data")
    logging.getLogger("reptile_tf").propagate = True
    with caplog.at_level(logging.INFO, "reptile_tf"):
        load(tmp_path / "data")
    assert "preparing folders of images" in caplog.text


def test_images_that_finn_et_als_poolings_leave_nothing_of_are_refused():
    def parsed(size):
        return flags.parse(
            ["", "--data_dir=x", "--network=maml", f"--image_size={size}"],
            mini_imagenet.CONFIG, mini_imagenet.DEFAULTS)

    smallest = mini_imagenet.network_of(parsed(16))(3, 0)
    assert smallest.get_layer("pool4").output.shape[1:3] == (1, 1)
    with pytest.raises(InputError, match=(
            "image_size=15: .*--network=maml: use 16 or more, or --network=")):
        parsed(15)
