"""A learner's adaptation as a file for TensorFlow Lite."""

import re
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.learning.initialization import Initialization
from reptile_tf.networks import operations
from reptile_tf.whole_files import replacing


def save(learner, file: Path) -> None:
    """Write adapt_and_predict for TensorFlow Lite, in its own operations.

    Args:
      learner: a `learner.Learner`.
      file: replaced if it is there.

    Raises:
      InputError: a layer that TensorFlow Lite cannot compute with, or take
        the gradient of; a folder that is not there, or is in the file's place.
    """
    name = "adapt_and_predict"
    if not file.parent.is_dir():
        raise InputError(f"{file.parent} is not a folder: make it first")
    if learner.phi[0].dtype != "float32":  # Its converter may die of others.
        raise InputError(
            f"TensorFlow Lite computes in float32, and the weights are "
            f"{learner.phi[0].dtype}: make the model in float32")
    if any(isinstance(layer, keras.layers.MaxPooling2D)
           and None in layer.input.shape[1:]
           for layer in operations(learner.architecture)):
        raise InputError(
            "MaxPooling2D is written for TensorFlow Lite where the size of "
            "its images is known, and this network takes any: give its "
            "keras.Input one")
    if file.is_dir():
        raise InputError(f"{file} is a folder: name a file, such as "
                         f"{file / 'adapt.tflite'}")
    module = Initialization(learner, "lite")
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(
            module, folder, {name: module.adapt_and_predict
                             .get_concrete_function(
                                 *module.adaptation_signature())})
        try:
            content = tf.lite.TFLiteConverter.from_saved_model(
                folder, signature_keys=[name]).convert()
        except Exception as e:  # The converter's own class is private.
            if "TensorList" in str(e):
                raise InputError(
                    "TensorFlow Lite has no loop over steps, which a recurrent "
                    "layer of the model is: make it with unroll=True, of a "
                    "length that is fixed") from e
            missing = re.search(r"(?:Select|Custom) [Oo]ps: (.*)", str(e))
            if not missing:
                raise
            raise InputError(
                f"TensorFlow Lite has no {missing.group(1)}, which the model "
                "or its gradient needs: it takes Dense, Conv2D, "
                "MaxPooling2D, ReLU, tanh and normalizations") from e
    with replacing(file) as temporary:
        temporary.write_bytes(content)
