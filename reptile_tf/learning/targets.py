"""Targets, checked against the network and the loss."""

import functools
import itertools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.learning.arrays import shape_text as _text
from reptile_tf.learning.arrays import tensor_of, values_of
from reptile_tf.learning.losses import Loss, cross_entropy

# Examples of the trial batch that a loss is asked for: of no other dimension.
TRIAL = 7919
PROBABILITIES = (keras.activations.softmax, keras.activations.sigmoid,
                 tf.nn.softmax, tf.nn.sigmoid)


def typed_targets(model: keras.Model, targets: Any,
                  name: str = "targets") -> tf.Tensor:
    """Targets as int64 if they are integers, else in the weights' type.

    Raises:
      InputError: targets that are no numbers.
    """
    targets = tensor_of(targets, name)
    _require_numbers(targets.dtype, name)
    return tf.cast(targets, tf.int64 if targets.dtype.is_integer
                   else model.trainable_variables[0].dtype)


def spec_of_targets(model: keras.Model, targets: Any, axes: int
                    ) -> tf.TensorSpec:
    """Shape and type of one target; where an output is of any size, so is it.

    Args:
      model: the network.
      targets: checked, [..., of one example].
      axes: before an example's own.
    """
    output = model.outputs[0].shape[1:]
    shape = [None if free is None else size for size, free in (
        itertools.zip_longest(targets.shape[axes:], output, fillvalue=0))]
    return tf.TensorSpec(shape[:len(targets.shape) - axes],
                         typed_targets(model, targets).dtype)


def require_targets(model: keras.Model, loss: Loss, targets: Any, name: str,
                    lead: tuple[int | None, ...],
                    example: tuple[int | None, ...] = ()) -> None:
    """Raise InputError unless the loss compares each target with its output.

    Args:
      model: the network.
      loss: (targets, outputs) -> losses per example.
      targets: an array or a tensor [*lead, ...]; the range of labels is
        looked at if it is not symbolic.
      name: of the targets, for the message.
      lead: the inputs' dimensions before an example's own.
      example: these, where they are known: the outputs' may be by them alone.
    """
    output = tuple(model.outputs[0].shape[1:])
    if None in output and example:
        output = tuple(model.compute_output_shape((1, *example))[1:])
    shape = np.shape(targets) if not tf.is_tensor(targets) else targets.shape
    axes = len(lead)
    if not tf.TensorShape(shape[:axes]).is_compatible_with(lead):
        raise InputError(
            f"{name} have shape {_text(shape)}, and there are "
            f"{_text(lead)} inputs: give one target for each example")
    dtype = tf.as_dtype(targets.dtype if hasattr(targets, "dtype")
                        else np.asarray(targets).dtype)
    _require_numbers(dtype, name)
    if loss is cross_entropy:
        _require_labels(targets, dtype, tuple(shape[axes:]), output, name)
    else:
        _require_comparable(model, loss, tuple(shape[axes:]), dtype, output,
                            name)


def require_loss(model: keras.Model, loss: Any) -> None:
    """Raise InputError unless it is a loss, of outputs such as the model's."""
    if isinstance(loss, type) or not callable(loss):
        raise InputError(
            f"loss={loss!r} is no function of targets and outputs: give one, "
            "such as reptile_tf.squared_error, or keras.losses.Huber("
            "reduction=None)")
    if loss is cross_entropy:
        _require_logits(model)


def _require_logits(model: keras.Model) -> None:
    """Not probabilities, of which cross_entropy would take the softmax once
    more, nor one output, which is no choice."""
    output = tuple(model.outputs[0].shape[1:])
    if not output or output[-1] == 1:
        raise InputError(
            f"the network's outputs are {_text(output)}, and cross_entropy "
            "takes a logit for each class, at least 2: give so many, or "
            "another loss, such as keras.losses.BinaryCrossentropy("
            "from_logits=True, reduction=None)")
    last = model
    while isinstance(last, (keras.Model, keras.layers.TimeDistributed)):
        last = last.layer if isinstance(last, keras.layers.TimeDistributed) \
            else last.outputs[0]._keras_history.operation
    made = type(last).__name__ in ("Softmax", "Sigmoid") and (
        type(last).__module__.startswith("keras.")
        and getattr(last, "axis", -1) in (-1, len(output)))
    # A recurrent layer's is inside, before its gates.
    if made or not isinstance(last, keras.layers.RNN) and (
            getattr(last, "activation", None) in PROBABILITIES):
        raise InputError(
            f"{last.name!r} ({type(last).__name__}) at the end makes "
            "probabilities, and cross_entropy takes the softmax itself, of "
            "logits: leave it out, by activation=None in a layer, or give a "
            "loss of probabilities")


def _require_numbers(dtype: tf.DType, name: str) -> None:
    if dtype == tf.string:
        raise InputError(f"{name} are strings: number the classes, by "
                         "np.unique(names, return_inverse=True)[1]")


def _require_labels(targets, dtype, own, output, name) -> None:
    ways = output[-1]
    if not dtype.is_integer or not tf.TensorShape(own).is_compatible_with(
            output[:-1]):
        one = (f"labels of shape {_text(output[:-1])} for each example"
               if output[:-1] else "one label for each example")
        raise InputError(
            f"{name} are {dtype.name} of shape {_text(own)} each, and the "
            f"network has outputs {_text(output)}: cross_entropy takes {one}, "
            f"a whole number from 0 to {ways - 1}{_remedy(own, output)}")
    values = values_of(targets)
    if values is not None and values.size and not (
            0 <= values.min() and values.max() < ways):
        raise InputError(
            f"{name} go from {values.min()} to {values.max()}, and the "
            f"network has {ways} outputs: give labels from 0 to {ways - 1}, "
            "or a network with more outputs")


def _remedy(own: tuple[int | None, ...], output: tuple[int | None, ...]
            ) -> str:
    if own == output:
        return "; of one-hot ones give .argmax(-1)"
    if own == (*output[:-1], 1):
        return "; give [..., 0]"
    if own == output[:-1]:
        return ", by .astype(int); to learn numbers give loss=squared_error"
    return ""


def _require_comparable(model, loss, own, dtype, output, name) -> None:
    """Of a batch of TRIAL examples a loss must give TRIAL losses."""
    # The loss is given outputs in the weights' type.
    of_outputs = model.trainable_variables[0].dtype
    if None in output or None in own:
        return
    message = (f"{name} are {dtype.name} of shape {_text(own)} each, and the "
               f"network's outputs {of_outputs} of shape {_text(output)}: ")
    try:
        losses = _shape_of_losses(_Key(loss), own, dtype, output, of_outputs)
    except (ValueError, TypeError, tf.errors.OpError) as e:
        raise InputError(
            message + (str(e) or repr(e)).strip().splitlines()[-1]
            + " (whole numbers: give them by .astype('float32'), if the loss "
            "compares them with the outputs)" * dtype.is_integer) from e
    if losses.rank == 0 or list(losses).count(TRIAL) != 1 or (
            losses[0] != TRIAL):
        raise InputError(
            message + f"the loss compares {TRIAL} of them to shape "
            f"{_text(losses)}, and must give one or more losses for each. "
            + ("A loss of Keras does with reduction=None" if losses.rank == 0
               else "Give targets of the outputs' shape"))


class _Key:
    """A loss, itself and no equal one: not each has a hash."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def __hash__(self) -> int:
        return id(self.loss)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.loss is other.loss


# Of a sampler of one's own every batch is checked: traced once.
@functools.lru_cache(64)
def _shape_of_losses(key, own, dtype, output, of_outputs) -> tf.TensorShape:
    return tf.function(key.loss, autograph=False).get_concrete_function(
        tf.TensorSpec([TRIAL, *own], dtype),
        tf.TensorSpec([TRIAL, *output], of_outputs)).output_shapes
