"""Replicas on several devices or machines, by tf.distribute."""

import functools
import re
import signal
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError, first_line
from reptile_tf.execution.cluster import Cluster, cluster_of
from reptile_tf.execution.replicas import Replicas

# What TensorFlow raises where a worker has ended, hangs or was started again.
LOST = (tf.errors.UnavailableError, tf.errors.AbortedError,
        tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError,
        tf.errors.CancelledError, tf.errors.InternalError)


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
        # One for each kind of values: TensorFlow warns of one traced often,
        # and knows it by its code, which a partial has not.
        self._sum = functools.cache(lambda kind: tf.function(
            functools.partial(self._sum_of_firsts), autograph=False))

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
        if not padded:
            return []
        total = self._sum(tuple((x.shape, x.dtype) for x in padded))
        return [x.numpy() for x in total(padded)]

    def part(self):
        # One that knows that all have come ends, and the others lose it.
        with suppress(*LOST):
            self.maximum(0)

    @contextmanager
    def name_lost_workers(self, progress):
        try:
            yield
        except LOST as e:
            if self.cluster.processes == 1:
                raise
            raise InputError(
                f"{self._lost(str(e))} has ended or cannot be reached (its "
                f"own last lines say why; here: {first_line(e)}). Start all "
                "workers again with the same command, with a number of them "
                "in TF_CONFIG that divides --meta_batch, or one with "
                f"--distribution=none: the run goes on from {progress()}"
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
        if not cluster.addresses:
            raise InputError(
                f"--distribution={distribution} cannot start "
                f"({first_line(e)}): use --distribution=none") from e
        raise InputError(
            f"worker {cluster.index} of {', '.join(cluster.addresses)} cannot "
            f"start ({first_line(e)}): name free ports of "
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
    # SIGTERM it takes for itself, until it is given back.
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, signal.SIG_DFL)
              for number in (signal.SIGINT, signal.SIGTERM) if main}
    try:
        return Distributed(tf.distribute.MultiWorkerMirroredStrategy(), cluster)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
