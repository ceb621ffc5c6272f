"""NaN and infinity: found, and traced to what had them first."""

from collections.abc import Callable, Iterable
from typing import Any

from reptile_tf.learning.arrays import finite
from reptile_tf.learning.optimizers import InnerConfig, InnerState
from reptile_tf.tasks import Batches


class NonFiniteError(RuntimeError):
    """NaN or infinity appeared in the weights."""


def cause_of(batches: Batches, lookup: Callable[[Any], Any],
             phi: Iterable[Any], state: InnerState, inner: InnerConfig,
             meta_step: float) -> str:
    """What was not finite first, and the remedy, in words.

    Args:
      batches: of the meta-iterations that went wrong.
      lookup: what their inputs hold -> examples.
      phi: after them.
      state: after them.
      inner: the inner optimizer.
      meta_step: epsilon.
    """
    if not (finite(lookup(batches.inputs))
            and finite(lookup(batches.last_inputs))):
        return "the inputs already hold it: remove or replace those examples"
    if not (finite(batches.targets) and finite(batches.last_targets)):
        return "the targets already hold it: remove or replace those examples"
    lower = (f"lower learning_rate ({inner.learning_rate}) or meta_step "
             f"({meta_step})")
    spoilt = [name for name, tensors in (
        ("phi", phi), ("Adam's v", state.v), ("Adam's m", state.m))
        if not all(map(finite, tensors))]
    where = " and ".join(spoilt) or "another worker's v"
    return f"inputs and targets are finite, {where} not: {lower}"
