"""How a function of one task is mapped over the T tasks of a meta-batch.

One helper for training and evaluation. No way wins everywhere: where every
layer is a matrix product, tasks as one leading axis under XLA are fastest; for
convolutions on the CPU one sub-graph per task, each on a thread of its own, is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from reptile_tf.errors import InputError
from reptile_tf.execution import devices
from reptile_tf.networks import CONVOLUTIONS, FOR_XLA, operations
from reptile_tf.networks.layers import MAX_SLICED_POSITIONS, built_shape
from reptile_tf.networks.refusals import check_clonable

JIT_COMPILE = ("auto", "on", "off")
CPU_TASKS_PER_CALL, GPU_TASKS_PER_CALL = 8, 256
CPU_UNROLLED_STEPS, GPU_UNROLLED_STEPS = 5, 10
GPU_ITERATIONS_PER_CALL = 20
# Layers whose operations vectorize over tasks without falling back to loops.
VECTORIZABLE = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.BatchNormalization,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.GlobalAveragePooling2D,
)


@dataclass(frozen=True)
class Engine:
    """How the work of several tasks is laid out.

    Attributes:
      vectorized: tasks side by side as one leading axis, else one sub-graph
        for each.
      jit: compile with XLA.
      convolutions: a key of `networks.CONVOLUTIONS`; with XLA, of FOR_XLA.
      reason: why, for the reader of a run's first lines.
      tasks_per_call: evaluation tasks of a compiled call.
      unrolled_steps: see `learning.inner_loop.InnerLoop`.
    """

    vectorized: bool
    jit: bool
    convolutions: str = "stock"
    reason: str = "asked for"
    tasks_per_call: int = CPU_TASKS_PER_CALL
    unrolled_steps: int = 0

    def __post_init__(self) -> None:
        if self.jit and self.convolutions not in FOR_XLA:
            raise InputError(
                f"convolutions={self.convolutions!r} have inexact second "
                f"derivatives under XLA: use one of {FOR_XLA}")

    def __str__(self) -> str:
        tasks = ("tasks as one leading axis" if self.vectorized
                 else "one sub-graph per task")
        return (f"{tasks}, {self.convolutions} convolutions, "
                f"{'XLA' if self.jit else 'no XLA'} ({self.reason})")

    def function(self, fn: Callable) -> tf.types.experimental.GenericFunction:
        """`fn` compiled; Python's `if` on a tensor is an error, as in Keras's
        `fit`: AutoGraph doubles the seconds of tracing."""
        return tf.function(fn, jit_compile=self.jit, autograph=False)


    def computed(self, tensor: tf.Tensor) -> tf.Tensor:
        """The same, computed once, by what a `function` compiles.

        XLA makes an image's lookup part of each use of the image: on a GPU a
        fifth of a meta-iteration of Mini-ImageNet went by with looking up
        the same pixels for the nine places of a convolution's window.
        """
        return xla.optimization_barrier(tensor)[0] if self.jit else tensor


def vectorizes(model: keras.Model, max_positions: float = math.inf) -> bool:
    """Whether every layer runs side by side over tasks as batched matmuls.

    Args:
      model: a built model.
      max_positions: the positions of the largest image that a convolution or
        a pooling may have; 0 allows none of them.
    """
    for layer in operations(model):
        if any(kind.supports(layer) for kind in CONVOLUTIONS["sliced"]):
            if math.prod(d or math.inf for d in
                         built_shape(layer)[1:-1]) > max_positions:
                return False
        elif type(layer) not in VECTORIZABLE:
            return False
        if not _vectorizes(getattr(layer, "activation", None)):
            return False
    return True


def _vectorizes(activation: Callable | None) -> bool:
    """Whether it is one of Keras's that do: sparsemax sorts."""
    return activation is None or (
        activation.__module__.startswith("keras.")
        and activation is not keras.activations.sparsemax)


def choose(model: keras.Model, jit_compile: str = "auto") -> Engine:
    """The engine for a model.

    Args:
      model: that the tasks run.
      jit_compile: "on": XLA; "off"; or "auto": XLA on a GPU and, on the CPU,
        for networks of dense and elementwise layers, VECTORIZABLE.

    Raises:
      InputError: a model that cannot be cloned; or "on", and a layer that
        XLA does not compile.
    """
    check_clonable(model)  # The layers of others have no shapes to look at.
    on_gpu = bool(devices.gpus())
    without = [layer.name for layer in model._flatten_layers()
               if not layer.supports_jit]
    if without and jit_compile == "on":
        raise InputError(
            f"--jit_compile=on, and XLA does not compile layer {without[0]!r}"
            ": use auto or off")
    if without and jit_compile == "auto":
        jit, reason = False, f"XLA does not compile layer {without[0]!r}"
    elif jit_compile == "auto":
        jit = on_gpu or vectorizes(model, 0)
        reason = ("on a GPU" if on_gpu
                  else "XLA on the CPU is for dense layers")
    else:
        jit, reason = jit_compile == "on", f"--jit_compile={jit_compile}"
    vectorized = jit and vectorizes(
        model, math.inf if on_gpu else MAX_SLICED_POSITIONS)
    convolutions = ("sliced" if vectorized
                    else "compiled" if jit
                    else "stock" if on_gpu else "gathered")
    # Each step written out costs compile time, on the CPU more than it saves.
    steps = GPU_UNROLLED_STEPS if on_gpu else 0 if jit else CPU_UNROLLED_STEPS
    return Engine(vectorized, jit, convolutions, reason,
                  GPU_TASKS_PER_CALL if on_gpu and vectorized
                  else CPU_TASKS_PER_CALL, steps)


def iterations_per_call() -> int:
    """Meta-iterations of a compiled call, where only indices go in.

    A convolutional network's takes a CPU longer than the call, a GPU not.
    """
    return GPU_ITERATIONS_PER_CALL if devices.gpus() else 1


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
        parallel_iterations=1)
    return tf.nest.pack_sequence_as(carry, result[1:])
