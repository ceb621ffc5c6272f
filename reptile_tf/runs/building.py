"""What a run is made of: its trainer and its evaluator."""

import keras

from reptile_tf.configuration.config import Config
from reptile_tf.datasets.task_source import TaskSource
from reptile_tf.execution import engine as engines
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning.evaluation import Evaluator
from reptile_tf.learning.meta_training import MetaTrainer


def trainer_of(source: TaskSource, config: Config, model: keras.Model,
               replicas: Replicas | None = None,
               engine: engines.Engine | None = None) -> MetaTrainer:
    """The trainer of a run, at its start; a run chooses its engine."""
    return MetaTrainer(
        model, config.inner, config.meta, source.loss, source.lookup,
        engine or engines.choose(model, config.jit_compile),
        iterations_per_call=source.iterations_per_call, replicas=replicas)


def evaluator_of(source: TaskSource, config: Config, trainer: MetaTrainer
                 ) -> Evaluator:
    """The evaluator of a trainer, with the modes and steps of the flags."""
    return Evaluator(
        trainer.inner_loop, trainer.engine, source.lookup, config.modes,
        config.eval_steps, source.measure, source.fetch, trainer.replicas)
