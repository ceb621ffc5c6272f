"""A run from flags to result.json; the only reader of flags."""

import logging
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from reptile_tf import distribution, export, flags, memory, tasks
from reptile_tf import engine as engines
from reptile_tf.config import Config
from reptile_tf.distribution import Replicas
from reptile_tf.environment import commit, environment, use_threads
from reptile_tf.errors import InputError
from reptile_tf.evaluation import Evaluator
from reptile_tf.inner_loop import InnerState, Weights
from reptile_tf.interrupts import Interrupts, Stopped
from reptile_tf.meta_training import MetaTrainer, NonFiniteError
from reptile_tf.meta_updates import REGISTRY
from reptile_tf.progress import Progress, duration
from reptile_tf.run_directory import RunDirectory, log_to, logger

CHECKPOINT_SECONDS = 30
TIMED_CALLS = 10


class Experiment:
    """One run of one configuration on one data set.

    Args:
      dataset: a module of `datasets`.
      config: the flags.
      directory: where it leaves its files.
      log: for the reader.
      progress: the line that shows how far it is.
      replicas: that share the work; None means one.
    """

    def __init__(self, dataset, config: Config, directory: RunDirectory,
                 log, progress: Progress | None = None,
                 replicas: Replicas | None = None) -> None:
        self.replicas = replicas or Replicas()
        self.dataset, self.config = dataset, config
        self.directory, self.log = directory, log
        self.progress = progress or Progress()
        self.elapsed, self.evaluated = 0.0, 0
        # The first checkpoint is of the start.
        self._last_save, self._started = float("-inf"), time.monotonic()
        self.source = dataset.load(config)
        log.info("data: %s", self.source.describe())
        self.model = self.source.network()
        self._check_memory()
        self.trainer = self.trainer_of(self.model)
        self.evaluator = Evaluator(
            self.trainer.inner_loop, self.trainer.engine, self.source.lookup,
            config.modes, config.eval_steps, self.source.measure,
            self.source.fetch, self.replicas)
        self.rng = tasks.generator(config.seed, tasks.TRAINING_STREAM)
        self.sampler = self.source.sampler(self.rng)
        self.fingerprint = self.source.fingerprint()
        log.info("engine: %s", self.trainer.engine)

    def trainer_of(self, model) -> MetaTrainer:
        """A trainer at the start of the run."""
        source, c = self.source, self.config
        return MetaTrainer(
            model, c.inner, c.meta, source.loss, source.lookup,
            engines.choose(model, c.jit_compile),
            iterations_per_call=source.iterations_per_call,
            replicas=self.replicas)

    def _check_memory(self) -> None:
        c, update = self.config, REGISTRY[self.config.algorithm]
        # Outputs and their gradients; a tape keeps those of all inner steps.
        kept = update.second_order and not c.recompute_gradients
        examples = c.inner_batch * (c.inner_iters if kept else 1)
        slots = c.meta.slots // self.replicas.number
        memory.require(
            2 * memory.activations(self.model) * examples * slots,
            f"training on {slots} tasks of mini-batches of "
            f"{c.inner_batch} at once",
            "lower --inner_batch or --meta_batch, or use "
            "--task_order=sequential")

    # -- checkpoints --------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint of this very moment; all processes must."""
        arrays = self.trainer.state_dict()
        if self.directory.writes:
            self.directory.checkpoints.save(self.trainer.iteration, arrays, {
                "sampler": self.rng.bit_generator.state,
                "metrics": self.directory.metrics_text(),
                "evaluated": self.evaluated,
                "elapsed": self._seconds(),
                "data": self.fingerprint,
                "environment": self._environment()})
        self._last_save = time.monotonic()

    def restore(self) -> None:
        """Go on from the newest checkpoint, or start.

        Raises:
          InputError: the checkpoint was made from other data, or the workers
            of a run do not start alike.
        """
        self._load()
        # Where all have loaded, the chief may write.
        self.replicas.same({
            "their meta-iteration": self.trainer.iteration,
            "the checksum of their flags": zlib.crc32(
                repr(self.config.lines()).encode()),
            "that of their data": self.fingerprint,
            "that of their weights": zlib.crc32(
                b"".join(w.numpy().tobytes() for w in self.trainer.weights))})

    def _load(self) -> None:
        found = self.directory.checkpoints.load(self.log.warning)
        if found is None:
            if not self.config.pretrained:
                self.directory.reset_metrics()
            return
        arrays, meta = found
        if meta["data"] != self.fingerprint:
            raise InputError(
                f"{self.directory.path} was trained on other data than "
                f"{self.source.source}: use the same --data, --data_dir and "
                "--seed, or another --run_dir")
        then = {"replicas": 1, **meta["environment"]}
        for name, value in self._environment().items():
            if then.get(name) != value:
                self.log.warning(
                    "warning: %s was %s, now %s: the rest of the run may "
                    "differ in the last bits", name,
                    then.get(name), value)
        self.trainer.load_state_dict(arrays)
        self.rng.bit_generator.state = meta["sampler"]
        self.elapsed, self.evaluated = meta["elapsed"], meta["evaluated"]
        if not self.config.pretrained:
            self.directory.reset_metrics(meta["metrics"])
        self.log.info("going on from meta-iteration %s",
                      f"{self.trainer.iteration:,}")

    def _environment(self) -> dict[str, Any]:
        return {**environment(), "replicas": self.replicas.number}

    def _seconds(self) -> float:
        return self.elapsed + time.monotonic() - self._started

    # -- training -----------------------------------------------------------

    def train(self, interrupts: Interrupts) -> None:
        """Train to meta_iters, evaluating and saving on the way."""
        c, trainer = self.config, self.trainer
        calls = trainer.train(self.sampler, c.eval_interval)
        timed, spent, counted = 0, 0.0, 0
        with self.progress.bar(self.log, c.meta_iters, trainer.iteration,
                               "it") as bar:
            while True:
                done = trainer.iteration
                self._evaluate_if_due(done, interrupts)
                if interrupts.check(time.monotonic() - self._last_save
                                    > CHECKPOINT_SECONDS):
                    self.save()
                if done >= c.meta_iters:
                    break
                start = time.monotonic()
                made = next(calls) - done
                bar.update(made)
                timed += 1
                if timed > 1:  # The first call compiles.
                    spent += time.monotonic() - start
                    counted += made
                if timed == TIMED_CALLS:
                    self._log_duration(spent / counted)
        self.save()

    def _log_duration(self, seconds: float) -> None:
        left = self.config.meta_iters - self.trainer.iteration
        self.log.info(
            "expected duration: %s for %s meta-iterations of %.3g ms, "
            "evaluations not counted", duration(left * seconds), f"{left:,}",
            1e3 * seconds)

    def _evaluate_if_due(self, done: int, interrupts: Interrupts) -> None:
        c, split = self.config, self.source.curve
        if done <= self.evaluated or not c.eval_interval:
            return
        if done % c.eval_interval and done < c.meta_iters:
            return
        rows = self.score(self.trainer.weights, self.trainer.state, split,
                          c.eval_interval_samples, done, interrupts)
        self.directory.record(done, split, self.source.curve_values(rows))
        self.evaluated = done
        self.save()
        self.log.info("%s/%s  %s  (%s, %s tasks)", f"{done:,}",
                      f"{c.meta_iters:,}",
                      self.source.headline(rows), split,
                      c.eval_interval_samples)

    # -- evaluation ---------------------------------------------------------

    def score(self, phi: Weights, state: InnerState, split: str, number: int,
              iteration: int, interrupts: Interrupts,
              progress: Callable[[int], Any] = lambda tasks: None
              ) -> list[dict[str, Any]]:
        """Result rows of one split."""
        c, rows = self.config, []

        def between(number_scored):
            interrupts.check()
            progress(number_scored)

        for shots, batch in c.evaluations():
            drawn = self.source.evaluation_tasks(
                split, shots, batch, number,
                tasks.evaluation_generator(c.seed, split, shots, iteration))
            scores = self.evaluator.evaluate(phi, state, drawn, between)
            rows += [self.source.row(split, shots, batch, score)
                     for score in scores]
        return rows

    def final(self, interrupts: Interrupts) -> dict[str, Any]:
        """Evaluate phi and the untrained network on every split."""
        c, trainer = self.config, self.trainer
        self.log.info("final evaluation: %s tasks a cell of the "
                      "initialization, %s of the untrained network",
                      f"{c.eval_samples:,}", f"{c.eval_interval_samples:,}")
        untrained = self.trainer_of(self.source.network())
        splits = self.source.splits if c.eval_splits == "all" else ("test",)
        sources = (("results", trainer, c.eval_samples),
                   ("untrained", untrained, c.eval_interval_samples))
        rows = {"results": [], "untrained": []}
        total = len(splits) * len(c.shots) * sum(s[2] for s in sources)
        with self.progress.bar(self.log, total, 0, "task") as bar:
            for split in splits:
                for name, of, number in sources:
                    rows[name] += self.score(
                        of.weights, of.state, split, number,
                        trainer.iteration, interrupts, bar.update)
        return {
            "algorithm": c.algorithm, "dataset": self.dataset.NAME,
            "data_source": self.source.source, "ways": c.ways,
            "shots": list(c.shots), "seed": c.seed,
            "meta_iters": trainer.iteration, "commit": commit(),
            **self._environment(), "wall_seconds": round(self._seconds(), 1),
            **self.source.facts(lambda x: trainer.inner_loop.outputs(
                trainer.weights, tf.convert_to_tensor(x))), **rows}

    def export(self) -> None:
        """Write initialization/."""
        self.trainer.assign_to(self.model)
        export.save(
            self.model, self.trainer, self.config,
            self.directory.initialization if self.directory.writes else None)
        self.log.info("initialization: %s", self.directory.initialization)


def _prepare_devices(dataset, config: Config, log) -> Replicas:
    cluster = distribution.cluster_of(config.distribution)
    use_threads(config, dataset, cluster.processes)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    # Products in float32, as published: TF32 has 10 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return distribution.replicas_of(config.distribution, log.info)


def _log_devices(log) -> None:
    found = environment()
    log.info("device: %s, %s threads; TensorFlow %s, Keras %s",
             found["device"], found["num_threads"],
             found["versions"]["tensorflow"], found["versions"]["keras"])


def run_directory_of(dataset, config: Config) -> RunDirectory:
    """--run_dir, or its default."""
    return RunDirectory(
        Path(config.run_dir or (
            f"runs/{dataset.NAME}-{config.algorithm}-seed{config.seed}")),
        distribution.cluster_of(config.distribution).chief)


def run(dataset, config: Config, progress: Progress | None = None
        ) -> dict[str, Any]:
    """Train (or go on), export, evaluate; returns result.json's content.

    Args:
      dataset: a module of `datasets`.
      config: the flags.
      progress: the line that shows how far it is.

    Raises:
      InputError: bad input.
      NonFiniteError: NaN or infinity; the last good checkpoint is kept.
      Stopped: a signal came; a checkpoint was written.
    """
    log = logger()
    replicas = _prepare_devices(dataset, config, log)
    directory = run_directory_of(dataset, config)
    with replicas.losses(directory.progress):
        return _run(dataset, config, directory, replicas, log, progress)


def _run(dataset, config: Config, directory: RunDirectory,
         replicas: Replicas, log, progress: Progress | None
         ) -> dict[str, Any]:
    if directory.writes:
        directory.open(config)
        log_to(log, directory.path)
    replicas.highest(0)  # The others wait until the chief has it open.
    finished = directory.finished(config)
    if finished is not None:
        log.info("already finished: %s; --pretrained evaluates it again",
                 directory.result)
        return report(dataset, finished, log)
    _log_devices(log)
    with Interrupts(replicas.highest) as interrupts:
        interrupts.at_once = True
        experiment = Experiment(dataset, config, directory, log, progress,
                                replicas)
        interrupts.at_once = False
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
            raise InputError(f"{e}; {directory.progress()} is kept") from e
    directory.write_result(result, config)
    log.info("result: %s", directory.result)
    return report(dataset, result, log)


def report(dataset, result: dict[str, Any], log) -> dict[str, Any]:
    """Log the table of a result; returns the result."""
    for line in dataset.table(result):
        log.info("%s", line)
    return result


def main(
    dataset,
    argv: Sequence[str],
    by_algorithm: Mapping[str, Mapping[str, Any]] | None = None,
    work: Callable[..., Any] | None = None,
) -> int:
    """A script's whole work: parse flags, run; returns the exit status.

    Lists of --algorithm or --seed are several runs (`cells.run_lists`).

    Args:
      dataset: a module of `datasets`.
      argv: the script's name and its arguments.
      by_algorithm: defaults of flags that depend on --algorithm.
      work: what to do instead of a single run, with (dataset, config, again),
        where again(flag, ...) is the Config of argv with further flags.

    Returns:
      0, or 1 after an error, or 128 + the number of a signal that stopped it.
    """
    def again(*more: str) -> Config | None:
        return flags.parse([*argv, *more], dataset.CONFIG, dataset.DEFAULTS,
                           by_algorithm)

    def start() -> None:
        runs = flags.runs(argv, dataset.CONFIG, dataset.DEFAULTS)
        config = again(*(f"--{name}={value}"
                         for name, value in runs[0].items()))
        if config is not None and len(runs) > 1:
            from reptile_tf import cells  # It imports this module.
            cells.run_lists(dataset, config, runs, again)
        elif config is not None and work is not None:
            work(dataset, config, again)
        elif config is not None:
            run(dataset, config)

    return status_of(start)


def status_of(work: Callable[[], Any]) -> int:
    """Do a command's work; returns its exit status.

    Returns:
      0, or 1 after an error, or 128 + the number of a signal that stopped it.
    """
    try:
        work()
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
