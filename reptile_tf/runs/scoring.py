"""Evaluations of a run: periodic ones, and the final one."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from reptile_tf.learning.learner import Learner
from reptile_tf.records.provenance import commit
from reptile_tf.runs.building import learner_of
from reptile_tf.runs.experiment import Experiment
from reptile_tf.runs.interrupts import Interrupts
from reptile_tf.tasks import evaluation_generator


def score(run: Experiment, learner: Learner, split: str, number: int,
          iteration: int, interrupts: Interrupts,
          progress: Callable[[int], Any] = lambda number: None
          ) -> list[dict[str, Any]]:
    """Result rows of one split."""
    c, rows = run.config, []

    def between(number_scored):
        interrupts.check()
        progress(number_scored)

    for shots, batch in c.evaluations():
        drawn = run.source.evaluation_tasks(
            split, shots, batch, number,
            evaluation_generator(c.seed, split, shots, iteration))
        run.say_compiling(f"the evaluation with shots={shots}")
        scores = run.evaluator.evaluate(learner.weights, learner.state,
                                        drawn, between)
        rows += [run.source.row(split, shots, batch, measured)
                 for measured in scores]
    return rows


def final(run: Experiment, interrupts: Interrupts) -> dict[str, Any]:
    """Evaluate phi and the untrained network on every split."""
    c, learner = run.config, run.trainer.learner
    run.log.info("final evaluation: %s tasks a cell of the "
                 "initialization, %s of the untrained network",
                 f"{c.eval_samples:,}", f"{c.eval_interval_samples:,}")
    untrained = learner_of(run.source, c, run.source.network(),
                           learner.engine)
    splits = run.source.splits if c.eval_splits == "all" else (
        c.eval_splits,)
    sources = (("results", learner, c.eval_samples),
               ("untrained", untrained, c.eval_interval_samples))
    rows = {"results": [], "untrained": []}
    total = len(splits) * len(c.shots) * sum(s[2] for s in sources)
    with run.progress.bar(run.log, total, 0, "task") as bar:
        for split in splits:
            for name, scored, number in sources:
                rows[name] += score(
                    run, scored, split, number, run.trainer.iteration,
                    interrupts, bar.update)
    return {
        "algorithm": c.algorithm, "dataset": run.dataset.NAME,
        "data_source": run.source.source, "ways": c.ways,
        "shots": list(c.shots), "seed": c.seed,
        "meta_iters": run.trainer.iteration, "commit": commit(),
        **run.environment(), "wall_seconds": round(run.seconds(), 1),
        **run.source.facts(lambda x: learner.inner_loop.outputs(
            learner.weights, tf.convert_to_tensor(x))), **rows}
