"""The paper's networks, and the clone of a model that the inner loop runs.

A builder returns a plain Keras model of stock layers. `inner_clone` copies
any such model with keras.models.clone_model, putting in the layers that the
inner loop needs: batch normalization with exact second derivatives, and
convolutions that are matrix products.
"""

import math

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional

from reptile_tf import tasks
from reptile_tf.convolutions import GatheredConv2D, SlicedConv2D
from reptile_tf.errors import InputError
from reptile_tf.normalization import BatchNormalization
from reptile_tf.pooling import MaxPooling2D, SlicedMaxPooling2D

# Layers whose operations vectorize over tasks without falling back to loops.
VECTORIZABLE = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.BatchNormalization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.GlobalAveragePooling2D,
)
# How a clone computes convolutions -> what replaces stock layers.
CONVOLUTIONS = {"stock": (), "sliced": (SlicedConv2D, SlicedMaxPooling2D),
                "gathered": (GatheredConv2D, MaxPooling2D)}


def _initializers(seed: int):
    rng = tasks.generator(seed, tasks.WEIGHTS_STREAM)
    while True:
        yield keras.initializers.GlorotUniform(int(rng.integers(2**31)))


def omniglot(ways: int, seed: int = 0) -> keras.Model:
    """Images [B, 28, 28, 1] to logits [B, ways] (paper, section 6.1).

    Four times 3x3 convolution of 64 filters and stride 2, batch
    normalization, ReLU; then a dense layer. Kernels are glorot uniform,
    biases 0, drawn from `seed`.
    """
    kernels = _initializers(seed)
    layers = [keras.Input([28, 28, 1])]
    for i in range(1, 5):
        layers += [
            keras.layers.Conv2D(64, 3, strides=2, padding="same",
                                kernel_initializer=next(kernels),
                                name=f"conv{i}"),
            keras.layers.BatchNormalization(epsilon=1e-3, name=f"norm{i}"),
            keras.layers.ReLU(name=f"relu{i}"),
        ]
    layers += [keras.layers.Flatten(name="flatten"),
               keras.layers.Dense(ways, kernel_initializer=next(kernels),
                                  name="logits")]
    return keras.Sequential(layers, name="omniglot")


def mini_imagenet(ways: int, seed: int = 0, size: int = 84,
                  channels: int = 3) -> keras.Model:
    """Images [B, size, size, channels] to logits [B, ways] (section 6.1).

    Four times 3x3 convolution of 32 filters, batch normalization, 2x2 max
    pooling, ReLU; then a dense layer. The order of pooling and ReLU is that
    of the authors' code.
    """
    kernels = _initializers(seed)
    layers = [keras.Input([size, size, channels])]
    for i in range(1, 5):
        layers += [
            keras.layers.Conv2D(32, 3, padding="same",
                                kernel_initializer=next(kernels),
                                name=f"conv{i}"),
            keras.layers.BatchNormalization(epsilon=1e-3, name=f"norm{i}"),
            keras.layers.MaxPool2D(2, padding="same", name=f"pool{i}"),
            keras.layers.ReLU(name=f"relu{i}"),
        ]
    layers += [keras.layers.Flatten(name="flatten"),
               keras.layers.Dense(ways, kernel_initializer=next(kernels),
                                  name="logits")]
    return keras.Sequential(layers, name="mini_imagenet")


def sine(seed: int = 0, activation: str = "tanh") -> keras.Model:
    """x [B, 1] to f(x) [B, 1]: two hidden layers of 64 (paper, section 4).

    Weights and biases are uniform within 1 / sqrt(fan in), as PyTorch, in
    which the authors' demonstration is written, draws them. Without biases
    all units of the first layer would bend at x = 0.
    """
    rng = tasks.generator(seed, tasks.WEIGHTS_STREAM)

    def dense(units, fan_in, name, activation=None):
        bound = fan_in ** -0.5
        kernel, bias = (keras.initializers.RandomUniform(
            -bound, bound, int(rng.integers(2**31))) for _ in range(2))
        return keras.layers.Dense(units, activation, name=name,
                                  kernel_initializer=kernel,
                                  bias_initializer=bias)

    return keras.Sequential([
        keras.Input([1]), dense(64, 1, "hidden1", activation),
        dense(64, 64, "hidden2", activation), dense(1, 64, "output")],
        name="sine")


def vectorizes(model: keras.Model, max_positions: float = math.inf) -> bool:
    """Whether every layer runs side by side over tasks as batched matmuls.

    Args:
      model: a built model.
      max_positions: the positions of the largest image that a convolution or
        a pooling may have; 0 allows none of them.
    """
    for layer in model._flatten_layers(include_self=False):
        if any(kind.supports(layer) for kind in CONVOLUTIONS["sliced"]):
            height, width = layer.input.shape[1:3]
            if height * width > max_positions:
                return False
        elif not isinstance(layer, (*VECTORIZABLE, keras.Model)):
            return False
    return True


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

    clone = replace(model)
    for layer, new in pairs:
        if isinstance(new, BatchNormalization):
            for old, copy in zip(layer.trainable_variables,
                                 new.trainable_variables, strict=True):
                copy.assign(old)
        else:
            new.set_weights(layer.get_weights())
        if isinstance(new, keras.layers.Normalization):
            new.finalize_state()
    _refuse_stateful(clone, [new for _, new in pairs])
    return clone


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
