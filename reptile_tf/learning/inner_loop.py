"""The inner loop U^k_tau: optimizer steps on a clone of the model.

One clone serves every task of a meta-batch, each with its own copy of the
weights, and gradients can flow through the steps.
"""

import fnmatch
import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.learning.gradients import gradients
from reptile_tf.learning.losses import Loss, cross_entropy
from reptile_tf.learning.optimizers import (
    InnerConfig,
    InnerOptimizer,
    InnerState,
)
from reptile_tf.learning.rematerialization import recomputed
from reptile_tf.learning.targets import require_loss
from reptile_tf.learning.weights import Weights


class InnerLoop:
    """Inner steps of one model clone.

    Args:
      model: the clone (`networks.inner_clone`); its own weights are not used,
        only its non-trainable ones, as constants.
      config: the optimizer.
      loss: losses per example.
      recompute: where a gradient is taken through the steps, keep only the
        weights between them and run each step again on the way back.
      one_graph: all operations in one graph, which XLA needs and fuses. Else
        the gradient is a function of its own (in the cyclic graph of a loop
        TensorFlow's CPU pass may visit a pooling's gradient before the
        pooling, by chance, and then leaves it at a kernel nine times slower),
        and the optimizer works on small weights together.
      unrolled_steps: at most so many steps are written out in the graph, more
        are a loop. Gradients through the steps under XLA need all of them
        written out: math.inf.
      correct_in: see `InnerOptimizer`.

    Raises:
      InputError: a model with nothing to train, or a loss that is none or does
        not go with the model's end.
    """

    def __init__(
        self,
        model: keras.Model,
        config: InnerConfig,
        loss: Loss = cross_entropy,
        recompute: bool = False,
        one_graph: bool = True,
        unrolled_steps: float = 0,
        correct_in: tf.DType = tf.float64,
    ) -> None:
        if not model.trainable_variables:
            raise InputError(
                f"model {model.name!r} has no trainable weights: set "
                "trainable=True on a layer that has weights")
        require_loss(model, loss)
        self.model, self.config = model, config
        self.recompute, self.unrolled_steps = recompute, unrolled_steps
        self.loss_of_examples = loss
        self._one_graph = one_graph
        self._optimizer = InnerOptimizer(config, not one_graph, correct_in)
        self.decay = self._optimizer.decay
        self.apply_gradient = self._optimizer.apply_gradient
        self._gradient = self.gradient if one_graph else tf.function(
            self.gradient, autograph=False,
            experimental_attributes={"_noinline": True})
        self._moving = _moving(model, config.inner_frozen)
        # Not variables: their reads do not vectorize under XLA.
        self._constants = [tf.convert_to_tensor(v.value)
                           for v in model.non_trainable_variables]

    def initial_state(self) -> InnerState:
        """(v, t), and m if there is one, before the first step: zeros."""
        return self._optimizer.initial_state(self.model.trainable_variables)

    def outputs(self, weights: Weights, inputs: Any) -> tf.Tensor:
        """The network at `weights`, with the statistics of this batch.

        In the weights' type, whatever the network computes in.
        """
        outputs = self.model.stateless_call(weights, self._constants, inputs,
                                            training=True)[0]
        return tf.cast(outputs, weights[0].dtype)

    def loss(self, weights: Weights, inputs: Any, targets: Any) -> tf.Tensor:
        """Scalar loss of a mini-batch: the sum or the mean of its losses, of
        which an example may have several."""
        losses = self.loss_of_examples(targets,
                                       self.outputs(weights, inputs))
        if self.config.inner_loss == "sum":
            return tf.reduce_sum(losses)
        return tf.reduce_mean(losses)

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
        return gradients(tape, loss, weights)

    def scan(self, body: Callable[..., Any], carry: Any, *elements: Any
             ) -> Any:
        """carry <- body(carry, *(x[i] for x in elements)) for i in 0..k-1."""
        steps = elements[0].shape[0]
        # XLA cannot compile a loop over no mini-batches, which k = 1 has.
        if steps is None:
            steps = tf.shape(elements[0])[0]
        elif steps <= self.unrolled_steps:
            for i in range(steps):
                carry = body(carry, *(x[i] for x in elements))
            return carry
        flat = tf.nest.flatten(carry)

        def loop_body(i, *values):
            carried = tf.nest.pack_sequence_as(carry, values)
            return i + 1, *tf.nest.flatten(
                body(carried, *(x[i] for x in elements)))

        # A second counter would hide the number of steps from XLA, and a GPU
        # then asks the host before each of them.
        result = tf.while_loop(
            lambda i, *_: i < steps, loop_body, (tf.constant(0), *flat),
            maximum_iterations=None if self._one_graph else steps)
        return tf.nest.pack_sequence_as(carry, result[1:])

    def adapt(
        self, weights: Weights, state: InnerState, inputs: Any, targets: Any
    ) -> tuple[Weights, InnerState]:
        """U^k: k steps on the mini-batches [k, B, ...]."""
        return self._steps(weights, state, lambda x, y: (x, y), inputs,
                           targets)

    def adapt_to(
        self, weights: Weights, state: InnerState, inputs: Any, targets: Any,
        positions: Any,
    ) -> tuple[Weights, InnerState]:
        """U^k: k steps on mini-batches of a support set.

        Args:
          weights: W before the first step.
          state: (v, t) before it.
          inputs: the support set [S, ...].
          targets: [S, ...].
          positions: in it, [k, B].
        """
        return self._steps(
            weights, state,
            lambda rows: (tf.gather(inputs, rows), tf.gather(targets, rows)),
            positions)

    def adapting_step(
        self, weights: Weights, state: InnerState, inputs: Any, targets: Any
    ) -> tuple[Weights, InnerState]:
        """A step of all weights but those of config.inner_frozen, which, as
        their moments, it leaves as they are."""
        def moved(new, old):
            return [a if moves else b for a, b, moves in zip(
                new, old, self._moving, strict=True)] if old else new

        weights = moved(self.decay(weights), weights)
        stepped, after = self.apply_gradient(
            weights, self._gradient(weights, inputs, targets), state)
        return moved(stepped, weights), after._replace(
            v=moved(after.v, state.v), m=moved(after.m, state.m))

    def _steps(self, weights, state, examples, *elements):
        """A step on examples(...) of each of the elements."""
        step = (functools.partial(recomputed, self.adapting_step)
                if self.recompute else self.adapting_step)

        def body(carry, *element):
            return step(*carry, *examples(*element))

        return self.scan(body, (list(weights), state), *elements)


def _moving(model: keras.Model, frozen: str) -> list[bool]:
    """For each trainable weight whether inner steps move it.

    Raises:
      InputError: a pattern that fits no weight, or patterns that fit all.
    """
    if not frozen:
        return [True] * len(model.trainable_variables)
    # A layer may be inside another: encoder/lstm_cell/kernel.
    paths = [v.path for v in model.trainable_variables]
    fits = {pattern: [fnmatch.fnmatchcase(f"/{path}", f"*/{pattern}")
                      for path in paths] for pattern in frozen.split(",")}
    for pattern, fitted in fits.items():
        if not any(fitted):
            raise InputError(
                f"inner_frozen={pattern} fits no weight of {model.name!r}: "
                f"they are {', '.join(paths)}")
    moving = [not any(fitted) for fitted in zip(*fits.values(), strict=True)]
    if not any(moving):
        raise InputError(f"inner_frozen={frozen} leaves nothing to adapt: "
                         "leave a weight out of it")
    return moving
