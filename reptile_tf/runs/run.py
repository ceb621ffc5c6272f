"""A run from its configuration to result.json."""

from pathlib import Path
from typing import Any

from reptile_tf.configuration.checks import unseen_examples
from reptile_tf.configuration.config import Config
from reptile_tf.errors import InputError
from reptile_tf.execution import devices
from reptile_tf.execution.cluster import cluster_of
from reptile_tf.execution.preparation import prepare_devices
from reptile_tf.execution.replicas import Replicas
from reptile_tf.execution.strategies import replicas_of
from reptile_tf.learning.non_finite import NonFiniteError
from reptile_tf.records.provenance import environment
from reptile_tf.records.run_directory import RunDirectory
from reptile_tf.records.run_log import log_to, logger
from reptile_tf.reporting.progress import Progress
from reptile_tf.runs.experiment import Experiment
from reptile_tf.runs.failures import as_input_errors
from reptile_tf.runs.interrupts import Interrupts, Stopped
from reptile_tf.runs.resuming import restore, save
from reptile_tf.runs.scoring import final
from reptile_tf.runs.training import train


def prepared_replicas(dataset, config: Config, log) -> Replicas:
    """Threads, GPUs and replicas, before TensorFlow's first operation."""
    cluster, tasks = cluster_of(config.distribution), 0
    if not dataset.FILLS_A_THREAD:
        devices.hide_gpus()  # A kernel's launch would take longer than it.
    elif config.jit_compile != "on":
        tasks = config.meta.slots // cluster.processes
    prepare_devices(tasks, config.num_threads, config.tf32,
                    config.deterministic)
    # Before they find one another: each says it itself.
    Replicas(cluster).check(config.meta.meta_batch, config.meta.task_order)
    return replicas_of(config.distribution, log.info)


def _log_devices(log) -> None:
    found = environment()
    log.info("device: %s, %s threads; TensorFlow %s, Keras %s",
             found["device"], found["num_threads"],
             found["versions"]["tensorflow"], found["versions"]["keras"])
    unused = devices.unused_gpu()
    if unused:
        log.warning("%s", unused)


def run_directory_of(dataset, config: Config) -> RunDirectory:
    """--run_dir, or its default."""
    return RunDirectory(
        Path(config.run_dir or (
            f"runs/{dataset.NAME}-{config.algorithm}-seed{config.seed}")),
        cluster_of(config.distribution).chief)


def run(dataset, config: Config, progress: Progress | None = None
        ) -> dict[str, Any]:
    """Train (or go on), export, evaluate; returns result.json's content.

    Args:
      dataset: a module of `datasets`.
      config: the flags.
      progress: the line that shows how far it is.

    Raises:
      InputError: bad input, or NaN or infinity; the last good checkpoint is
        kept.
      Stopped: a signal came; where it trains, a checkpoint was written.
    """
    log = logger()
    replicas = prepared_replicas(dataset, config, log)
    directory = run_directory_of(dataset, config)
    try:
        with (replicas.name_lost_workers(directory.progress),
              as_input_errors(directory.progress)):
            result = _run(dataset, config, directory, replicas, log, progress)
            replicas.part()
            return result
    finally:
        directory.close()


def _run(dataset, config: Config, directory: RunDirectory,
         replicas: Replicas, log, progress: Progress | None
         ) -> dict[str, Any]:
    replicas.maximum(0)  # All have started before one may fail.
    if directory.writes:
        directory.open(config)
        log_to(log, directory.path)
    replicas.maximum(0)  # The others wait until the chief has it open.
    finished = directory.finished(config)
    # Not all may see it: it may just have been written, or be elsewhere.
    missing, left, only = replicas.maximum(
        int(finished is None),
        int(finished is not None and directory.left_to_do(config)),
        int(finished is not None and not directory.checkpoints.paths()))
    if missing and only:
        replicas.part()
        raise InputError(
            f"not all workers see {directory.result}, beside which is no "
            "checkpoint: give all the same --run_dir on a file system that "
            "they share, or try it again in a minute")
    if missing:
        finished = None
    elif not left:
        log.info("already finished: %s%s", directory.result, (
            "; --pretrained evaluates it again"
            if directory.checkpoints.paths() else ", without a checkpoint"))
        if config.export and not directory.initialization.exists():
            log.warning("no initialization is there, and no checkpoint to "
                        "export")
        return report(dataset, finished, log)
    _log_devices(log)
    for line in unseen_examples(config):
        log.warning("warning: %s", line)
    with Interrupts(replicas.maximum) as interrupts:
        interrupts.at_once = True
        experiment = Experiment(dataset, config, directory, log, progress,
                                replicas)
        interrupts.at_once = False
        restore(experiment)
        if experiment.trainer.iteration < config.meta_iters:
            finished = None  # Its checkpoint is not there any more.
        try:
            if not config.pretrained:
                train(experiment, interrupts)
                if config.export:
                    _export(experiment)
            result, scored = finished, None
            if not finished:
                result, scored = final(experiment, interrupts)
        except Stopped as e:
            if not config.pretrained:
                save(experiment)
            replicas.maximum(0)  # The chief could write it.
            log.info("stopped by %s at meta-iteration %s; the same command "
                     "goes on from here", e,
                     f"{experiment.trainer.iteration:,}")
            replicas.part()
            raise
        except NonFiniteError as e:
            replicas.part()
            raise InputError(f"{e}, with another --run_dir; "
                             f"{directory.progress()} is kept") from e
    kept = directory.write_result(result, config)
    if scored:
        scored.remove()
    replicas.maximum(0)  # The chief could write it.
    if kept:
        log.info("the result of the evaluation before: %s", kept)
    log.info("result: %s", directory.result)
    return report(dataset, result, log)


def _export(run: Experiment) -> None:
    """Write initialization/."""
    learner = run.trainer.learner
    if run.directory.writes:
        learner.trained_on = run.start.trained_on.union(
            run.source.classes("train") if run.trainer.iteration else ())
        learner.save(run.directory.initialization)
    run.log.info("initialization: %s", run.directory.initialization)


def report(dataset, result: dict[str, Any], log) -> dict[str, Any]:
    """Log the table of a result; returns the result."""
    for line in dataset.table(result):
        log.info("%s", line)
    return result
