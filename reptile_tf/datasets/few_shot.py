"""N-way K-shot classification of images: flags, tasks and result rows."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from reptile_tf import tasks
from reptile_tf.config import Config, at_least, flag
from reptile_tf.datasets import TaskSource
from reptile_tf.errors import InputError
from reptile_tf.evaluation import Score


@dataclass(frozen=True)
class ImageConfig(Config):
    """Flags of N-way classification of images."""

    classes: int = flag(5, "N, the ways: classes per task", True)
    transductive: bool | None = flag(
        None, "batch norm over all test examples of a task at once; unset "
        "evaluates both modes")

    @property
    def ways(self) -> int:
        """N."""
        return self.classes

    @property
    def modes(self) -> tuple[bool, ...]:
        """The transductive settings to evaluate."""
        return ((True, False) if self.transductive is None
                else (self.transductive,))

    def check(self) -> None:
        at_least(self, 1, "classes")
        super().check()

    def check_data(self, splits: dict[str, list]) -> None:
        """Raise InputError if the classes or their examples do not suffice."""
        needs = {name: max(self.shots) + 1 for name in splits}
        needs["train"] = max(needs["train"], self.task.train_shots)
        for name, classes in splits.items():
            fewest = min(map(len, classes), default=0)
            if fewest < 2:
                raise InputError(
                    f"{name} has {len(classes)} classes and, in the smallest "
                    f"of them, {fewest} examples: "
                    f"add some; a task needs --classes={self.classes} "
                    "classes of 2 or more")
            if len(classes) < self.classes:
                raise InputError(
                    f"classes={self.classes} needs as many classes in "
                    f"every split, {name} has {len(classes)}: use "
                    f"--classes={len(classes)} or fewer")
            if max(self.shots) + 1 > fewest:
                raise InputError(
                    f"shots={max(self.shots)} needs {max(self.shots) + 1} "
                    "examples a class for a test example, the smallest class "
                    f"of {name} has {fewest}: use --shots={fewest - 1} or "
                    "fewer")
            if needs[name] > fewest:
                raise InputError(
                    f"train_shots={self.task.train_shots} is more than the "
                    f"{fewest} examples of the smallest training class: use "
                    f"--train_shots={fewest} or fewer")


class Parts:
    """Arrays [n_i, ...], memory-mapped ones too, seen as one [n, ...].

    Args:
      arrays: of equal shapes but for the first axis.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self._arrays = list(arrays)
        self._ends = np.cumsum([len(a) for a in self._arrays])
        self.shape = (int(self._ends[-1]), *self._arrays[0].shape[1:])
        self.dtype = self._arrays[0].dtype
        self.nbytes = sum(a.nbytes for a in self._arrays)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Rows [*indices.shape, ...], copied."""
        flat = np.ravel(indices)
        rows = np.empty((flat.size, *self.shape[1:]), self.dtype)
        part = np.searchsorted(self._ends, flat, side="right")
        for i in np.unique(part):
            start = self._ends[i] - len(self._arrays[i])
            rows[part == i] = self._arrays[i][flat[part == i] - start]
        return rows.reshape(*np.shape(indices), *self.shape[1:])


@dataclass(frozen=True)
class ImageData:
    """Images and the classes of each split.

    Attributes:
      images: uint8 [n, H, W, C], all splits in one table.
      splits: for "train", "test" and perhaps "val", for each class the
        indices [m] of its images.
      source: where they came from.
      key: stands for the pixels in the fingerprint, where reading them all
        would take long.
      facts: further keys of result.json.
    """

    images: np.ndarray | Parts
    splits: dict[str, list[np.ndarray]]
    source: str
    key: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> int:
        """A checksum of pixels and splits."""
        value = zlib.crc32(np.ascontiguousarray(self.images)
                           if self.key is None else self.key.encode())
        for name in sorted(self.splits):
            for indices in self.splits[name]:
                value = zlib.crc32(np.asarray(indices, np.int64), value)
        return value


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
        self.curve = "val" if "val" in data.splits else "test"
        self._images = (tf.constant(data.images[np.arange(len(data.images))])
                        if on_device else None)
        # Indices alone travel to the device; a GPU is faster than the calls.
        if on_device and tf.config.list_physical_devices("GPU"):
            self.iterations_per_call = 20

    def describe(self) -> str:
        counts = ", ".join(f"{len(classes):,} {name} classes"
                           for name, classes in self.data.splits.items())
        return f"{self.source}: {counts}"

    def fingerprint(self) -> int:
        return self.data.fingerprint()

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
            c.replacement, number, rng)

    def row(self, split: str, shots: int, batch: int, score: Score
            ) -> dict[str, Any]:
        return {"split": split, "shots": shots,
                "transductive": score.transductive, "tasks": score.tasks,
                "accuracy": score.mean, "ci95": score.ci95,
                "eval_batch": batch, "eval_iters": score.steps}

    def curve_values(self, rows: list[dict[str, Any]]) -> dict[str, float]:
        return {f"accuracy_{r['shots']}shot_{mode_name(r['transductive'])}":
                r["accuracy"] for r in rows}

    def headline(self, rows: list[dict[str, Any]]) -> str:
        return "  ".join(f"{r['shots']}-shot {mode_name(r['transductive'])} "
                         f"{100 * r['accuracy']:.1f} %" for r in rows)


def mode_name(transductive: bool) -> str:
    """How a batch-norm mode is called in tables and metrics."""
    return "transductive" if transductive else "non-transductive"


def table(result: dict[str, Any]) -> list[str]:
    """Test accuracy of the untrained and of the meta-trained network."""
    before = {(r["split"], r["shots"], r["transductive"]): r
              for r in result["untrained"]}
    lines = [f"accuracy on test classes, {result['ways']}-way, % (95 % "
             "interval over tasks)",
             f"  {'':26}{'untrained':>16}{'meta-trained':>16}"]
    for row in result["results"]:
        if row["split"] != "test":
            continue
        old = before["test", row["shots"], row["transductive"]]
        cells = "".join(
            f"{100 * r['accuracy']:>10.1f} ±{100 * (r['ci95'] or 0):>4.1f}"
            for r in (old, row))
        name = f"{row['shots']}-shot {mode_name(row['transductive'])}"
        lines.append(f"  {name:26}{cells}")
    return lines
