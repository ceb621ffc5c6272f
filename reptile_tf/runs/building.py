"""What a run is made of: its trainer and its evaluator."""

import keras

from reptile_tf.configuration.config import Config
from reptile_tf.datasets.task_source import TaskSource
from reptile_tf.execution import engine as engines
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning.evaluation import Evaluator
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.meta_training import MetaTrainer


def learner_of(source: TaskSource, config: Config, model: keras.Model,
               engine: engines.Engine | None = None) -> Learner:
    """An untrained learner of a run, which chooses its engine."""
    return Learner(model, config.inner, source.loss, config.adaptation,
                   engine or engines.choose(model, config.jit_compile))


def trainer_of(source: TaskSource, config: Config, model: keras.Model,
               replicas: Replicas | None = None,
               engine: engines.Engine | None = None) -> MetaTrainer:
    """The trainer of a run, at its start."""
    return MetaTrainer(
        learner_of(source, config, model, engine), config.meta, source.lookup,
        iterations_per_call=source.iterations_per_call, replicas=replicas)


def evaluator_of(source: TaskSource, config: Config, learner: Learner,
                 replicas: Replicas | None = None) -> Evaluator:
    """The evaluator of a learner, with the modes and steps of the flags."""
    return Evaluator(
        learner.inner_loop, learner.engine, source.lookup, config.modes,
        config.eval_steps, source.measure, source.fetch, replicas)
