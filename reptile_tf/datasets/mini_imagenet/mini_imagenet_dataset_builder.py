"""Mini-ImageNet as a tensorflow-datasets builder, from any of the forms.

    tfds build reptile_tf/datasets/mini_imagenet --manual_dir=DIR
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from reptile_tf.datasets.mini_imagenet import forms, tfds_form
from reptile_tf.datasets.mini_imagenet.listing import Image


class Builder(tfds.core.GeneratorBasedBuilder):
    """Images as they are: neither resized nor checked for their number."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Mini-ImageNet cannot be passed on. Give, as --manual_dir, a folder "
        f"with one of: {forms.FORMS}.")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="100 classes of 600 images of ILSVRC2012, split by "
            "Ravi and Larochelle into 64, 16 and 20 classes.",
            features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.Text(),
                "file_name": tfds.features.Text()}),
            homepage="https://openreview.net/forum?id=rJY0-Kcll",
            disable_shuffling=True)

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        listing = forms.recognize(Path(dl_manager.manual_dir)).listing()
        return {stored: self._generate_examples(listing[split])
                for split, stored in tfds_form.STORED_SPLITS.items()}

    def _generate_examples(self, classes: dict[str, list[Image]]
                           ) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        for label, images in classes.items():
            for i, image in enumerate(images):
                content = image.read()
                if not isinstance(content, np.ndarray):
                    content = io.BytesIO(content)
                yield number, {"image": content, "label": label,
                               "file_name": f"{label}/{i:05d}"}
                number += 1
