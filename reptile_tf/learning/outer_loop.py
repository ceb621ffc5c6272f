"""Meta-iterations in the graph: a mean displacement, then an outer step."""

from collections.abc import Callable

import tensorflow as tf

from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.meta_batch import SharedMetaBatch, all_finite
from reptile_tf.learning.meta_config import MetaConfig
from reptile_tf.learning.outer_optimizer import outer_optimizer
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.learning.slots import Slots
from reptile_tf.learning.weights import Weights
from reptile_tf.tasks import Batches


class OuterLoop:
    """Outer steps on phi, compiled as the learner's engine says.

    Args:
      learner: whose phi is trained; its inner optimizer, loss and engine.
      meta: the rule, the meta-batch and the outer optimizer.
      lookup: indices -> examples, applied on the device.
      replicas: that share the tasks.

    Attributes:
      phi: the learner's.
      slots: the (v, t) of training.
      optimizer: the outer one.
      steps: (batches [C, T, ...], count) -> whether phi and v are finite after
        outer steps on the first `count` of them.
      displacement: (batches [T, ...]) -> mean D at the present phi; changes
        nothing.
    """

    def __init__(self, learner: Learner, meta: MetaConfig,
                 lookup: Callable[[tf.Tensor], tf.Tensor], replicas: Replicas
                 ) -> None:
        self._learner, self._meta, self.phi = learner, meta, learner.phi
        update = REGISTRY[meta.algorithm]
        self.slots = Slots(learner.state, meta.slots, replicas)
        self.optimizer = outer_optimizer(meta)
        self.optimizer.build(self.phi)
        self._mean_displacement = SharedMetaBatch(
            update.with_weights(meta.gradient_weights),
            learner.new_inner_loop(
                update.second_order,
                update.second_order and meta.recompute_gradients),
            lookup, meta.task_order, learner.engine, replicas)
        compiled = self._mean_displacement.engine.function
        self.displacement = compiled(self._displacement)
        self.steps = compiled(self._steps)

    def _displacement(self, batches: Batches) -> Weights:
        return self._mean_displacement(self._learner.weights,
                                       self.slots.values(), batches)[0]

    def _step(self, batches: Batches) -> tf.Tensor:
        """One outer step; returns whether phi and v are finite."""
        displacement, spoilt, state = self._mean_displacement(
            self._learner.weights, self.slots.values(), batches)
        gradient = displacement
        if self._meta.outer_optimizer == "adam":
            rate = self._learner.inner.learning_rate
            gradient = [d / rate for d in displacement]
        self.optimizer.apply(gradient, self.phi)
        self.slots.assign(state)
        return all_finite(self._learner.weights) & (spoilt == 0)

    def _steps(self, batches: Batches, count: tf.Tensor) -> tf.Tensor:
        def body(i, finite):
            return i + 1, self._step(
                tf.nest.map_structure(lambda x: x[i], batches))

        return tf.while_loop(
            lambda i, finite: (i < count) & finite, body,
            (tf.constant(0), tf.constant(True)), parallel_iterations=1)[1]
