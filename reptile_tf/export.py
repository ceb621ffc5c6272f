"""The trained initialization as a SavedModel and as a stock Keras file."""

import os
import shutil
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from reptile_tf.configuration.config import Config
from reptile_tf.learning.evaluation import score_logits
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import cross_entropy
from reptile_tf.learning.meta_training import MetaTrainer
from reptile_tf.learning.optimizers import InnerState
from reptile_tf.networks import inner_clone

SCHEDULE_SEED = 20180308
INTEGER_TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16",
                 "uint32", "uint64")


def stateless_schedule(
    num_examples: tf.Tensor,
    batch: tf.Tensor,
    num_batches: int,
    replacement: bool,
) -> tf.Tensor:
    """Positions [num_batches, batch] by the rule of `tasks.mini_batches`.

    In the graph and with a fixed seed: two calls give the same schedule.
    With replacement, a batch larger than the set is cut to the set.
    """
    if replacement:
        batch = tf.minimum(batch, num_examples)
        passes, kept = num_batches, batch
    else:
        passes, kept = -(-num_batches * batch // num_examples), num_examples

    def add_pass(i, order):
        shuffled = tf.random.experimental.stateless_shuffle(
            tf.range(num_examples), tf.stack([SCHEDULE_SEED, i]))
        return i + 1, tf.concat([order, shuffled[:kept]], 0)

    _, order = tf.while_loop(
        lambda i, _: i < passes, add_pass,
        (tf.constant(0), tf.zeros([0], tf.int32)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])))
    return tf.reshape(order[:num_batches * batch], [num_batches, batch])


class Initialization(tf.Module):
    """phi and (v, t), and what is done with them.

    A plain tf.Module, so every variable is stored once.

    Args:
      model: a Keras model of the run's architecture.
      trainer: gives phi and (v, t).
      config: gives eval_iters, eval_batch, replacement and the inner
        optimizer.
    """

    def __init__(self, model: keras.Model, trainer: MetaTrainer,
                 config: Config) -> None:
        super().__init__(name="initialization")
        # Stock convolutions and no XLA: any number of images, anywhere.
        self._inner = InnerLoop(inner_clone(model), config.inner,
                                trainer.loss)
        self._config = config
        # Classes are integers of any type; regression targets are floats.
        self._classifies = trainer.loss is cross_entropy
        self.phi = [tf.Variable(w) for w in trainer.weights]
        state = trainer.state
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
        target = (tf.TensorSpec([None], labels, "support_labels")
                  if self._classifies else tf.TensorSpec(
                      [None, *out.shape[1:]], out.dtype, "support_labels"))
        return [self.spec("support_images"), target,
                self.spec("query_images"),
                tf.TensorSpec([], tf.bool, "transductive")]

    def _weights(self):
        return [w.value() for w in self.phi]

    def predict(self, images):
        """Logits [B, N], with the statistics of the batch given."""
        return {"logits": self._inner.outputs(self._weights(), images)}

    def schedule(self, num_examples: tf.Tensor) -> tf.Tensor:
        """The mini-batches [eval_iters, B] of a support set of this size.

        Where --eval_batch differs between --shots, B is that of the smallest
        of them whose support set is as large as the one given.
        """
        c = self._config
        cells = sorted(c.evaluations(), reverse=True)
        batch = tf.constant(cells[0][1])
        for shots, smaller in cells[1:]:
            batch = tf.where(num_examples <= c.ways * shots, smaller,
                             batch)
        return stateless_schedule(num_examples, batch, c.eval_iters,
                                  c.replacement)

    def _adapt_and_predict(self, support_images, support_labels,
                           query_images, transductive):
        """Logits [Q, N] of the queries after eval_iters steps from phi."""
        if self._classifies:
            support_labels = tf.cast(support_labels, tf.int64)
        return self._adapt(support_images, support_labels, query_images,
                           transductive)

    @tf.function(autograph=False)
    def _adapt(self, support_images, support_labels, query_images,
               transductive):
        for name, images in (("support", support_images),
                             ("query", query_images)):
            tf.debugging.assert_positive(
                tf.shape(images)[0], f"{name}_images is empty: give at least "
                "one")
        order = self.schedule(tf.shape(support_images)[0])
        w, _ = self._inner.adapt(
            self._weights(),
            InnerState([v.value() for v in self.v], self.t.value(),
                       [m.value() for m in self.m]),
            tf.gather(support_images, order),
            tf.gather(support_labels, order))
        scored = partial(score_logits, self._inner, w, support_images,
                         query_images)
        return {"logits": tf.cond(transductive, partial(scored, True),
                                  partial(scored, False))}


def save(model: keras.Model, trainer: MetaTrainer, config: Config,
         directory: Path | None) -> None:
    """Write `directory`: the SavedModel, and model.keras of stock layers.

    Args:
      model: the Keras model of stock layers, with phi assigned.
      trainer: of the run.
      config: of the run.
      directory: replaced as a whole, once everything is written; None in a
        process that does not write, but has a part of v to give.
    """
    module = Initialization(model, trainer, config)
    if directory is None:
        return
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
    model.save(temporary / "model.keras")
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(temporary, directory)
