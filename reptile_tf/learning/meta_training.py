"""The outer loop: meta-iterations on an initialization phi."""

from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning import trainer_state
from reptile_tf.learning.examples import require_inputs, require_targets
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.losses import Loss, cross_entropy
from reptile_tf.learning.meta_batch import SharedMetaBatch, all_finite
from reptile_tf.learning.meta_config import MetaConfig
from reptile_tf.learning.non_finite import NonFiniteError, cause_of
from reptile_tf.learning.optimizers import InnerConfig, mean_state
from reptile_tf.learning.outer_optimizer import outer_optimizer
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.learning.slots import Slots
from reptile_tf.tasks import Batches, Sampler


class MetaTrainer:
    """Meta-learns an initialization phi of a Keras model.

    Every task runs on its own copy of phi in the learner's clone.

    Args:
      learner: whose phi is trained; its inner optimizer, loss and engine.
      meta: the outer loop.
      lookup: indices -> examples, applied on the device; the identity if the
        sampler gives the examples themselves.
      iterations_per_call: meta-iterations of one compiled call. More than 1
        pays for small models, whose call costs more than their arithmetic.
      replicas: that share the tasks; None means one.

    Attributes:
      phi: the learner's.
      slots: the (v, t) of training.
      iteration: meta-iterations done.
    """

    def __init__(
        self,
        learner: Learner,
        meta: MetaConfig | None = None,
        lookup: Callable[[tf.Tensor], tf.Tensor] | None = None,
        iterations_per_call: int = 1,
        replicas: Replicas | None = None,
    ) -> None:
        self._learner, self.meta = learner, meta or MetaConfig()
        self.iterations_per_call = iterations_per_call
        self.replicas = replicas or Replicas()
        self.replicas.check(self.meta.meta_batch, self.meta.task_order)
        self._checked = False
        self.lookup, self.phi = lookup or tf.identity, learner.phi
        update = REGISTRY[self.meta.algorithm]
        self.slots = Slots(learner.state, self.meta.slots, self.replicas)
        self.optimizer = outer_optimizer(self.meta)
        self.optimizer.build(self.phi)
        self._mean_displacement = SharedMetaBatch(
            update.with_weights(self.meta.gradient_weights),
            learner.new_inner_loop(
                update.second_order,
                update.second_order and self.meta.recompute_gradients),
            self.lookup, self.meta.task_order, learner.engine, self.replicas)
        compiled = self._mean_displacement.engine.function
        self._displacement = compiled(self._displacement_at_phi)
        self._train_steps = compiled(self._meta_iterations)

    @property
    def iteration(self) -> int:
        """Meta-iterations done."""
        return int(self.optimizer.iterations)

    @property
    def learner(self) -> Learner:
        """The learner as trained so far; all processes must ask.

        Evaluation and export start from the mean of the slots' (v, t).
        """
        self._learner.state = mean_state(self.slots.gathered())
        return self._learner

    @property
    def weights(self) -> list[tf.Tensor]:
        """phi as tensors."""
        return self._learner.weights

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
            rate = self._learner.inner.learning_rate
            gradient = [d / rate for d in displacement]
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
          InputError: another number of tasks, or, in the first call,
            examples that do not fit the network or the loss.
          NonFiniteError: NaN or infinity in phi or in v.
        """
        number, each = len(batches.last_targets), self.meta.meta_batch
        most, count = self.iterations_per_call, number // each
        if number % each or not 1 <= count <= most:
            raise InputError(
                f"the sampler gave {number} tasks, meta_batch is {each}: "
                "return as many as it is asked for")
        if not self._checked:
            self._check(batches)
        # Filled up to a fixed size, so that one compiled function serves all.
        rows = np.arange(most * each) % number
        filled = batches if count == most else Batches(
            *(np.asarray(x)[rows] for x in batches))
        stacked = tf.nest.map_structure(
            lambda x: self.replicas.own(
                tf.reshape(x, [most, each, *x.shape[1:]]), axis=1),
            as_tensors(filled))
        if not self._train_steps(stacked, tf.constant(count)):
            cause = cause_of(batches, self.lookup, self.weights,
                             self.slots.values(), self._learner.inner,
                             self.meta.meta_step)
            raise NonFiniteError("NaN or infinity in the weights at "
                                 f"meta-iteration {self.iteration}: {cause}")

    def _check(self, batches: Batches) -> None:
        """Raise InputError unless the network and the loss take these."""
        learner, update = self._learner, REGISTRY[self.meta.algorithm]
        steps = np.shape(batches.targets)[1] + 1
        if steps < update.min_iters:
            raise InputError(
                f"{self.meta.algorithm} takes {update.min_iters} mini-batches "
                f"or more of a task, and the sampler gave {steps}")
        for last in ("", "last_"):
            inputs = getattr(batches, f"{last}inputs")
            if not last and steps == 1:  # The last mini-batch is alone.
                continue
            if self.lookup is tf.identity:
                require_inputs(learner.model, inputs, f"{last}inputs")
            require_targets(
                learner.model, learner.loss,
                getattr(batches, f"{last}targets"), f"{last}targets",
                tuple(np.shape(inputs)[:2 if last else 3]))
        self._checked = True

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
) -> Learner:
    """Meta-train `model` on the sampler's tasks; phi is written at the end.

    Args:
      model: a Sequential or functional Keras model, built.
      sampler: a callable of the number of tasks that returns `Batches`.
      inner: the inner optimizer.
      meta: the outer loop.
      loss: (targets, outputs) -> losses per example.

    Returns:
      the learner: adapts to tasks, is evaluated and saved.

    Raises:
      InputError: a model, or batches, that cannot be trained.
      NonFiniteError: NaN or infinity in the weights.
    """
    trainer = MetaTrainer(Learner(model, inner, loss), meta)
    for _ in trainer.train(sampler):
        pass
    learner = trainer.learner
    learner.assign_to(model)
    return learner
