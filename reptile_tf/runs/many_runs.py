"""Several runs, one after the other: those of a table or figure."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reptile_tf.compare import command as compare
from reptile_tf.configuration.config import Config
from reptile_tf.errors import InputError
from reptile_tf.execution.cluster import cluster_of
from reptile_tf.records.run_log import log_error, logger
from reptile_tf.reporting.durations import duration
from reptile_tf.reporting.progress import Progress
from reptile_tf.runs.interrupts import Interrupts
from reptile_tf.runs.run import run


@dataclass(frozen=True)
class PlannedRun:
    """One run of several.

    Attributes:
      name: for the reader, such as "reptile, seed 1".
      config: its flags, with a run_dir of its own.
    """

    name: str
    config: Config


class ManyRunsProgress(Progress):
    """Which run is made, and how long all will take.

    A run is expected to last as long as the finished ones of its algorithm
    did, else as the finished ones, else as the one that runs.

    Args:
      planned: all of them.
    """

    def __init__(self, planned: Sequence[PlannedRun]) -> None:
        self._planned, self._now = planned, 0
        self._seconds: list[tuple[str, float]] = []
        self._parts: dict[str, float | None] = {}

    def start(self, index: int) -> None:
        """The run at this place starts."""
        self._now, self._parts = index, {}
        self.label = (f"[{index + 1}/{len(self._planned)}] "
                      f"{self._planned[index].name}")

    def finish(self, seconds: float) -> None:
        """It has lasted so long, interruptions not counted."""
        self._seconds.append(
            (self._planned[self._now].config.algorithm, seconds))

    def left(self, here: float | None = None, pace: float | None = None
             ) -> float | None:
        """Expected seconds to the end of all runs; None if nothing is known.

        Args:
          here: left of the run that is made; None: all of it.
          pace: its expected duration.
        """
        total = here or 0.0
        for planned in self._planned[self._now + (here is not None):]:
            seconds = ([s for a, s in self._seconds
                        if a == planned.config.algorithm]
                       or [s for _, s in self._seconds]
                       or ([] if pace is None else [pace]))
            if not seconds:
                return None
            total += sum(seconds) / len(seconds)
        return total

    def left_for_all(self, bar: dict[str, Any]) -> str:
        made = bar["n"] - bar["initial"]
        pace = bar["elapsed"] / made if made else 0.0
        # Of this run so far: its training, then its evaluation too. None of
        # which made nothing here.
        self._parts[bar["unit"]] = bar["total"] * pace if made else None
        left = self.left(
            (bar["total"] - bar["n"]) * pace, None if None in (
                self._parts.values()) else sum(self._parts.values()))
        return f", all: {duration(left)}" if made and left is not None else ""


def run_all(dataset, planned: Sequence[PlannedRun],
            report: Callable[[list[PlannedRun]], Any] = lambda finished: None
            ) -> list[dict[str, Any]]:
    """Train and evaluate each run, in order, by `run`.

    Finished runs are not made again and stopped ones go on, so that the same
    call after any stop goes on where it was. A run that fails does not take
    the others with it: their hours do not depend on it. (Of several processes
    one may fail alone, and then no longer makes the same run as the others:
    there a failure ends the list.)

    Args:
      dataset: a module of `datasets`.
      planned: the runs.
      report: called with the finished runs, if any, before an error.

    Returns:
      The contents of result.json, in order.

    Raises:
      InputError: at the end, naming the runs that failed; why is on standard
        error and in their run.log. Of several processes: at once.
      Stopped: a signal came; a checkpoint was written.
    """
    results, finished, failed, reasons = [], [], [], {}
    progress = ManyRunsProgress(planned)
    # A signal between two runs is the next one's, which can be saved and, of
    # several processes, stops in all.
    with Interrupts():
        for index, one in enumerate(planned):
            progress.start(index)
            left = progress.left()
            logger().info("%s%s", progress.label, "" if left is None else
                          f"; about {duration(left)} left for all")
            try:
                result = run(dataset, one.config, progress)
            except InputError as e:
                if cluster_of(one.config.distribution).processes > 1:
                    raise
                first = reasons.setdefault(str(e), one.name)
                failed.append(one.name)
                log_error(f"error: {one.name}: " + (
                    str(e) if first == one.name else f"the same as {first}"))
                continue
            finally:
                gc.collect()  # The run's network and data, before the next.
            progress.finish(result["wall_seconds"])
            results.append(result)
            finished.append(one)
    logger()  # What follows belongs to no run's run.log.
    if finished:
        report(finished)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(planned)} runs failed: "
            f"{'; '.join(failed)}. "
            "The same command tries these again; what is finished stays")
    return results


def compared(config: Config) -> Callable[[list[PlannedRun]], None]:
    """A report of `run_all`: finished runs beside each other and the paper.

    Args:
      config: one run's; of several processes the chief reports.
    """
    def show(finished: list[PlannedRun]) -> None:
        if cluster_of(config.distribution).chief:
            print()
            compare.show([one.config.run_dir for one in finished])

    return show


def run_lists(dataset, config: Config, runs: Sequence[dict[str, Any]],
              parse_with: Callable[..., Config]) -> None:
    """The runs of lists of --algorithm and --seed, and the table of them.

    Args:
      dataset: a module of `datasets`.
      config: the first run's, with the run_dir that will hold all.
      runs: algorithm and seed of each.
      parse_with: the Config of the command line with further flags.

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
    planned = [PlannedRun(
        f"{which['algorithm']}, seed {which['seed']}",
        parse_with(
            *(f"--{name}={value}" for name, value in which.items()),
            f"--run_dir={home}/{which['algorithm']}-seed{which['seed']}"))
        for which in runs]
    run_all(dataset, planned, compared(config))
