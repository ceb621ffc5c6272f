"""A meta-learned initialization in use: adapt, predict, evaluate, save."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from reptile_tf.execution.engine import Engine, choose
from reptile_tf.learning import saved_learner, tflite
from reptile_tf.learning.adaptation import AdaptConfig, stateless_schedule
from reptile_tf.learning.adapted import Adapted
from reptile_tf.learning.evaluation import Evaluator, Score, score_logits
from reptile_tf.learning.examples import (
    checked_examples,
    checked_tasks,
    require_as_long,
)
from reptile_tf.learning.initialization import inner_loop_of
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import Loss, cross_entropy
from reptile_tf.learning.measures import Measure, measure_of
from reptile_tf.learning.optimizers import InnerConfig
from reptile_tf.learning.targets import require_targets, spec_of_targets
from reptile_tf.networks import check_same_outputs, copied, inner_clone
from reptile_tf.tasks import EvaluationTasks


class Learner:
    """An initialization phi, and the (v, t) that belong to it.

    What `meta_train` returns, a run trains and exports, and `load` reads.

    Args:
      model: a Sequential or functional Keras model, built: phi starts at its
        weights. It is copied: neither sees what becomes of the other.
      inner: the inner optimizer.
      loss: (targets, outputs) -> losses per example.
      adaptation: the inner steps of `adapt`, where it is not told otherwise.
      engine: how tasks are mapped in training and evaluation; None chooses by
        the model.

    Attributes:
      phi: keras.Variables; a GradientTape watches them.
      state: the (v, t) that every adaptation starts from.
      inner_loop: U^k under the engine.
      architecture: the copy, of stock layers, not at phi as `model` is.
      trained_on: checksums of the classes that a run trained phi on.

    Raises:
      InputError: a model that cannot be cloned per task, or a loss that does
        not go with its end.
    """

    def __init__(self, model: keras.Model, inner: InnerConfig | None = None,
                 loss: Loss = cross_entropy,
                 adaptation: AdaptConfig | None = None,
                 engine: Engine | None = None) -> None:
        self._loss, self._inner = loss, inner or InnerConfig()
        self.trained_on: frozenset[str] = frozenset()
        self.adaptation = adaptation or AdaptConfig()
        self.engine = engine or choose(model)
        self.clone = inner_clone(model, self.engine.convolutions,
                                 self.inner.mixed_bfloat16)
        self.architecture = copied(model)
        check_same_outputs(model, self.architecture)
        self.inner_loop = self.new_inner_loop()
        self.phi = [keras.Variable(w.value, dtype=w.dtype, name=w.name)
                    for w in self.clone.trainable_variables]
        self.state = self.inner_loop.initial_state()
        self._plain: InnerLoop | None = None
        self._target: tf.TensorSpec | None = None
        self._positions, self._steps, self._score = (
            tf.function(fn, autograph=False, reduce_retracing=True)
            for fn in (stateless_schedule, self._steps_in_graph,
                       self._score_in_graph))
        self._evaluators: dict[tuple[bool, int], Evaluator] = {}

    @property
    def inner(self) -> InnerConfig:
        """The inner optimizer, compiled in: another is another learner's."""
        return self._inner

    @property
    def loss(self) -> Loss:
        """(targets, outputs) -> losses per example, compiled in, too."""
        return self._loss

    def new_inner_loop(self, second_order: bool = False,
                       recompute: bool = False) -> InnerLoop:
        """U^k under the engine; where it is of `second_order`, gradients flow
        through the steps."""
        return InnerLoop(
            self.clone, self.inner, self.loss, recompute=recompute,
            one_graph=self.engine.jit,
            unrolled_steps=math.inf if second_order
            else self.engine.unrolled_steps)

    @property
    def model(self) -> keras.Model:
        """A new Keras model of stock layers, at phi as it is now."""
        model = copied(self.architecture)
        self.assign_to(model)
        return model

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
        config = self.adaptation.told(steps, batch)
        if self._plain is None:
            self._plain = inner_loop_of(
                self, mixed_bfloat16=self.inner.mixed_bfloat16)
        inputs, targets = checked_examples(
            self._plain, inputs, targets, "support inputs", "support targets")
        self.remember_targets(targets)
        config.warn_of_unseen(inputs.shape[0], steps, batch)
        # k and B are arguments: other ones are no new graph.
        number = tf.shape(inputs)[0]
        weights, state = self._steps(
            self.weights, self.state, inputs, targets, self._positions(
                number, config.batch_of(number),
                tf.constant(config.steps, tf.int32), config.replacement))
        return Adapted(self._plain, self._score, weights, state, inputs)

    def remember_targets(self, targets: Any, axes: int = 1) -> None:
        """Of which shape and type one target is, for `target_spec`.

        Args:
          targets: checked, [..., of one example].
          axes: before an example's own.
        """
        if self._target is None:
            self._target = spec_of_targets(self.architecture, targets, axes)

    def target_spec(self) -> tf.TensorSpec:
        """One target's shape and type, as the loss was given them so far.

        Before that, the outputs' own.

        Raises:
          InputError: which the loss does not take.
        """
        output = self.architecture.outputs[0]
        if self.loss is cross_entropy:
            return tf.TensorSpec(output.shape[1:-1], tf.int64)
        if self._target is None:
            dtype = self.architecture.trainable_variables[0].dtype
            targets = tf.zeros([1, *(d or 1 for d in output.shape[1:])], dtype)
            require_targets(self.architecture, self.loss, targets,
                            "targets (none were seen: adapt to a task once)",
                            (1,))
            return tf.TensorSpec(output.shape[1:], dtype)
        return self._target

    def _steps_in_graph(self, *task):
        return self._plain.adapt_to(*task)

    def _score_in_graph(self, weights, support, queries, transductive):
        return score_logits(self._plain, weights, support, queries,
                            transductive)

    def evaluate(self, tasks: EvaluationTasks, transductive: bool = False,
                 measure: Measure | None = None) -> Score:
        """The mean over tasks, and its 95 % interval.

        Args:
          tasks: such as `EvaluationTasks.cut` makes.
          transductive: see `Adapted.predict`.
          measure: (outputs [T, Q, N], targets [T, Q, ...]), NumPy arrays -> one
            number for each task [T]; None means the accuracy if the loss is
            cross_entropy, else the loss.

        Raises:
          InputError: tasks that do not fit the network or the loss.
        """
        tasks = checked_tasks(self.architecture, self.loss, tasks,
                              self.adaptation)
        if not transductive:
            require_as_long(tasks.query_inputs[0], tasks.support_inputs[0])
        self.remember_targets(tasks.support_targets, axes=2)
        # Few tasks are not filled up to an engine's many, but to a power of 2:
        # about as many tasks are one compiled function.
        at_once = min(self.engine.tasks_per_call,
                      1 << (len(tasks.query_targets) - 1).bit_length())
        key = bool(transductive), at_once
        if key not in self._evaluators:
            self._evaluators[key] = Evaluator(
                self.inner_loop,
                dataclasses.replace(self.engine, tasks_per_call=at_once),
                modes=key[:1])
        evaluator = self._evaluators[key]
        evaluator.measure = measure or measure_of(self.loss)
        return evaluator.evaluate(self.weights, self.state, tasks)[0]

    def assign_to(self, model: keras.Model) -> None:
        """Write phi into a model of the same architecture."""
        for variable, value in zip(model.trainable_variables, self.phi,
                                   strict=True):
            variable.assign(value)

    def save(self, directory: str | Path) -> None:
        """Write what `load` reads (`saved_learner.save`)."""
        saved_learner.save(self, Path(directory).expanduser())

    def save_tflite(self, file: str | Path) -> None:
        """Write adapt_and_predict for TensorFlow Lite
        (`tflite.save`)."""
        tflite.save(self, Path(file).expanduser())

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
        model, saved = saved_learner.load(
            Path(directory).expanduser(), loss)
        learner = cls(model, saved.inner, saved.loss, saved.adaptation)
        learner.state, learner._target = saved.state, saved.target
        learner.trained_on = saved.trained_on
        return learner
