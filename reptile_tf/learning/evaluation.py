"""Few-shot evaluation: adapt from (phi, v, t), score, throw the result away.

phi and (v, t) are inputs of pure functions, so every test task starts from the
same ones and nothing can be left changed (the authors' code backs them up and
puts them back).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from reptile_tf.errors import InputError
from reptile_tf.execution import engine as engines
from reptile_tf.execution import memory
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning.arrays import shape_text
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.measures import Measure, accuracy
from reptile_tf.learning.optimizers import InnerState
from reptile_tf.learning.weights import Weights
from reptile_tf.tasks import EvaluationTasks


@dataclass(frozen=True)
class Score:
    """A measure over tasks.

    Attributes:
      steps: inner steps made.
      transductive: all test examples as one batch, or each with the whole
        support set.
      tasks: how many.
      mean: of the measure, over tasks.
      ci95: 1.96 standard errors of that mean; None for one task.
      values: the measure of each task, in their order, to compare two
        learners on the same tasks by.
    """

    steps: int
    transductive: bool
    tasks: int
    mean: float
    ci95: float | None
    values: tuple[float, ...] = field(repr=False)


def score_logits(
    inner_loop: InnerLoop,
    weights: Weights,
    support: tf.Tensor,
    queries: tf.Tensor,
    transductive: bool,
) -> tf.Tensor:
    """Outputs [Q, ...] of the queries at the adapted weights.

    Transductive: the queries are one batch. Otherwise each query is the last
    row of a batch of its own, after the whole support set: batch
    normalization sees no other query (section 6.1). They come one by one, not
    as one more axis: of the tasks of a call, one query each fills a device,
    and all at once would take Q times the memory.

    Args:
      inner_loop: U^k.
      weights: W.
      support: examples [S, ...].
      queries: examples [Q, ...].
      transductive: which.
    """
    if transductive:
        return inner_loop.outputs(weights, queries)
    number = queries.shape[0]
    if number is None:
        number = tf.shape(queries)[0]
    output = sizes = tuple(inner_loop.model.outputs[0].shape[1:])

    def row(i):
        batch = tf.concat([support, queries[i][None]], 0)
        return inner_loop.outputs(weights, batch)[-1]

    def body(i, outputs):
        place = tf.reshape(tf.range(number) == i, [-1, *[1] * len(output)])
        return i + 1, tf.where(place, row(i)[None], outputs)

    if None in output:  # The inputs decide.
        sizes = tf.unstack(tf.shape(row(0)))
    zeros = tf.zeros([number, *sizes], weights[0].dtype)
    return tf.while_loop(
        lambda i, _: i < number, body, (tf.constant(0), zeros),
        shape_invariants=(tf.TensorShape([]),
                          tf.TensorShape([queries.shape[0], *output])))[1]


class Evaluator:
    """Adapts to and scores tasks, several in one compiled call.

    Args:
      inner_loop: U^k (`Learner.inner_loop`).
      engine: how tasks are mapped.
      lookup: what the tasks hold -> inputs of the network.
      modes: the transductive settings to score, each at the same W.
      steps: after which numbers of inner steps to score, ascending; None
        means after all.
      measure: what a score is the mean of.
      fetch: on the host, what the tasks hold -> what `lookup` takes.
      replicas: whose processes share the tasks; None means one.
    """

    def __init__(
        self,
        inner_loop: InnerLoop,
        engine: engines.Engine,
        lookup: Callable[[Any], tf.Tensor] = tf.identity,
        modes: Iterable[bool] = (True, False),
        steps: Iterable[int] | None = None,
        measure: Measure = accuracy,
        fetch: Callable[[np.ndarray], np.ndarray] = lambda inputs: inputs,
        replicas: Replicas | None = None,
    ) -> None:
        self.replicas = replicas or Replicas()
        self.inner_loop, self.engine, self.lookup = inner_loop, engine, lookup
        self.modes, self.measure, self.fetch = tuple(modes), measure, fetch
        self.steps = tuple(steps) if steps is not None else None
        self._compiled = engine.function(self._outputs)

    def _outputs(self, phi, start, tasks):
        def one(task):
            w, state, done, outputs = phi, start, 0, []
            support, queries = task.support_inputs, task.query_inputs
            for steps in self.steps or [task.positions.shape[0]]:
                w, state = self.inner_loop.adapt_to(
                    w, state, support, task.support_targets,
                    task.positions[done:steps])
                done = steps
                outputs += [score_logits(self.inner_loop, w, support, queries,
                                         mode) for mode in self.modes]
            return outputs
        return engines.side_by_side(one, tasks.map_inputs(
            lambda x: self.engine.computed(self.lookup(x))), self.engine)

    def outputs(
        self, phi: Weights, state: InnerState, tasks: EvaluationTasks
    ) -> list[tf.Tensor]:
        """Query outputs [T, Q, N] of T tasks, for each of steps x modes."""
        return self._compiled(phi, state, tf.nest.map_structure(
            tf.convert_to_tensor, tasks.map_inputs(self.fetch)))

    def _measured(self, outputs: np.ndarray, targets: np.ndarray
                  ) -> np.ndarray:
        values = np.asarray(self.measure(outputs, targets))
        if values.shape != (len(outputs),):
            raise InputError(
                f"the measure made {shape_text(values.shape)} of "
                f"{len(outputs)} tasks' outputs {shape_text(outputs.shape)}: "
                "give one that makes one number for each task")
        return values

    def evaluate(
        self,
        phi: Weights,
        state: InnerState,
        tasks: EvaluationTasks,
        between: Callable[[int], None] = lambda counted: None,
    ) -> list[Score]:
        """Scores of the tasks, for each of steps x modes.

        Args:
          phi: the initialization.
          state: (v, t) that every task starts from.
          tasks: the tasks, as many in a call as the engine takes, or half as
            many, and so on, once memory was used up.
          between: called after each compiled call with the number of tasks
            that all processes scored.

        Raises:
          InputError: a measure of another shape.
        """
        number = len(tasks.query_targets)
        cells = [(steps, mode)
                 for steps in self.steps or [tasks.positions.shape[1]]
                 for mode in self.modes]
        values, cluster, start = [[] for _ in cells], self.replicas.cluster, 0
        while start < number:
            # The last call is filled up with tasks that are not counted, so
            # that one compiled function serves all.
            own = self.engine.tasks_per_call
            rows = (start + own * cluster.index + np.arange(own)) % number
            chunk = EvaluationTasks(*(x[rows] for x in tasks))
            counted = min(own * cluster.processes, number - start)
            try:
                here = [self._measured(outputs.numpy(), chunk.query_targets)
                        for outputs in self.outputs(phi, state, chunk)]
            except Exception as e:
                # Of several processes none can take fewer by itself.
                if (own == 1 or cluster.processes > 1
                        or not memory.is_used_up(e)):
                    raise
                self.engine = replace(self.engine, tasks_per_call=own // 2)
                continue
            for of_cell, measured in zip(
                    values, self.replicas.gather(here), strict=True):
                of_cell.extend(measured.ravel()[:counted])
            between(counted)
            start += counted
        return [Score(*cell, number, *mean_and_ci95(of_cell),
                      tuple(map(float, of_cell)))
                for cell, of_cell in zip(cells, values, strict=True)]


def mean_and_ci95(values: Any) -> tuple[float, float | None]:
    """The mean over tasks and 1.96 of its standard errors, if it has any."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return float(values.mean()), None
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(1.96 * error)
