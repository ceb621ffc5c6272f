"""Mini-batch schedules and tails of a task (paper, section 6.3)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from reptile_tf.errors import InputError, require_at_least


class Tail(NamedTuple):
    """Positions of one task's examples: k-1 mini-batches and the last."""

    batches: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class TaskConfig:
    """How a training task is drawn (paper, sections 6.1 and 6.3).

    Attributes:
      ways: N, classes of a task.
      train_shots: examples drawn per class.
      inner_batch: B, examples of a mini-batch.
      inner_iters: k, mini-batches of a task.
      replacement: draw each mini-batch afresh instead of cycling.
      tail_shots: examples per class set apart as the last mini-batch; None
        means a shared tail: the last mini-batch is drawn like the others.

    Raises:
      InputError: a number below 1, or a tail that leaves nothing, or is
        all that is trained on.
    """

    ways: int = 5
    train_shots: int = 10
    inner_batch: int = 10
    inner_iters: int = 5
    replacement: bool = False
    tail_shots: int | None = None

    def __post_init__(self) -> None:
        require_at_least(
            1, ways=self.ways, train_shots=self.train_shots,
            inner_batch=self.inner_batch, inner_iters=self.inner_iters)
        if self.tail_shots is not None and not (
                0 < self.tail_shots < self.train_shots):
            raise InputError(
                f"tail_shots={self.tail_shots} are taken out of "
                f"train_shots={self.train_shots}: take 1 or more, leave 1 or "
                "more, or have no tail apart")
        if self.tail_shots is not None and self.inner_iters < 2:
            raise InputError(
                f"inner_iters={self.inner_iters} with a separate tail, whose "
                "step needs one before it on what is not the tail: use 2 or "
                "more")


def shuffled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy [n] in random order: rng.permutation, in half the time.

    Of 32 small tasks drawing takes longer than a GPU does to train on them.
    """
    values = values.copy()
    rng.shuffle(values)
    return values


def mini_batches(
    num_examples: int,
    batch: int,
    num_batches: int,
    replacement: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Positions [num_batches, batch] of a task's mini-batches.

    Without replacement the examples are shuffled, cut into batches and
    reshuffled at the end of each pass. The pending partial batch is carried
    over, so a batch may straddle a reshuffle and hold an example twice, and a
    batch larger than the set holds each several times. With replacement each
    batch is a fresh draw without repeats inside it.

    Raises:
      InputError: no example or a batch of none, or, with replacement, a batch
        larger than the set.
    """
    if batch < 1 or num_batches < 0 or num_examples < 1:
        raise InputError(
            f"{num_batches} mini-batches of {batch} examples out of "
            f"{num_examples}: a task has 1 example or more, a mini-batch too")
    examples = np.arange(num_examples)
    if replacement:
        if batch > num_examples:
            raise InputError(
                f"a mini-batch of {batch} drawn with replacement=True from "
                f"{num_examples} examples would repeat some: use a batch of "
                f"{num_examples} or fewer, or replacement=False")
        draws = [shuffled(examples, rng)[:batch] for _ in range(num_batches)]
        return np.array(draws, np.int64).reshape(num_batches, batch)
    passes = -(-num_batches * batch // num_examples)
    order = [shuffled(examples, rng) for _ in range(passes)]
    order = np.concatenate([examples[:0], *order])
    return order[:num_batches * batch].reshape(num_batches, batch)


def with_tail(config: TaskConfig, rng: np.random.Generator) -> Tail:
    """Positions [k-1, B] and [B_last] in a task's class-major examples.

    A separate tail takes tail_shots random examples of each class out of the
    train_shots; no example of it is in any other mini-batch.
    """
    shots, ways = config.train_shots, config.ways
    if config.tail_shots is None:
        steps = mini_batches(ways * shots, config.inner_batch,
                             config.inner_iters, config.replacement, rng)
        return Tail(steps[:-1], steps[-1])
    positions = rng.permuted(np.arange(ways * shots).reshape(ways, shots),
                            axis=1)
    body = positions[:, :shots - config.tail_shots].ravel()
    tail = positions[:, shots - config.tail_shots:].ravel()
    steps = mini_batches(body.size, config.inner_batch,
                         config.inner_iters - 1, config.replacement, rng)
    return Tail(body[steps], tail)
