"""N-way K-shot tasks and their mini-batch schedules (paper, section 6).

NumPy only. Everything here deals in *indices* of examples; the images stay
on the device and are looked up there. Shape letters: T tasks, k inner steps,
B examples a mini-batch, N ways, S support examples, Q queries.
"""

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reptile_tf.errors import InputError

SPLIT_STREAM, TRAINING_STREAM, EVALUATION_STREAM, WEIGHTS_STREAM = range(4)


class Batches(NamedTuple):
    """The k mini-batches of T tasks: what every meta-update receives.

    The last mini-batch stands apart because FOMAML and MAML treat it apart,
    and because a separate tail has another size.

    Attributes:
      inputs: [T, k-1, B, ...] examples, or indices for a `lookup`.
      targets: [T, k-1, B, ...] labels, or regression targets.
      last_inputs: [T, B_last, ...].
      last_targets: [T, B_last, ...].
    """

    inputs: Any
    targets: Any
    last_inputs: Any
    last_targets: Any

    def map_inputs(self, fn: Callable[[Any], Any]) -> "Batches":
        """The same with fn applied to all inputs."""
        return self._replace(inputs=fn(self.inputs),
                             last_inputs=fn(self.last_inputs))

    @classmethod
    def from_steps(cls, inputs: Any, targets: Any) -> "Batches":
        """Split k equal mini-batches [T, k, B, ...] into k-1 and the last."""
        return cls(inputs[:, :-1], targets[:, :-1], inputs[:, -1],
                   targets[:, -1])


class EvaluationTasks(NamedTuple):
    """T tasks to adapt to and be scored on.

    Attributes:
      inputs: [T, k, B] mini-batches of the support set, k = eval_iters.
      targets: [T, k, B].
      support_inputs: [T, S] the whole support set, S = N * shots.
      query_inputs: [T, Q] test examples, one per class.
      query_targets: [T, Q].
    """

    inputs: Any
    targets: Any
    support_inputs: Any
    query_inputs: Any
    query_targets: Any


class Tail(NamedTuple):
    """Positions of one task's examples: k-1 mini-batches and the last."""

    batches: np.ndarray
    last: np.ndarray


Sampler = Callable[[int], Batches]


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
    """

    ways: int = 5
    train_shots: int = 10
    inner_batch: int = 10
    inner_iters: int = 5
    replacement: bool = False
    tail_shots: int | None = None


def generator(seed: int, stream: int, *key: int) -> np.random.Generator:
    """The random generator of one purpose: streams never share a state."""
    return np.random.default_rng([seed, stream, *key])


def evaluation_generator(
    seed: int, split: str, shots: int, iteration: int
) -> np.random.Generator:
    """The generator of one evaluation, independent of training's.

    Keyed by (seed, split, iteration), and by shots, so that neither the
    evaluation interval nor the other cells of a run change its tasks.
    """
    return generator(seed, EVALUATION_STREAM, zlib.crc32(split.encode()),
                     shots, iteration)


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
      InputError: with replacement, a batch larger than the set.
    """
    if replacement:
        if batch > num_examples:
            raise InputError(
                f"a mini-batch of {batch} drawn with --replacement from "
                f"{num_examples} examples would repeat some: use a batch of "
                f"{num_examples} or fewer, or --noreplacement"
            )
        draws = [rng.permutation(num_examples)[:batch]
                 for _ in range(num_batches)]
        return np.array(draws, np.int64).reshape(num_batches, batch)
    passes = -(-num_batches * batch // num_examples)
    order = [rng.permutation(num_examples) for _ in range(passes)]
    order = np.concatenate([np.zeros(0, np.int64), *order])
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


def draw_examples(
    classes: Sequence[np.ndarray],
    ways: int,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Indices [ways, count] of distinct examples of `ways` distinct classes.

    Rows are in random order: the row number is the label of its class.
    """
    chosen = rng.choice(len(classes), ways, replace=False)
    return np.stack([
        classes[c][rng.permutation(len(classes[c]))[:count]] for c in chosen
    ])


class TaskSampler:
    """Draws the mini-batches of training tasks; a `Sampler`.

    Args:
      classes: for each class the indices [n] of its examples.
      config: how a task is drawn.
      rng: the training generator; `rng.bit_generator.state` is the sampler's
        whole state.
    """

    def __init__(
        self,
        classes: Sequence[np.ndarray],
        config: TaskConfig,
        rng: np.random.Generator,
    ) -> None:
        self.classes, self.config, self.rng = classes, config, rng

    def __call__(self, num_tasks: int) -> Batches:
        """Batches of `num_tasks` fresh tasks, int32 indices and labels."""
        c = self.config
        labels = np.repeat(np.arange(c.ways, dtype=np.int32), c.train_shots)
        columns = ([], [], [], [])
        for _ in range(num_tasks):
            examples = draw_examples(self.classes, c.ways, c.train_shots,
                                     self.rng).astype(np.int32).ravel()
            steps = with_tail(c, self.rng)
            for column, values in zip(columns, (
                    examples[steps.batches], labels[steps.batches],
                    examples[steps.last], labels[steps.last]), strict=True):
                column.append(values)
        return Batches(*(np.stack(column) for column in columns))


class Prefetched:
    """A sampler whose next batches are drawn while these are trained on.

    Args:
      make: a generator -> the sampler that draws with it.
      rng: the training generator. Its state is always that after the last
        batches returned, whatever has been drawn ahead.
    """

    def __init__(self, make: Callable[[np.random.Generator], Sampler],
                 rng: np.random.Generator) -> None:
        self._rng, self._own = rng, np.random.default_rng()
        self._sampler = make(self._own)
        self._pool = ThreadPoolExecutor(1)
        self._ahead: tuple[tuple[int, dict], Future] | None = None

    def __call__(self, num_tasks: int) -> Batches:
        """Batches of `num_tasks` fresh tasks."""
        asked = num_tasks, self._rng.bit_generator.state
        if self._ahead is None or self._ahead[0] != asked:
            self._submit(asked)
        batches, after = self._ahead[1].result()
        self._rng.bit_generator.state = after
        self._submit((num_tasks, after))
        return batches

    def _submit(self, asked: tuple[int, dict]) -> None:
        self._ahead = asked, self._pool.submit(self._draw, *asked)

    def _draw(self, num_tasks: int, state: dict) -> tuple[Batches, dict]:
        self._own.bit_generator.state = state
        return self._sampler(num_tasks), self._own.bit_generator.state


def evaluation_tasks(
    classes: Sequence[np.ndarray],
    ways: int,
    shots: int,
    batch: int,
    num_batches: int,
    replacement: bool,
    num_tasks: int,
    rng: np.random.Generator,
) -> EvaluationTasks:
    """Draw `num_tasks` evaluation tasks.

    Each draws shots + 1 examples per class; the first-drawn one is the test
    example of its class. There is no tail: evaluation is the same for all
    algorithms.
    """
    labels = np.repeat(np.arange(ways, dtype=np.int32), shots)
    columns = ([], [], [], [])
    for _ in range(num_tasks):
        drawn = draw_examples(classes, ways, shots + 1, rng).astype(np.int32)
        support = drawn[:, 1:].ravel()
        steps = mini_batches(support.size, batch, num_batches, replacement,
                             rng)
        for column, values in zip(columns, (
                support[steps], labels[steps], support, drawn[:, 0]),
                strict=True):
            column.append(values)
    query_targets = np.tile(np.arange(ways, dtype=np.int32), (num_tasks, 1))
    return EvaluationTasks(*(np.stack(column) for column in columns),
                           query_targets)
