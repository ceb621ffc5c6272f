"""The inner loop U^k_tau: pure optimizer steps on a clone of the model.

Weights go in and come out as lists of tensors; nothing is assigned. So one
clone serves every task of a meta-batch, each with its own copy of the weights,
and gradients can flow through the steps. This module alone knows what the
optimizer's state is: (v, t), and with momentum m.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from reptile_tf.errors import InputError

Weights = list[tf.Tensor]
# (targets [B, ...], outputs [B, ...]) -> the examples' losses, [B] or [B, ...]
Loss = Callable[[Any, tf.Tensor], tf.Tensor]
BETA_2 = 0.999
EPSILON = 1e-8
# Loops of at most so many steps are written out, where that saves time.
UNROLLED_STEPS = 5
# Where operations are not fused, the call of one costs more than its
# arithmetic on fewer elements than this.
SMALL = 4096
TINY = 1e-37  # A normal float32 number, whose root is nothing beside EPSILON.


class InnerState(NamedTuple):
    """State of the inner optimizer; training carries it from task to task.

    Attributes:
      v: Adam's second moments, one tensor per weight; empty for SGD.
      t: int64 scalar, the inner steps made so far in the run.
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
        "mean".
      weight_decay: factor on all weights before each step; 1 is none.
      mixed_bfloat16: the network computes in bfloat16, forward and backward;
        weights, (v, t), batch-norm statistics and loss stay in float32.
      inner_beta1: Adam's momentum; the paper has none (section 6.1).
    """

    learning_rate: float = 1e-3
    inner_optimizer: str = "adam"
    inner_loss: str = "sum"
    weight_decay: float = 1.0
    mixed_bfloat16: bool = False
    inner_beta1: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in (("inner_optimizer", ("adam", "sgd")),
                              ("inner_loss", ("sum", "mean"))):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"{name}={value!r} is none of {allowed}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate={self.learning_rate} must be "
                             "positive, for example 0.001")
        if not 0 < self.weight_decay <= 1:
            raise InputError(f"weight_decay={self.weight_decay} is a factor "
                             "on the weights in (0, 1]; 1 means none")
        if not 0 <= self.inner_beta1 < 1:
            raise InputError(f"inner_beta1={self.inner_beta1} must be in "
                             "[0, 1), such as 0.9; 0 means no momentum")
        if self.inner_beta1 and self.inner_optimizer == "sgd":
            raise InputError(
                f"inner_beta1={self.inner_beta1} is Adam's momentum and "
                "inner_optimizer=sgd has none: use 0, or adam")


def cross_entropy(labels: Any, logits: tf.Tensor) -> tf.Tensor:
    """Softmax cross-entropy [B] of integer labels [B] and logits [B, N]."""
    hot = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -tf.reduce_sum(hot * tf.nn.log_softmax(logits), -1)


def squared_error(targets: Any, outputs: tf.Tensor) -> tf.Tensor:
    """Squared error, elementwise."""
    return tf.square(outputs - targets)


def _safe_sqrt(x: tf.Tensor) -> tf.Tensor:
    """Square root, to 4e-19, with derivative 0, not infinity, at 0.

    Where v is 0 so is the gradient that made it, and the infinite derivative
    would turn a MAML gradient into NaN.
    """
    return tf.sqrt(tf.maximum(x, TINY))


def _one_minus_power(beta: float, t: tf.Tensor) -> tf.Tensor:
    """1 - beta^t in float64, without the cancellation of small t."""
    log_beta = tf.math.log(tf.constant(beta, tf.float64))
    return -tf.math.expm1(tf.cast(t, tf.float64) * log_beta)


class InnerLoop:
    """Inner steps of one model clone.

    Args:
      model: the clone (`models.inner_clone`); its own weights are not used,
        only its non-trainable ones, as constants.
      config: the optimizer.
      loss: losses per example.
      unroll: write the steps out in the graph instead of a loop. Needed for
        gradients through the steps under XLA.
      recompute: where a gradient is taken through the steps, keep only the
        weights between them and run each step again on the way back.
      jit: the caller is compiled with XLA, which needs all operations in one
        graph and fuses them. Otherwise the gradient is a function of its own
        (in the cyclic graph of a loop TensorFlow's CPU pass may visit a
        pooling's gradient before the pooling, by chance, and then leaves it
        at a kernel nine times slower), few steps are written out, and the
        optimizer works on small weights together.
    """

    def __init__(
        self,
        model: keras.Model,
        config: InnerConfig,
        loss: Loss = cross_entropy,
        unroll: bool = False,
        recompute: bool = False,
        jit: bool = True,
    ) -> None:
        self.model, self.config, self.unroll = model, config, unroll
        self.recompute = recompute
        self._loss = loss
        self._jit = jit
        self._gradient = self.gradient if jit else tf.function(
            self.gradient, autograph=False,
            experimental_attributes={"_noinline": True})
        self._constants = [v.value for v in model.non_trainable_variables]

    def initial_state(self) -> InnerState:
        """(v, t), and m if there is one, before the first step: zeros."""
        zeros = [tf.zeros(w.shape, w.dtype)
                 for w in self.model.trainable_variables]
        return InnerState(
            zeros if self.config.inner_optimizer == "adam" else [],
            tf.zeros([], tf.int64), zeros if self.config.inner_beta1 else [])

    def outputs(self, weights: Weights, inputs: Any) -> tf.Tensor:
        """The network at `weights`, with the statistics of this batch.

        In the weights' type, whatever the network computes in.
        """
        outputs = self.model.stateless_call(weights, self._constants, inputs,
                                            training=True)[0]
        return tf.cast(outputs, weights[0].dtype)

    def loss(self, weights: Weights, inputs: Any, targets: Any) -> tf.Tensor:
        """Scalar loss of a mini-batch: sum or mean over its examples."""
        losses = self._loss(targets, self.outputs(weights, inputs))
        if self.config.inner_loss == "sum":
            return tf.reduce_sum(losses)
        return tf.reduce_mean(losses)

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
        if self._jit:
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
        rate = rate * tf.sqrt(_one_minus_power(BETA_2, t))
        direction, m = gradient, []
        if beta_1:
            rate /= _one_minus_power(beta_1, t)
            direction = m = [
                beta_1 * old + (1 - beta_1) * g
                for old, g in zip(state.m, gradient, strict=True)]
        rate = tf.cast(rate, dtype)
        v = [BETA_2 * old + (1 - BETA_2) * tf.square(g)
             for old, g in zip(state.v, gradient, strict=True)]
        stepped = [w - rate * d / (_safe_sqrt(s) + EPSILON)
                   for w, d, s in zip(weights, direction, v, strict=True)]
        return stepped, InnerState(v, t, m)

    def step(
        self, weights: Weights, state: InnerState, inputs: Any, targets: Any
    ) -> tuple[Weights, InnerState]:
        """One inner step on one mini-batch [B, ...]."""
        weights = self.decay(weights)
        return self.apply_gradient(
            weights, self._gradient(weights, inputs, targets), state)

    def gradient(self, weights: Weights, inputs: Any, targets: Any) -> Weights:
        """The gradient of the loss of a mini-batch."""
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = self.loss(weights, inputs, targets)
        return tape.gradient(loss, weights, unconnected_gradients="zero")

    def recomputed_step(
        self, weights: Weights, state: InnerState, inputs: Any, targets: Any
    ) -> tuple[Weights, InnerState]:
        """As `step`; a tape keeps nothing that is inside it.

        tf.recompute_grad cannot do it: it stops all recording, and with it
        the step's own tape, whose gradient then is zero.
        """
        carried = list(weights), state.v, state.m

        def run(flat):
            w, v, m = tf.nest.pack_sequence_as(carried, flat)
            w, after = self.step(w, InnerState(v, state.t, m), inputs,
                                 targets)
            return [*w, *after.v, *after.m]

        @tf.custom_gradient
        def recomputed(*flat):
            def backward(*upstream):
                # Waits for the upstream gradient: else the two runs would be
                # made into one, and everything kept for it.
                first = tf.reshape(upstream[0], [-1])[0]
                zero = tf.cast(tf.math.is_nan(first), first.dtype)
                again = [x + zero for x in flat]
                with tf.GradientTape() as tape:
                    tape.watch(again)
                    results = run(again)
                return tape.gradient(results, again, upstream,
                                     unconnected_gradients="zero")

            return run(flat), backward

        w, v, m = tf.nest.pack_sequence_as(
            carried, recomputed(*tf.nest.flatten(carried)))
        return w, InnerState(v, state.t + 1, m)

    def scan(
        self,
        body: Callable[[Any, Any, Any], Any],
        carry: Any,
        inputs: Any,
        targets: Any,
    ) -> Any:
        """carry <- body(carry, inputs[i], targets[i]) for i in 0..k-1."""
        steps = inputs.shape[0]
        # XLA cannot compile a loop over no mini-batches, which k = 1 has.
        if self.unroll or steps <= (0 if self._jit else UNROLLED_STEPS):
            for i in range(steps):
                carry = body(carry, inputs[i], targets[i])
            return carry
        flat = tf.nest.flatten(carry)

        def loop_body(i, *values):
            carried = tf.nest.pack_sequence_as(carry, values)
            return i + 1, *tf.nest.flatten(
                body(carried, inputs[i], targets[i]))

        result = tf.while_loop(lambda i, *_: i < steps, loop_body,
                               (tf.constant(0), *flat),
                               maximum_iterations=steps)
        return tf.nest.pack_sequence_as(carry, result[1:])

    def adapt(
        self, weights: Weights, state: InnerState, inputs: Any, targets: Any
    ) -> tuple[Weights, InnerState]:
        """U^k: k steps on the mini-batches [k, B, ...]."""
        step = self.recomputed_step if self.recompute else self.step

        def body(carry, x, y):
            return step(*carry, x, y)

        return self.scan(body, (list(weights), state), inputs, targets)


def mean_state(state: InnerState) -> InnerState:
    """What evaluation and export start from: v, m averaged over slots."""
    return state.map_moments(lambda x: tf.reduce_mean(x, 0))


def packed(tensors: Weights) -> Weights:
    """The tensors, with all those of less than SMALL elements made into one."""
    large = [t for t in tensors if _size(t) >= SMALL]
    small = [tf.reshape(t, [-1]) for t in tensors if _size(t) < SMALL]
    return large + ([tf.concat(small, 0)] if small else [])


def unpacked(tensors: Weights, like: Weights) -> Weights:
    """What `packed` made of tensors of the shapes of `like`, undone."""
    sizes = [_size(t) for t in like if _size(t) < SMALL]
    large = iter(tensors)
    small = iter(tf.split(tensors[-1], sizes) if sizes else [])
    return [tf.reshape(next(small), t.shape) if _size(t) < SMALL
            else next(large) for t in like]


def _size(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements()


def zeros_like(weights: Sequence[tf.Tensor]) -> Weights:
    """Zeros of the weights' shapes."""
    return [tf.zeros_like(w) for w in weights]
