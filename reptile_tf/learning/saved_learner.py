"""A learner on disk: a SavedModel, a stock Keras file, and its settings."""

import dataclasses
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.learning.adaptation import AdaptConfig
from reptile_tf.learning.evaluation import score_logits
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import Loss, cross_entropy, squared_error
from reptile_tf.learning.optimizers import InnerConfig, InnerState
from reptile_tf.networks import inner_clone

INTEGER_TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16",
                 "uint32", "uint64")
LOSSES = {f.__name__: f for f in (cross_entropy, squared_error)}
SETTINGS, KERAS_FILE = "learner.json", "model.keras"


def inner_loop_of(learner, convolutions: str = "stock") -> InnerLoop:
    """U^k of a learner without XLA: for any number of examples, anywhere.

    Args:
      learner: a `learner.Learner`.
      convolutions: see `networks.inner_clone`.
    """
    # It may be asked for first while a function of the caller's is traced.
    with tf.init_scope():
        clone = inner_clone(learner.model, convolutions)
    return InnerLoop(clone, learner.inner, learner.loss)


class Initialization(tf.Module):
    """phi and (v, t), and what is done with them, as a SavedModel.

    A plain tf.Module, so every variable is stored once.

    Args:
      learner: a `learner.Learner`.
    """

    def __init__(self, learner) -> None:
        super().__init__(name="initialization")
        self._inner = inner_loop_of(learner, "plain")
        self._adaptation = learner.adaptation
        # Classes are integers of any type; regression targets are floats.
        self._classifies = learner.loss is cross_entropy
        self.phi = [tf.Variable(w) for w in learner.weights]
        state = learner.state
        self.v = [tf.Variable(v, trainable=False) for v in state.v]
        self.m = [tf.Variable(m, trainable=False) for m in state.m]
        self.t = tf.Variable(state.t, trainable=False)
        self.adapt_and_predict = tf.function(
            self._adapt_and_predict, autograph=False)
        for dtype in INTEGER_TYPES if self._classifies else [None]:
            self.adapt_and_predict.get_concrete_function(
                *self.adaptation_signature(dtype))

    def spec(self, name: str) -> tf.TensorSpec:
        """Any number of the network's inputs."""
        one = self._inner.model.inputs[0]
        return tf.TensorSpec([None, *one.shape[1:]], one.dtype, name)

    def adaptation_signature(self, labels: str | None = "int64"
                             ) -> list[tf.TensorSpec]:
        """The inputs of adapt_and_predict.

        Args:
          labels: their integer type, where the network classifies.
        """
        out = self._inner.model.outputs[0]
        target = (tf.TensorSpec([None, *out.shape[1:-1]], labels,
                                "support_labels")
                  if self._classifies else tf.TensorSpec(
                      [None, *out.shape[1:]], out.dtype, "support_labels"))
        return [self.spec("support_images"), target,
                self.spec("query_images"),
                tf.TensorSpec([], tf.bool, "transductive")]

    def _weights(self):
        return [w.value() for w in self.phi]

    def predict(self, images):
        """Outputs [B, ...], with the statistics of the batch given."""
        return {"logits": self._inner.outputs(self._weights(), images)}

    def _adapt_and_predict(self, support_images, support_labels,
                           query_images, transductive):
        """Outputs [Q, ...] of the queries after the inner steps from phi."""
        if self._classifies:
            support_labels = tf.cast(support_labels, tf.int64)
        return self._adapt(support_images, support_labels, query_images,
                           transductive)

    @tf.function(autograph=False)
    def _adapt(self, support_images, support_labels, query_images,
               transductive):
        checks = self._checks(support_images, support_labels, query_images)
        with tf.control_dependencies(checks):  # They are to speak first.
            support_images = tf.identity(support_images)
            support_labels = tf.identity(support_labels)
        w, _ = self._inner.adapt_to(
            self._weights(),
            InnerState([v.value() for v in self.v], self.t.value(),
                       [m.value() for m in self.m]),
            support_images, support_labels,
            self._adaptation.positions(tf.shape(support_images)[0]))
        scored = partial(score_logits, self._inner, w, support_images,
                         query_images)
        return {"logits": tf.cond(transductive, partial(scored, True),
                                  partial(scored, False))}


    def _checks(self, support_images, support_labels, query_images):
        """Assertions in the graph: its users have no Python of ours."""
        checks = [
            tf.debugging.assert_positive(
                tf.shape(images)[0], f"{name}_images is empty: give at least "
                "one")
            for name, images in (("support", support_images),
                                 ("query", query_images))]
        checks.append(tf.debugging.assert_equal(
            tf.shape(support_images)[0], tf.shape(support_labels)[0],
            "there are not as many support_labels as support_images"))
        if self._classifies:
            ways = self._inner.model.outputs[0].shape[-1]
            checks += [
                tf.debugging.Assert(tf.reduce_all(right), [
                    f"support_labels must be from 0 to {ways - 1}, and are",
                    support_labels])
                for right in (support_labels >= 0, support_labels < ways)]
        return checks


def save(learner, directory: Path) -> None:
    """Write the SavedModel, model.keras of stock layers, and the settings.

    Args:
      learner: a `learner.Learner`.
      directory: replaced as a whole, once everything is written.

    Raises:
      InputError: something else is there.
    """
    _require_replaceable(directory)
    module = Initialization(learner)
    signatures = {
        "serving_default": tf.function(
            module.predict, input_signature=[module.spec("images")],
            autograph=False),
        # A signature has one type of labels; Python numbers and NumPy arrays
        # of any integer type are converted to it. Tensors of other types go
        # to the loaded object's own adapt_and_predict.
        "adapt_and_predict": module.adapt_and_predict.get_concrete_function(
            *module.adaptation_signature()),
    }
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    tf.saved_model.save(module, str(temporary), signatures)
    _stock(learner).save(temporary / KERAS_FILE)
    (temporary / SETTINGS).write_text(json.dumps({
        "loss": learner.loss.__name__,
        "inner": dataclasses.asdict(learner.inner),
        "adaptation": dataclasses.asdict(learner.adaptation)}, indent=1))
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(temporary, directory)


def _require_replaceable(directory: Path) -> None:
    """Raise InputError where replacing a folder would lose other files."""
    if directory.is_dir() and any(directory.iterdir()) and not (
            directory / "saved_model.pb").exists() or directory.is_file():
        raise InputError(
            f"{directory} is there, and no saved initialization: name a "
            "folder that is new, empty, or an initialization to replace")


def _stock(learner) -> keras.Model:
    """A copy of the learner's own model, at phi."""
    copy = keras.models.clone_model(learner.model)
    copy.set_weights(learner.model.get_weights())
    learner.assign_to(copy)
    return copy


@dataclasses.dataclass(frozen=True)
class Saved:
    """What `save` wrote beside phi.

    Attributes: as of `learner.Learner`.
    """

    inner: InnerConfig
    adaptation: AdaptConfig
    loss: Loss
    state: InnerState


def load(directory: Path, loss: Loss | None = None
         ) -> tuple[keras.Model, Saved]:
    """The model at phi, and the rest of a learner.

    Args:
      directory: that `save` wrote.
      loss: needed if it was none of LOSSES.

    Raises:
      InputError: no learner is there, or `loss` is missing.
    """
    try:
        settings = json.loads((directory / SETTINGS).read_text())
    except OSError as e:
        raise InputError(
            f"{directory} holds no learner ({SETTINGS}: {e.strerror}): give "
            "the folder that Learner.save wrote, or a run's initialization"
        ) from e
    name = settings["loss"]
    loss = loss or LOSSES.get(name)
    if loss is None:
        raise InputError(f"{directory} was saved with the loss {name!r} of "
                         "your own: give it, Learner.load(directory, loss)")
    adaptation = settings["adaptation"]
    adaptation["smaller"] = tuple(map(tuple, adaptation["smaller"]))
    return keras.models.load_model(directory / KERAS_FILE), Saved(
        InnerConfig(**settings["inner"]), AdaptConfig(**adaptation), loss,
        _state(tf.train.load_checkpoint(
            str(directory / "variables" / "variables"))))


def _state(variables: Any) -> InnerState:
    """(v, t), and m if there is one, of a SavedModel's variables."""
    names = variables.get_variable_to_shape_map()

    def moments(name):
        count = sum(k.startswith(f"{name}/") for k in names)
        return [tf.constant(_value(variables, f"{name}/{i}"))
                for i in range(count)]

    return InnerState(moments("v"), tf.constant(_value(variables, "t")),
                      moments("m"))


def _value(variables: Any, name: str) -> Any:
    return variables.get_tensor(f"{name}/.ATTRIBUTES/VARIABLE_VALUE")
