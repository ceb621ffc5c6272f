"""Few-shot evaluation: adapt from (phi, v, t), score, throw the result away.

phi and (v, t) are inputs of pure functions, so every test task starts from the
same ones and nothing can be left changed (the authors' code backs them up and
puts them back).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from reptile_tf import engine as engines
from reptile_tf.inner_loop import InnerLoop, InnerState, Weights
from reptile_tf.tasks import EvaluationTasks

TASKS_PER_CALL = 8


@dataclass(frozen=True)
class Score:
    """Accuracy over tasks.

    Attributes:
      transductive: all test examples as one batch, or each with the whole
        support set.
      tasks: how many.
      accuracy: correct / (tasks * queries).
      ci95: 1.96 standard errors of the mean over tasks.
    """

    transductive: bool
    tasks: int
    accuracy: float
    ci95: float


def score_logits(
    inner: InnerLoop,
    weights: Weights,
    support: tf.Tensor,
    queries: tf.Tensor,
    transductive: bool,
) -> tf.Tensor:
    """Logits [Q, N] of the queries at the adapted weights.

    Transductive: the queries are one batch. Otherwise each query is the last
    row of a batch of its own, after the whole support set: batch
    normalization sees no other query (section 6.1).

    Args:
      inner: the inner loop.
      weights: W.
      support: examples [S, ...].
      queries: examples [Q, ...].
      transductive: which.
    """
    if transductive:
        return inner.outputs(weights, queries)
    number = queries.shape[0]
    if number is None:
        number = tf.shape(queries)[0]
    ways = inner.model.outputs[0].shape[-1]

    def body(i, logits):
        batch = tf.concat([support, queries[i][None]], 0)
        row = inner.outputs(weights, batch)[-1]
        place = tf.cast(tf.range(number) == i, row.dtype)
        return i + 1, logits + place[:, None] * row[None]

    zeros = tf.zeros([number, ways], weights[0].dtype)
    return tf.while_loop(
        lambda i, _: i < number, body, (tf.constant(0), zeros),
        shape_invariants=(tf.TensorShape([]),
                          tf.TensorShape([queries.shape[0], ways])),
        maximum_iterations=number)[1]


class Evaluator:
    """Adapts to and scores tasks, several in one compiled call.

    Args:
      inner: the inner loop (`MetaTrainer.inner_loop`).
      engine: how tasks are mapped.
      lookup: indices -> examples.
      modes: the transductive settings to score, each at the same W.
    """

    def __init__(
        self,
        inner: InnerLoop,
        engine: engines.Engine,
        lookup: Callable[[Any], tf.Tensor] = tf.identity,
        modes: Iterable[bool] = (True, False),
    ) -> None:
        self.inner, self.engine, self.lookup = inner, engine, lookup
        self.modes = tuple(modes)
        self._compiled = engine.function(self._logits)

    def _logits(self, phi, v, t, tasks):
        def one(task):
            w, _ = self.inner.adapt(phi, InnerState(v, t), task.inputs,
                                    task.targets)
            return [score_logits(self.inner, w, task.support_inputs,
                                 task.query_inputs, mode)
                    for mode in self.modes]
        return engines.side_by_side(one, tasks, self.engine)

    def logits(
        self, phi: Weights, state: InnerState, tasks: EvaluationTasks
    ) -> list[tf.Tensor]:
        """Query logits [T, Q, N] of T tasks, one tensor per mode."""
        looked_up = EvaluationTasks(
            self.lookup(tf.convert_to_tensor(tasks.inputs)),
            tf.convert_to_tensor(tasks.targets),
            self.lookup(tf.convert_to_tensor(tasks.support_inputs)),
            self.lookup(tf.convert_to_tensor(tasks.query_inputs)),
            tf.convert_to_tensor(tasks.query_targets))
        return self._compiled(phi, state.v, state.t, looked_up)

    def evaluate(
        self,
        phi: Weights,
        state: InnerState,
        tasks: EvaluationTasks,
        between: Callable[[int], None] = lambda counted: None,
    ) -> list[Score]:
        """Scores of the tasks, one per mode.

        Args:
          phi: the initialization.
          state: (v, t) that every task starts from.
          tasks: the tasks, looked up TASKS_PER_CALL at a time.
          between: called after each compiled call with its number of tasks.
        """
        number = len(tasks.query_targets)
        correct = [[] for _ in self.modes]
        for start in range(0, number, TASKS_PER_CALL):
            # The last call is filled up with tasks that are not counted, so
            # that one compiled function serves all.
            rows = np.arange(start, start + TASKS_PER_CALL) % number
            chunk = EvaluationTasks(*(x[rows] for x in tasks))
            counted = min(TASKS_PER_CALL, number - start)
            for hits, logits in zip(correct, self.logits(phi, state, chunk),
                                    strict=True):
                predicted = np.argmax(logits, -1)
                hits.extend((predicted == chunk.query_targets)
                            .mean(-1)[:counted])
            between(counted)
        return [Score(mode, number, *mean_and_ci95(hits))
                for mode, hits in zip(self.modes, correct, strict=True)]


def mean_and_ci95(values: Any) -> tuple[float, float]:
    """The mean over tasks and 1.96 of its standard errors."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(1.96 * error)
