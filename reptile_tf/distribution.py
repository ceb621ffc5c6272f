"""Replicas: which of a meta-batch's tasks run where, and what is exchanged.

Every process holds phi, the outer optimizer and the sampler, and makes the same
outer step. Only the mean displacement is computed in parts: each replica runs
its own tasks, and the means are all-reduced (eq. 5). v belongs to slots of the
meta-batch, not to processes, so another number of processes can go on.
"""

import functools
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError

DISTRIBUTIONS = ("none", "mirrored", "multi_worker")
EXAMPLE = ('{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
           '"task": {"type": "worker", "index": 0}}')
# What TensorFlow raises where a worker has ended, hangs or was started again.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError,
        tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError,
        tf.errors.CancelledError, tf.errors.InternalError)


@dataclass(frozen=True)
class Cluster:
    """The processes of a run.

    Attributes:
      addresses: of all, the chief's first; empty for a single process.
      index: this process's place among them.
    """

    addresses: tuple[str, ...] = ()
    index: int = 0

    @property
    def processes(self) -> int:
        """How many."""
        return max(len(self.addresses), 1)

    @property
    def chief(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0


def cluster_of(distribution: str) -> Cluster:
    """The processes that share a run: of TF_CONFIG, or this one alone.

    Args:
      distribution: one of DISTRIBUTIONS.

    Raises:
      InputError: TF_CONFIG is not there, or wrong.
    """
    if distribution != "multi_worker":
        return Cluster()
    text = os.environ.get("TF_CONFIG", "")
    try:
        value = json.loads(text)
        jobs, task = value["cluster"], value["task"]
        chief, workers = jobs.get("chief", []), jobs.get("worker", [])
        kind, index = task["type"], int(task["index"])
        own = {"chief": chief, "worker": workers}[kind]
        addresses = (*chief, *workers)
        right = (set(jobs) <= {"chief", "worker"} and len(chief) < 2
                 and 0 <= index < len(own)
                 and len(set(addresses)) == len(addresses)
                 and all(re.fullmatch(r"\S+:\d+", a) for a in addresses))
    except (AttributeError, KeyError, TypeError, ValueError):
        right = False
    if not right:
        raise InputError(
            f"--distribution=multi_worker with TF_CONFIG={text or 'unset'}: it "
            "must be JSON that names every worker's host:port once and which "
            "of them this process is (of the types chief and worker alone), "
            f"such as {EXAMPLE}; on one machine use --distribution=none or "
            "mirrored")
    return Cluster(addresses, index + (len(chief) if kind == "worker" else 0))


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
                f"{self.number} replicas: use a multiple of {self.number}, or "
                "another number of workers or devices")

    def own(self, x: Any, axis: int = 0) -> Any:
        """This process's part of an axis of tasks or slots."""
        each = x.shape[axis] // self.cluster.processes
        first = self.cluster.index * each
        return x[(slice(None),) * axis + (slice(first, first + each),)]

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

    def highest(self, *values: int) -> list[int]:
        """Of each value the highest among the processes."""
        return [int(x) for x in self.gather([np.array(values)])[0].max(0)]

    def same(self, values: dict[str, int]) -> None:
        """Raise InputError if the processes' values, by name, differ."""
        [found] = self.gather([np.array(list(values.values()))])
        for name, column in zip(values, found.T, strict=True):
            if (column != column[0]).any():
                raise InputError(
                    f"the workers differ in {name} "
                    f"({', '.join(map(str, column))}): start all of them with "
                    "the same command, the same data and the same --run_dir "
                    "on a file system they share")

    @contextmanager
    def losses(self, progress: Callable[[], str]) -> Iterator[None]:
        """Inside, the loss of a worker is an InputError.

        Args:
          progress: says what the run goes on from.
        """
        yield


class Distributed(Replicas):
    """The replicas of a tf.distribute strategy.

    Args:
      strategy: a MirroredStrategy or a MultiWorkerMirroredStrategy.
      cluster: its processes.
    """

    collective = True

    def __init__(self, strategy: tf.distribute.Strategy,
                 cluster: Cluster) -> None:
        super().__init__(
            cluster, strategy.num_replicas_in_sync // cluster.processes)
        self._strategy = strategy
        self._sum = tf.function(self._sum_of_firsts, autograph=False)

    def _run(self, fn: Callable[[tf.Tensor, Any], Any]) -> Any:
        """fn(local number, replica context) on each local replica."""
        def replica():
            context = tf.distribute.get_replica_context()
            first = self.cluster.index * self.local
            return fn(context.replica_id_in_sync_group - first, context)

        return self._strategy.run(replica)

    def mean(self, fn, rows):
        def replica(i, context):
            parts = tf.nest.map_structure(
                lambda x: tf.reshape(x, [
                    self.local, x.shape[0] // self.local, *x.shape[1:]])[i],
                rows)
            averaged, kept = fn(parts)
            return context.all_reduce(tf.distribute.ReduceOp.MEAN,
                                      averaged), kept

        averaged, kept = self._run(replica)
        local = self._strategy.experimental_local_results
        return (tf.nest.map_structure(lambda x: local(x)[0], averaged),
                tf.nest.map_structure(lambda x: tf.concat(local(x), 0), kept))

    def _sum_of_firsts(self, values):
        def replica(i, context):
            return context.all_reduce(
                tf.distribute.ReduceOp.SUM,
                [tf.where(i == 0, x, tf.zeros_like(x)) for x in values])

        return [self._strategy.experimental_local_results(x)[0]
                for x in self._run(replica)]

    def gather(self, values):
        # A sum in which every row has one term: exact, and one kind of
        # collective for everything.
        before = self.cluster.index
        after = self.cluster.processes - 1 - before
        padded = [np.pad(x, [(before, after)] + [(0, 0)] * (x.ndim - 1))
                  for x in super().gather(values)]
        return [x.numpy() for x in self._sum(padded)] if padded else []

    @contextmanager
    def losses(self, progress):
        try:
            yield
        except LOST as e:
            if self.cluster.processes == 1:
                raise
            raise InputError(
                f"{self._lost(str(e))} has ended or cannot be reached (its "
                "own last lines say why). Start all workers again with the "
                "same command, with any number of them in TF_CONFIG, or one "
                f"with --distribution=none: the run goes on from {progress()}"
            ) from e

    def _lost(self, message: str) -> str:
        named = re.findall(r"/job:(\w+)/replica:\d+/task:(\d+)", message)
        return f"{named[-1][0]} {named[-1][1]}" if named else "another worker"


def replicas_of(distribution: str, say: Callable[[str], None]) -> Replicas:
    """The replicas of a run; waits until all workers are there.

    TensorFlow wants this before its first operation.

    Args:
      distribution: one of DISTRIBUTIONS.
      say: told what is waited for, and what was found.

    Raises:
      InputError: TF_CONFIG is wrong, or the workers do not find one another.
    """
    cluster = cluster_of(distribution)
    if distribution == "none":
        return Replicas(cluster)
    if cluster.addresses:
        say(f"worker {cluster.index} of {cluster.processes}, waiting for: "
            f"{', '.join(cluster.addresses)}")
    try:
        found = _distributed(distribution, cluster)
    except tf.errors.OpError as e:
        raise InputError(
            f"worker {cluster.index} of {', '.join(cluster.addresses)} cannot "
            f"start ({e.message.strip().splitlines()[0]}): name free ports of "
            "machines that reach one another in TF_CONFIG, and start all "
            "workers") from e
    say(f"distribution: {distribution}, {found.number} replicas")
    return found


@functools.cache  # TensorFlow joins a cluster once in a process.
def _distributed(distribution: str, cluster: Cluster) -> Distributed:
    if distribution == "mirrored":
        devices = (tf.config.list_logical_devices("GPU")
                   or tf.config.list_logical_devices("CPU"))
        return Distributed(
            tf.distribute.MirroredStrategy([d.name for d in devices]), cluster)
    # It waits where Python sees no signal: Ctrl-C must end it all the same.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return Distributed(tf.distribute.MultiWorkerMirroredStrategy(), cluster)
    finally:
        signal.signal(signal.SIGINT, before)
