"""The inner optimizer: pure steps, and its state (v, t), with momentum m.

Weights go in and come out as lists of tensors; nothing is assigned.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from reptile_tf.errors import InputError, require_choice
from reptile_tf.learning.packing import packed, unpacked
from reptile_tf.learning.weights import Weights

INNER_OPTIMIZERS, INNER_LOSSES = ("adam", "sgd"), ("sum", "mean")
BETA_2 = 0.999
EPSILON = 1e-8
# Below it somebody has meant the part that is taken away.
LEAST_FACTOR = 0.5
TINY = 1e-37  # A normal float32 number, whose root is nothing beside EPSILON.


class InnerState(NamedTuple):
    """State of the inner optimizer; training carries it from task to task.

    Attributes:
      v: Adam's second moments, one tensor per weight; empty for SGD.
      t: int64 scalar, the inner steps that one slot has made so far.
      m: Adam's first moments, one tensor per weight; empty where beta1 = 0.
    """

    v: Sequence[tf.Tensor]
    t: tf.Tensor
    m: Sequence[tf.Tensor] = ()

    def map_moments(self, fn: Callable[[Any], Any]) -> "InnerState":
        """The same with fn applied to each tensor of v and m."""
        return self._replace(v=[fn(x) for x in self.v],
                             m=[fn(x) for x in self.m])


@dataclass(frozen=True)
class InnerConfig:
    """The inner optimizer (paper, sections 6.1 to 6.3).

    Attributes:
      learning_rate: alpha.
      inner_optimizer: "adam" (beta2 = 0.999, epsilon = 1e-8) or "sgd".
      inner_loss: "sum" over the mini-batch, as in the authors' code, or
        "mean": of all losses, if an example has several.
      weight_decay: factor on all weights before each step, 0.5 to 1; 1 is
        none.
      mixed_bfloat16: the network computes in bfloat16, forward and backward;
        weights, (v, t), batch-norm statistics and loss stay in float32.
      inner_beta1: Adam's momentum; the paper has none (section 6.1).
      inner_frozen: weights that adapting leaves alone, as patterns of
        layer/weight with commas between them, such as "norm*/beta"; they are
        learned from the last mini-batch of each task.

    Raises:
      InputError: a value out of range.
    """

    learning_rate: float = 1e-3
    inner_optimizer: str = "adam"
    inner_loss: str = "sum"
    weight_decay: float = 1.0
    mixed_bfloat16: bool = False
    inner_beta1: float = 0.0
    inner_frozen: str = ""

    def __post_init__(self) -> None:
        require_choice(INNER_OPTIMIZERS, inner_optimizer=self.inner_optimizer)
        require_choice(INNER_LOSSES, inner_loss=self.inner_loss)
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate={self.learning_rate} must be "
                             "positive and finite, for example 0.001")
        if not LEAST_FACTOR <= self.weight_decay <= 1:
            raise InputError(
                f"weight_decay={self.weight_decay} is a factor on the weights "
                f"before each step, in [{LEAST_FACTOR}, 1]: 1 means none, "
                "0.9999 takes 0.0001 of them away")
        if not 0 <= self.inner_beta1 < 1:
            raise InputError(f"inner_beta1={self.inner_beta1} must be in "
                             "[0, 1), such as 0.9; 0 means no momentum")
        if self.inner_beta1 and self.inner_optimizer == "sgd":
            raise InputError(
                f"inner_beta1={self.inner_beta1} is Adam's momentum and "
                "inner_optimizer=sgd has none: use 0, or adam")


class InnerOptimizer:
    """Pure SGD and Adam steps on lists of tensors.

    Our own, not keras.optimizers': gradients must flow through the steps.

    Args:
      config: which, and its hyper-parameters.
      pack: step small weights together, which pays where XLA does not fuse.
      correct_in: the type that Adam's correction for t is computed in, to
        its rounding.
    """

    def __init__(self, config: InnerConfig, pack: bool = False,
                 correct_in: tf.DType = tf.float64) -> None:
        self.config, self._pack, self._correct_in = config, pack, correct_in

    def initial_state(self, weights: Weights) -> InnerState:
        """(v, t), and m if there is one, before the first step: zeros."""
        zeros = [tf.zeros(w.shape, w.dtype) for w in weights]
        return InnerState(
            zeros if self.config.inner_optimizer == "adam" else [],
            tf.zeros([], tf.int64), zeros if self.config.inner_beta1 else [])

    def decay(self, weights: Weights) -> Weights:
        """What precedes every step: all weights times weight_decay."""
        if self.config.weight_decay == 1:
            return list(weights)
        # tf.cast would take a Python number through float32.
        return [w * tf.constant(self.config.weight_decay, w.dtype)
                for w in weights]

    def apply_gradient(
        self, weights: Weights, gradient: Weights, state: InnerState
    ) -> tuple[Weights, InnerState]:
        """One SGD or Adam step along a given gradient.

        m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, t <- t + 1,
        W <- W - alpha sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + epsilon);
        without momentum, b1 = 0, m is g and not kept.
        """
        if not self._pack:
            return self._apply(weights, gradient, state)
        stepped, after = self._apply(
            packed(weights), packed(gradient),
            InnerState(packed(state.v), state.t, packed(state.m)))
        return unpacked(stepped, weights), InnerState(
            unpacked(after.v, state.v), after.t, unpacked(after.m, state.m))

    def _apply(
        self, weights: Weights, gradient: Weights, state: InnerState
    ) -> tuple[Weights, InnerState]:
        """Elementwise, so the same for packed tensors."""
        rate, beta_1 = self.config.learning_rate, self.config.inner_beta1
        t = state.t + 1
        if self.config.inner_optimizer == "sgd":
            stepped = [w - tf.constant(rate, w.dtype) * g
                       for w, g in zip(weights, gradient, strict=True)]
            return stepped, InnerState([], t)
        dtype = weights[0].dtype
        rate = rate * tf.sqrt(_one_minus_power(BETA_2, t, self._correct_in))
        direction, m = gradient, []
        if beta_1:
            rate /= _one_minus_power(beta_1, t, self._correct_in)
            direction = m = [
                beta_1 * old + (1 - beta_1) * g
                for old, g in zip(state.m, gradient, strict=True)]
        rate = tf.cast(rate, dtype)
        v = [BETA_2 * old + (1 - BETA_2) * tf.square(g)
             for old, g in zip(state.v, gradient, strict=True)]
        stepped = [w - rate * d / (_safe_sqrt(s) + EPSILON)
                   for w, d, s in zip(weights, direction, v, strict=True)]
        return stepped, InnerState(v, t, m)


def _safe_sqrt(x: tf.Tensor) -> tf.Tensor:
    """Square root, to 4e-19, with derivative 0, not infinity, at 0.

    Where v is 0 so is the gradient that made it, and the infinite derivative
    would turn a MAML gradient into NaN.
    """
    return tf.sqrt(tf.maximum(x, TINY))


def _one_minus_power(beta: float, t: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """1 - beta^t, without the cancellation of small t.

    -expm1(t log beta) by the hyperbolic tangent of half of it: TensorFlow Lite
    has no expm1.
    """
    half = tf.constant(0.5 * math.log(beta), dtype)
    tangent = tf.tanh(tf.cast(t, dtype) * half)
    return -2 * tangent / (1 - tangent)


def mean_state(state: InnerState) -> InnerState:
    """What evaluation and export start from: v, m averaged over slots."""
    return state.map_moments(lambda x: tf.reduce_mean(x, 0))
