"""What a task is: its mini-batches, for training and for evaluation.

Shape letters: T tasks, k inner steps, B examples a mini-batch, N ways, S
support examples, Q queries.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from reptile_tf.tasks.schedules import mini_batches


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
      support_inputs: [T, S, ...] examples, or indices for a `lookup`.
      support_targets: [T, S, ...] labels, or regression targets.
      positions: [T, k, B] the mini-batches of the k inner steps, as places in
        the support set: an example is looked up once, however often it is
        seen. None, which `Learner.evaluate` takes, leaves them to the learner's
        own `AdaptConfig`.
      query_inputs: [T, Q, ...] test examples.
      query_targets: [T, Q, ...].
    """

    support_inputs: Any
    support_targets: Any
    positions: Any
    query_inputs: Any
    query_targets: Any

    def map_inputs(self, fn: Callable[[Any], Any]) -> "EvaluationTasks":
        """The same with fn applied to all inputs."""
        return self._replace(support_inputs=fn(self.support_inputs),
                             query_inputs=fn(self.query_inputs))

    @classmethod
    def cut(cls, support_inputs: Any, support_targets: Any, query_inputs: Any,
            query_targets: Any, steps: int | None = None,
            batch: int | None = None, replacement: bool = False,
            seed: int | None = None) -> "EvaluationTasks":
        """T tasks whose support sets are cut into mini-batches at random.

        Without any of these settings they are left to the learner:
        each task is then evaluated as `Learner.adapt` would adapt to it.

        Args:
          support_inputs: [T, S, ...].
          support_targets: [T, S, ...].
          query_inputs: [T, Q, ...].
          query_targets: [T, Q, ...].
          steps: k, inner steps; None beside another setting means 50.
          batch: B; None beside another setting means 5.
          replacement: see `TaskConfig`.
          seed: of the mini-batches; None beside another setting means 0.

        Raises:
          InputError: steps, batch or a support set that no mini-batches can
            be made of (`mini_batches`).
        """
        arrays = [np.asarray(x) for x in (
            support_inputs, support_targets, query_inputs, query_targets)]
        positions = None
        if replacement or (steps, batch, seed) != (None, None, None):
            rng = np.random.default_rng(seed or 0)
            number, size = arrays[0].shape[:2]
            positions = np.stack([
                mini_batches(size, 5 if batch is None else batch,
                             50 if steps is None else steps, replacement, rng)
                for _ in range(number)]).astype(np.int32)
        return cls(*arrays[:2], positions, *arrays[2:])


Sampler = Callable[[int], Batches]


def stacked(kind: type, tasks: Iterable[Sequence[np.ndarray]]) -> Any:
    """The arrays of several tasks as one `kind`, with a leading axis T.

    Args:
      kind: Batches or EvaluationTasks.
      tasks: of each task the arrays, in the order of the fields of `kind`.
    """
    return kind(*map(np.stack, zip(*tasks, strict=True)))
