"""Whether a run's largest functions fit the memory, before anything long."""

import dataclasses
from collections.abc import Callable

import keras

from reptile_tf.configuration.config import Config
from reptile_tf.execution import memory
from reptile_tf.execution.engine import Engine
from reptile_tf.execution.memory import Estimate, estimate
from reptile_tf.learning.rules import REGISTRY


def fitting(model: keras.Model, config: Config, engine: Engine,
            replicas: int = 1,
            least: Callable[[int], int] = lambda tasks: tasks) -> Engine:
    """The engine, with as many evaluation tasks of a call as fit.

    Args:
      model: the run's.
      config: its flags.
      engine: chosen for them.
      replicas: that share the tasks of a meta-batch.
      least: of a number, the least of all processes'.

    Raises:
      InputError: training, or the evaluation of one task, does not fit.
    """
    if not config.pretrained and config.meta_iters:
        memory.require(
            training(model, config, engine, replicas),
            f"training on {config.meta.slots // replicas} tasks of "
            f"mini-batches of {config.inner_batch} at once",
            f"lower {_training_remedies(config)}")
    tasks = engine.tasks_per_call
    while tasks > 1 and not memory.fits(
            evaluation(model, config, engine, tasks)):
        tasks //= 2
    memory.require(evaluation(model, config, engine, tasks),
                   "evaluating a task", "lower --eval_batch or --shots" + (
                       " or --eval_queries" if config.eval_queries > 1
                       else ""))
    return dataclasses.replace(engine, tasks_per_call=least(tasks))


def training(model: keras.Model, config: Config, engine: Engine,
             replicas: int = 1) -> Estimate:
    """What a meta-iteration needs."""
    tail = config.ways * config.tail_shots
    return estimate(
        model, engine, config.meta.slots // replicas, config.inner_iters,
        config.inner_batch, tail or config.inner_batch,
        REGISTRY[config.algorithm].second_order, config.recompute_gradients)


def evaluation(model: keras.Model, config: Config, engine: Engine, tasks: int
               ) -> Estimate:
    """What evaluating so many tasks at once needs, of the largest shots."""
    needed = []
    for shots, batch in config.evaluations():
        # The queries as one batch, or each with the support set.
        scored = [config.ways * (config.eval_queries if mode else shots)
                  + (not mode) for mode in config.modes]
        needed.append(estimate(
            model, engine, tasks, config.eval_iters, batch,
            -(-max(scored) // 2)))
    return max(needed)


def _training_remedies(config: Config) -> str:
    """The flags that lower what training needs."""
    second_order = REGISTRY[config.algorithm].second_order
    parallel = config.meta.slots > 1
    lower = [name for name, helps in (
        ("--inner_batch", True), ("--meta_batch", parallel),
        ("--inner_iters", second_order),
        ("--tail_shots", bool(config.tail_shots))) if helps]
    use = [flag for flag, helps in (
        ("--task_order=sequential", parallel),
        ("--recompute_gradients",
         second_order and not config.recompute_gradients)) if helps]
    return " or ".join(lower) + (
        f", or use {' or '.join(use)}" if use else "")
