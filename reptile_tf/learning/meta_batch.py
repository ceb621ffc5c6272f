"""The mean displacement of a meta-batch: rules mapped over tasks (eq. 5)."""

from collections.abc import Callable
from dataclasses import replace

import tensorflow as tf

from reptile_tf.execution.engine import (
    Engine,
    one_after_another,
    side_by_side,
)
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.optimizers import InnerState
from reptile_tf.learning.rules import Rule
from reptile_tf.learning.weights import Weights
from reptile_tf.tasks import Batches

TASK_ORDERS = ("parallel", "sequential")


def mean_displacement(
    rule: Rule,
    inner_loop: InnerLoop,
    phi: Weights,
    state: InnerState,
    batches: Batches,
    task_order: str,
    engine: Engine,
) -> tuple[Weights, InnerState]:
    """The rule's displacement averaged over the meta-batch (eq. 5).

    Args:
      rule: from `rules.REGISTRY`.
      inner_loop: U^k.
      phi: the initialization.
      state: v (and m) with a leading axis of slots: T in parallel order,
        where every slot of the meta-batch keeps its own; 1 in sequential
        order, where v passes through the tasks in turn.
      batches: [T, ...].
      task_order: "parallel" or "sequential".
      engine: how.

    Returns:
      mean D and the state after the meta-iteration.
    """
    if task_order == "parallel":
        def one(args):
            v, m, task = args
            return rule(inner_loop, phi, InnerState(v, state.t, m), task)

        displacement, after = side_by_side(one, (state.v, state.m, batches),
                                           engine)
        return [tf.reduce_mean(d, 0) for d in displacement], after._replace(
            t=after.t[0])

    def add(carry, task):
        total, carried = carry
        displacement, carried = rule(inner_loop, phi, carried, task)
        return [a + b for a, b in zip(total, displacement, strict=True)
                ], carried

    start = state.map_moments(lambda x: x[0])
    total, after = one_after_another(
        add, ([tf.zeros_like(p) for p in phi], start), batches)
    num_tasks = batches.last_targets.shape[0]
    return [d / num_tasks for d in total], after.map_moments(
        lambda x: x[None])


class SharedMetaBatch:
    """The mean displacement, of parts that replicas compute.

    Args:
      rule: from `rules.REGISTRY`, with its weights.
      inner_loop: U^k.
      lookup: indices -> examples, on the device.
      task_order: one of TASK_ORDERS.
      engine: how tasks are mapped.
      replicas: that share the tasks.

    Attributes:
      engine: how what calls this is compiled: XLA cannot exchange, so with
        replicas it compiles what each of them computes.
    """

    def __init__(self, rule: Rule, inner_loop: InnerLoop,
                 lookup: Callable[[tf.Tensor], tf.Tensor], task_order: str,
                 engine: Engine, replicas: Replicas) -> None:
        self._rule, self._inner_loop, self._lookup = rule, inner_loop, lookup
        self._task_order, self._mapping = task_order, engine
        self._replicas = replicas
        self.engine, self._part_of_replica = engine, self._part
        if replicas.collective:
            self._part_of_replica = engine.function(self._part)
            self.engine = replace(engine, jit=False)

    def _part(self, phi, t, rows):
        """Of some of the tasks: mean D, whether (v, m) are finite; the state
        after."""
        (v, m), batches = rows
        displacement, state = mean_displacement(
            self._rule, self._inner_loop, phi, InnerState(v, t, m), batches,
            self._task_order, self._mapping)
        spoilt = ~all_finite([*state.v, *state.m])
        return ([*displacement, tf.cast(spoilt, phi[0].dtype)],
                (state.v, state.m, state.t[None]))

    def __call__(self, phi: Weights, state: InnerState, batches: Batches
                 ) -> tuple[Weights, tf.Tensor, InnerState]:
        """Mean D of all tasks, the share of spoilt v; own state after."""
        (*displacement, spoilt), (v, m, t) = self._replicas.mean(
            lambda rows: self._part_of_replica(phi, state.t, rows),
            ([state.v, state.m], batches.map_inputs(
                lambda x: self.engine.computed(self._lookup(x)))))
        return displacement, spoilt, InnerState(v, t[0], m)


def all_finite(tensors: Weights) -> tf.Tensor:
    """Whether no element is NaN or infinite."""
    return tf.reduce_all([True, *(tf.reduce_all(tf.math.is_finite(x))
                                  for x in tensors)])
