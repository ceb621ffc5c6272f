"""The tensorflow-datasets builder, and reading what it made (form 5)."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from mini_imagenet_test import CLASSES, folders, load, pickles, picture

from reptile_tf.datasets.mini_imagenet.mini_imagenet_dataset_builder import (
    Builder,
)
from reptile_tf.errors import InputError


@pytest.fixture(autouse=True, scope="module")
def temporary_folder(tmp_path_factory):
    """pytest's, for tensorflow-datasets leaves there what it made."""
    before, tempfile.tempdir = tempfile.tempdir, str(
        tmp_path_factory.mktemp("tfds"))
    yield
    tempfile.tempdir = before


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    """tensorflow-datasets' own checks, on generated dummy data."""

    DATASET_CLASS = Builder
    SPLITS = {"train": 15, "validation": 9, "test": 11}

    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory()
        cls.EXAMPLE_DIR = str(Path(cls._folder.name) / "dummy")
        folders(Path(cls.EXAMPLE_DIR))
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls._folder.cleanup()


def test_a_prepared_dataset_gives_the_same_images(tmp_path):
    want = [picture(label, i) for split in ("train", "val", "test")
            for label, count in CLASSES[split].items() for i in range(count)]
    for name, make in (("folders", folders), ("pickles", pickles)):
        make(tmp_path / name)
        out = tmp_path / f"{name}_tfds"
        Builder(data_dir=str(out)).download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                manual_dir=tmp_path / name))
        source = load(out)
        assert source.source.startswith("tensorflow-datasets in")
        np.testing.assert_array_equal(source.data.images[np.arange(35)], want)


@pytest.mark.parametrize("damage", [
    lambda content: content[:-50],
    lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:]])
def test_a_damaged_record_file(tmp_path, damage):
    folders(tmp_path / "folders")
    Builder(data_dir=str(tmp_path / "out")).download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=tmp_path / "folders"))
    [path] = (tmp_path / "out").rglob("*train.tfrecord*")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="DataLossError.*build it again"):
        load(tmp_path / "out")
