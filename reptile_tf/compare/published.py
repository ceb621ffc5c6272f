"""The paper's numbers, tables 1 and 2 (section 6.1), and what made them.

Reptile: tables 3 to 5 of the paper. MAML and FOMAML, which the paper copied:
Finn et al. (2017), appendix A.1, and their code; configs/ has all of them as
flagfiles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reptile_tf.compare.finished_runs import (
    DATASETS,
    IMMATERIAL,
    Run,
    evaluation_batch,
    text_of,
)

# Flags that change a number by rounding alone, and the order of the tasks, by
# less than seeds do (results/README.md).
ALIKE = frozenset(("jit_compile", "recompute_gradients", "task_order"))


@dataclass(frozen=True)
class Published:
    """A cell of table 1 or 2.

    Attributes:
      accuracy: on test tasks, %.
      interval: its ±, %. Reptile: the standard deviation across 3 runs; MAML
        and FOMAML: the 95 % interval over tasks.
      meta_iters: of the training run behind it.
      tasks: that were tested on.
      settings: the run's flags as lines by name; several where the source
        has more than one, or leaves it open.
    """

    accuracy: float
    interval: float
    meta_iters: int
    tasks: int
    settings: tuple[Mapping[str, str], ...]

    def unlike(self, run: Run, shots: int, tasks: int) -> tuple[str, ...]:
        """In what the cell of a run is not as published.

        Every flag counts that is not known to change nothing.

        Args:
          run: a finished one.
          shots: K of the cell.
          tasks: that it was tested on; more are as good.
        """
        ours = run.settings(shots) | {
            "meta_iters": f"--meta_iters={run.result['meta_iters']}"}
        names = dict.fromkeys((*ours, *self.settings[0]))
        unlike = [
            f"{text_of(name, ours.get(name))} (paper: {self._value(name)})"
            for name in names
            if name not in (*IMMATERIAL, *ALIKE, "eval_samples")
            and all(ours.get(name) != s.get(name) for s in self.settings)]
        if tasks < self.tasks:
            unlike.append(f"{tasks:,} test tasks (paper: {self.tasks:,})")
        return tuple(unlike)

    def _value(self, name: str) -> str:
        return " or ".join(dict.fromkeys(
            text_of(name, lines.get(name)).removeprefix(f"{name}=")
            .removeprefix(f"{name} ") for lines in self.settings))


# (data set, ways, shots) of the columns, in the order of the rows below.
_COLUMNS = (("omniglot", 5, 1), ("omniglot", 5, 5), ("omniglot", 20, 1),
            ("omniglot", 20, 5), ("miniimagenet", 5, 1),
            ("miniimagenet", 5, 5))
# By (algorithm, transductive). MAML and FOMAML are transductive ("+
# transduction") alone.
_ROWS = {
    ("maml", True): ((98.7, 0.4), (99.9, 0.1), (95.8, 0.3), (98.9, 0.2),
                     (48.70, 1.84), (63.11, 0.92)),
    ("fomaml", True): ((98.3, 0.5), (99.2, 0.2), (89.4, 0.5), (97.9, 0.1),
                       (48.07, 1.75), (63.15, 0.91)),
    ("reptile", False): ((95.39, 0.09), (98.90, 0.10), (88.14, 0.15),
                         (96.65, 0.33), (47.07, 0.26), (62.74, 0.37)),
    ("reptile", True): ((97.68, 0.04), (99.48, 0.06), (89.43, 0.14),
                        (97.12, 0.32), (49.97, 0.32), (65.99, 0.58)),
}
# By (data set, ways). Reptile: learning_rate, inner_batch, inner_iters,
# train_shots, meta_iters, eval_batch by shots.
_REPTILE = {
    ("omniglot", 5): (0.001, 10, 5, 10, 100_000, {1: 5, 5: 5}),
    ("omniglot", 20): (0.0005, 20, 10, 10, 200_000, {1: 10, 5: 10}),
    ("miniimagenet", 5): (0.001, 10, 8, 15, 100_000, {1: 5, 5: 15})}
# MAML: their step size, steps in training and in testing, tasks by shots,
# and the bound on the meta-gradient.
_FINN = {
    ("omniglot", 5): (0.4, 1, 3, {1: 32, 5: 32}, 0.0),
    ("omniglot", 20): (0.1, 5, 5, {1: 16, 5: 16}, 0.0),
    ("miniimagenet", 5): (0.01, 5, 10, {1: 4, 5: 2}, 10.0)}


def published(dataset: str, ways: int, shots: int, algorithm: str,
              transductive: bool) -> Published | None:
    """The paper's number, if it has one.

    Args:
      dataset: NAME of a module of `datasets`.
      ways, shots: N and K of the test tasks.
      algorithm: a key of `rules.REGISTRY`.
      transductive: the batch-norm mode.
    """
    column, row = (dataset, ways, shots), (algorithm, transductive)
    if column not in _COLUMNS or row not in _ROWS:
        return None
    values = _values(dataset, ways, shots, algorithm)
    return Published(
        *_ROWS[row][_COLUMNS.index(column)], values["meta_iters"],
        values["eval_samples"], _settings(dataset, ways, shots, algorithm))


def usual_settings(run: Run, shots: int | None) -> dict[str, str]:
    """The flags of the published run of this kind; else the data set's.

    Of several that are as good, those that this run is the most like.
    """
    dataset, ways = run.result["dataset"], run.result["ways"]
    if dataset not in DATASETS:
        return {}
    published = (dataset, ways, shots) in _COLUMNS and any(
        run.algorithm == algorithm for algorithm, _ in _ROWS)
    if not published:
        return _lines(dataset, shots, {"algorithm": run.algorithm})
    ours = run.settings(shots)
    return max(_settings(dataset, ways, shots, run.algorithm), key=lambda s: (
        sum(ours.get(name) == line for name, line in s.items())))


def _settings(dataset: str, ways: int, shots: int, algorithm: str
              ) -> tuple[dict[str, str], ...]:
    """The lines of the published run's flags, all that are as good."""
    values = _values(dataset, ways, shots, algorithm)
    return tuple(_lines(dataset, shots, values | other)
                 for other in ({}, *_also(dataset, algorithm)))


def _values(dataset: str, ways: int, shots: int, algorithm: str
            ) -> dict[str, Any]:
    rows = _reptile if algorithm == "reptile" else _finn
    return rows(dataset, ways, shots) | {
        "algorithm": algorithm, "classes": ways, "shots": (shots,),
        "inner_loss": "sum", "inner_beta1": 0.0, "weight_decay": 1.0,
        "replacement": False}


def _reptile(dataset: str, ways: int, shots: int) -> dict[str, Any]:
    rate, batch, steps, train_shots, meta_iters, eval_batch = _REPTILE[
        dataset, ways]
    return {
        "inner_optimizer": "adam", "learning_rate": rate,
        "inner_batch": batch, "inner_iters": steps, "train_shots": train_shots,
        "tail_shots": 0, "outer_optimizer": "sgd", "outer_clip": 0.0,
        "meta_step": 1.0, "meta_step_final": 0.0, "meta_batch": 5,
        "meta_iters": meta_iters, "eval_batch": (eval_batch[shots],),
        "eval_iters": 50, "eval_samples": 10_000}


def _finn(dataset: str, ways: int, shots: int) -> dict[str, Any]:
    """Their loss is the sum over K, so that with ours alpha and the bound are
    alpha / K and K times the bound; the step on the queries is one more."""
    rate, steps, eval_steps, tasks, clip = _FINN[dataset, ways]
    queries = 15 if dataset == "miniimagenet" else shots
    return {
        "inner_optimizer": "sgd", "learning_rate": rate / shots,
        "inner_batch": ways * shots, "inner_iters": steps + 1,
        "train_shots": shots + queries, "tail_shots": queries,
        "outer_optimizer": "adam", "outer_clip": clip * shots,
        "network": "maml", "inner_frozen": "norm*/beta",
        "meta_step": 0.001, "meta_step_final": 0.001,
        "meta_batch": tasks[shots], "meta_iters": 60_000,
        "eval_batch": (ways * shots,), "eval_iters": eval_steps,
        "eval_samples": 600}


def _also(dataset: str, algorithm: str) -> list[dict[str, Any]]:
    """Values as good as the defaults: images of the size need no filter, and
    Finn et al.'s code, not their paper, sets 100 characters apart."""
    if dataset == "miniimagenet":
        return [{"resize_filter":
                 "nearest" if algorithm == "reptile" else "lanczos"}]
    return [] if algorithm == "reptile" else [{"val_classes": 100}]


def _lines(dataset: str, shots: int | None, values: dict[str, Any]
           ) -> dict[str, str]:
    module = DATASETS[dataset]
    lines = module.CONFIG(**{
        **module.DEFAULTS,
        **module.BY_ALGORITHM.get(values["algorithm"], {}), **values}).lines()
    return lines | evaluation_batch(lines, shots)
