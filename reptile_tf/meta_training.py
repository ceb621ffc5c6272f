"""The outer loop: mean displacement, annealed meta_step, outer optimizer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reptile_tf import engine as engines
from reptile_tf import models
from reptile_tf.distribution import Replicas
from reptile_tf.errors import InputError
from reptile_tf.inner_loop import (
    InnerConfig,
    InnerLoop,
    InnerState,
    Loss,
    Weights,
    cross_entropy,
    mean_state,
)
from reptile_tf.meta_updates import REGISTRY
from reptile_tf.tasks import Batches, Sampler

ADAM_EPSILON = 1e-8


class NonFiniteError(RuntimeError):
    """NaN or infinity appeared in the weights."""


@dataclass(frozen=True)
class MetaConfig:
    """The outer loop (paper, section 6.1).

    Attributes:
      algorithm: a key of `meta_updates.REGISTRY`.
      meta_step: epsilon at the first iteration.
      meta_step_final: epsilon that it is annealed to, linearly.
      meta_batch: n, tasks of a meta-iteration.
      meta_iters: meta-iterations.
      outer_optimizer: "sgd": phi <- phi - epsilon mean D; "adam" is given
        D / learning_rate as the gradient, with rate epsilon.
      outer_clip: each element of what the outer optimizer is given is cut
        to [-outer_clip, outer_clip]; 0 does not.
      task_order: "parallel": each slot of the meta-batch keeps its own inner
        Adam v; "sequential": v passes through the tasks, as in the authors'
        code.
      recompute_gradients: MAML keeps the weights between inner steps, not
        the steps' activations, and runs each step twice.
      gradient_weights: a_1..a_k of gradient_sum; of no other algorithm.
    """

    algorithm: str = "reptile"
    meta_step: float = 1.0
    meta_step_final: float = 0.0
    meta_batch: int = 5
    meta_iters: int = 100_000
    outer_optimizer: str = "sgd"
    outer_clip: float = 0.0
    task_order: str = "parallel"
    recompute_gradients: bool = False
    gradient_weights: tuple[float, ...] = ()

    @property
    def slots(self) -> int:
        """Tasks side by side, each with a v of its own."""
        return self.meta_batch if self.task_order == "parallel" else 1

    def __post_init__(self) -> None:
        for name, allowed in (("algorithm", tuple(REGISTRY)),
                              ("outer_optimizer", ("sgd", "adam")),
                              ("task_order", engines.TASK_ORDERS)):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"{name}={value!r} is none of {allowed}")
        if self.meta_batch < 1:
            raise InputError(f"meta_batch={self.meta_batch} must be 1 or more")
        if self.meta_iters < 0:
            raise InputError(f"meta_iters={self.meta_iters} must be 0 or more")
        for name in ("meta_step", "meta_step_final", "outer_clip"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise InputError(f"{name}={value} must be 0 or more")
        if REGISTRY[self.algorithm].weighted != bool(self.gradient_weights):
            raise InputError(
                "gradient_weights are those of algorithm=gradient_sum, which "
                f"needs them; algorithm={self.algorithm} was given "
                + (",".join(map(str, self.gradient_weights)) or "none"))


class MetaTrainer:
    """Meta-learns an initialization phi of a Keras model.

    The model is cloned (`models.inner_clone`) and never written; every task
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
        engine: engines.Engine | None = None,
        iterations_per_call: int = 1,
        replicas: Replicas | None = None,
    ) -> None:
        self.inner, self.meta = inner or InnerConfig(), meta or MetaConfig()
        self.iterations_per_call = iterations_per_call
        self.replicas = replicas or Replicas()
        self.replicas.check(self.meta.meta_batch, self.meta.task_order)
        self.engine = engine or engines.choose(model)
        self.lookup, self.loss = lookup or tf.identity, loss
        self.update = REGISTRY[self.meta.algorithm]
        clone = models.inner_clone(model, self.engine.convolutions,
                                   self.inner.mixed_bfloat16)
        second_order = self.update.second_order
        self._training_loop = InnerLoop(
            clone, self.inner, loss, unroll=second_order,
            recompute=second_order and self.meta.recompute_gradients,
            jit=self.engine.jit, unrolled_steps=self.engine.unrolled_steps)
        self.inner_loop = InnerLoop(
            clone, self.inner, loss, jit=self.engine.jit,
            unrolled_steps=self.engine.unrolled_steps)
        self.phi = [keras.Variable(w.value, dtype=w.dtype, name=w.name)
                    for w in clone.trainable_variables]
        # Of this process's own slots; checkpoints gather all.
        slots = self.meta.slots // self.replicas.cluster.processes
        zero = self.inner_loop.initial_state().map_moments(
            lambda x: tf.repeat(x[None], slots, 0))
        self._v, self._m = ([tf.Variable(x) for x in moments]
                            for moments in (zero.v, zero.m))
        self._t = tf.Variable(zero.t)
        self.optimizer = self._outer_optimizer()
        self.optimizer.build(self.phi)
        # XLA cannot exchange: with replicas it compiles what each computes.
        part, whole = self._part, self.engine
        if self.replicas.collective:
            part = self.engine.function(part)
            whole = replace(whole, jit=False)
        self._part_of_replica = part
        self._displacement = whole.function(self._mean_displacement)
        self._train_steps = whole.function(self._meta_iterations)

    def _outer_optimizer(self) -> keras.optimizers.Optimizer:
        m = self.meta
        # (1 - i/n) * meta_step + i/n * meta_step_final
        rate = keras.optimizers.schedules.PolynomialDecay(
            m.meta_step, max(m.meta_iters, 1), m.meta_step_final, power=1)
        clip = m.outer_clip or None
        if m.outer_optimizer == "sgd":
            return keras.optimizers.SGD(rate, clipvalue=clip)
        return keras.optimizers.Adam(rate, epsilon=ADAM_EPSILON,
                                     clipvalue=clip)

    @property
    def iteration(self) -> int:
        """Meta-iterations done."""
        return int(self.optimizer.iterations)

    @property
    def slots_state(self) -> InnerState:
        """(v, t), and m if there is one, with a leading axis of slots.

        All processes must ask.
        """
        moments = [tf.reshape(x, [self.meta.slots, *x.shape[2:]])
                   for x in self.replicas.gather([*self._v, *self._m])]
        number = len(self._v)
        return InnerState(moments[:number], self._t.value(), moments[number:])

    @property
    def state(self) -> InnerState:
        """The (v, t) that evaluation and export start from; all must ask."""
        return mean_state(self.slots_state)

    @property
    def weights(self) -> list[tf.Tensor]:
        """phi as tensors."""
        return [p.value.value() for p in self.phi]

    def _part(self, phi, t, rows):
        """Of some of the tasks: mean D, whether (v, m) are finite; the state
        after."""
        (v, m), batches = rows
        displacement, state = engines.mean_displacement(
            self.update.with_weights(self.meta.gradient_weights),
            self._training_loop, phi, InnerState(v, t, m), batches,
            self.meta.task_order, self.engine)
        spoilt = ~_finite([*state.v, *state.m])
        return ([*displacement, tf.cast(spoilt, phi[0].dtype)],
                (state.v, state.m, state.t[None]))

    def _mean_displacement(self, batches):
        """Mean D of all tasks, the share of spoilt v; own state after."""
        phi, t = self.weights, self._t.value()
        moments = [[x.value() for x in of] for of in (self._v, self._m)]
        (*displacement, spoilt), (v, m, t) = self.replicas.mean(
            lambda rows: self._part_of_replica(phi, t, rows),
            (moments, batches.map_inputs(self.lookup)))
        return displacement, spoilt, InnerState(v, t[0], m)

    def displacement(self, batches: Batches) -> list[tf.Tensor]:
        """Mean D of a meta-batch at the present phi; changes nothing."""
        own = tf.nest.map_structure(self.replicas.own, as_tensors(batches))
        return self._displacement(own)[0]

    def _meta_iteration(self, batches):
        """One outer step; returns whether phi and v are finite."""
        displacement, spoilt, state = self._mean_displacement(batches)
        gradient = displacement
        if self.meta.outer_optimizer == "adam":
            gradient = [d / self.inner.learning_rate for d in displacement]
        self.optimizer.apply(gradient, self.phi)
        for variable, value in zip([*self._v, self._t, *self._m],
                                   tf.nest.flatten(state), strict=True):
            variable.assign(value)
        return _finite(self.weights) & (spoilt == 0)

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

    def _variables(self) -> dict[str, Any]:
        named = {f"phi/{i}": p.value for i, p in enumerate(self.phi)}
        named |= _moments(self._v, self._m)
        named["t"] = self._t
        return named | {f"outer/{i}": o.value
                        for i, o in enumerate(self.optimizer.variables)}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that training continues from, as arrays by name.

        The same whatever the number of processes; all of them must ask.
        """
        arrays = {k: v.numpy().copy() for k, v in self._variables().items()}
        state = self.slots_state
        return arrays | {k: x.numpy()
                         for k, x in _moments(state.v, state.m).items()}

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from a `state_dict`.

        Raises:
          InputError: other names or shapes than this trainer's.
        """
        variables = self._variables()
        found = {k: tuple(v.shape) for k, v in arrays.items()}
        expected = {k: tuple(v.shape) for k, v in variables.items()}
        moments = _moments(self._v, self._m)
        expected |= {k: (self.meta.slots, *x.shape[1:])
                     for k, x in moments.items()}
        if found != expected:
            wrong = sorted(k for k in found.keys() | expected.keys()
                           if found.get(k) != expected.get(k))
            raise InputError(
                f"the saved state does not fit this model: {wrong[0]} is "
                f"{found.get(wrong[0])}, expected {expected.get(wrong[0])}")
        own = {k: self.replicas.own(arrays[k]) for k in moments}
        for name, variable in variables.items():
            variable.assign({**arrays, **own}[name])


def _moments(v: list, m: list) -> dict[str, Any]:
    """Tensors or variables of slots, by their names in a checkpoint."""
    return {f"{name}/{i}": x for name, of in (("v", v), ("m", m))
            for i, x in enumerate(of)}


def _finite(tensors: Weights) -> tf.Tensor:
    return tf.reduce_all([True, *(tf.reduce_all(tf.math.is_finite(x))
                                  for x in tensors)])


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
