"""The outer loop: meta-iterations on an initialization phi."""

import math
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.execution.engine import Engine, choose
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning import trainer_state
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import Loss, cross_entropy
from reptile_tf.learning.meta_batch import SharedMetaBatch, all_finite
from reptile_tf.learning.meta_config import MetaConfig
from reptile_tf.learning.optimizers import (
    InnerConfig,
    InnerState,
    mean_state,
)
from reptile_tf.learning.outer_optimizer import outer_optimizer
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.learning.slots import Slots
from reptile_tf.networks import inner_clone
from reptile_tf.tasks import Batches, Sampler


class NonFiniteError(RuntimeError):
    """NaN or infinity appeared in the weights."""


class MetaTrainer:
    """Meta-learns an initialization phi of a Keras model.

    The model is cloned (`networks.inner_clone`) and never written; every task
    runs on its own copy of phi in the clone. `assign_to` puts phi into a
    model of the same architecture.

    Args:
      model: a Sequential or functional Keras model, built.
      inner: the inner optimizer.
      meta: the outer loop.
      loss: (targets, outputs) -> losses per example.
      lookup: indices -> examples, applied on the device; the identity if the
        sampler gives the examples themselves.
      engine: how tasks are mapped; None chooses by the model.
      iterations_per_call: meta-iterations of one compiled call. More than 1
        pays for small models, whose call costs more than their arithmetic.
      replicas: that share the tasks; None means one.

    Attributes:
      phi: keras.Variables, the initialization.
      slots: the (v, t) of training.
      loss: as given.
      iteration: meta-iterations done.
    """

    def __init__(
        self,
        model: keras.Model,
        inner: InnerConfig | None = None,
        meta: MetaConfig | None = None,
        loss: Loss = cross_entropy,
        lookup: Callable[[tf.Tensor], tf.Tensor] | None = None,
        engine: Engine | None = None,
        iterations_per_call: int = 1,
        replicas: Replicas | None = None,
    ) -> None:
        self.inner, self.meta = inner or InnerConfig(), meta or MetaConfig()
        self.iterations_per_call = iterations_per_call
        self.replicas = replicas or Replicas()
        self.replicas.check(self.meta.meta_batch, self.meta.task_order)
        self.engine = engine or choose(model)
        self.lookup, self.loss = lookup or tf.identity, loss
        update = REGISTRY[self.meta.algorithm]
        clone = inner_clone(model, self.engine.convolutions,
                            self.inner.mixed_bfloat16)
        training_loop = InnerLoop(
            clone, self.inner, loss,
            recompute=update.second_order and self.meta.recompute_gradients,
            one_graph=self.engine.jit,
            unrolled_steps=math.inf if update.second_order
            else self.engine.unrolled_steps)
        self.inner_loop = InnerLoop(
            clone, self.inner, loss, one_graph=self.engine.jit,
            unrolled_steps=self.engine.unrolled_steps)
        self.phi = [keras.Variable(w.value, dtype=w.dtype, name=w.name)
                    for w in clone.trainable_variables]
        self.slots = Slots(self.inner_loop.initial_state(), self.meta.slots,
                           self.replicas)
        self.optimizer = outer_optimizer(self.meta)
        self.optimizer.build(self.phi)
        self._mean_displacement = SharedMetaBatch(
            update.with_weights(self.meta.gradient_weights), training_loop,
            self.lookup, self.meta.task_order, self.engine, self.replicas)
        compiled = self._mean_displacement.engine.function
        self._displacement = compiled(self._displacement_at_phi)
        self._train_steps = compiled(self._meta_iterations)

    @property
    def iteration(self) -> int:
        """Meta-iterations done."""
        return int(self.optimizer.iterations)

    @property
    def state(self) -> InnerState:
        """The (v, t) that evaluation and export start from; all must ask."""
        return mean_state(self.slots.gathered())

    @property
    def weights(self) -> list[tf.Tensor]:
        """phi as tensors."""
        return [p.value.value() for p in self.phi]

    def _displacement_at_phi(self, batches):
        return self._mean_displacement(self.weights, self.slots.values(),
                                       batches)[0]

    def displacement(self, batches: Batches) -> list[tf.Tensor]:
        """Mean D of a meta-batch at the present phi; changes nothing."""
        own = tf.nest.map_structure(self.replicas.own, as_tensors(batches))
        return self._displacement(own)

    def _meta_iteration(self, batches):
        """One outer step; returns whether phi and v are finite."""
        displacement, spoilt, state = self._mean_displacement(
            self.weights, self.slots.values(), batches)
        gradient = displacement
        if self.meta.outer_optimizer == "adam":
            gradient = [d / self.inner.learning_rate for d in displacement]
        self.optimizer.apply(gradient, self.phi)
        self.slots.assign(state)
        return all_finite(self.weights) & (spoilt == 0)

    def _meta_iterations(self, batches, count):
        """Outer steps on the first `count` of batches [C, T, ...]."""
        def body(i, finite):
            return i + 1, self._meta_iteration(
                tf.nest.map_structure(lambda x: x[i], batches))

        return tf.while_loop(
            lambda i, finite: (i < count) & finite, body,
            (tf.constant(0), tf.constant(True)), parallel_iterations=1)[1]

    def train_step(self, batches: Batches) -> None:
        """One or more meta-iterations, on meta_batch tasks each.

        Args:
          batches: of c * meta_batch tasks, c from 1 to iterations_per_call.

        Raises:
          InputError: another number of tasks.
          NonFiniteError: NaN or infinity in phi or in v.
        """
        number, each = len(batches.last_targets), self.meta.meta_batch
        most, count = self.iterations_per_call, number // each
        if number % each or not 1 <= count <= most:
            raise InputError(
                f"the sampler gave {number} tasks, meta_batch is {each}: "
                "return as many as it is asked for")
        # Filled up to a fixed size, so that one compiled function serves all.
        rows = np.arange(most * each) % number
        filled = batches if count == most else Batches(
            *(np.asarray(x)[rows] for x in batches))
        stacked = tf.nest.map_structure(
            lambda x: self.replicas.own(
                tf.reshape(x, [most, each, *x.shape[1:]]), axis=1),
            as_tensors(filled))
        if not self._train_steps(stacked, tf.constant(count)):
            raise NonFiniteError(
                f"NaN or infinity in the weights at meta-iteration "
                f"{self.iteration}: lower learning_rate "
                f"({self.inner.learning_rate}) or meta_step "
                f"({self.meta.meta_step})")

    def train(self, sampler: Sampler, pause: int = 0) -> Iterator[int]:
        """Run to meta_iters; yields the iterations done, after each call.

        Args:
          sampler: called with a number of tasks, returns that many tasks'
            Batches. Asked for a and then b tasks it must return those that
            it returns when asked for a + b at once: then iterations_per_call
            and `pause` do not change what is trained.
          pause: a call ends at each multiple of this; 0 means no such stop.
        """
        last = self.meta.meta_iters
        while (done := self.iteration) < last:
            stop = min(last, done - done % pause + pause) if pause else last
            count = min(self.iterations_per_call, stop - done)
            self.train_step(sampler(count * self.meta.meta_batch))
            yield self.iteration

    def assign_to(self, model: keras.Model) -> None:
        """Write phi into a model of the same architecture."""
        for variable, value in zip(model.trainable_variables, self.phi,
                                   strict=True):
            variable.assign(value)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that training continues from (`trainer_state`)."""
        return trainer_state.arrays_of(self)

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from a `state_dict`; InputError if it does not fit."""
        trainer_state.load(self, arrays)


def as_tensors(batches: Batches) -> Batches:
    """The same, as tensors."""
    return Batches(*(tf.convert_to_tensor(x) for x in batches))


def meta_train(
    model: keras.Model,
    sampler: Sampler,
    inner: InnerConfig | None = None,
    meta: MetaConfig | None = None,
    loss: Loss = cross_entropy,
) -> MetaTrainer:
    """Meta-train `model` on the sampler's tasks; phi is written at the end.

    Args:
      model: a Sequential or functional Keras model, built.
      sampler: a callable of the number of tasks that returns `Batches`.
      inner: the inner optimizer.
      meta: the outer loop.
      loss: (targets, outputs) -> losses per example.

    Returns:
      the trainer, whose `state` is the (v, t) that belongs to phi.
    """
    trainer = MetaTrainer(model, inner, meta, loss)
    for _ in trainer.train(sampler):
        pass
    trainer.assign_to(model)
    return trainer
