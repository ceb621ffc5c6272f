"""N-way K-shot classification of images: tasks and result rows."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reptile_tf import tasks
from reptile_tf.datasets.few_shot.config import ImageConfig
from reptile_tf.datasets.few_shot.images import ImageData
from reptile_tf.datasets.few_shot.results import mode_name
from reptile_tf.datasets.splits import curve_split
from reptile_tf.datasets.task_source import TaskSource
from reptile_tf.execution.engine import iterations_per_call
from reptile_tf.learning.evaluation import Score


class FewShotImages(TaskSource):
    """Tasks of N classes of an `ImageData`, their labels drawn anew.

    Args:
      data: the images.
      config: the flags, checked against the data.
      build: (ways, seed) -> the network.
      on_device: put the images on the device once and look them up there,
        instead of gathering each batch on the host.

    Raises:
      InputError: too few classes, or examples of a class.
    """

    def __init__(self, data: ImageData, config: ImageConfig,
                 build: Callable[[int, int], keras.Model],
                 on_device: bool = True) -> None:
        config.check_data(data.splits)
        self.data, self.config, self._build = data, config, build
        self.source = data.source
        self.splits = tuple(
            s for s in ("test", "val", "train") if s in data.splits)
        self.curve = curve_split(data.splits)
        # A variable: without XLA, GPUs look uint8 up in nothing else, and a
        # constant would travel to the host in every call.
        self._images = tf.Variable(
            data.images[np.arange(len(data.images))], trainable=False
        ) if on_device else None
        if on_device:
            self.iterations_per_call = iterations_per_call()

    def describe(self) -> str:
        counts = ", ".join(f"{len(classes):,} {name} classes"
                           for name, classes in self.data.splits.items())
        changes = f"; images {self.data.changes}" if str(
            self.data.changes) else ""
        return f"{self.source}: {counts}{changes}"

    def fingerprint(self) -> int:
        return self.data.fingerprint()

    def classes(self, split: str) -> list[str]:
        return self.data.classes(split)

    def network(self) -> keras.Model:
        return self._build(self.config.classes, self.config.seed)

    def lookup(self, inputs: tf.Tensor) -> tf.Tensor:
        if self._images is not None:
            inputs = tf.gather(self._images, inputs)
        return tf.cast(inputs, tf.float32) / 255.0

    def facts(self, network: Callable[[Any], Any]) -> dict[str, Any]:
        return self.data.facts

    def fetch(self, inputs: np.ndarray) -> np.ndarray:
        return inputs if self._images is not None else (
            self.data.images[inputs])

    def sampler(self, rng: np.random.Generator) -> tasks.Sampler:
        def indices(rng):
            return tasks.TaskSampler(self.data.splits["train"],
                                     self.config.task, rng)

        def images(rng):
            draw = indices(rng)
            return lambda number: draw(number).map_inputs(self.fetch)

        return tasks.Prefetched(
            indices if self._images is not None else images, rng)

    def evaluation_tasks(self, split, shots, batch, number, rng):
        c = self.config
        return tasks.evaluation_tasks(
            self.data.splits[split], c.classes, shots, batch, c.eval_iters,
            c.replacement, number, rng, c.eval_queries)

    def row(self, split: str, shots: int, batch: int, score: Score
            ) -> dict[str, Any]:
        return {"split": split, "shots": shots,
                "transductive": score.transductive, "tasks": score.tasks,
                "accuracy": score.mean, "ci95": score.ci95,
                "eval_batch": batch, "eval_iters": score.steps,
                "eval_queries": self.config.eval_queries}

    def curve_values(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        return {f"accuracy_{r['shots']}shot_{mode_name(r['transductive'])}":
                r["accuracy"] for r in rows}

    def headline(self, rows: list[dict[str, Any]]) -> str:
        return "  ".join(f"{r['shots']}-shot {mode_name(r['transductive'])} "
                         f"{100 * r['accuracy']:.1f} %" for r in rows)
