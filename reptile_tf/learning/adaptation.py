"""Which mini-batches a support set is adapted to with, in the graph.

Evaluation draws them with NumPy (`tasks.mini_batches`); an exported
initialization has no NumPy, and draws the same kind with a fixed seed.
"""

import warnings
from dataclasses import dataclass, replace

import tensorflow as tf

from reptile_tf.errors import require_at_least

SCHEDULE_SEED = 20180308
PRIME = 2**31 - 1


@dataclass(frozen=True)
class AdaptConfig:
    """The inner steps of an adaptation (paper, section 6.1).

    Attributes:
      steps: k.
      batch: B, examples of a mini-batch.
      replacement: draw each mini-batch afresh instead of cycling.
      smaller: pairs (S, B): the B of support sets of at most S examples; of
        those that fit, the pair of the smallest S counts.
    """

    steps: int = 50
    batch: int = 5
    replacement: bool = False
    smaller: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        require_at_least(0, steps=self.steps)
        for batch in (self.batch, *(b for _, b in self.smaller)):
            require_at_least(1, batch=batch)

    def told(self, steps: int | None, batch: int | None) -> "AdaptConfig":
        """The same with another k or B, if they are given."""
        changed = {} if steps is None else {"steps": steps}
        if batch is not None:
            changed |= {"batch": batch, "smaller": ()}
        return replace(self, **changed)

    def warn_of_unseen(self, num_examples: int | None, *told: int | None
                       ) -> None:
        """Warn of a support set that the steps are too few to go through,
        unless k or B was told: then that is meant."""
        if num_examples is None or any(x is not None for x in told):
            return
        with tf.init_scope():  # A number, where a caller's graph is traced too.
            batch = int(self.batch_of(num_examples))
        text = unseen(self.steps, batch, num_examples, self.replacement)
        if text:
            warnings.warn(f"{text}: give more steps= or a larger batch= for "
                          "all of them", stacklevel=3)

    def positions(self, num_examples: tf.Tensor) -> tf.Tensor:
        """The mini-batches [steps, B] of a support set of this size."""
        return stateless_schedule(num_examples, self.batch_of(num_examples),
                                  self.steps, self.replacement)

    def batch_of(self, num_examples: int | tf.Tensor) -> tf.Tensor:
        """B for a support set of this size."""
        batch = tf.constant(self.batch, tf.int32)
        for size, smaller in sorted(self.smaller, reverse=True):
            batch = tf.where(num_examples <= size, smaller, batch)
        return batch


def unseen(steps: int, batch: int, num_examples: int, replacement: bool
           ) -> str | None:
    """That so many steps do not see all of a support set, if it is so.

    Mini-batches that are drawn afresh are not meant to.
    """
    seen = steps * batch
    return None if replacement or seen >= num_examples else (
        f"{steps} step{'s' * (steps > 1)} of {batch} examples "
        f"see{'s' * (steps == 1)} {seen} of a support set of {num_examples}")


def shuffling_keys(number: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Different pseudo-random int32 keys [number], others for each turn.

    By integer operations that TensorFlow Lite has, which has no random
    generator: x -> (x + c)^5 permutes the integers modulo PRIME, because 5 has
    no factor in common with PRIME - 1.
    """
    x = tf.cast(tf.range(number), tf.int64) + tf.cast(number, tf.int64) * (
        tf.cast(turn, tf.int64))
    for _ in range(4):
        x = (x + SCHEDULE_SEED) % PRIME
        square = x * x % PRIME
        x = square * square % PRIME * x % PRIME
    return tf.cast(x, tf.int32)


def stateless_schedule(
    num_examples: tf.Tensor,
    batch: tf.Tensor,
    num_batches: int | tf.Tensor,
    replacement: bool,
) -> tf.Tensor:
    """Positions [num_batches, batch] by the rule of `tasks.mini_batches`.

    In the graph and with a fixed seed: two calls give the same schedule.
    With replacement, a batch larger than the set is cut to the set.
    """
    if replacement:
        batch = tf.minimum(batch, num_examples)
        passes, kept = num_batches, batch
    else:
        passes, kept = -(-num_batches * batch // num_examples), num_examples

    def add_pass(i, order):
        shuffled = tf.argsort(shuffling_keys(num_examples, i))
        return i + 1, tf.concat([order, shuffled[:kept]], 0)

    _, order = tf.while_loop(
        lambda i, _: i < passes, add_pass,
        (tf.constant(0), tf.zeros([0], tf.int32)),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])))
    return tf.reshape(order[:num_batches * batch], [num_batches, batch])
