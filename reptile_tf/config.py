"""The flags that every data set shares: default, meaning, unit, symbol.

A data set adds its own by a subclass (`ImageConfig`, `SineConfig`).
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from reptile_tf.distribution import DISTRIBUTIONS
from reptile_tf.engine import JIT_COMPILE, TASK_ORDERS
from reptile_tf.errors import InputError
from reptile_tf.inner_loop import InnerConfig
from reptile_tf.meta_training import MetaConfig
from reptile_tf.meta_updates import REGISTRY, check_weights
from reptile_tf.tasks import TaskConfig


def flag(default: Any, text: str, training: bool = False,
         choices: tuple[str, ...] | None = None) -> Any:
    """A flag; `training` ones may not change when a run is resumed."""
    return dataclasses.field(default=default, metadata={
        "help": text, "training": training, "choices": choices})


@dataclass(frozen=True)
class Config:
    """A run's flags. Defaults are the paper's Omniglot 5-way column.

    Attributes:
      ways: N, the ways of a task; 1 where examples have no classes.
      modes: the transductive settings to evaluate.
    """

    ways: ClassVar[int] = 1
    modes: ClassVar[tuple[bool, ...]] = (True,)

    algorithm: str = flag(
        "reptile", "meta-update rule (sections 2, 3, 5.1); a list, such as "
        "reptile,maml, makes a run of each", True, tuple(REGISTRY))
    shots: tuple[int, ...] = flag(
        (1, 5), "K, support examples per class in evaluation; a list "
        "evaluates one training several times")
    train_shots: int = flag(
        10, "examples per class of a training task; 0 means --shots", True)
    inner_batch: int = flag(
        10, "examples per inner mini-batch in training", True)
    inner_iters: int = flag(5, "k, inner steps per training task", True)
    replacement: bool = flag(
        False, "draw each mini-batch afresh instead of cycling through the "
        "task's examples", True)
    learning_rate: float = flag(
        1e-3, "alpha, step size of the inner optimizer", True)
    inner_optimizer: str = flag(
        "adam", "inner optimizer", True, ("adam", "sgd"))
    inner_beta1: float = flag(
        0.0, "beta1, momentum of the inner Adam; the paper has none (section "
        "6.1)", True)
    inner_loss: str = flag(
        "sum", "inner loss: over the mini-batch", True, ("sum", "mean"))
    meta_step: float = flag(
        1.0, "epsilon, the outer step size at the first meta-iteration", True)
    meta_step_final: float = flag(
        0.0, "epsilon that it is annealed to, linearly", True)
    meta_batch: int = flag(5, "n, tasks per meta-iteration", True)
    meta_iters: int = flag(
        100_000, "outer steps of the run; 0 evaluates the untrained network",
        True)
    outer_optimizer: str = flag(
        "sgd", "outer optimizer; sgd is phi + epsilon (W - phi)", True,
        ("sgd", "adam"))
    gradient_weights: tuple[float, ...] = flag(
        (), "a_1..a_k, weights of the inner steps' gradients, such as "
        "0,0,1,1; of --algorithm=gradient_sum alone (section 6.2)", True)
    outer_clip: float = flag(
        0.0, "bound on each element of what the outer optimizer is given; 0 "
        "means none", True)
    tail_shots: int = flag(
        0, "examples per class set apart as the last mini-batch (separate "
        "tail); 0 means a shared tail", True)
    eval_batch: tuple[int, ...] = flag(
        (5,), "examples per inner mini-batch in evaluation; one value, or "
        "one for each of --shots")
    eval_iters: int = flag(50, "inner steps in evaluation")
    eval_samples: int = flag(10_000, "tasks of the final evaluation")
    eval_interval: int = flag(
        1000, "meta-iterations between periodic evaluations; 0 means none")
    eval_interval_samples: int = flag(
        100, "tasks of a periodic evaluation, and of the untrained network's")
    eval_splits: str = flag(
        "all", "splits of the final evaluation: all, or the test split "
        "alone", False, ("all", "test"))
    weight_decay: float = flag(
        1.0, "factor on all weights before each inner step; 1 means none",
        True)
    seed: int = flag(
        0, "of the split, weights and tasks; a list, such as 0,1,2, makes a "
        "run of each", True)
    task_order: str = flag(
        "parallel", "whether each slot of the meta-batch keeps its own inner "
        "Adam v, or v passes through the tasks one after the other", True,
        TASK_ORDERS)
    mixed_bfloat16: bool = flag(
        False, "compute the network in bfloat16, in training and in "
        "evaluation; weights, (v, t), batch-norm statistics, loss and outer "
        "step stay in float32, and what is exported computes in float32",
        True)
    recompute_gradients: bool = flag(
        False, "MAML in the memory of one inner step: run each again on the "
        "way back", True)
    jit_compile: str = flag(
        "auto", "XLA; auto: on a GPU, and on the CPU where it is measured "
        "best", True, JIT_COMPILE)
    distribution: str = flag(
        "none", "who shares the tasks of a meta-batch: one device, mirrored: "
        "all GPUs of this machine, multi_worker: the machines of TF_CONFIG",
        False, DISTRIBUTIONS)
    run_dir: str = flag(
        "", "folder of the run; empty means "
        "runs/<dataset>-<algorithm>-seed<seed>; of several runs the folder "
        "that holds theirs, empty runs/<dataset>-compare")
    pretrained: bool = flag(
        False, "no training: evaluate the newest checkpoint of --run_dir")
    export: bool = flag(
        True, "write the SavedModel and model.keras of the initialization")
    resume: bool = flag(
        True, "go on from the newest checkpoint; --noresume refuses a "
        "--run_dir that is not empty")
    num_threads: int = flag(0, "CPU threads; 0 means all")

    @property
    def inner(self) -> InnerConfig:
        """The inner optimizer's part."""
        return InnerConfig(self.learning_rate, self.inner_optimizer,
                           self.inner_loss, self.weight_decay,
                           self.mixed_bfloat16, self.inner_beta1)

    @property
    def meta(self) -> MetaConfig:
        """The outer loop's part."""
        return MetaConfig(
            self.algorithm, self.meta_step, self.meta_step_final,
            self.meta_batch, self.meta_iters, self.outer_optimizer,
            self.outer_clip, self.task_order, self.recompute_gradients,
            self.gradient_weights)

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

    def evaluations(self) -> list[tuple[int, int]]:
        """(shots, eval_batch) pairs."""
        batches = self.eval_batch * (
            len(self.shots) if len(self.eval_batch) == 1 else 1)
        return list(zip(self.shots, batches, strict=True))

    def check(self) -> None:
        """Raise InputError for combinations that no data could satisfy."""
        at_least(self, 1, "inner_batch", "inner_iters", "eval_samples",
                 "eval_interval_samples")
        at_least(self, 0, "train_shots", "tail_shots", "eval_iters",
                 "eval_interval", "seed", "num_threads")
        for name in ("shots", "eval_batch"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                raise InputError(f"{name}={_text(values)} must be positive "
                                 "numbers, such as 5 or 1,5")
        if len(set(self.shots)) < len(self.shots):
            raise InputError(f"shots={_text(self.shots)} repeats a value")
        if len(self.eval_batch) not in (1, len(self.shots)):
            raise InputError(
                f"eval_batch={_text(self.eval_batch)} has "
                f"{len(self.eval_batch)} values and "
                f"shots={_text(self.shots)} has {len(self.shots)}: give one "
                "value, or one for each of --shots")
        if not self.train_shots and len(self.shots) > 1:
            raise InputError(
                f"train_shots=0 means --shots, but shots={_text(self.shots)} "
                "is a list: give --train_shots")
        if self.pretrained and not self.run_dir:
            raise InputError("--pretrained evaluates the newest checkpoint of "
                             "--run_dir: give --run_dir")
        self.inner, self.meta  # noqa: B018 (they check themselves)
        if self.gradient_weights:
            check_weights(self.gradient_weights, self.inner_iters)
        self._check_tail()
        self._check_replacement()

    def check_one_of_several(self) -> None:
        """Raise InputError if this cannot be one of a list's runs."""

    def _check_tail(self) -> None:
        shots = self.task.train_shots
        if self.tail_shots and self.tail_shots >= shots:
            raise InputError(
                f"tail_shots={self.tail_shots} are taken out of "
                f"train_shots={shots}: use {shots - 1} or fewer, or a larger "
                "--train_shots")
        fewest = 2 if self.tail_shots else REGISTRY[self.algorithm].min_iters
        if self.inner_iters < fewest:
            what = ("a separate tail" if self.tail_shots
                    else f"--algorithm={self.algorithm}")
            raise InputError(
                f"inner_iters={self.inner_iters} with {what}, whose last "
                f"step needs one before it: use {fewest} or more")

    def _check_replacement(self) -> None:
        if not self.replacement:
            return
        pool = self.ways * (self.task.train_shots - self.tail_shots)
        sizes = [("inner_batch", self.inner_batch, pool)] + [
            ("eval_batch", batch, self.ways * shots)
            for shots, batch in self.evaluations()]
        for name, batch, most in sizes:
            if batch > most:
                raise InputError(
                    f"{name}={batch} with --replacement is drawn without "
                    f"repeats from {most} examples: use {most} or fewer, or "
                    "--noreplacement")

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
                lines[name] = f"--{name}={_text(value)}"
        return lines

    @classmethod
    def training_flags(cls) -> list[str]:
        """Names of the flags that may not change on resume."""
        return [f.name for f in dataclasses.fields(cls)
                if f.metadata["training"]]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def at_least(config: Config, least: int, *names: str) -> None:
    """Raise InputError unless these flags are `least` or more."""
    for name in names:
        value = getattr(config, name)
        if not math.isfinite(value) or value < least:
            raise InputError(f"{name}={value} must be {least} or more")
