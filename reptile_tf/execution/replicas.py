"""Replicas: which of a meta-batch's tasks run where, and what is exchanged.

Every process holds phi, the outer optimizer and the sampler, and makes the same
outer step. Only the mean displacement is computed in parts: each replica runs
its own tasks, and the means are all-reduced (eq. 5). v belongs to slots of the
meta-batch, not to processes, so another number of processes can go on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from reptile_tf.errors import InputError
from reptile_tf.execution.cluster import Cluster


class Replicas:
    """One replica: all tasks are its own, nothing is exchanged.

    Attributes:
      cluster: the processes.
      local: replicas in each process.
      collective: whether anything is exchanged.
    """

    collective = False

    def __init__(self, cluster: Cluster | None = None, local: int = 1) -> None:
        self.cluster, self.local = cluster or Cluster(), local

    @property
    def number(self) -> int:
        """Replicas of all processes."""
        return self.local * self.cluster.processes

    def check(self, meta_batch: int, task_order: str) -> None:
        """Raise InputError if the replicas cannot share a meta-batch."""
        if self.number > 1 and task_order == "sequential":
            raise InputError(
                "task_order=sequential passes v from task to task, which "
                f"{self.number} replicas at once cannot: use "
                "--task_order=parallel, or --distribution=none")
        if meta_batch % self.number:
            raise InputError(
                f"meta_batch={meta_batch} cannot be shared equally by "
                f"{self.number} replicas: use a multiple of {self.number}, "
                "another number of workers or devices, or --distribution=none")

    def own(self, x: Any, axis: int = 0) -> Any:
        """This process's part of an axis of tasks or slots."""
        share = x.shape[axis] // self.cluster.processes
        first = self.cluster.index * share
        return x[(slice(None),) * axis + (slice(first, first + share),)]

    def mean(self, fn: Callable[[Any], tuple[Any, Any]], rows: Any
             ) -> tuple[Any, Any]:
        """The mean over replicas of what each computes from its own rows.

        Args:
          fn: rows -> (what is averaged, rows that are kept).
          rows: tensors with a leading axis of this process's tasks.

        Returns:
          the mean over all replicas, the same bits in every process; and what
          this process's replicas kept, one after the other.
        """
        return fn(rows)

    def gather(self, values: list[Any]) -> list[np.ndarray]:
        """Each process's values, of equal shapes, as [processes, ...]."""
        return [np.asarray(x)[None] for x in values]

    def maximum(self, *values: int) -> list[int]:
        """Of each value the maximum over the processes."""
        return [int(x) for x in self.gather([np.array(values)])[0].max(0)]

    def require_equal(self, values: dict[str, int]) -> None:
        """Raise InputError if the processes' values, by name, differ."""
        [found] = self.gather([np.array(list(values.values()))])
        for name, column in zip(values, found.T, strict=True):
            if (column != column[0]).any():
                self.part()
                raise InputError(
                    f"the workers differ in {name} "
                    f"({', '.join(map(str, column))}): start all of them with "
                    "the same command, the same data and the same --run_dir "
                    "on a file system they share")

    def part(self) -> None:
        """Wait until every process is here; all must come, and then may end.

        What was exchanged last is not in every process's hands before.
        """

    @contextmanager
    def name_lost_workers(self, progress: Callable[[], str]) -> Iterator[None]:
        """Inside, the loss of a worker is an InputError.

        Args:
          progress: says what the run goes on from.
        """
        yield
