"""N-way K-shot sampling: indices of examples (paper, section 6.1).

The images stay on the device and are looked up there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from reptile_tf.errors import InputError
from reptile_tf.tasks.batches import Batches, EvaluationTasks, stacked
from reptile_tf.tasks.schedules import (
    TaskConfig,
    mini_batches,
    shuffled,
    with_tail,
)


def draw_examples(
    classes: Sequence[np.ndarray],
    ways: int,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Indices [ways, count] of distinct examples of `ways` distinct classes.

    Rows are in random order: the row number is the label of its class.

    Args:
      classes: for each class the indices [m] of its examples; or [turns, m],
        of which a task is given one row, drawn at random.
      ways: N.
      count: examples of a class.
      rng: draws them.

    Raises:
      InputError: too few classes, or a class of too few examples.
    """
    def examples(place):
        indices = _indices(classes[place], place)
        if indices.ndim == 2:
            indices = indices[rng.integers(len(indices))]
        _require_examples(len(indices), count, place)
        return shuffled(indices, rng)[:count]

    _require_classes(classes, ways)
    chosen = rng.choice(len(classes), ways, replace=False)
    return np.array([examples(place) for place in chosen])


def _require_classes(classes: Sequence[np.ndarray], ways: int) -> None:
    if len(classes) < ways:
        raise InputError(f"there are {len(classes)} classes, and a task takes "
                         f"{ways}: give more, or make tasks of fewer ways")


def _require_examples(number: int, count: int, place: int) -> None:
    if number < count:
        raise InputError(
            f"class {place} has {number} examples, and a task takes {count} of "
            "each: leave it out, or take fewer")


def _indices(indices: Any, place: int) -> np.ndarray:
    """The places of a class's examples, [m] or [turns, m], or InputError."""
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu" or indices.ndim not in (1, 2):
        raise InputError(
            f"class {place} is {indices.dtype} of shape {list(indices.shape)}: "
            "give the places of its examples, of labels y [np.flatnonzero("
            "y == c) for c in np.unique(y)]")
    return indices


class TaskSampler:
    """Draws the mini-batches of training tasks; a `Sampler`.

    Args:
      classes: of training, as for `draw_examples`.
      config: how a task is drawn.
      rng: the training generator; `rng.bit_generator.state` is the sampler's
        whole state.

    Raises:
      InputError: classes that are no indices, too few of them, or one of too
        few examples.
    """

    def __init__(
        self,
        classes: Sequence[np.ndarray],
        config: TaskConfig,
        rng: np.random.Generator,
    ) -> None:
        self.classes = [_indices(c, place) for place, c in enumerate(classes)]
        self.config, self.rng = config, rng
        _require_classes(self.classes, config.ways)
        for place, indices in enumerate(self.classes):
            _require_examples(indices.shape[-1], config.train_shots, place)

    def __call__(self, num_tasks: int) -> Batches:
        """Batches of `num_tasks` fresh tasks, int32 indices and labels."""
        c = self.config
        labels = np.repeat(np.arange(c.ways, dtype=np.int32), c.train_shots)

        def draw() -> tuple[np.ndarray, ...]:
            examples = draw_examples(self.classes, c.ways, c.train_shots,
                                     self.rng).astype(np.int32).ravel()
            steps = with_tail(c, self.rng)
            return (examples[steps.batches], labels[steps.batches],
                    examples[steps.last], labels[steps.last])

        return stacked(Batches, [draw() for _ in range(num_tasks)])


def evaluation_tasks(
    classes: Sequence[np.ndarray],
    ways: int,
    shots: int,
    batch: int,
    num_batches: int,
    replacement: bool,
    num_tasks: int,
    rng: np.random.Generator,
    queries: int = 1,
) -> EvaluationTasks:
    """Draw `num_tasks` evaluation tasks.

    Each draws shots + queries examples per class; those drawn first are the
    test examples of their class, of which the paper has one. There is no tail:
    evaluation is the same for all algorithms.

    Args:
      classes: as for `draw_examples`.
      ways: N.
      shots: K.
      batch: B, examples of a mini-batch.
      num_batches: inner steps.
      replacement: see `TaskConfig`.
      num_tasks: T.
      rng: a generator.
      queries: test examples per class.
    """
    places = np.arange(ways, dtype=np.int32)
    labels, asked = np.repeat(places, shots), np.repeat(places, queries)

    def draw() -> tuple[np.ndarray, ...]:
        drawn = draw_examples(classes, ways, shots + queries,
                              rng).astype(np.int32)
        support = drawn[:, queries:].ravel()
        steps = mini_batches(support.size, batch, num_batches, replacement,
                             rng)
        return (support, labels, steps.astype(np.int32),
                drawn[:, :queries].ravel(), asked)

    return stacked(EvaluationTasks, [draw() for _ in range(num_tasks)])
