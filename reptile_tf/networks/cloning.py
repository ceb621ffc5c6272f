"""The clone of a model that the inner loop runs: validate, replace, copy.

keras.models.clone_model copies any model of Keras's layers; put in are the
layers that the inner loop needs: normalizations and, under XLA, max poolings
with exact second derivatives, and convolutions that are matrix products.
"""

import contextlib
import tempfile
import types
import warnings

import keras

from reptile_tf.errors import InputError
from reptile_tf.networks import calls, refusals
from reptile_tf.networks.layers import (
    EXACT_FUNCTIONS,
    GLOBAL_MAX_POOLINGS,
    LITE_FUNCTIONS,
    SLICED_POOLINGS,
    BatchNormalization,
    GatheredConv2D,
    GroupNormalization,
    LayerNormalization,
    LiteConv2D,
    LiteMaxPooling2D,
    LiteReLU,
    MaxPooling2D,
    SlicedConv2D,
)

_POOLINGS = (*SLICED_POOLINGS, *GLOBAL_MAX_POOLINGS)
# How a clone computes convolutions -> what replaces stock layers.
CONVOLUTIONS = {
    "stock": (), "plain": (), "gathered": (GatheredConv2D, MaxPooling2D),
    "compiled": _POOLINGS, "sliced": (SlicedConv2D, *_POOLINGS),
    "lite": (LiteConv2D, LiteMaxPooling2D, LiteReLU)}
# The keys for XLA, where stock max pooling has inexact second derivatives.
FOR_XLA = ("compiled", "sliced")


def inner_clone(model: keras.Model, convolutions: str = "stock",
                mixed_bfloat16: bool = False) -> keras.Model:
    """A clone of `model` for the inner loop; `model` itself is not touched.

    Stock normalization becomes the exact one. Frozen layers stay frozen, and
    frozen batch normalization uses its moving averages, as in Keras.
    Trainable weights are in the model's order; all weights are copies of the
    model's.

    Args:
      model: a Sequential or functional model, built.
      convolutions: a key of CONVOLUTIONS. "sliced" is for tasks side by side;
        "gathered" is for the CPU, "compiled" and "sliced" for XLA. "plain"
        is "stock" with what a SavedModel can keep; "lite" is that in
        TensorFlow Lite's operations. Except in "sliced", "plain" and "lite",
        batch normalization is fused.
      mixed_bfloat16: give every layer Keras's policy of that name.

    Raises:
      InputError: what the inner loop cannot run, or would run as something
        else than Keras does (`refusals`, `calls`).
    """
    refusals.check_model(model, mixed_bfloat16)
    with calls.no_mask_dropped():
        clone = _InnerCloner(convolutions, mixed_bfloat16).clone(model)
        refusals.check_same_weights(model, clone)
        calls.check_call(clone)
    return clone


def copied(model: keras.Model) -> keras.Model:
    """A copy of a model as it is, with its weights, frozen where they are.

    Raises:
      InputError: a model, or a layer in it, that Keras cannot copy.
    """
    refusals.check_clonable(model)
    return _Cloner().clone(model)


class _Cloner:
    """Copies a model, each layer once, with its weights."""

    def __init__(self) -> None:
        self._made, self._pairs = {}, []

    def clone(self, model):
        """A clone of a model: what is made of its layers, at their weights."""
        clone = self.replace(model)
        for layer, new in self._pairs:
            _copy_weights(layer, new)
        return clone

    def replace(self, layer):
        """The replacement of a layer, a model in a model or an operation."""
        if id(layer) not in self._made:
            self._made[id(layer)] = self._new(layer)
        return self._made[id(layer)]

    def _new(self, layer):
        if isinstance(layer, keras.Model):
            refusals.check_clonable(layer)
            with _uncompiled(layer):
                return keras.models.clone_model(layer,
                                                clone_function=self.replace)
        if type(layer) is keras.layers.TimeDistributed:
            return keras.layers.TimeDistributed(
                self.replace(layer.layer), name=layer.name,
                trainable=layer.trainable, dtype=layer.dtype_policy)
        if not isinstance(layer, keras.layers.Layer):
            return self.operation(layer)
        new = self.layer(layer)
        self._pairs.append((layer, new))
        return new

    def operation(self, operation):
        """The replacement of an operation without a layer."""
        try:
            return type(operation).from_config(operation.get_config())
        except TypeError:  # It holds a function, as of vectorized_map.
            new = object.__new__(type(operation))  # It has no weights.
            vars(new).update(vars(operation) | {
                "_inbound_nodes": [], "_outbound_nodes": []})
            return new

    def layer(self, layer):
        """The replacement of a layer, whose weights are copied later."""
        return _made_as(layer, type(layer), {})


class _InnerCloner(_Cloner):
    """Puts in the layers that the inner loop needs.

    Args:
      convolutions, mixed_bfloat16: as of `inner_clone`.
    """

    def __init__(self, convolutions: str, mixed_bfloat16: bool) -> None:
        super().__init__()
        self._fused = convolutions not in ("sliced", "plain", "lite")
        self._functions = EXACT_FUNCTIONS | (
            LITE_FUNCTIONS if convolutions == "lite" else {})
        self._mixed = mixed_bfloat16
        self._xla = convolutions in FOR_XLA
        self._kinds = (LayerNormalization, GroupNormalization,
                       *CONVOLUTIONS[convolutions])

    def operation(self, operation):
        refusals.check_operation(operation, self._xla)
        return super().operation(operation)

    def layer(self, layer):
        refusals.check_foreign(layer)
        if _moving(layer):
            new = BatchNormalization.from_stock(layer, self._fused)
        else:
            new = _made_as(layer, self._kind(layer) or type(layer),
                           self._functions)
        refusals.check_inside(layer, self._is_inexact)
        if self._mixed and not isinstance(new, keras.layers.InputLayer):
            new.dtype_policy = "mixed_bfloat16"
        return new

    def _kind(self, layer):
        return next((k for k in self._kinds if k.supports(layer)), None)

    def _is_inexact(self, layer):
        """Whether the stock layer's second derivatives are wrong."""
        exact = (LayerNormalization, GroupNormalization,
                 *(SLICED_POOLINGS if self._xla else ()))
        return _moving(layer) or any(k.supports(layer) for k in exact)


@contextlib.contextmanager
def _uncompiled(model):
    """Keras compiles the clone of a compiled model: with what nobody uses
    here, and only where it can make the loss and the metrics again."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def _moving(layer) -> bool:
    """Whether it is a batch normalization that would update its averages."""
    return (type(layer) is keras.layers.BatchNormalization
            and layer.trainable)


def _made_as(layer, kind, functions):
    """A layer of that kind, made as `layer` was.

    Functions are not copied, and taken from `functions` if they are there.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*includes a `lambda`")
            config = layer.get_config()
        for name in config:
            value = getattr(layer, name, getattr(layer, f"_{name}", None))
            if isinstance(value, types.FunctionType):
                config[name] = functions.get(value, value)
        # Lambda's from_config makes functions again, from their code.
        return (kind(**config) if kind is keras.layers.Lambda
                else kind.from_config(config))
    except (NotImplementedError, TypeError, ValueError) as e:
        raise InputError(
            f"layer {layer.name!r} ({kind.__name__}) cannot be copied: give "
            "its class a get_config that returns what its __init__ takes"
        ) from e


def _copy_weights(layer, new) -> None:
    """All weights, in the model's order; the statistics of Normalization, and
    what Keras saves as files, such as a vocabulary that was learned."""
    # What is inside a layer first: its own files may be that layer's.
    for old, copy in reversed([*zip(
            layer._flatten_layers(), new._flatten_layers(), strict=False)]):
        if hasattr(old, "save_assets") and hasattr(copy, "load_assets"):
            own = {}
            old.save_own_variables(own)
            copy.load_own_variables(own)
            with tempfile.TemporaryDirectory() as folder:
                old.save_assets(folder)
                copy.load_assets(folder)
    if isinstance(new, BatchNormalization):
        pairs = zip([v for v in layer.variables if v.name in ("gamma", "beta")],
                    new.variables, strict=True)
    else:
        # A rate that was set to 0 leaves a seed behind, which is no weight.
        pairs = zip(layer.weights, new.weights, strict=True)
    for old, copy in pairs:
        copy.assign(old)
        copy.trainable = old.trainable
    if isinstance(new, keras.layers.Normalization):
        new.finalize_state()
