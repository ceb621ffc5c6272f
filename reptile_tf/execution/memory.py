"""Memory needed against memory available, before anything long starts."""

import math
import os
import re
from typing import NamedTuple

import keras
import numpy as np
import pynvml
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.execution.devices import gpus, take_memory_as_needed
from reptile_tf.execution.engine import Engine
from reptile_tf.execution.limits import free_memory
from reptile_tf.networks import CONVOLUTIONS, operations

# Measured on a CPU: what TensorFlow takes at its first call, and what a layer's
# operations of an inner step take in the graph and in XLA; see `estimate`.
START, LAYER, LAYER_IN_XLA = 60 * 10**6, 10**5, 14 * 10**6
SECOND_ORDER, TWICE_RUN = 3.5, 7
_USED_UP_TEXT = re.compile(
    "out.of.memory|Dst tensor is not initialized|failed to allocate", re.I)


class Estimate(NamedTuple):
    """Bytes that a compiled function needs.

    Attributes:
      tensors: where tensors live.
      graph: on the host.
    """

    tensors: int
    graph: int


def available() -> float:
    """Free bytes where tensors live: on the first GPU, or on the host.

    Infinity where it is not known: the GPU's driver does not say, or counts
    cards that are not alike in another order than TensorFlow.
    """
    if not gpus():
        return free_memory()
    take_memory_as_needed()  # The next line is TensorFlow's first, perhaps.
    # What TensorFlow has taken and does not use now is free for it, too.
    own = tf.config.experimental.get_memory_info("GPU:0")
    try:
        return _free_on_gpu() + own["peak"] - own["current"]
    except pynvml.NVMLError:
        return math.inf


def _free_on_gpu() -> float:
    """Bytes that no process has taken of the first GPU that is visible."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    pynvml.nvmlInit()
    try:
        if not first.isdecimal():
            return pynvml.nvmlDeviceGetMemoryInfo(
                pynvml.nvmlDeviceGetHandleByUUID(first)).free
        # By the slot; CUDA's own order is another, the fastest first.
        cards = [pynvml.nvmlDeviceGetMemoryInfo(
            pynvml.nvmlDeviceGetHandleByIndex(i))
            for i in range(pynvml.nvmlDeviceGetCount())]
        if len({card.total for card in cards}) > 1 and (
                os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"):
            return math.inf
        return cards[int(first)].free
    finally:
        pynvml.nvmlShutdown()


def is_used_up(error: Exception) -> bool:
    """Whether an error says that there was not enough."""
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)
                      ) or (isinstance(error, tf.errors.InternalError)
                            and bool(_USED_UP_TEXT.search(str(error))))


def fits(needed: Estimate) -> bool:
    """Whether so much is there, on the host and where tensors live."""
    return _missing(needed) is None


def require(needed: Estimate, purpose: str, remedy: str) -> None:
    """Raise InputError unless it is there.

    Args:
      needed: bytes.
      purpose: that needs them.
      remedy: what to do where there are fewer.
    """
    missing = _missing(needed)
    if missing:
        raise InputError(
            f"{purpose} needs about {gigabytes(missing[0])} of memory, "
            f"{gigabytes(missing[1])} are available: {remedy}")


def _missing(needed: Estimate) -> tuple[int, float] | None:
    """(bytes needed, bytes there), where they are not enough."""
    host, there = free_memory(), available()
    pairs = [(sum(needed), there)]
    if gpus():
        pairs = [(needed.tensors, there), (needed.graph, host)]
    return next((pair for pair in pairs if pair[0] > pair[1]), None)


def gigabytes(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB"


def estimate(model: keras.Model, engine: Engine, tasks: int, steps: int,
             batch: int, last: int = 0, second_order: bool = False,
             recompute: bool = False) -> Estimate:
    """What inner loops on several tasks at once need, within a factor of two.

    In float32, with W bytes of weights, F of all layers' outputs for one
    example and of the patches that the engine's convolutions make of their
    inputs (kernel area x input channels for each position), and E examples
    whose outputs are kept at once: those of the largest mini-batch or, where
    a gradient is taken through the steps, of all,

      tensors = tasks (2 F E + 4 W S)

    outputs and their gradients, weights, v and what is made of them, S times:
    S = k where they are kept from step to step, else 1. The graph of a step
    that is written out, once for each task unless the tasks are one leading
    axis, takes LAYER bytes a layer, SECOND_ORDER times that with its second
    derivatives and TWICE_RUN times where it is run twice, and LAYER_IN_XLA
    while XLA compiles it: at MAML's many inner steps more than the tensors.

    Args:
      model: a built model.
      engine: of the tasks.
      tasks: side by side.
      steps: k, the last one included.
      batch: examples of a mini-batch.
      last: examples of the last one; half of them where it is scored alone,
        without gradients.
      second_order: a gradient is taken through the steps.
      recompute: which are run twice, instead of kept.
    """
    weights = 4 * sum(int(np.prod(w.shape)) for w in model.trainable_variables)
    kept = max(batch, last)
    if second_order and not recompute:
        kept = (steps - 1) * batch + last
    tensors = tasks * (2 * example(model, engine.convolutions) * kept
                       + 4 * weights * (steps if second_order else 1))
    written = (steps if second_order or steps - 1 <= engine.unrolled_steps
               else 2)  # The loop's, and the last.
    of_layer = LAYER_IN_XLA if engine.jit else LAYER * (
        1 if not second_order else TWICE_RUN if recompute else SECOND_ORDER)
    copies = written * (1 if engine.vectorized else tasks)
    return Estimate(tensors,
                    START + int(copies * len(operations(model)) * of_layer))


def example(model: keras.Model, convolutions: str) -> int:
    """F of `estimate`: bytes of one example's outputs and patches."""
    numbers = 0
    for layer in operations(model):
        shapes = [x.shape[1:] for x in keras.tree.flatten(layer.output)]
        numbers += sum(int(np.prod([d or 1 for d in s])) for s in shapes)
        shape = shapes[0]
        if isinstance(layer, keras.layers.Conv2D) and any(
                kind.supports(layer) for kind in CONVOLUTIONS[convolutions]):
            numbers += int(np.prod(shape[:2])
                           * np.prod(layer.kernel.shape[:3]))
    return 4 * numbers
