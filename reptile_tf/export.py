"""The trained initialization as a SavedModel and as a stock Keras file."""

import os
import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from reptile_tf import models, tasks
from reptile_tf.config import Config
from reptile_tf.evaluation import score_logits
from reptile_tf.inner_loop import InnerLoop, InnerState
from reptile_tf.meta_training import MetaTrainer

SCHEDULE_SEED = (20180308, 0)


def stateless_schedule(
    num_examples: tf.Tensor, batch: int, num_batches: int, replacement: bool
) -> tf.Tensor:
    """Positions [num_batches, batch], as `tasks.mini_batches`, in the graph.

    The shuffle's seed is fixed: two calls give the same schedule.
    """
    needed = batch * num_batches
    size = batch if replacement else num_examples
    passes = num_batches if replacement else -(-needed // num_examples)

    def shuffled(i):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(num_examples), [SCHEDULE_SEED[0], i])
        return order[:size]

    def body(i, order):
        return i + 1, tf.concat([order, shuffled(i)], 0)

    _, order = tf.while_loop(
        lambda i, _: i < passes, body,
        (tf.constant(0), tf.zeros([0], tf.int32)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])))
    return tf.reshape(order[:needed], [num_batches, batch])


class Initialization(tf.Module):
    """phi and (v, t) with the two signatures.

    A plain tf.Module: every variable is stored once.

    Args:
      model: the Keras model, holding phi.
      trainer: gives (v, t).
      config: gives eval_iters, eval_batch, replacement and the optimizer.
    """

    def __init__(self, model: keras.Model, trainer: MetaTrainer,
                 config: Config) -> None:
        super().__init__()
        # Stock convolutions without XLA: any batch size, anywhere.
        self._inner = InnerLoop(models.inner_clone(model), config.inner)
        self.phi = [tf.Variable(w, trainable=True) for w in trainer.weights]
        state = trainer.state
        self.v = [tf.Variable(v, trainable=False) for v in state.v]
        self.t = tf.Variable(state.t, trainable=False)
        self._config = config

    def _weights(self):
        return [w.value() for w in self.phi]

    def serving_default(self, images):
        """Logits with the statistics of the batch given."""
        return {"logits": self._inner.outputs(self._weights(), images)}

    def adapt_and_predict(self, support_images, support_labels, query_images,
                          transductive):
        """Logits of the queries after eval_iters inner steps from phi."""
        c = self._config
        order = stateless_schedule(
            tf.shape(support_images)[0], max(c.eval_batch), c.eval_iters,
            c.replacement)
        w, _ = self._inner.adapt(
            self._weights(),
            InnerState([v.value() for v in self.v], self.t.value()),
            tf.gather(support_images, order),
            tf.gather(tf.cast(support_labels, tf.int32), order))
        return {"logits": tf.cond(
            transductive,
            lambda: score_logits(self._inner, w, support_images, query_images,
                                 True),
            lambda: score_logits(self._inner, w, support_images, query_images,
                                 False))}


def save(model: keras.Model, trainer: MetaTrainer, config: Config,
         directory: Path) -> None:
    """Write `directory`: the SavedModel, and model.keras of stock layers.

    Args:
      model: the Keras model with phi assigned.
      trainer: of the run.
      config: of the run.
      directory: replaced as a whole once everything is written.
    """
    module = Initialization(model, trainer, config)
    images = tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32)
    signatures = {
        "serving_default": tf.function(
            module.serving_default, input_signature=[
                tf.TensorSpec(images.shape, images.dtype, "images")]),
    }
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    tf.saved_model.save(module, str(temporary), signatures)
    model.save(temporary / "model.keras")
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(temporary, directory)


__all__ = ["Initialization", "save", "stateless_schedule", "np", "tasks"]
