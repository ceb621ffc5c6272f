"""What an adaptation leads to: the weights of one task."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from reptile_tf.learning.examples import (
    checked_examples,
    checked_inputs,
    require_as_long,
)
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.optimizers import InnerState
from reptile_tf.learning.weights import Weights


class Adapted:
    """W: the weights that inner steps on one task's support set led to.

    Attributes:
      weights: W, tensors in the order of the model's trainable variables.
      state: (v, t) after the last step.
    """

    def __init__(self, inner_loop: InnerLoop, score: Callable[..., tf.Tensor],
                 weights: Weights, state: InnerState, support: tf.Tensor
                 ) -> None:
        self.weights, self.state = weights, state
        self._inner_loop, self._score = inner_loop, score
        self._support = support

    def predict(self, queries: Any, transductive: bool = False) -> tf.Tensor:
        """Outputs [Q, ...] of queries [Q, ...].

        Args:
          queries: examples.
          transductive: batch normalization sees all queries at once; else
            each with the whole support set, and no other query.

        Raises:
          InputError: queries that the network does not take, or not in one
            batch with the support set.
        """
        queries = checked_inputs(self._inner_loop.model, queries, "queries")
        if not transductive:
            require_as_long(queries, self._support)
        # A tensor would be one of the graph.
        return self._score(self.weights, self._support, queries,
                           bool(transductive))

    def loss(self, inputs: Any, targets: Any) -> tf.Tensor:
        """The loss of a batch at W, summed or averaged as `InnerConfig` says.

        With a GradientTape around `Learner.adapt` and this, its gradient by
        `Learner.phi` is MAML's (eq. 17 to 21).
        """
        inputs, targets = checked_examples(
            self._inner_loop, inputs, targets, "inputs", "targets")
        return self._inner_loop.loss(self.weights, inputs, targets)
