"""What a run is made of: its start, its trainer and its evaluator."""

from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from reptile_tf import trained
from reptile_tf.configuration.config import Config
from reptile_tf.datasets.task_source import TaskSource
from reptile_tf.errors import InputError
from reptile_tf.execution import engine as engines
from reptile_tf.execution.replicas import Replicas
from reptile_tf.learning.evaluation import Evaluator
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.meta_training import MetaTrainer
from reptile_tf.learning.optimizers import InnerState


class Start(NamedTuple):
    """What a run starts from.

    Attributes:
      model: the network.
      state: its (v, t); None means zeros.
      folder: of the initialization, if it is one.
      trained_on: the classes that it knows.
    """

    model: keras.Model
    state: InnerState | None = None
    folder: Path | None = None
    trained_on: frozenset[str] = frozenset()


def start_of(source: TaskSource, config: Config, kept: Path | None) -> Start:
    """Of --init the initialization's network, else the data set's.

    Args:
      source, config: of the run.
      kept: a run's own copy of the initialization, once it has one.

    Raises:
      InputError: no initialization, one of other examples or ways, or one
        that knows classes it would be evaluated on.
    """
    own = source.network()
    if not config.init:
        return Start(own)
    folder = kept or trained.folder_of(config.init) or Path(config.init)
    given = trained.load_from(folder, source.loss)  # The run's loss counts.
    (there, ways), (here, asked) = (
        [list(x[0].shape[1:]) for x in (model.inputs, model.outputs)]
        for model in (given.architecture, own))
    if (there, ways) != (here, asked):
        raise InputError(
            f"init={config.init} is a network from {there} to {ways}, and "
            f"these tasks go from {here} to {asked}: use the flags that say "
            "what its examples were, or another initialization")
    kind = given.architecture.inputs[0].dtype
    if not kept and not tf.as_dtype(kind).is_floating:
        raise InputError(
            f"init={config.init} is a network that takes {kind}, and a run's "
            "pixels go from 0 to 1, of which that would cut fractions off: "
            "make it with a keras.Input of float32")
    splits = config.evaluated_splits(source.splits, source.curve) - {"train"}
    for split in sorted(splits if given.trained_on else ()):
        classes = source.classes(split)
        known = given.trained_on.intersection(classes)
        if known:
            raise InputError(
                f"init={config.init} was trained on {len(known):,} of the "
                f"{len(classes):,} {split} classes: split them as its run did "
                "(--seed and --val_classes, on Omniglot), or use other data")
    return Start(given.model, given.state, folder, given.trained_on)


def learner_of(source: TaskSource, config: Config, model: keras.Model,
               engine: engines.Engine | None = None,
               state: InnerState | None = None) -> Learner:
    """The learner of a run at its start, which chooses its engine.

    Args:
      source, config: of the run.
      model: the network.
      engine: None chooses by the model.
      state: (v, t) to start from, if the inner optimizer keeps such; else
        zeros.
    """
    learner = Learner(model, config.inner, source.loss, config.adaptation,
                      engine or engines.choose(model, config.jit_compile))
    own = learner.state
    if state and (len(state.v), len(state.m)) == (len(own.v), len(own.m)):
        learner.state = state
    return learner


def trainer_of(source: TaskSource, config: Config, model: keras.Model,
               replicas: Replicas | None = None,
               engine: engines.Engine | None = None,
               state: InnerState | None = None) -> MetaTrainer:
    """The trainer of a run, at its start; arguments as of `learner_of`."""
    return MetaTrainer(
        learner_of(source, config, model, engine, state), config.meta,
        source.lookup, iterations_per_call=source.iterations_per_call,
        replicas=replicas)


def evaluator_of(source: TaskSource, config: Config, learner: Learner,
                 replicas: Replicas | None = None) -> Evaluator:
    """The evaluator of a learner, with the modes and steps of the flags."""
    return Evaluator(
        learner.inner_loop, learner.engine, source.lookup, config.modes,
        config.eval_steps, source.measure, source.fetch, replicas)
