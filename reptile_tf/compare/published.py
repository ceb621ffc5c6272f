"""The paper's numbers, tables 1 and 2 (section 6.1), and what made them.

What made them is in the flagfiles of configs/.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from reptile_tf.compare.finished_runs import (
    DATASETS,
    IMMATERIAL,
    Run,
    evaluation_batch,
    text_of,
)
from reptile_tf.configuration import flagfiles, flags
from reptile_tf.configuration.config import Config

# Flags that change a number by rounding alone, and the order of the tasks, by
# less than seeds do (results/README.md).
ALIKE = frozenset(("jit_compile", "recompute_gradients", "task_order"))


@dataclasses.dataclass(frozen=True)
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
# Test tasks of a cell, by algorithm.
_TASKS = {"reptile": 10_000, "maml": 600, "fomaml": 600}


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
    settings = _settings(dataset, ways, shots, algorithm)
    return Published(
        *_ROWS[row][_COLUMNS.index(column)],
        int(settings[0]["meta_iters"].partition("=")[2]), _TASKS[algorithm],
        settings)


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
        module = DATASETS[dataset]
        return _lines(module.CONFIG(**{
            **module.DEFAULTS, **module.BY_ALGORITHM.get(run.algorithm, {}),
            "algorithm": run.algorithm}), shots)
    ours = run.settings(shots)
    return max(_settings(dataset, ways, shots, run.algorithm), key=lambda s: (
        sum(ours.get(name) == line for name, line in s.items())))


@functools.cache
def _settings(dataset: str, ways: int, shots: int, algorithm: str
              ) -> tuple[dict[str, str], ...]:
    """The lines of the published run's flags, all that are as good: those of
    its flagfile."""
    name = f"{dataset}_{ways}way" + (
        "" if algorithm == "reptile" else f"_{shots}shot_{algorithm}")
    module = DATASETS[dataset]
    config = flags.parse(
        ["", f"--flagfile={flagfiles.FOLDER / name}.cfg", "--data_dir=."],
        module.CONFIG, module.DEFAULTS)
    return tuple(_lines(dataclasses.replace(config, **other), shots)
                 for other in _as_good(dataset, algorithm))


def _as_good(dataset: str, algorithm: str) -> list[dict[str, Any]]:
    """What may be otherwise: images of the size need no filter, and Finn et
    al.'s code, not their paper, sets 100 characters apart."""
    if dataset == "miniimagenet":
        return [{}, {"resize_filter":
                     "nearest" if algorithm == "reptile" else "lanczos"}]
    return [{}] if algorithm == "reptile" else [
        {"val_classes": 0}, {"val_classes": 100}]


def _lines(config: Config, shots: int | None) -> dict[str, str]:
    lines = config.lines()
    return lines | evaluation_batch(lines, shots)
