"""The clone of a model that the inner loop runs: validate, replace, copy.

keras.models.clone_model copies any model of stock layers; put in are the
layers that the inner loop needs: batch normalization with exact second
derivatives, and convolutions that are matrix products.
"""

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional

from reptile_tf.errors import InputError
from reptile_tf.networks.layers import (
    BatchNormalization,
    GatheredConv2D,
    MaxPooling2D,
    SlicedConv2D,
    SlicedMaxPooling2D,
)

# How a clone computes convolutions -> what replaces stock layers.
CONVOLUTIONS = {"stock": (), "sliced": (SlicedConv2D, SlicedMaxPooling2D),
                "gathered": (GatheredConv2D, MaxPooling2D)}


def inner_clone(model: keras.Model, convolutions: str = "stock",
                mixed_bfloat16: bool = False) -> keras.Model:
    """A clone of `model` for the inner loop; `model` itself is not touched.

    Stock batch normalization becomes the exact one. Trainable weights are in
    the model's order; all weights are copies of the model's.

    Args:
      model: a Sequential or functional model, built.
      convolutions: a key of CONVOLUTIONS. "sliced" is for tasks side by
        side; with the others batch normalization is fused. "gathered" is
        for the CPU.
      mixed_bfloat16: give every layer Keras's policy of that name.

    Raises:
      InputError: a model that clone_model cannot copy, one of several inputs,
        one that is not float32 with `mixed_bfloat16`, or a layer whose state
        changes when it is called in training, such as Dropout's seed: one
        clone serves many tasks and must be pure.
    """
    _check_supported(model, mixed_bfloat16)
    clone, pairs = _replace_layers(model, convolutions, mixed_bfloat16)
    for layer, new in pairs:
        _copy_weights(layer, new)
    _refuse_stateful(clone, [new for _, new in pairs])
    return clone


def _check_supported(model: keras.Model, mixed_bfloat16: bool) -> None:
    """Raise InputError for a model that cannot be cloned or trained."""
    if not isinstance(model, (keras.Sequential, Functional)):
        raise InputError(
            f"{type(model).__name__} is a subclassed keras.Model, which "
            "keras.models.clone_model cannot copy: use keras.Sequential or "
            "the functional API"
        )
    if not model.built:
        raise InputError(
            f"model {model.name!r} has no weights yet: give it a keras.Input"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"model {model.name!r} has {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs; one of each is supported"
        )
    for variable in model.trainable_variables:
        if variable.regularizer or variable.constraint:
            raise InputError(
                f"weight {variable.path!r} has a regularizer or a constraint, "
                "which the inner loop would not apply: remove it (weight "
                "decay is InnerConfig's)")
        if mixed_bfloat16 and variable.dtype != "float32":
            raise InputError(
                f"mixed_bfloat16 keeps weights in float32, and weight "
                f"{variable.path!r} is {variable.dtype}: make the model in "
                "float32, or leave mixed_bfloat16 off")


def _replace_layers(model: keras.Model, convolutions: str,
                    mixed_bfloat16: bool
                    ) -> tuple[keras.Model, list[tuple]]:
    """The clone, with fresh weights, and pairs (layer, its replacement)."""
    fused = convolutions != "sliced"
    pairs = []

    def replace(layer):
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=replace)
        if type(layer) is keras.layers.BatchNormalization:
            new = BatchNormalization.from_stock(layer, fused)
        else:
            kind = next((kind for kind in CONVOLUTIONS[convolutions]
                         if kind.supports(layer)), type(layer))
            new = kind.from_config(layer.get_config())
        if isinstance(new, keras.layers.Layer):
            if mixed_bfloat16 and not isinstance(
                    new, keras.layers.InputLayer):
                new.dtype_policy = "mixed_bfloat16"
            pairs.append((layer, new))
        return new

    return replace(model), pairs


def _copy_weights(layer, new) -> None:
    """All weights, in the model's order; the statistics of Normalization."""
    if isinstance(new, BatchNormalization):
        for old, copy in zip(layer.trainable_variables,
                             new.trainable_variables, strict=True):
            copy.assign(old)
    else:
        new.set_weights(layer.get_weights())
    if isinstance(new, keras.layers.Normalization):
        new.finalize_state()


def _refuse_stateful(clone: keras.Model, layers: list) -> None:
    """Raise if a call in training changes a variable of the clone."""
    before = [v.value for v in clone.non_trainable_variables]
    shape = [2] + [d or 32 for d in clone.inputs[0].shape[1:]]
    example = tf.zeros(shape, clone.inputs[0].dtype)
    _, after = clone.stateless_call(
        [v.value for v in clone.trainable_variables], before, example,
        training=True)
    changed = {
        id(variable) for variable, old, new in zip(
            clone.non_trainable_variables, before, after, strict=True)
        if not np.array_equal(old, new)
    }
    for layer in layers:
        if any(id(v) in changed for v in layer.non_trainable_variables):
            raise InputError(
                f"layer {layer.name!r} ({type(layer).__name__}) changes its "
                "own state in training, which the pure inner loop does not "
                "carry from step to step: remove it or set its rate to 0"
            )
