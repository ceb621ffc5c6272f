"""Several runs, made one after the other: the cells of a table or figure."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reptile_tf import compare, experiment
from reptile_tf.config import Config
from reptile_tf.distribution import cluster_of
from reptile_tf.errors import InputError
from reptile_tf.interrupts import Interrupts
from reptile_tf.progress import Progress, duration
from reptile_tf.run_directory import logger


@dataclass(frozen=True)
class Cell:
    """One run of several.

    Attributes:
      name: for the reader, such as "reptile, seed 1".
      config: its flags, with a run_dir of its own.
    """

    name: str
    config: Config


class CellsProgress(Progress):
    """Which cell runs, and how long all will take.

    A cell is expected to last as long as the finished ones of its algorithm
    did, else as the finished ones, else as the one that runs.

    Args:
      cells: all of them.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells, self._now = cells, 0
        self._seconds: list[tuple[str, float]] = []

    def start(self, index: int) -> None:
        """The cell at this place starts."""
        self._now = index
        self.label = (f"[{index + 1}/{len(self._cells)}] "
                      f"{self._cells[index].name}")

    def finish(self, seconds: float) -> None:
        """It has lasted so long, interruptions not counted."""
        self._seconds.append(
            (self._cells[self._now].config.algorithm, seconds))

    def left(self, here: float | None = None, pace: float | None = None
             ) -> float | None:
        """Expected seconds to the end of all cells; None if nothing is known.

        Args:
          here: left of the cell that runs; None: all of it.
          pace: its expected whole duration.
        """
        total = here or 0.0
        for cell in self._cells[self._now + (here is not None):]:
            seconds = ([s for a, s in self._seconds
                        if a == cell.config.algorithm]
                       or [s for _, s in self._seconds]
                       or ([] if pace is None else [pace]))
            if not seconds:
                return None
            total += sum(seconds) / len(seconds)
        return total

    def whole(self, bar: dict[str, Any]) -> str:
        made = bar["n"] - bar["initial"]
        if not made:
            return ""
        each = bar["elapsed"] / made
        left = self.left((bar["total"] - bar["n"]) * each,
                         bar["total"] * each)
        return f", all: {duration(left)}"


def run_cells(dataset, cells: Sequence[Cell],
              report: Callable[[list[Cell]], Any] = lambda finished: None
              ) -> list[dict[str, Any]]:
    """Train and evaluate each cell, in order, by `experiment.run`.

    Finished cells are not run again and stopped ones go on, so that the same
    call after any stop goes on where it was. A cell that fails does not take
    the others with it: their hours do not depend on it. (Of several processes
    one may fail alone, and then no longer runs the same cell as the others:
    there a failure ends the list.)

    Args:
      dataset: a module of `datasets`.
      cells: the runs.
      report: called with the finished cells, if any, before an error.

    Returns:
      The contents of result.json, in order.

    Raises:
      InputError: at the end, naming the cells that failed; why is on standard
        error and in their run.log. Of several processes: at once.
      Stopped: a signal came; a checkpoint was written.
    """
    results, finished, failed, reasons = [], [], [], {}
    progress = CellsProgress(cells)
    # A signal between two runs is the next one's, which can be saved and, of
    # several processes, stops in all.
    with Interrupts():
        for index, cell in enumerate(cells):
            progress.start(index)
            left = progress.left()
            logger().info("%s%s", progress.label, "" if left is None else
                          f"; about {duration(left)} left for all")
            try:
                result = experiment.run(dataset, cell.config, progress)
            except InputError as e:
                if cluster_of(cell.config.distribution).processes > 1:
                    raise
                same = reasons.setdefault(str(e), cell.name)
                failed.append(cell.name)
                experiment.logger_or_stderr(f"error: {cell.name}: " + (
                    str(e) if same == cell.name else f"the same as {same}"))
                continue
            finally:
                gc.collect()  # The cell's network and data, before the next.
            progress.finish(result["wall_seconds"])
            results.append(result)
            finished.append(cell)
    logger()  # What follows belongs to no cell's run.log.
    if finished:
        report(finished)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(cells)} runs failed: {'; '.join(failed)}. "
            "The same command tries these again; what is finished stays")
    return results


def run_lists(dataset, config: Config, runs: Sequence[dict[str, Any]],
              again: Callable[..., Config]) -> None:
    """The runs of lists of --algorithm and --seed, and the table of them.

    Args:
      dataset: a module of `datasets`.
      config: the first run's, with the run_dir that will hold all.
      runs: algorithm and seed of each.
      again: the Config of the command line with further flags.

    Raises:
      InputError: bad input, before anything runs; or some runs failed.
      Stopped: a signal came; a checkpoint was written.
    """
    config.check_one_of_several()
    home = Path(config.run_dir or f"runs/{dataset.NAME}-compare")
    if home.is_file() or (home / "flags.cfg").exists():
        raise InputError(
            f"--run_dir={home} is {'a file' if home.is_file() else 'a run'}: "
            "name a folder that can hold several runs")
    cells = [Cell(
        f"{run['algorithm']}, seed {run['seed']}",
        again(*(f"--{name}={value}" for name, value in run.items()),
              f"--run_dir={home}/{run['algorithm']}-seed{run['seed']}"))
        for run in runs]

    def table(finished: list[Cell]) -> None:
        if cluster_of(config.distribution).chief:
            print()
            compare.show([cell.config.run_dir for cell in finished])

    run_cells(dataset, cells, table)
