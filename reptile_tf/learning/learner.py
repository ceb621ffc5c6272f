"""A meta-learned initialization in use: adapt, predict, evaluate, save."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from reptile_tf.execution.engine import Engine, choose
from reptile_tf.learning import saved_learner
from reptile_tf.learning.adaptation import AdaptConfig, stateless_schedule
from reptile_tf.learning.evaluation import (
    Evaluator,
    Score,
    measure_of,
    score_logits,
)
from reptile_tf.learning.examples import (
    checked_examples,
    checked_inputs,
    require_finite,
    require_inputs,
    require_targets,
)
from reptile_tf.learning.initialization import inner_loop_of
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import Loss, cross_entropy
from reptile_tf.learning.optimizers import InnerConfig, InnerState
from reptile_tf.learning.packing import Weights
from reptile_tf.networks import inner_clone
from reptile_tf.tasks import EvaluationTasks


class Adapted:
    """W: the weights that inner steps on one task's support set led to.

    Attributes:
      weights: W, tensors in the order of the model's trainable variables.
      state: (v, t) after the last step.
    """

    def __init__(self, inner: InnerLoop, score: Callable[..., tf.Tensor],
                 weights: Weights, state: InnerState, support: tf.Tensor
                 ) -> None:
        self.weights, self.state = weights, state
        self._inner, self._score, self._support = inner, score, support

    def predict(self, queries: Any, transductive: bool = False) -> tf.Tensor:
        """Outputs [Q, ...] of queries [Q, ...].

        Args:
          queries: examples.
          transductive: batch normalization sees all queries at once; else
            each with the whole support set, and no other query.

        Raises:
          InputError: queries that the network does not take.
        """
        queries = checked_inputs(self._inner.model, queries, "queries")
        return self._score(self.weights, self._support, queries, transductive)

    def loss(self, inputs: Any, targets: Any) -> tf.Tensor:
        """The loss of a batch at W, summed or averaged as `InnerConfig` says.

        With a GradientTape around `Learner.adapt` and this, its gradient by
        `Learner.phi` is MAML's (eq. 17 to 21).
        """
        inputs, targets = checked_examples(
            self._inner, inputs, targets, "inputs", "targets")
        return self._inner.loss(self.weights, inputs, targets)


class Learner:
    """An initialization phi, and the (v, t) that belong to it.

    What `meta_train` returns, a run trains and exports, and `load` reads.

    Args:
      model: a Sequential or functional Keras model, built: phi starts at its
        weights. It is not written, unless by `assign_to`.
      inner: the inner optimizer.
      loss: (targets, outputs) -> losses per example.
      adaptation: the inner steps of `adapt`, where it is not told otherwise.
      engine: how tasks are mapped in training and evaluation; None chooses by
        the model.

    Attributes:
      phi: keras.Variables; a GradientTape watches them.
      state: the (v, t) that every adaptation starts from.
      inner_loop: U^k under the engine, as the rules take it.
    """

    def __init__(self, model: keras.Model, inner: InnerConfig | None = None,
                 loss: Loss = cross_entropy,
                 adaptation: AdaptConfig | None = None,
                 engine: Engine | None = None) -> None:
        self.model, self.loss = model, loss
        self.inner = inner or InnerConfig()
        self.adaptation = adaptation or AdaptConfig()
        self.engine = engine or choose(model)
        self.clone = inner_clone(model, self.engine.convolutions,
                                 self.inner.mixed_bfloat16)
        self.inner_loop = self.new_inner_loop()
        self.phi = [keras.Variable(w.value, dtype=w.dtype, name=w.name)
                    for w in self.clone.trainable_variables]
        self.state = self.inner_loop.initial_state()
        self._plain: InnerLoop | None = None
        self._positions, self._steps, self._score = (
            tf.function(fn, autograph=False, reduce_retracing=True)
            for fn in (stateless_schedule, self._steps_in_graph,
                       self._score_in_graph))
        self._evaluators: dict[bool, Evaluator] = {}

    def new_inner_loop(self, second_order: bool = False,
                       recompute: bool = False) -> InnerLoop:
        """U^k under the engine.

        Args:
          second_order: gradients flow through the steps.
          recompute: see `InnerLoop`.
        """
        return InnerLoop(
            self.clone, self.inner, self.loss, recompute=recompute,
            one_graph=self.engine.jit,
            unrolled_steps=math.inf if second_order
            else self.engine.unrolled_steps)

    @property
    def weights(self) -> list[tf.Tensor]:
        """phi as tensors."""
        return [p.value.value() for p in self.phi]

    def adapt(self, inputs: Any, targets: Any, steps: int | None = None,
              batch: int | None = None) -> Adapted:
        """W of one task: inner steps from phi and (v, t), which are kept.

        The mini-batches are those of the saved `adapt_and_predict`: the same
        support set gives the same W. In a tf.function and a GradientTape of
        one's own gradients flow through the steps.

        Args:
          inputs: the support set [S, ...].
          targets: [S, ...] labels from 0, or regression targets.
          steps: inner steps; None means `adaptation.steps`.
          batch: examples of a mini-batch; None means `adaptation`'s.

        Raises:
          InputError: a support set that does not fit the network or the loss.
        """
        config = self.adaptation
        if steps is not None or batch is not None:
            config = AdaptConfig(
                config.steps if steps is None else steps,
                config.batch if batch is None else batch, config.replacement,
                config.smaller if batch is None else ())
        if self._plain is None:
            self._plain = inner_loop_of(self)
        inputs, targets = checked_examples(
            self._plain, inputs, targets, "support inputs", "support targets")
        # k and B are arguments: other ones are no new graph.
        number = tf.shape(inputs)[0]
        weights, state = self._steps(
            self.weights, self.state, inputs, targets, self._positions(
                number, config.batch_of(number),
                tf.constant(config.steps, tf.int32), config.replacement))
        return Adapted(self._plain, self._score, weights, state, inputs)

    def _steps_in_graph(self, *task):
        return self._plain.adapt_to(*task)

    def _score_in_graph(self, weights, support, queries, transductive):
        return score_logits(self._plain, weights, support, queries,
                            transductive)

    def evaluate(self, tasks: EvaluationTasks, transductive: bool = False
                 ) -> Score:
        """The mean over tasks, and its 95 % interval.

        Of the accuracy if the loss is cross_entropy, else of the loss.

        Args:
          tasks: such as `EvaluationTasks.cut` makes.
          transductive: see `Adapted.predict`.

        Raises:
          InputError: tasks that do not fit the network or the loss.
        """
        for name in ("support", "query"):
            inputs = getattr(tasks, f"{name}_inputs")
            targets = getattr(tasks, f"{name}_targets")
            require_inputs(self.model, inputs, f"{name}_inputs")
            require_targets(self.model, self.loss, targets,
                            f"{name}_targets", tuple(inputs.shape[:2]))
            for array in (inputs, targets):
                require_finite(array, f"{name} examples")
        if transductive not in self._evaluators:
            self._evaluators[transductive] = Evaluator(
                self.inner_loop, self.engine, modes=(transductive,),
                measure=measure_of(self.loss))
        return self._evaluators[transductive].evaluate(
            self.weights, self.state, tasks)[0]

    def assign_to(self, model: keras.Model) -> None:
        """Write phi into a model of the same architecture."""
        for variable, value in zip(model.trainable_variables, self.phi,
                                   strict=True):
            variable.assign(value)

    def save(self, directory: str | Path) -> None:
        """Write what `load` reads (`saved_learner.save`)."""
        saved_learner.save(self, Path(directory))

    @classmethod
    def load(cls, directory: str | Path, loss: Loss | None = None
             ) -> "Learner":
        """Read what `save`, or a run, wrote.

        Args:
          directory: that it wrote.
          loss: needed if it was one of your own.

        Raises:
          InputError: no learner is there, or `loss` is missing.
        """
        model, saved = saved_learner.load(Path(directory), loss)
        learner = cls(model, saved.inner, saved.loss, saved.adaptation)
        learner.state = saved.state
        return learner
