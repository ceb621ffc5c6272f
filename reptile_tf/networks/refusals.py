"""What the inner loop cannot run, or would run as something else: refused.

Each refusal is one InputError with the layer's name and a remedy.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from keras.src.backend import get_keras_mask
from keras.src.models.functional import Functional

from reptile_tf.errors import InputError

# Operations without a layer, of which derivatives of second order are wrong
# or missing: always, and under XLA.
INEXACT = {"Moments", "LayerNorm", "Softsign"}
INEXACT_UNDER_XLA = {"MaxPool", "AdaptiveMaxPool"}
FOREIGN = (keras.layers.FlaxLayer, keras.layers.JaxLayer,
           keras.layers.TFSMLayer, keras.layers.TorchModuleWrapper)


def check_model(model: keras.Model, mixed_bfloat16: bool) -> None:
    """Raise InputError for a model that cannot be cloned or trained."""
    check_clonable(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            f"model {model.name!r} has {len(model.inputs)} inputs and "
            f"{len(model.outputs)} outputs; one of each is supported: join "
            "them, by Concatenate, and take them apart inside the model"
        )
    if isinstance(model, Functional) and isinstance(model.output, dict):
        raise InputError(
            f"model {model.name!r} returns its output in a dict: give "
            "keras.Model the output itself")
    if not model.trainable:
        raise InputError(
            f"model {model.name!r} is frozen as a whole (trainable=False), "
            "whatever its layers are: set model.trainable=True, and then "
            "trainable=False on the layers that are not to be learned")
    types = sorted({v.dtype for v in model.trainable_variables})
    if len(types) > 1 or not {"float32", "float64"}.issuperset(types):
        raise InputError(
            f"the weights of model {model.name!r} are {' and '.join(types)}: "
            "Adam needs all in float32, or all in float64. Make the layers "
            "with dtype='float32'; mixed_bfloat16 computes with those in 16 "
            "bits")
    for variable in model.trainable_variables:
        if variable.regularizer or variable.constraint:
            raise InputError(
                f"weight {variable.path!r} has a regularizer or a constraint, "
                "which the inner loop would not apply: remove it ("
                "InnerConfig's weight_decay=0.9999 takes 0.0001 of the "
                "weights away before each step)")
        if mixed_bfloat16 and variable.dtype != "float32":
            raise InputError(
                f"mixed_bfloat16 keeps weights in float32, and weight "
                f"{variable.path!r} is {variable.dtype}: make the model in "
                "float32, or leave mixed_bfloat16 off")


def check_clonable(model: keras.Model) -> None:
    """Raise InputError for a model, or one inside, that has no description."""
    if not isinstance(model, (keras.Sequential, Functional)):
        raise InputError(
            f"{type(model).__name__} {getattr(model, 'name', '')!r} is no "
            "Sequential or functional keras.Model, and keras.models."
            "clone_model cannot copy others: use keras.Sequential or the "
            "functional API"
        )
    kind = keras.Sequential if isinstance(
        model, keras.Sequential) else Functional
    if type(model).call is not kind.call:
        raise InputError(
            f"{type(model).__name__} {model.name!r} has a call of its own, "
            "which keras.models.clone_model leaves out: write it as a layer, "
            "or with the functional API")
    if not model.built:
        raise InputError(
            f"model {model.name!r} has no weights yet: give it a keras.Input"
        )


def check_operation(operation: keras.Operation, xla: bool) -> None:
    """Raise InputError for one whose second derivatives are wrong."""
    kind = type(operation).__name__
    if kind in INEXACT or xla and kind in INEXACT_UNDER_XLA:
        raise InputError(
            f"operation {operation.name!r} ({kind} of keras.ops) has wrong or "
            "no second derivatives in TensorFlow: use the layer of "
            "keras.layers, which is replaced by an exact one, or write it "
            "with plain operations")


def check_foreign(layer: keras.layers.Layer) -> None:
    """Raise InputError for a layer whose weights are not Keras's."""
    if isinstance(layer, FOREIGN):
        raise InputError(
            f"layer {layer.name!r} ({type(layer).__name__}) computes with "
            "weights that are not arguments of the call, and no task can have "
            "its own: write it with layers of Keras")


def check_inside(layer: keras.layers.Layer,
                 inexact: Callable[[keras.layers.Layer], bool]) -> None:
    """Raise InputError for a layer with an inexact one inside."""
    for inner in layer._flatten_layers(include_self=False):
        if inexact(inner):
            raise InputError(
                f"layer {layer.name!r} ({type(layer).__name__}) holds the "
                f"{type(inner).__name__} {inner.name!r}, whose exact twin "
                "cannot be put in there: make it a layer of the model itself")


def check_same_weights(model: keras.Model, clone: keras.Model) -> None:
    """Raise InputError unless the clone has the model's trainable weights."""
    ours, theirs = ([tuple(v.shape) for v in m.trainable_variables]
                    for m in (clone, model))
    if ours != theirs:
        raise InputError(
            f"model {model.name!r} has {len(theirs)} trainable weights and its "
            f"clone {len(ours)}, or of other shapes: a layer's get_config "
            "makes another layer of the model again, with weights of its own. "
            "Call the shared layer itself in the functional API")


@contextlib.contextmanager
def no_mask_dropped() -> Iterator[None]:
    """Make an InputError of Keras's warning that a layer drops a mask."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*was passed an input with a mask")
        try:
            yield
        except UserWarning as e:
            layer = re.search(r"Layer '(.*?)' \(of type (\w+)\)", str(e))
            raise InputError(
                "layer {!r} ({}) has an input with a mask, and would drop "
                "it: remove Masking or mask_zero, or put a layer there that "
                "uses it, such as LSTM or GlobalAveragePooling1D".format(
                    *layer.groups())) from e


def check_call(clone: keras.Model) -> None:
    """Call it once, as in training, and see what else it does than compute.

    Raises:
      InputError: a layer whose state changes, such as Dropout's seed: one
        clone serves many tasks and must be pure; one that adds losses; a
        mask that is dropped, or left at the end, where no loss uses it.
    """
    example = tf.zeros([2] + [d or 32 for d in clone.inputs[0].shape[1:]],
                       clone.inputs[0].dtype)
    with keras.StatelessScope(collect_losses=True) as scope:
        outputs = clone(example, training=True)
        for layer in operations(clone):
            if isinstance(layer, keras.layers.Layer):
                _check_pure(layer, scope)
    if get_keras_mask(outputs) is not None:
        raise InputError(
            f"the output of layer {clone.layers[-1].name!r} has a mask, which "
            "the loss would not apply: remove Masking or mask_zero, or end "
            "the mask by return_sequences=False or GlobalAveragePooling1D")
    _check_moments(clone, example)


def _check_moments(clone: keras.Model, example: tf.Tensor) -> None:
    """tf.nn.moments within a layer of one's own, as `INEXACT` outside."""
    layers = list(clone._flatten_layers())
    if not any(type(layer).__module__.partition(".")[0] not in (
            "keras", "reptile_tf") or isinstance(layer, keras.layers.Lambda)
               for layer in layers):
        return
    names = {layer.name for layer in layers}
    graph = tf.function(lambda x: clone(x, training=True), autograph=False
                        ).get_concrete_function(example).graph
    for operation in graph.get_operations():
        scope, moments, _ = operation.name.partition("/moments/StopGradient")
        if moments:
            # A scope is a layer's name, or that with a number added.
            name = next((n for part in reversed(scope.split("/"))
                         for n in (part, part.rpartition("_")[0])
                         if n in names), scope)
            raise InputError(
                f"layer {name!r} calls keras.ops.moments or tf.nn.moments, "
                "which has wrong second derivatives: write it with "
                "keras.ops.mean and keras.ops.var")


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
