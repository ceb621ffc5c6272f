"""How a function of one task is mapped over the T tasks of a meta-batch.

One helper for training and evaluation. No way wins everywhere: where every
layer is a matrix product, tasks as one leading axis under XLA are fastest; for
convolutions on the CPU one sub-graph per task, each on a thread of its own, is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from reptile_tf import models
from reptile_tf.inner_loop import InnerLoop, InnerState, Weights
from reptile_tf.meta_updates import Rule
from reptile_tf.tasks import Batches

TASK_ORDERS = ("parallel", "sequential")
JIT_COMPILE = ("auto", "on", "off")


@dataclass(frozen=True)
class Engine:
    """How the work of several tasks is laid out.

    Attributes:
      vectorized: tasks side by side as one leading axis, else one sub-graph
        for each.
      jit: compile with XLA.
      convolutions: a key of `models.CONVOLUTIONS`.
      reason: why, for the reader of a run's first lines.
    """

    vectorized: bool
    jit: bool
    convolutions: str = "stock"
    reason: str = "asked for"

    def __str__(self) -> str:
        tasks = ("tasks as one leading axis" if self.vectorized
                 else "one sub-graph per task")
        return (f"{tasks}, {self.convolutions} convolutions, "
                f"{'XLA' if self.jit else 'no XLA'} ({self.reason})")

    def function(self, fn: Callable) -> tf.types.experimental.GenericFunction:
        """`fn` compiled; Python's `if` on a tensor is an error, as in Keras's
        `fit`: AutoGraph doubles the seconds of tracing."""
        return tf.function(fn, jit_compile=self.jit, autograph=False)


def choose(model: keras.Model, jit_compile: str = "auto") -> Engine:
    """The engine for a model.

    Args:
      model: that the tasks run.
      jit_compile: "on": XLA; "off"; or "auto": XLA on a GPU and, on the CPU,
        for networks without convolutions.
    """
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    if jit_compile == "auto":
        jit = on_gpu or models.vectorizes(model, convolutions=False)
        reason = ("on a GPU" if on_gpu
                  else "XLA is measured best without convolutions" if jit
                  else "measured best for convolutions on the CPU")
    else:
        jit, reason = jit_compile == "on", f"--jit_compile={jit_compile}"
    vectorized = jit and models.vectorizes(model)
    convolutions = ("sliced" if vectorized
                    else "stock" if jit or on_gpu else "gathered")
    return Engine(vectorized, jit, convolutions, reason)


def side_by_side(fn: Callable, elements: Any, engine: Engine) -> Any:
    """fn of each task's elements; leading axis T in and out."""
    if engine.vectorized:
        return tf.vectorized_map(fn, elements, fallback_to_while_loop=False)
    flat = tf.nest.flatten(elements)
    results = [
        fn(tf.nest.pack_sequence_as(elements, [x[i] for x in flat]))
        for i in range(flat[0].shape[0])
    ]
    return tf.nest.map_structure(lambda *x: tf.stack(x), *results)


def one_after_another(fn: Callable, carry: Any, elements: Any) -> Any:
    """carry <- fn(carry, elements of task i) for each task in turn."""
    flat = tf.nest.flatten(elements)
    num_tasks = flat[0].shape[0]

    def body(i, *values):
        task = tf.nest.pack_sequence_as(elements, [x[i] for x in flat])
        carried = tf.nest.pack_sequence_as(carry, values)
        return i + 1, *tf.nest.flatten(fn(carried, task))

    result = tf.while_loop(
        lambda i, *_: i < num_tasks, body,
        (tf.constant(0), *tf.nest.flatten(carry)),
        parallel_iterations=1, maximum_iterations=num_tasks)
    return tf.nest.pack_sequence_as(carry, result[1:])


def mean_displacement(
    rule: Rule,
    inner: InnerLoop,
    phi: Weights,
    state: InnerState,
    batches: Batches,
    task_order: str,
    engine: Engine,
) -> tuple[Weights, InnerState]:
    """The rule's displacement averaged over the meta-batch (eq. 5).

    Args:
      rule: from `meta_updates.REGISTRY`.
      inner: the inner loop.
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
            return rule(inner, phi, InnerState(v, state.t, m), task)

        displacement, after = side_by_side(one, (state.v, state.m, batches),
                                           engine)
        return [tf.reduce_mean(d, 0) for d in displacement], after._replace(
            t=after.t[0])

    def add(carry, task):
        total, carried = carry
        displacement, carried = rule(inner, phi, carried, task)
        return [a + b for a, b in zip(total, displacement, strict=True)
                ], carried

    start = state.map_moments(lambda x: x[0])
    total, after = one_after_another(
        add, ([tf.zeros_like(p) for p in phi], start), batches)
    num_tasks = batches.last_targets.shape[0]
    return [d / num_tasks for d in total], after.map_moments(
        lambda x: x[None])
