"""Omniglot: pixels, the split, the forms of the data, and bad copies."""

import io
import os
import shutil
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reptile_tf.datasets import few_shot, glyphs, omniglot
from reptile_tf.datasets.omniglot import OmniglotConfig as Config
from reptile_tf.datasets.omniglot import download, drawings, forms
from reptile_tf.datasets.omniglot.download import automatic
from reptile_tf.datasets.pictures import Changes
from reptile_tf.datasets.prepared_tfds import tfds_version
from reptile_tf.errors import InputError


def test_shrinking_is_pillows_nearest_neighbour(rng):
    drawings = rng.integers(0, 256, (3, 105, 105)).astype(np.uint8)
    want = [Image.fromarray(d).resize((28, 28), Image.Resampling.NEAREST)
            for d in drawings]
    np.testing.assert_array_equal(omniglot.shrink(drawings),
                                  np.stack([np.asarray(w) for w in want]))


def tiny_drawings():
    """[1623, 2, 28, 28]: pixel 0 and 1 of each hold the character's number."""
    drawings = np.zeros((1623, 2, 28, 28), np.uint8)
    drawings[:, :, 0, 0] = (np.arange(1623) // 256)[:, None]
    drawings[:, :, 0, 1] = (np.arange(1623) % 256)[:, None]
    return drawings


def number_of(image):
    return int(image[0, 0, 0]) * 256 + int(image[0, 1, 0])


def test_the_split_is_1200_and_423_and_follows_the_seed():
    def characters(seed):
        data = omniglot.split(tiny_drawings(), seed, 0, "x")
        assert len(data.splits["train"]) == 4800
        assert len(data.splits["test"]) == 423
        assert set(data.splits) == {"train", "test"}
        train = {number_of(data.images[c[0]])
                 for c in data.splits["train"][:1200]}
        test = {number_of(data.images[c[0]]) for c in data.splits["test"]}
        assert len(train) == 1200 and train | test == set(range(1623))
        return test
    assert characters(0) == characters(0) != characters(1)


def test_a_seed_means_the_same_split_for_ever():
    """Else a published initialization would know test characters."""
    data = omniglot.split(tiny_drawings(), 0, 0, "x")
    assert [number_of(data.images[c[0]]) for c in data.splits["test"][:5]
            ] == [0, 1595, 65, 1336, 1618]
    assert [number_of(data.images[c[0]]) for c in data.splits["train"][:3]
            ] == [1229, 854, 493]


def test_validation_characters_come_out_of_the_training_ones():
    plain = omniglot.split(tiny_drawings(), 3, 0, "x")
    data = omniglot.split(tiny_drawings(), 3, 100, "x")
    sizes = {name: len(classes) for name, classes in data.splits.items()}
    assert sizes == {"train": 4400, "val": 100, "test": 423}
    every = np.concatenate([np.concatenate(c) for c in data.splits.values()])
    assert len(set(every)) == len(every) == len(data.images)

    def tests(d):
        return [number_of(d.images[c[0]]) for c in d.splits["test"]]
    assert tests(plain) == tests(data)


def test_the_flags_make_the_split(monkeypatch):
    monkeypatch.setattr(glyphs, "draw", tiny_drawings)
    data = omniglot.load(Config(data="synthetic", seed=3, val_classes=7,
                                shots=(1,), train_shots=2)).data
    want = omniglot.split(tiny_drawings(), 3, 7, "x")
    np.testing.assert_array_equal(data.images, want.images)
    assert [*data.splits] == [*want.splits] == ["train", "val", "test"]
    for name, classes in data.splits.items():
        np.testing.assert_array_equal(classes, want.splits[name])


def test_each_rotation_of_a_training_character_is_a_class():
    rng = np.random.default_rng(0)
    drawings = rng.integers(0, 2, (1623, 2, 28, 28), np.uint8) * 255
    data = omniglot.split(drawings, 0, 0, "x")
    train = data.splits["train"]
    assert len({tuple(c) for c in train}) == 4800
    for turns in range(4):
        for character in (0, 7, 1199):
            upright = Image.fromarray(data.images[train[character][1], :, :,
                                                  0])
            turned = data.images[train[1200 * turns + character][1], :, :, 0]
            np.testing.assert_array_equal(
                turned, upright.rotate(90 * turns))


def test_finn_et_als_characters_are_turned_in_every_split():
    rng = np.random.default_rng(0)
    drawings = rng.integers(0, 2, (1623, 2, 28, 28), np.uint8) * 255
    plain = omniglot.split(drawings, 4, 0, "x")
    data = omniglot.split(drawings, 4, 100, "x", network="maml")
    sizes = {name: [len(classes), *{c.shape for c in classes}]
             for name, classes in data.splits.items()}
    assert sizes == {"train": [1100, (4, 2)], "val": [100, (4, 2)],
                     "test": [423, (4, 2)]}
    every = np.concatenate([np.ravel(c) for classes in data.splits.values()
                            for c in classes])
    assert sorted(every) == list(range(len(data.images)))
    for split, character in (("train", 7), ("test", 0), ("test", 422)):
        upright = Image.fromarray(
            plain.images[plain.splits[split][character][1], :, :, 0])
        for turns in range(4):
            np.testing.assert_array_equal(
                data.images[data.splits[split][character][turns, 1], :, :, 0],
                upright.rotate(90 * turns))
    with pytest.raises(InputError, match=r"class test/0 has 2 images, 3 are"):
        Config(shots=(2,), train_shots=2, network="maml").check_data(
            {"test": data.splits["test"]})


def test_a_character_is_known_by_its_pixels_in_both_networks_classes():
    rng = np.random.default_rng(0)
    drawings = rng.integers(0, 2, (1623, 2, 28, 28), np.uint8) * 255
    plain = omniglot.split(drawings, 4, 0, "x")
    data = omniglot.split(drawings, 4, 100, "x", network="maml")
    upright = [[f"{zlib.crc32(plain.images[rows].tobytes()):08x}"
                for rows in plain.splits[name]] for name in ("train", "test")]
    assert [plain.classes(s) for s in ("train", "test")] == upright
    assert data.classes("test") == upright[1]
    assert data.classes("train") + data.classes("val") == upright[0][:1200]
    assert not {*upright[0]} & {*upright[1]}
    assert {*upright[1]} & {
        *omniglot.split(drawings, 5, 0, "x").classes("train")}


def test_a_table_has_untrained_and_trained_in_their_columns():
    """As the head names them; the cells of the test split alone."""
    def row(split, shots, transductive, accuracy, ci95):
        return {"split": split, "shots": shots, "transductive": transductive,
                "accuracy": accuracy, "ci95": ci95}

    lines = few_shot.table({
        "ways": 7,
        "results": [row("test", 1, True, 0.91, 0.012),
                    row("test", 5, False, 0.82, None),
                    row("train", 1, True, 0.99, 0.01)],
        # In another order.
        "untrained": [row("train", 1, True, 0.33, 0.03),
                      row("test", 5, False, 0.24, 0.045),
                      row("test", 1, True, 0.15, 0.056)]})
    assert lines[0] == (
        "accuracy on test classes, 7-way, % (95 % interval over tasks)")
    assert [line.split() for line in lines[1:]] == [
        ["untrained", "meta-trained"],
        ["1-shot", "transductive", "15.0", "±", "5.6", "91.0", "±", "1.2"],
        ["5-shot", "non-transductive", "24.0", "±", "4.5", "82.0", "±",
         "0.0"]]


def test_the_network_flag_names_the_network():
    for network, name in (("reptile", "omniglot"), ("maml", "maml_omniglot")):
        source = omniglot.load(Config(data="synthetic", network=network))
        assert source.network().name == name
        assert {c.shape for c in source.data.splits["test"]} == (
            {(20,)} if network == "reptile" else {(4, 20)})


def png(size=(105, 105), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 2, size[::-1]) > 0
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.mark.data
def test_pixels_equal_pillows_on_real_drawings(real_data):
    with zipfile.ZipFile(real_data / omniglot.ARCHIVES[0]) as archive:
        names = [n for n in archive.namelist() if n.endswith(".png")][::500]
        assert len(names) > 30
        for name in names:
            content = archive.read(name)
            want = Image.open(io.BytesIO(content)).convert("L").resize(
                (28, 28), Image.Resampling.NEAREST)
            got, changes = drawings.decode(content, name)
            assert not str(changes)
            np.testing.assert_array_equal(got, want)
            assert got[0, 0] == 255 and got.min() == 0  # ink on paper


@pytest.mark.data
@pytest.mark.slow
def test_all_three_forms_give_the_same_pixels(real_data, tmp_path):
    for name in omniglot.ARCHIVES:
        with zipfile.ZipFile(real_data / name) as archive:
            archive.extractall(tmp_path)
    folders = [real_data / "tensorflow_datasets", real_data, tmp_path]
    tfds, archives, images = (
        omniglot.load(Config(data_dir=str(f), seed=5)).data for f in folders)
    assert "tensorflow-datasets" in tfds.source
    assert "archives" in archives.source and "PNG" in images.source
    assert tfds.images.shape == ((4800 + 423) * 20, 28, 28, 1)
    np.testing.assert_array_equal(tfds.images, archives.images)
    np.testing.assert_array_equal(tfds.images, images.images)
    assert tfds.fingerprint() == archives.fingerprint() == images.fingerprint()
    assert tfds.fingerprint() != omniglot.split(
        tfds.images[:1623 * 20].reshape(1623, 20, 28, 28), 5, 0, "x"
    ).fingerprint()


def load(folder):
    return omniglot.load(Config(data_dir=str(folder)))


def test_a_missing_folder_names_the_remedies(tmp_path):
    with pytest.raises(InputError) as e:
        load(tmp_path / "nowhere")
    for word in ("nowhere", "--data_dir", omniglot.ADDRESS, "--data=synthetic"):
        assert word in str(e.value)


def test_an_empty_folder(tmp_path):
    with pytest.raises(InputError, match="holds no Omniglot.*--data_dir"):
        load(tmp_path)


def test_half_of_the_archives(tmp_path):
    (tmp_path / omniglot.ARCHIVES[0]).write_bytes(b"x")
    with pytest.raises(InputError, match="but not images_evaluation.zip"):
        load(tmp_path)


def test_a_cut_archive_is_named(tmp_path):
    for name in omniglot.ARCHIVES:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("images_x/Alpha/character01/1_01.png", png())
    path = tmp_path / omniglot.ARCHIVES[1]
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="images_evaluation.zip is not a wh"):
        load(tmp_path)


def folder_of(tmp_path, content):
    path = tmp_path / "Alpha" / "character01" / "0001_01.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_half_copied_folders(tmp_path):
    folder_of(tmp_path, png())
    with pytest.raises(
            InputError, match="1 characters; Alpha/character01 has 1 drawings"):
        load(tmp_path)


def test_an_unreadable_image_is_named(tmp_path):
    path = folder_of(tmp_path, png()[:60])
    with pytest.raises(InputError, match=f"{path} is not a readable image"):
        load(tmp_path)


def test_an_image_of_another_size_is_named(tmp_path):
    path = folder_of(tmp_path, png((105, 104)))
    with pytest.raises(InputError, match=f"{path} is 105x104.*105x105"):
        load(tmp_path)


def drawing(alpha=False, **more):
    """A black corner, on white or on nothing."""
    pixels = np.full((105, 105), 255, np.uint8)
    pixels[:40, :20] = 0
    image = (Image.fromarray(np.dstack([0 * pixels, 255 - pixels])) if alpha
             else Image.fromarray(pixels))
    content = io.BytesIO()
    image.save(content, "PNG", **more)
    return content.getvalue()


def test_drawings_on_nothing_and_on_their_side(tmp_path, monkeypatch):
    """Both are read as a viewer shows them, and counted."""
    monkeypatch.setattr(drawings, "CHARACTERS", 1)
    monkeypatch.setattr(drawings, "DRAWINGS", 3)
    home = tmp_path / "Alpha" / "character01"
    home.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    for name, content in (("1.png", drawing()), ("2.PNG", drawing(True)),
                          ("3.png", drawing(exif=exif)), ("._4.png", b"")):
        (home / name).write_bytes(content)
    got, changes = drawings.collect(*forms.recognize(tmp_path))
    plain = drawings.decode(drawing(), "x")[0]
    assert plain[0, 0] == 0 and plain[-1, -1] == 255
    np.testing.assert_array_equal(
        got[0], sorted([plain, plain, plain[::-1, ::-1]], key=bytes))
    assert changes == Changes(transparent=1, turned=1)
    data = omniglot.split(tiny_drawings(), 0, 0, "some drawings", changes)
    source = few_shot.FewShotImages(
        data, Config(shots=(1,), train_shots=2), None)
    assert source.describe() == (
        "some drawings: 4,800 train classes, 423 test classes; images 1 with "
        "transparency, put on white, 1 turned upright by EXIF")


def test_characters_are_in_order_however_they_were_found(monkeypatch):
    """By alphabet and number, of which a zip or TFDS has another order."""
    monkeypatch.setattr(drawings, "CHARACTERS", 4)
    monkeypatch.setattr(drawings, "DRAWINGS", 2)
    keys = [("Alpha", "character01"), ("Alpha", "character02"),
            ("Alpha", "character10"), ("Beta", "character01")]
    found = {key: [png(seed=2 * i), png(seed=2 * i + 1)]
             for i, key in enumerate(keys)}
    mixed = [(*keys[i], "x", found[keys[i]][j]) for i, j in (
        (3, 1), (1, 0), (2, 1), (0, 1), (1, 1), (3, 0), (0, 0), (2, 0))]
    got, _ = drawings.collect(mixed, "x")
    assert got.shape == (4, 2, 28, 28)
    for pixels, key in zip(got, keys, strict=True):
        np.testing.assert_array_equal(pixels, sorted(
            (drawings.decode(content, "x")[0] for content in found[key]),
            key=bytes))


@pytest.mark.parametrize("where", ["Alpha/character02", "Beta",
                                   "Alpha/character01/2.png"])
@pytest.mark.parametrize("place, what", [
    (os.mkfifo, "a named pipe"),
    (lambda path: path.symlink_to("nowhere"), "a link to nothing")])
def test_what_is_no_folder_of_drawings(tmp_path, where, place, what):
    folder_of(tmp_path, png())
    (tmp_path / "up").symlink_to(tmp_path)  # It leads nowhere new.
    place(tmp_path / where)
    with pytest.raises(InputError, match=f"{tmp_path / where} is {what}"):
        load(tmp_path)


def test_a_broken_tfds_folder(tmp_path):
    (tmp_path / "omniglot" / "3.0.0").mkdir(parents=True)
    (tmp_path / "omniglot" / "3.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match="not a whole prepared omniglot"):
        load(tmp_path)


def unreachable(address):
    assert address == omniglot.ADDRESS + "images_background.zip"
    raise OSError("no route to host")


def test_a_network_that_never_answers_is_given_up(monkeypatch):
    forever = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(download, "PROBE_SECONDS", 0.05)
        with pytest.raises(TimeoutError, match="no answer within 0.05 s"):
            download.reachable("http://x", lambda address: forever.wait())
    forever.set()
    download.reachable("http://x", lambda address: None)
    with pytest.raises(OSError, match="no route"):
        download.reachable(omniglot.ADDRESS + "images_background.zip",
                            unreachable)


def test_no_network_names_three_remedies(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError) as e:
        automatic(unreachable)
    for word in ("no route", "--data_dir", "images_evaluation.zip",
                 omniglot.ADDRESS, "--data=synthetic"):
        assert word in str(e.value)


def test_the_newest_version_counts_as_a_number(tmp_path):
    for version in ("3.9.0", "3.10.0", "3.0.1", "incomplete.AB12CD_3.0.0"):
        folder = tmp_path / "omniglot" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    assert tfds_version(tmp_path, "omniglot").name == "3.10.0"


def test_the_download_goes_to_tfdss_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    asked = []

    def download(folder: Path):
        asked.append(folder)
        version = folder / "omniglot" / "3.0.0"
        version.mkdir(parents=True)
        (version / "dataset_info.json").write_text("{}")
    _, source = automatic(lambda address: None, download)
    assert asked == [tmp_path] and str(tmp_path) in source
    automatic(None, None)  # Now it is there: no network at all.
    assert len(asked) == 1
    shutil.rmtree(tmp_path / "omniglot")

    def slower(folder):
        download(folder)
        raise FileExistsError("Cannot rename: another run was first")
    _, source = automatic(lambda address: None, slower)
    assert str(tmp_path) in source


@pytest.fixture(scope="module")
def synthetic():
    return omniglot.load(Config(data="synthetic"))


def test_the_network_sees_paper_1_and_ink_0(synthetic):
    index = np.array([[3, 70_000]])
    seen = synthetic.lookup(index).numpy()
    assert seen.dtype == np.float32 and set(np.unique(seen)) == {0.0, 1.0}
    np.testing.assert_array_equal(seen, synthetic.data.images[index] == 255)


def test_validation_classes_out_of_range():
    with pytest.raises(InputError, match="val_classes=1200.*1199"):
        omniglot.split(tiny_drawings(), 0, 1200, "x")


def test_synthetic_data_has_omniglots_shapes(synthetic):
    data = synthetic.data
    assert data.images.shape == ((4800 + 423) * 20, 28, 28, 1)
    assert "synthetic" in data.source
    Config(shots=(19,), classes=20).check_data(data.splits)
