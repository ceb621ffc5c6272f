"""What a task is: its mini-batches, for training and for evaluation.

Shape letters: T tasks, k inner steps, B examples a mini-batch, N ways, S
support examples, Q queries.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


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


Sampler = Callable[[int], Batches]


def stacked(kind: type, tasks: Iterable[Sequence[np.ndarray]]) -> Any:
    """The arrays of several tasks as one `kind`, with a leading axis T.

    Args:
      kind: Batches or EvaluationTasks.
      tasks: of each task the arrays, in the order of the fields of `kind`.
    """
    return kind(*map(np.stack, zip(*tasks, strict=True)))
