"""The configuration of a run, and what its parts are given of it."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from reptile_tf.configuration import checks
from reptile_tf.configuration.run_flags import RunFlags
from reptile_tf.errors import InputError, require_at_least
from reptile_tf.learning.adaptation import AdaptConfig
from reptile_tf.learning.meta_config import MetaConfig
from reptile_tf.learning.optimizers import InnerConfig
from reptile_tf.learning.rules import check_weights
from reptile_tf.tasks import TaskConfig

# Flags that change no number of a final evaluation by more than rounding: where
# things lie, how fast it goes, the curve on the way, and what else is made.
INCIDENTAL = frozenset((
    "data_dir", "cache_dir", "device_images", "num_threads", "deterministic",
    "eval_interval", "export"))


@dataclass(frozen=True)
class Config(RunFlags):
    """A run's flags, and what the parts of a run are given of them.

    A data set adds its own flags by a subclass (`ImageConfig`, `SineConfig`).

    Attributes:
      ways: N, the ways of a task; 1 where examples have no classes.
      eval_queries: test examples per class of an evaluation task.
      modes: the transductive settings to evaluate.
    """

    ways: ClassVar[int] = 1
    eval_queries: ClassVar[int] = 1
    modes: ClassVar[tuple[bool, ...]] = (True,)

    @property
    def inner(self) -> InnerConfig:
        """The inner optimizer's part."""
        return self._part(InnerConfig)

    @property
    def meta(self) -> MetaConfig:
        """The outer loop's part."""
        return self._part(MetaConfig)

    def _part(self, kind: type) -> Any:
        """A part whose fields are called as its flags are."""
        return kind(**self.values_of(
            *(field.name for field in dataclasses.fields(kind))))

    def values_of(self, *names: str) -> dict[str, Any]:
        """The values of flags, by their names."""
        return {name: getattr(self, name) for name in names}

    @property
    def task(self) -> TaskConfig:
        """The training tasks' part."""
        return TaskConfig(
            self.ways, self.train_shots or self.shots[0], self.inner_batch,
            self.inner_iters, self.replacement, self.tail_shots or None)

    @property
    def eval_steps(self) -> tuple[int, ...]:
        """After which numbers of inner steps evaluation scores."""
        return (self.eval_iters,)

    @property
    def adaptation(self) -> AdaptConfig:
        """The exported initialization's part.

        Where --eval_batch differs between --shots, a support set takes that
        of the smallest of them that has as many examples.
        """
        *smaller, (_, batch) = sorted(self.evaluations())
        return AdaptConfig(
            self.eval_iters, batch, self.replacement,
            tuple((self.ways * shots, b) for shots, b in smaller))

    def evaluations(self) -> list[tuple[int, int]]:
        """(shots, eval_batch) pairs."""
        batches = self.eval_batch * (
            len(self.shots) if len(self.eval_batch) == 1 else 1)
        return list(zip(self.shots, batches, strict=True))

    def final_splits(self, splits: Iterable[str]) -> tuple[str, ...]:
        """Of a data set's splits those of the final evaluation."""
        return tuple(splits) if self.eval_splits == "all" else (
            self.eval_splits,)

    def evaluated_splits(self, splits: Iterable[str], curve: str) -> set[str]:
        """Those, and the learning curve's where there is a curve."""
        periodic = {curve} if self.meta_iters and self.eval_interval else set()
        return {*self.final_splits(splits), *periodic}

    def check(self) -> None:
        """Raise InputError for combinations that no data could satisfy."""
        require_at_least(1, **self.values_of(
            "inner_batch", "inner_iters", "eval_samples",
            "eval_interval_samples"))
        require_at_least(0, **self.values_of(
            "train_shots", "tail_shots", "eval_iters", "eval_interval", "seed",
            "num_threads"))
        checks.check_evaluations(self)
        if self.pretrained and not self.run_dir:
            raise InputError("--pretrained evaluates the newest checkpoint of "
                             "--run_dir: give --run_dir")
        self.inner, self.meta  # noqa: B018 (they check themselves)
        if self.gradient_weights:
            check_weights(self.gradient_weights, self.inner_iters)
        checks.check_tail(self)
        checks.check_replacement(self)

    def check_one_of_several(self) -> None:
        """Raise InputError if this cannot be one of a list's runs."""

    def lines(self) -> dict[str, str]:
        """The flags that repeat the run, as flagfile lines by name."""
        lines = {}
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name == "train_shots":
                value = self.task.train_shots  # What 0 meant.
            if name in ("run_dir", "pretrained", "resume",
                        "distribution") or value is None:
                continue
            if isinstance(value, bool):
                lines[name] = f"--{'' if value else 'no'}{name}"
            elif value not in ("", ()):
                lines[name] = f"--{name}={checks.as_text(value)}"
        return lines

    @classmethod
    def training_flags(cls) -> list[str]:
        """Names of the flags that may not change on resume."""
        return [f.name for f in dataclasses.fields(cls)
                if f.metadata["training"]]
