"""The parts of one run, and how far it is."""

import time
from typing import Any

from reptile_tf.configuration.config import Config
from reptile_tf.errors import InputError
from reptile_tf.execution import engine as engines
from reptile_tf.execution.replicas import Replicas
from reptile_tf.records.provenance import code, commit, environment
from reptile_tf.records.run_directory import RunDirectory
from reptile_tf.reporting.progress import Progress
from reptile_tf.runs import building
from reptile_tf.runs.required_memory import fitting
from reptile_tf.tasks import TRAINING_STREAM, generator


class Experiment:
    """One run of one configuration on one data set.

    Args:
      dataset: a module of `datasets`.
      config: the flags.
      directory: where it leaves its files.
      log: for the reader.
      progress: the line that shows how far it is.
      replicas: that share the work; None means one.

    Attributes:
      source, trainer, evaluator, sampler: what it runs.
      start: what it starts from.
      commit, code: that run; the files may change meanwhile.
      commits: that the meta-iterations so far were made with.
      rng: the sampler's whole state.
      fingerprint: of the data.
      elapsed: seconds of the run before this process.
      evaluated: the meta-iteration of the last periodic evaluation.
      started, last_save: times in this process.
    """

    def __init__(self, dataset, config: Config, directory: RunDirectory,
                 log, progress: Progress | None = None,
                 replicas: Replicas | None = None) -> None:
        self.replicas = replicas or Replicas()
        self.dataset, self.config = dataset, config
        self.commit, self.code = commit(), code()
        self.commits: list[str] = []
        self.directory, self.log = directory, log
        self.progress = progress or Progress()
        self.elapsed, self.evaluated = 0.0, 0
        self._compiled: set[str] = set()
        # The first checkpoint is of the start.
        self.last_save, self.started = float("-inf"), time.monotonic()
        self.source = dataset.load(config)
        log.info("data: %s", self.source.describe())
        if config.eval_splits not in ("all", *self.source.splits):
            raise InputError(
                f"eval_splits={config.eval_splits}: this data has no such "
                f"split, it has {', '.join(self.source.splits)}: use test or "
                "all" + ("; --val_classes=100 sets validation characters apart"
                         if hasattr(config, "val_classes") else ""))
        self.start = building.start_of(
            self.source, config,
            directory.start if directory.checkpoints.paths()
            and directory.start.is_dir() else None)
        if self.start.folder:
            log.info("start: %s", self.start.folder)
        self.trainer = building.trainer_of(
            self.source, config, self.start.model, self.replicas,
            fitting(self.start.model, config,
                    engines.choose(self.start.model, config.jit_compile),
                    self.replicas.number,
                    lambda tasks: -self.replicas.maximum(-tasks)[0]),
            self.start.state)
        learner = self.trainer.learner
        self.evaluator = building.evaluator_of(self.source, config, learner,
                                               self.replicas)
        self.rng = generator(config.seed, TRAINING_STREAM)
        self.sampler = self.source.sampler(self.rng)
        self.fingerprint = self.source.fingerprint()
        log.info("engine: %s", learner.engine)

    def say_compiling(self, what: str) -> None:
        """Before the first call of a function, which is silent for long."""
        if what not in self._compiled:
            self._compiled.add(what)
            self.log.info("compiling %s, ...", what)

    def environment(self) -> dict[str, Any]:
        """What bit-for-bit repetition depends on."""
        return {**environment(self.evaluator.engine.jit),
                "replicas": self.replicas.number}

    def seconds(self) -> float:
        """Of the run so far, interruptions not counted."""
        return self.elapsed + time.monotonic() - self.started
