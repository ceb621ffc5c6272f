"""What a call of a network shows that the inner loop cannot run: refused.

As `refusals`, where no description of a layer would tell.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import get_keras_mask

from reptile_tf.errors import InputError, first_line

# Of positions, where a network takes any number: the first that will do.
FREE_SIZES = (32, 64, 128, 256, 512)
RANDOM = re.compile("Random|TruncatedNormal|Multinomial")


@contextlib.contextmanager
def no_mask_dropped() -> Iterator[None]:
    """Make an InputError of Keras's warning that a layer drops a mask."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*was passed an input with a mask")
        try:
            yield
        except UserWarning as e:
            layer = re.search(r"Layer '(.*?)' \(of type (\w+)\)", str(e))
            if not layer:  # Another warning, where all are errors.
                raise
            raise InputError(
                "layer {!r} ({}) has an input with a mask, and would drop "
                "it: remove Masking or mask_zero, or put a layer there that "
                "uses it, such as LSTM or GlobalAveragePooling1D".format(
                    *layer.groups())) from e


def check_call(clone: keras.Model) -> None:
    """Call it once, as in training, and see what else it does than compute.

    Raises:
      InputError: a layer whose state changes, such as Dropout's seed, or
        that draws random numbers: one clone serves many tasks and must be
        pure; one that adds losses; a mask that is dropped, or left at the
        end, where no loss uses it; no size that it takes.
    """
    with keras.StatelessScope(collect_losses=True) as scope:
        example, outputs = _called(clone, tf.zeros, training=True)
        for layer in operations(clone):
            if isinstance(layer, keras.layers.Layer):
                _check_pure(layer, scope)
    if get_keras_mask(outputs) is not None:
        raise InputError(
            f"the output of layer {clone.layers[-1].name!r} has a mask, which "
            "the loss would not apply: remove Masking or mask_zero, or end "
            "the mask by return_sequences=False or GlobalAveragePooling1D")
    # What is left is the seed of all that have none of their own.
    _check_own(clone, example, bool(scope.state_mapping))


def check_same_outputs(model: keras.Model, copy: keras.Model) -> None:
    """Raise InputError unless a copy computes what the model does."""
    def noise(shape, dtype):  # Below 1: also of tokens that are no integers.
        kind = tf.as_dtype(dtype)
        return (tf.random.stateless_uniform(shape, (0, 1), dtype=dtype)
                if kind.is_floating else tf.cast(tf.random.stateless_uniform(
                    shape, (0, 1), 0, 2, "int32"), dtype) if kind.is_integer
                else tf.zeros(shape, dtype))

    try:
        example, ours = _called(model, noise, training=False)
    except (tf.errors.InvalidArgumentError, ValueError):
        # Of one token, say; 0 has been seen to do.
        example, ours = _called(model, tf.zeros, training=False)
    for one, other in zip(*(
            [keras.ops.convert_to_numpy(y).astype("float64")
             for y in tf.nest.flatten(outputs)]
            for outputs in (ours, copy(example, training=False))),
            strict=True):
        rounding = 1e-3 * np.abs(one).max(initial=0, where=np.isfinite(one))
        if not np.allclose(one, other, 0, rounding, equal_nan=True):
            own = ", ".join(repr(layer.name) for layer in _own_layers(model))
            raise InputError(
                f"a copy of model {model.name!r} computes something else: let "
                f"get_config of its layers ({own or 'one was changed'}) return "
                "all that __init__ takes, and keep what they hold besides as "
                "weights, by add_weight")


def _called(model: keras.Model, fill: Callable[..., tf.Tensor],
            **arguments: Any) -> tuple[tf.Tensor, Any]:
    """Two examples of `fill(shape, dtype)`, and the outputs of them."""
    tensor = model.inputs[0]
    sizes = FREE_SIZES if None in tensor.shape[1:] else FREE_SIZES[:1]
    for size in sizes:
        example = fill([2, *(d or size for d in tensor.shape[1:])],
                       tensor.dtype)
        try:
            return example, model(example, **arguments)
        except (tf.errors.InvalidArgumentError, ValueError) as e:
            if len(sizes) == 1:
                raise
            error = e
    raise InputError(
        f"model {model.name!r} takes examples of any size, but none of "
        f"{', '.join(map(str, sizes))} positions ({first_line(error)}): give "
        "its keras.Input the size") from error


def _own_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Those that are not Keras's, or hold a function."""
    return [layer for layer in model._flatten_layers()
            if type(layer).__module__.partition(".")[0] not in (
                "keras", "reptile_tf")
            or isinstance(layer, keras.layers.Lambda)]


def _check_own(clone: keras.Model, example: tf.Tensor, drawn: bool) -> None:
    """tf.nn.moments within a layer of one's own, as `INEXACT` outside; random
    numbers of TensorFlow, or, where any were `drawn`, by Keras's own seed."""
    own = _own_layers(clone)
    if not own:
        return
    names = {layer.name for layer in clone._flatten_layers()}
    graph = tf.function(lambda x: clone(x, training=True), autograph=False
                        ).get_concrete_function(example).graph
    for operation in graph.get_operations():
        scope, moments, _ = operation.name.partition("/moments/StopGradient")
        draws = RANDOM.search(operation.type) and (
            drawn or operation.op_def.is_stateful)
        if not (moments or draws):
            continue
        # A scope is a layer's name, or that with a number added.
        name = next((n for part in reversed(scope.split("/"))
                     for n in (part, part.rpartition("_")[0])
                     if n in names), scope)
        if draws:
            raise InputError(
                f"layer {name!r} draws random numbers in training, which the "
                "pure inner loop would draw once for all its steps: remove it")
        raise InputError(
            f"layer {name!r} calls keras.ops.moments or tf.nn.moments, "
            "which has wrong second derivatives: write it with "
            "keras.ops.mean and keras.ops.var")
    if drawn:
        raise InputError(
            "a state that is no layer's, such as Keras's seed for all, changes "
            "in training, in one of the layers "
            f"{', '.join(repr(layer.name) for layer in own)}: the pure inner "
            "loop does not carry it from step to step; remove that")


def operations(model: keras.Model) -> list[keras.Operation]:
    """The layers, and operations without a layer, of it and models in it."""
    return [inner for one in getattr(model, "operations", model.layers)
            for inner in (operations(one) if isinstance(one, keras.Model)
                          else [one])]


def _check_pure(layer: keras.layers.Layer, scope: keras.StatelessScope
                ) -> None:
    name = f"layer {layer.name!r} ({type(layer).__name__})"
    if any(scope.get_current_value(v) is not None for v in layer.variables):
        raise InputError(
            f"{name} changes its own state in training, which the pure inner "
            "loop does not carry from step to step: remove it or set its "
            "rate to 0")
    if layer.losses:
        raise InputError(
            f"{name} adds a loss (activity_regularizer or add_loss), which "
            "the inner loop would not apply: remove it, or make it part of "
            "the loss that training is given")
