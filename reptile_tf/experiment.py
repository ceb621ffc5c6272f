"""A run from flags to result.json; the only reader of flags."""

import dataclasses
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import reptile_tf
from reptile_tf import export, tasks
from reptile_tf.config import Config
from reptile_tf.datasets import ImageData
from reptile_tf.errors import InputError
from reptile_tf.evaluation import Evaluator, Score
from reptile_tf.inner_loop import InnerState, Weights
from reptile_tf.interrupts import Interrupts, Stopped
from reptile_tf.meta_training import MetaTrainer, NonFiniteError
from reptile_tf.run_directory import RunDirectory, log_to, logger

CHECKPOINT_SECONDS = 30
TIMED_ITERATIONS = 10


def define_flags(defaults: dict[str, Any]) -> flags.FlagValues:
    """The project's flags, with a script's defaults, and no others."""
    values = flags.FlagValues()
    for field in dataclasses.fields(Config):
        default = defaults.get(field.name, field.default)
        text, choices = field.metadata["help"], field.metadata["choices"]
        if choices:
            flags.DEFINE_enum(field.name, default, choices, text, values)
        elif isinstance(default, bool) or default is None:
            flags.DEFINE_boolean(field.name, default, text, values)
        elif isinstance(default, int):
            flags.DEFINE_integer(field.name, default, text, flag_values=values)
        elif isinstance(default, float):
            flags.DEFINE_float(field.name, default, text, flag_values=values)
        elif isinstance(default, tuple):
            flags.DEFINE_string(field.name, ",".join(map(str, default)), text,
                                values)
        else:
            flags.DEFINE_string(field.name, default, text, values)
    flags.DEFINE_boolean("help", False, "show this", values, short_name="h")
    return values


def help_text(script: str, values: flags.FlagValues) -> str:
    """All flags with default, choices, unit and symbol."""
    lines = [f"usage: python {script} [--flagfile=FILE] [--flag=value ...]", ""]
    for field in dataclasses.fields(Config):
        flag, choices = values[field.name], field.metadata["choices"]
        kind = f" {{{','.join(choices)}}}" if choices else ""
        default = {None: "unset", "": "empty"}.get(flag.default, flag.default)
        lines += [f"  --{field.name}{kind}",
                  f"      {flag.help} (default: {default})"]
    return "\n".join(lines)


def parse(argv: Sequence[str], defaults: dict[str, Any]) -> Config | None:
    """The frozen Config of a command line; None if --help was asked for.

    Raises:
      InputError: an unknown flag or a value out of range.
    """
    values = define_flags(defaults)
    try:
        rest = values(list(argv))[1:]
    except (flags.Error, OSError) as e:
        raise InputError(f"{str(e).strip()} (--help lists the flags)") from e
    if values.help:
        print(help_text(Path(argv[0]).name, values))
        return None
    if rest:
        raise InputError(f"{rest[0]!r} is not a flag: flags start with --")
    chosen = {}
    for field in dataclasses.fields(Config):
        value = values[field.name].value
        if isinstance(field.default, tuple):
            try:
                value = tuple(int(v) for v in value.split(","))
            except ValueError as e:
                raise InputError(
                    f"{field.name}={value!r} must be numbers, such as 5 or "
                    "1,5") from e
        chosen[field.name] = value
    config = Config(**chosen)
    config.check()
    return config


class Experiment:
    """One run of one configuration on one data set.

    Args:
      dataset: a module of `datasets`.
      config: the flags.
      directory: where it leaves its files.
      log: for the reader.
    """

    def __init__(self, dataset, config: Config, directory: RunDirectory,
                 log) -> None:
        self.dataset, self.config = dataset, config
        self.directory, self.log = directory, log
        self.elapsed, self.evaluated = 0.0, 0
        self._last_save = self._started = time.monotonic()
        self.data: ImageData = dataset.load(config)
        config.check_data(self.data.splits)
        self._describe_data()
        images = tf.constant(self.data.images)
        self.lookup = lambda indices: tf.cast(
            tf.gather(images, indices), tf.float32) / 255.0
        self.model = dataset.build_model(config.classes, config.seed)
        self.trainer = MetaTrainer(self.model, config.inner, config.meta,
                                   lookup=self.lookup)
        self.evaluator = Evaluator(self.trainer.inner_loop,
                                   self.trainer.engine, self.lookup,
                                   config.modes)
        self.sampler = tasks.TaskSampler(
            self.data.splits["train"], config.task,
            tasks.generator(config.seed, tasks.TRAINING_STREAM))
        self.fingerprint = self.data.fingerprint()
        log.info("engine: %s", self.trainer.engine)

    def _describe_data(self) -> None:
        counts = ", ".join(f"{len(classes):,} {name} classes"
                           for name, classes in self.data.splits.items())
        self.log.info("data: %s: %s", self.data.source, counts)

    # -- checkpoints --------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of this very moment."""
        self.directory.checkpoints.save(
            self.trainer.iteration, self.trainer.state_dict(), {
                "sampler": self.sampler.rng.bit_generator.state,
                "metrics_size": self.directory.metrics_size(),
                "evaluated": self.evaluated,
                "elapsed": self._seconds(),
                "data": self.fingerprint,
                "environment": environment()})
        self._last_save = time.monotonic()

    def restore(self) -> None:
        """Go on from the newest checkpoint, or start.

        Raises:
          InputError: the checkpoint was made from other data.
        """
        found = self.directory.checkpoints.load(self.log.warning)
        if found is None:
            if not self.config.pretrained:
                self.directory.cut_metrics(0)
            return
        arrays, meta = found
        if meta["data"] != self.fingerprint:
            raise InputError(
                f"{self.directory.path} was trained on other data than "
                f"{self.data.source}: use the same --data, --data_dir and "
                "--seed, or another --run_dir")
        for name, value in environment().items():
            if meta["environment"].get(name) != value:
                self.log.warning(
                    "warning: %s was %s, now %s: the rest of the run may "
                    "differ in the last bits", name,
                    meta["environment"].get(name), value)
        self.trainer.load_state_dict(arrays)
        self.sampler.rng.bit_generator.state = meta["sampler"]
        self.elapsed, self.evaluated = meta["elapsed"], meta["evaluated"]
        if not self.config.pretrained:
            self.directory.cut_metrics(meta["metrics_size"])
        self.log.info("going on from meta-iteration %s",
                      f"{self.trainer.iteration:,}")

    def _seconds(self) -> float:
        return self.elapsed + time.monotonic() - self._started

    # -- training -----------------------------------------------------------

    def train(self, interrupts: Interrupts) -> None:
        """Train to meta_iters, evaluating and saving on the way."""
        c, trainer = self.config, self.trainer
        steps = trainer.train(self.sampler)
        first, spent = trainer.iteration, 0.0
        with self._progress(c.meta_iters, first, "it") as bar:
            while True:
                done = trainer.iteration
                self._evaluate_if_due(done, interrupts)
                if time.monotonic() - self._last_save > CHECKPOINT_SECONDS:
                    self.save()
                interrupts.check()
                if done >= c.meta_iters:
                    break
                start = time.monotonic()
                next(steps)
                bar.update()
                if first < done <= first + TIMED_ITERATIONS:
                    spent += time.monotonic() - start
                if done == first + TIMED_ITERATIONS:
                    self._log_duration(spent / TIMED_ITERATIONS)
        self.save()

    @contextmanager
    def _progress(self, total: int, done: int, unit: str) -> Iterator[tqdm]:
        with tqdm(total=total, initial=done, unit=unit, leave=False,
                  disable=not sys.stdout.isatty(), file=sys.stdout,
                  ncols=shutil.get_terminal_size().columns) as bar:
            if bar.disable:
                yield bar
            else:
                with logging_redirect_tqdm([self.log]):
                    yield bar

    def _log_duration(self, seconds: float) -> None:
        left = self.config.meta_iters - self.trainer.iteration
        self.log.info(
            "expected duration: %s for %s meta-iterations of %.0f ms, "
            "evaluations not counted", duration(left * seconds), f"{left:,}",
            1e3 * seconds)

    def _evaluate_if_due(self, done: int, interrupts: Interrupts) -> None:
        c = self.config
        if done <= self.evaluated or not c.eval_interval:
            return
        if done % c.eval_interval and done < c.meta_iters:
            return
        split = "val" if "val" in self.data.splits else "test"
        rows = self.score(self.trainer.weights, self.trainer.state, split,
                          c.eval_interval_samples, done, interrupts)
        self.directory.record(done, split, {
            f"accuracy_{row['shots']}shot_{mode_name(row['transductive'])}":
            row["accuracy"] for row in rows})
        self.evaluated = done
        self.save()
        self.log.info("%s/%s  %s  %s", f"{done:,}", f"{c.meta_iters:,}",
                      "  ".join(f"{row['shots']}-shot "
                                f"{mode_name(row['transductive'])} "
                                f"{100 * row['accuracy']:.1f} %"
                                for row in rows),
                      f"({split}, {c.eval_interval_samples} tasks)")

    # -- evaluation ---------------------------------------------------------

    def score(self, phi: Weights, state: InnerState, split: str, number: int,
              iteration: int, interrupts: Interrupts,
              progress: Callable[[int], Any] = lambda tasks: None
              ) -> list[dict[str, Any]]:
        """Result rows of one split: one per (shots, transductive)."""
        c, rows = self.config, []

        def between(number_scored):
            interrupts.check()
            progress(number_scored)

        for shots, batch in c.evaluations():
            drawn = tasks.evaluation_tasks(
                self.data.splits[split], c.classes, shots, batch,
                c.eval_iters, c.replacement, number,
                tasks.evaluation_generator(c.seed, split, shots, iteration))
            scores = self.evaluator.evaluate(
                phi, state, drawn, between)
            rows += [row_of(split, shots, batch, c.eval_iters, score)
                     for score in scores]
        return rows

    def final(self, interrupts: Interrupts) -> dict[str, Any]:
        """Evaluate phi and the untrained network on every split."""
        c, trainer = self.config, self.trainer
        self.log.info("final evaluation: %s tasks a cell of the "
                      "initialization, %s of the untrained network",
                      f"{c.eval_samples:,}", f"{c.eval_interval_samples:,}")
        untrained = MetaTrainer(
            self.dataset.build_model(c.classes, c.seed), c.inner, c.meta,
            engine=trainer.engine)
        splits = [s for s in ("test", "val", "train") if s in self.data.splits]
        sources = (("results", trainer, c.eval_samples),
                   ("untrained", untrained, c.eval_interval_samples))
        rows = {"results": [], "untrained": []}
        total = len(splits) * len(c.shots) * sum(s[2] for s in sources)
        with self._progress(total, 0, "task") as bar:
            for split in splits:
                for name, source, number in sources:
                    rows[name] += self.score(
                        source.weights, source.state, split, number,
                        trainer.iteration, interrupts, bar.update)
        return {
            "algorithm": c.algorithm, "dataset": self.dataset.NAME,
            "data_source": self.data.source, "ways": c.classes,
            "shots": list(c.shots), "seed": c.seed,
            "meta_iters": trainer.iteration, "commit": commit(),
            **environment(), "wall_seconds": round(self._seconds(), 1), **rows}

    def export(self) -> None:
        """Write initialization/."""
        self.trainer.assign_to(self.model)
        export.save(self.model, self.trainer, self.config,
                    self.directory.initialization)
        self.log.info("initialization: %s", self.directory.initialization)


def row_of(split: str, shots: int, batch: int, iters: int, score: Score
           ) -> dict[str, Any]:
    """A row of result.json."""
    return {"split": split, "shots": shots, **dataclasses.asdict(score),
            "eval_batch": batch, "eval_iters": iters}


def mode_name(transductive: bool) -> str:
    """How a batch-norm mode is called in tables and metrics."""
    return "transductive" if transductive else "non-transductive"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def environment() -> dict[str, Any]:
    """What bit-for-bit repetition depends on."""
    gpus = tf.config.list_physical_devices("GPU")
    device = (tf.config.experimental.get_device_details(gpus[0]).get(
        "device_name", "GPU") if gpus else f"CPU {_cpu_name()}")
    return {
        "versions": {"python": platform.python_version(),
                     "tensorflow": tf.__version__, "keras": keras.__version__,
                     "numpy": np.__version__,
                     "reptile_tf": reptile_tf.__version__},
        "device": device,
        "num_threads": (tf.config.threading.get_intra_op_parallelism_threads()
                        or _cpus())}


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of this code, "-dirty" if changed; else its version."""
    home = Path(__file__).resolve().parent
    try:
        def git(*words):
            return subprocess.run(
                ["git", "-C", str(home), *words], check=True, text=True,
                capture_output=True).stdout.strip()
        if not git("ls-files", "experiment.py"):
            return reptile_tf.__version__
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return reptile_tf.__version__


def table(result: dict[str, Any], split: str = "test") -> list[str]:
    """Accuracy of the untrained and of the meta-trained network."""
    before = {(r["split"], r["shots"], r["transductive"]): r
              for r in result["untrained"]}
    lines = [f"accuracy on {split} classes, {result['ways']}-way, % (95 % "
             "interval over tasks)",
             f"  {'':26}{'untrained':>16}{'meta-trained':>16}"]
    for row in result["results"]:
        if row["split"] != split:
            continue
        old = before[split, row["shots"], row["transductive"]]
        cells = "".join(
            f"{100 * r['accuracy']:>10.1f} ±{100 * r['ci95']:>4.1f}"
            for r in (old, row))
        name = f"{row['shots']}-shot {mode_name(row['transductive'])}"
        lines.append(f"  {name:26}{cells}")
    return lines


def _prepare_devices(config: Config, log) -> None:
    if config.num_threads:
        tf.config.threading.set_intra_op_parallelism_threads(
            config.num_threads)
        tf.config.threading.set_inter_op_parallelism_threads(
            config.num_threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    found = environment()
    log.info("device: %s, %s threads; TensorFlow %s, Keras %s",
             found["device"], found["num_threads"],
             found["versions"]["tensorflow"], found["versions"]["keras"])


def run(dataset, config: Config) -> dict[str, Any]:
    """Train (or go on), export, evaluate; returns result.json's content.

    Raises:
      InputError: bad input.
      NonFiniteError: NaN or infinity; the last good checkpoint is kept.
      Stopped: a signal came; a checkpoint was written.
    """
    log = logger()
    path = config.run_dir or (
        f"runs/{dataset.NAME}-{config.algorithm}-seed{config.seed}")
    directory = RunDirectory(Path(path))
    directory.open(config)
    log_to(log, directory.path)
    finished = directory.finished(config)
    if finished is not None:
        log.info("already finished: %s; --pretrained evaluates it again",
                 directory.result)
        return report(finished, log)
    _prepare_devices(config, log)
    with Interrupts() as interrupts:
        experiment = Experiment(dataset, config, directory, log)
        experiment.restore()
        try:
            if not config.pretrained:
                experiment.train(interrupts)
                if config.export:
                    experiment.export()
            result = experiment.final(interrupts)
        except Stopped as e:
            if not config.pretrained:
                experiment.save()
            log.info("stopped by %s at meta-iteration %s; the same command "
                     "goes on from here", e,
                     f"{experiment.trainer.iteration:,}")
            raise
        except NonFiniteError as e:
            newest = directory.checkpoints.iterations()
            raise InputError(
                f"{e}; " + (f"the checkpoint of meta-iteration {newest[-1]} "
                            f"in {directory.path} is kept" if newest else
                            "no checkpoint was written yet")) from e
    directory.write_result(result, config)
    log.info("result: %s", directory.result)
    return report(result, log)


def report(result: dict[str, Any], log) -> dict[str, Any]:
    """Log the table of a result; returns the result."""
    for line in table(result):
        log.info("%s", line)
    return result


def main(dataset, argv: Sequence[str]) -> int:
    """A script's whole work: parse flags, run; returns the exit status.

    0, or 1 after an error, or 128 + the number of a signal that stopped it.
    """
    try:
        config = parse(argv, dataset.DEFAULTS)
        if config is not None:
            run(dataset, config)
        return 0
    except InputError as e:
        logger_or_stderr(f"error: {e}")
        return 1
    except Stopped as e:
        return e.status
    except KeyboardInterrupt:
        return 130


def logger_or_stderr(message: str) -> None:
    """An error on standard error, and in run.log once there is one."""
    print(message, file=sys.stderr)
    for handler in logging.getLogger("reptile_tf").handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logging.LogRecord(
                "reptile_tf", logging.ERROR, "", 0, message, None, None))
