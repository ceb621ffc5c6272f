"""Meta-training: a sampler's tasks to the outer loop, and what is kept."""

from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError, kind_of
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning import trainer_state
from reptile_tf.learning.arrays import tensor_of
from reptile_tf.learning.examples import require_batches
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.losses import Loss, cross_entropy
from reptile_tf.learning.meta_config import MetaConfig
from reptile_tf.learning.non_finite import NonFiniteError, cause_of
from reptile_tf.learning.optimizers import InnerConfig, mean_state
from reptile_tf.learning.outer_loop import OuterLoop
from reptile_tf.learning.rules import REGISTRY
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
      optimizer: the outer one.
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
        self._given = learner.state
        self.iterations_per_call = iterations_per_call
        self.replicas = replicas or Replicas()
        self.replicas.check(self.meta.meta_batch, self.meta.task_order)
        self.lookup, self._checked = lookup or tf.identity, False
        self._outer = OuterLoop(learner, self.meta, self.lookup, self.replicas)
        self.phi, self.slots = learner.phi, self._outer.slots
        self.optimizer = self._outer.optimizer

    @property
    def iteration(self) -> int:
        """Meta-iterations done."""
        return int(self.optimizer.iterations)

    @property
    def learner(self) -> Learner:
        """The learner as trained so far; all processes must ask.

        Evaluation and export start from the mean of the slots' (v, t), which
        the learner is given here, and where `train` ends or is left.
        """
        self._update_state()
        return self._learner

    def _update_state(self) -> None:
        self._given = mean_state(self.slots.gathered())
        self._learner.state = self._given

    @property
    def weights(self) -> list[tf.Tensor]:
        """phi as tensors."""
        return self._learner.weights

    def displacement(self, batches: Batches) -> list[tf.Tensor]:
        """Mean D of a meta-batch at the present phi; changes nothing."""
        return self._outer.displacement(tf.nest.map_structure(
            self.replicas.own, self._tensors(batches)))

    def _tensors(self, batches: Batches) -> Batches:
        """The same as tensors, numbers that are not whole in phi's type."""
        def tensor(name, array):
            array = tensor_of(array, name)
            return (tf.cast(array, self.phi[0].dtype)
                    if array.dtype.is_floating else array)

        return Batches(*map(tensor, Batches._fields, batches))

    def train_step(self, batches: Batches) -> None:
        """One or more meta-iterations, on meta_batch tasks each.

        Args:
          batches: of c * meta_batch tasks, c from 1 to iterations_per_call.

        Raises:
          InputError: no batches, another number of tasks, or examples that do
            not fit the network or the loss; of a `lookup`'s it is seen in the
            first call.
          NonFiniteError: NaN or infinity in phi or in v.
        """
        if not isinstance(batches, Batches):
            raise InputError(
                f"the sampler gave {kind_of(batches)}: return Batches, such as "
                "Batches.from_steps(inputs, targets) of [T, k, B, ...]")
        number, each = len(batches.last_targets), self.meta.meta_batch
        most, count = self.iterations_per_call, number // each
        if number % each or not 1 <= count <= most:
            raise InputError(
                f"the sampler gave {number} tasks, meta_batch is {each}: "
                "return as many as it is asked for")
        batches = self._tensors(batches)
        if self.lookup is tf.identity or not self._checked:
            self._check(batches)
        # Filled up to a fixed size, so that one compiled function serves all.
        filled = batches if count == most else Batches(
            *(tf.gather(x, np.arange(most * each) % number) for x in batches))
        stacked = tf.nest.map_structure(
            lambda x: self.replicas.own(
                tf.reshape(x, [most, each, *x.shape[1:]]), axis=1), filled)
        if not self._outer.steps(stacked, tf.constant(count)):
            cause = cause_of(batches, self.lookup, self.weights,
                             self.slots.values(), self._learner.inner,
                             self.meta.meta_step)
            raise NonFiniteError("NaN or infinity in the weights at "
                                 f"meta-iteration {self.iteration}: {cause}")

    def _check(self, batches: Batches) -> None:
        """Raise InputError unless rule, network and loss take these."""
        learner, update = self._learner, REGISTRY[self.meta.algorithm]
        steps = np.shape(batches.targets)[1] + 1
        if steps < update.min_iters:
            raise InputError(
                f"{self.meta.algorithm} takes {update.min_iters} mini-batches "
                f"or more of a task, and the sampler gave {steps}")
        require_batches(learner.architecture, learner.loss, batches,
                        self.lookup is tf.identity)
        learner.remember_targets(batches.last_targets, axes=2)
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
        if not callable(sampler):
            raise InputError(
                f"the sampler is {kind_of(sampler)}: give a function of the "
                "number of tasks that returns Batches of so many")
        last, done = self.meta.meta_iters, self.iteration
        if done == last > 0:  # Loaded.
            self._update_state()
        try:
            while done < last:
                stop = min(last, done - done % pause + pause) if pause else last
                count = min(self.iterations_per_call, stop - done)
                self.train_step(sampler(count * self.meta.meta_batch))
                done += count
                if done == last:
                    self._update_state()
                yield done
        finally:
            # Left or interrupted: of several processes perhaps this one alone.
            # Late, where the generator was kept: then it is another's state.
            if (done < last and self.replicas.cluster.processes == 1
                    and self._learner.state is self._given):
                with tf.init_scope():
                    self._update_state()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that training continues from (`trainer_state`)."""
        return trainer_state.arrays_of(self)

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from a `state_dict`; InputError if it does not fit."""
        trainer_state.load(self, arrays)


def meta_train(
    model: keras.Model | Learner,
    sampler: Sampler,
    inner: InnerConfig | None = None,
    meta: MetaConfig | None = None,
    loss: Loss | None = None,
) -> Learner:
    """Meta-train `model` on the sampler's tasks; phi is written at the end.

    Interrupted, the model and the learner have what was learned until then.

    Args:
      model: a Sequential or functional Keras model, built; or a learner,
        whose phi and (v, t) are trained on.
      sampler: a callable of the number of tasks that returns `Batches`.
      inner: the inner optimizer of a model; a learner has its own.
      meta: the outer loop; None means 100,000 meta-iterations of Reptile.
      loss: (targets, outputs) -> losses per example, of a model;
        cross_entropy if not given.

    Returns:
      the learner, the one that was given: adapts to tasks, is evaluated and
      saved.

    Raises:
      InputError: a model, or batches, that cannot be trained.
      NonFiniteError: NaN or infinity in the weights; the model and the learner
        are as they were before.
    """
    if not isinstance(inner, InnerConfig | None) or not isinstance(
            meta, MetaConfig | None):
        raise InputError(
            f"inner is {kind_of(inner)} and meta is {kind_of(meta)}: give "
            "inner=InnerConfig(...) and meta=MetaConfig(...)")
    learner = model
    if not isinstance(model, Learner):
        learner = Learner(model, inner, loss or cross_entropy)
    elif inner or loss:
        raise InputError("a learner has its own inner optimizer and loss: "
                         "give neither")
    weights, state = learner.weights, learner.state
    try:
        for _ in MetaTrainer(learner, meta).train(sampler):
            pass
    except NonFiniteError:
        for p, w in zip(learner.phi, weights, strict=True):
            p.assign(w)
        learner.state = state
        raise
    finally:
        if learner is not model:
            learner.assign_to(model)
    return learner
