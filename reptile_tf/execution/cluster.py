"""The processes that share a run, as TF_CONFIG names them."""

import json
import os
import re
from dataclasses import dataclass

from reptile_tf.errors import InputError

DISTRIBUTIONS = ("none", "mirrored", "multi_worker")
EXAMPLE = ('{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
           '"task": {"type": "worker", "index": 0}}')


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
