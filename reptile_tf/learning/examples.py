"""Examples and targets, checked against the network before they are used.

Shapes that do not fit often broadcast, and labels out of range give a loss
of 0: training would go on, on something else than what was meant.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError, kind_of
from reptile_tf.learning.adaptation import AdaptConfig
from reptile_tf.learning.arrays import (
    is_text,
    is_whole,
    require_finite,
    values_of,
)
from reptile_tf.learning.arrays import shape_text as _text
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import Loss
from reptile_tf.learning.targets import require_targets, typed_targets
from reptile_tf.tasks import Batches, EvaluationTasks


def checked_inputs(model: keras.Model, inputs: Any, name: str) -> tf.Tensor:
    """Inputs [S, ...] of the network, checked and of its type."""
    require_inputs(model, inputs, name)
    require_finite(inputs, name)
    return tf.cast(inputs, model.inputs[0].dtype)


def checked_examples(inner_loop: InnerLoop, inputs: Any, targets: Any,
                     name: str, targets_name: str
                     ) -> tuple[tf.Tensor, tf.Tensor]:
    """Inputs [S, ...] and their targets, checked and as tensors."""
    model = inner_loop.model
    inputs = checked_inputs(model, inputs, name)
    targets = typed_targets(model, targets, targets_name)
    require_targets(model, inner_loop.loss_of_examples, targets, targets_name,
                    (inputs.shape[0],), tuple(inputs.shape[1:]))
    require_finite(targets, targets_name)
    return inputs, targets


def checked_tasks(model: keras.Model, loss: Loss, tasks: EvaluationTasks,
                  adaptation: AdaptConfig) -> EvaluationTasks:
    """Tasks of examples, checked, as arrays of the types that are computed
    with.

    Args:
      model: the network.
      loss: (targets, outputs) -> losses per example.
      tasks: as they were given.
      adaptation: whose mini-batches tasks without any have.
    """
    if not isinstance(tasks, EvaluationTasks):
        raise InputError(
            f"tasks are {kind_of(tasks)}: give EvaluationTasks, by "
            "EvaluationTasks.cut(support_inputs, support_targets, "
            "query_inputs, query_targets)")
    arrays = {}
    for name in ("support", "query"):
        inputs = np.asarray(getattr(tasks, f"{name}_inputs"))
        targets = typed_targets(model, getattr(tasks, f"{name}_targets"),
                                f"{name}_targets").numpy()
        require_inputs(model, inputs, f"{name}_inputs", axes=2)
        require_targets(model, loss, targets, f"{name}_targets",
                        inputs.shape[:2], inputs.shape[2:])
        require_finite(inputs, f"{name}_inputs")
        require_finite(targets, f"{name}_targets")
        arrays |= {f"{name}_inputs": inputs if (
                       model.inputs[0].dtype == "string")
                   else inputs.astype(model.inputs[0].dtype, copy=False),
                   f"{name}_targets": targets}
    support = arrays["support_inputs"]
    positions = tasks.positions
    if positions is None:
        of_each = adaptation.positions(tf.constant(support.shape[1])).numpy()
        positions = np.repeat(of_each[None], len(support), axis=0)
    positions = np.asarray(positions)
    numbers = [len(a) for a in (support, positions, arrays["query_inputs"])]
    if positions.ndim != 3 or len(set(numbers)) > 1:
        raise InputError(
            f"support, positions and queries are of {numbers} tasks, positions "
            f"of shape {_text(positions.shape)}: give the same number of each, "
            "and positions [tasks, steps, batch]")
    if positions.size and not (0 <= positions.min()
                               and positions.max() < support.shape[1]):
        raise InputError(
            f"positions go from {positions.min()} to {positions.max()}, and "
            f"a support set has {support.shape[1]} examples: count from 0")
    return EvaluationTasks(positions=positions.astype(np.int32), **arrays)


def require_batches(model: keras.Model, loss: Loss, batches: Batches,
                    examples: bool) -> None:
    """Raise InputError unless the network and the loss take these.

    Args:
      model: the network.
      loss: (targets, outputs) -> losses per example.
      batches: of T tasks.
      examples: whether the inputs are those, or indices for a `lookup`.
    """
    for last in ("", "last_"):
        inputs = getattr(batches, f"{last}inputs")
        axes = 2 if last else 3
        targets = getattr(batches, f"{last}targets")
        if not last and np.shape(inputs)[1] == np.shape(targets)[1] == 0:
            continue  # The last mini-batch is alone.
        if examples:
            require_inputs(model, inputs, f"{last}inputs", axes)
        shape = tuple(np.shape(inputs))
        require_targets(model, loss, targets, f"{last}targets", shape[:axes],
                        shape[axes:] if examples else ())


def require_inputs(model: keras.Model, inputs: Any, name: str, axes: int = 1
                   ) -> None:
    """Raise InputError unless inputs are examples of the network.

    Args:
      model: the network.
      inputs: an array or a tensor.
      name: of the inputs, for the message.
      axes: before an example's own: 1 of a mini-batch, 2 of T of them.
    """
    example = model.inputs[0].shape[1:]
    shape = tf.TensorShape(np.shape(inputs) if not tf.is_tensor(inputs)
                           else inputs.shape)
    if shape.rank is not None and (
            shape.rank != axes + len(example)
            or not shape[axes:].is_compatible_with(example)):
        lead = ("number of examples", "tasks, number of examples",
                "tasks, mini-batches, number of examples")[axes - 1]
        raise InputError(
            f"{name} have shape {_text(shape)}, and the network takes "
            f"examples of shape {_text(example)}: give [{lead}"
            f"{', ' * bool(example)}{_text(example)[1:]}")
    if shape.rank is not None and 0 in shape.as_list():
        raise InputError(f"{name} are empty, {_text(shape)}: give at least "
                         "one example")
    if not tf.is_tensor(inputs) and np.asarray(inputs).dtype.kind == "O" and (
            not is_text(inputs)):
        raise InputError(f"{name} are objects of Python: give an array of "
                         "numbers, by .astype('float32')")
    wanted = model.inputs[0].dtype
    if is_text(inputs) != (wanted == "string"):
        raise InputError(
            f"{name} are {'' if is_text(inputs) else 'not '}strings, and the "
            f"network takes {wanted}: give what it was built for")
    if tf.as_dtype(wanted).is_integer:
        if not is_whole(inputs):
            _require_no_fractions(values_of(inputs), name, wanted)
        _require_within(values_of(inputs), name, tf.as_dtype(wanted))
    for layer in _embeddings(model):
        _require_below(values_of(inputs), layer.input_dim, name, layer.name)


def _embeddings(model: keras.Model) -> Iterator[keras.layers.Embedding]:
    """Those that look the model's inputs up, in a model within it too."""
    for layer in model.layers:
        if any(tensor is model.inputs[0] for node in layer._inbound_nodes
               for tensor in node.input_tensors):
            if isinstance(layer, keras.layers.Embedding):
                yield layer
            elif isinstance(layer, keras.Model):
                yield from _embeddings(layer)


def _require_within(values: np.ndarray | None, name: str, wanted: tf.DType
                    ) -> None:
    """What is beyond an integer type is another number in it."""
    if values is None:
        return
    # float32 rounds the largest of 32 bits to one more.
    above = (values.astype("float64") >= float(int(wanted.max) + 1)
             if values.dtype.kind == "f" else values > wanted.max)
    wrong = values[(values < wanted.min) | above]
    if wrong.size:
        raise InputError(
            f"{name} hold {wrong[0]:.15g}, and the network takes "
            f"{wanted.name}, from {wanted.min} to {wanted.max}: give numbers "
            "of that range")


def _require_no_fractions(values: np.ndarray | None, name: str, wanted: str
                          ) -> None:
    if values is None:
        return
    wrong = values[np.isfinite(values) & (values != np.floor(values))]
    if wrong.size:
        raise InputError(
            f"{name} hold fractions, such as {wrong[0]:.3g}, and the network "
            f"takes {wanted}, which would cut them off: give whole numbers, of "
            "images from 0 to 255")


def _require_below(values: np.ndarray | None, size: int, name: str, layer: str
                   ) -> None:
    """Past its end a GPU looks up zeros; from below 0 Keras counts back, which
    is seldom meant."""
    if values is None:
        return
    wrong = values[(values < 0) | (values >= size)]
    if wrong.size:
        raise InputError(
            f"{name} hold the token {wrong[0]:.15g}, and the Embedding {layer} "
            f"has {size}: give whole numbers from 0 to {size - 1}")


def require_as_long(queries: Any, support: Any) -> None:
    """Raise InputError unless a query can be in a batch with the support set.

    Where the network takes examples of any size, they may be of two.

    Args:
      queries: [Q, ...].
      support: [S, ...].
    """
    own, others = (tf.TensorShape(x.shape[1:]) for x in (queries, support))
    if not own.is_compatible_with(others):
        raise InputError(
            f"queries have the shape {_text(own)} and support inputs "
            f"{_text(others)}: without transduction each query is in one batch "
            "with the support set. Make them alike, or give transductive=True")
