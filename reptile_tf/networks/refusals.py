"""What the inner loop cannot run, or would run as something else: refused.

Each refusal is one InputError with the layer's name and a remedy.
"""

from collections.abc import Callable

import keras
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
    for layer in model._flatten_layers():
        _check_numbers(layer)
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


def _check_numbers(layer: keras.layers.Layer) -> None:
    """Raise InputError for weights or products that would become others."""
    name = f"layer {layer.name!r} ({type(layer).__name__})"
    if getattr(layer, "lora_enabled", False):
        raise InputError(
            f"{name} has LoRA's factors, which Keras merges into the kernel "
            "and sets to 0 where it saves them: write them as a layer of your "
            "own, beside the frozen one")
    if layer.compute_dtype == "float16" and layer.trainable_weights and (
            not isinstance(layer, keras.Model)):
        raise InputError(
            f"{name} computes in float16, where small gradients become 0 "
            "(Keras scales the loss for that, the inner loop does not): make "
            "it in float32, and give mixed_bfloat16 for 16 bits")


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
