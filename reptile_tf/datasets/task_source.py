"""The contract of a data set.

Its module, or package, has

  NAME
  CONFIG            a subclass of `config.Config`: its flags
  DEFAULTS          flag values that differ from CONFIG's
  BY_ALGORITHM      further ones, by --algorithm
  FILLS_A_THREAD    whether a task's work keeps a CPU thread busy by itself; if
                    not, its runs stay on the CPU, with the GPUs hidden
  load(config)      its `TaskSource`
  table(result)     lines of text: the numbers of a result.json, for people
"""

import abc
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reptile_tf.learning.evaluation import Score
from reptile_tf.learning.losses import Loss, cross_entropy
from reptile_tf.learning.measures import Measure, accuracy
from reptile_tf.tasks import EvaluationTasks, Sampler


class TaskSource(abc.ABC):
    """The distribution of tasks, p(tau), and what is measured on them.

    Attributes:
      source: where the data came from, for the log and result.json.
      splits: names of the splits that the final evaluation reports.
      curve: the split of periodic evaluations.
      loss: losses per example.
      measure: what evaluation computes from a task's outputs.
      iterations_per_call: see `meta_training.MetaTrainer`.
    """

    source: str
    splits: tuple[str, ...]
    curve: str = "test"
    loss: Loss = staticmethod(cross_entropy)
    measure: Measure = staticmethod(accuracy)
    iterations_per_call: int = 1

    @abc.abstractmethod
    def describe(self) -> str:
        """One line: what was found."""

    @abc.abstractmethod
    def fingerprint(self) -> int:
        """A checksum of what is trained on: resuming needs the same."""

    def classes(self, split: str) -> list[str]:
        """Checksums of a split's classes; none where tasks have no such."""
        return []

    @abc.abstractmethod
    def network(self) -> keras.Model:
        """The network before meta-training; the same for the same seed."""

    @abc.abstractmethod
    def sampler(self, rng: np.random.Generator) -> Sampler:
        """Draws training tasks; all of its state is `rng`'s."""

    @abc.abstractmethod
    def evaluation_tasks(self, split: str, shots: int, batch: int,
                         number: int, rng: np.random.Generator
                         ) -> EvaluationTasks:
        """Tasks to evaluate on, with their `positions`."""

    @abc.abstractmethod
    def row(self, split: str, shots: int, batch: int, score: Score
            ) -> dict[str, Any]:
        """A row of result.json.

        It has split, tasks and ci95, and of classes shots, transductive and
        accuracy, or else points, steps and mse; more as you like.
        """

    @abc.abstractmethod
    def curve_values(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        """What a periodic evaluation records, by the metric's name.

        A name that begins with accuracy is shown in percent; one with
        _5shot or _5points in it is compared among runs alike at that K.
        """

    @abc.abstractmethod
    def headline(self, rows: list[dict[str, Any]]) -> str:
        """What a periodic evaluation says to the reader."""

    def facts(self, network: Callable[[Any], Any]) -> dict[str, Any]:
        """Further keys of result.json, from the initialization's outputs."""
        return {}

    def fetch(self, inputs: np.ndarray) -> np.ndarray:
        """On the host: what evaluation tasks hold -> what `lookup` takes."""
        return inputs

    def lookup(self, inputs: tf.Tensor) -> tf.Tensor:
        """What the sampler returned -> inputs of the network."""
        return inputs
