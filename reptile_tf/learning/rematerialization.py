"""An inner step that is run twice, instead of keeping its activations."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from reptile_tf.learning.gradients import gradients
from reptile_tf.learning.optimizers import InnerState
from reptile_tf.learning.weights import Weights

# (weights, state, inputs, targets) -> (weights, state)
Step = Callable[[Weights, InnerState, Any, Any], tuple[Weights, InnerState]]


def recomputed(step: Step, weights: Weights, state: InnerState, inputs: Any,
               targets: Any) -> tuple[Weights, InnerState]:
    """As `step`; a tape keeps nothing that is inside it.

    tf.recompute_grad cannot do it: it stops all recording, and with it
    the step's own tape, whose gradient then is zero.
    """
    carried = list(weights), state.v, state.m

    def run(flat):
        w, v, m = tf.nest.pack_sequence_as(carried, flat)
        w, after = step(w, InnerState(v, state.t, m), inputs, targets)
        return [*w, *after.v, *after.m]

    @tf.custom_gradient
    def kept_apart(*flat):
        def backward(*upstream):
            # Waits for the upstream gradient: else the two runs would be
            # made into one, and everything kept for it.
            first = tf.reshape(upstream[0], [-1])[0]
            zero = tf.cast(tf.math.is_nan(first), first.dtype)
            repeated = [x + zero for x in flat]
            with tf.GradientTape() as tape:
                tape.watch(repeated)
                results = run(repeated)
            return gradients(tape, results, repeated, upstream)

        return run(flat), backward

    w, v, m = tf.nest.pack_sequence_as(
        carried, kept_apart(*tf.nest.flatten(carried)))
    return w, InnerState(v, state.t + 1, m)
