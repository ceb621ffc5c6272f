"""Drawing the next batches in a thread, without changing what is drawn."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from reptile_tf.tasks.batches import Batches, Sampler


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
