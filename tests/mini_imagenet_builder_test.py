"""The tensorflow-datasets builder, and reading what it made (form 5)."""

import tempfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from mini_imagenet_test import CLASSES, folders, load, pickles, picture

from reptile_tf.datasets.mini_imagenet.mini_imagenet_dataset_builder import (
    Builder,
)


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
