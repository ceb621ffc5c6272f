"""Evaluations of a run: periodic ones, and the final one."""

import itertools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from reptile_tf.learning.learner import Learner
from reptile_tf.learning.weights import checksum
from reptile_tf.records.scored_cells import ScoredCells
from reptile_tf.runs.building import learner_of
from reptile_tf.runs.experiment import Experiment
from reptile_tf.runs.interrupts import Interrupts
from reptile_tf.tasks import evaluation_generator


def score(run: Experiment, learner: Learner, split: str, number: int,
          iteration: int, interrupts: Interrupts) -> list[dict[str, Any]]:
    """Result rows of one split."""
    return [row for shots, batch in run.config.evaluations()
            for row in _score_cell(run, learner, split, number, iteration,
                                   interrupts, shots, batch)]


def _score_cell(run: Experiment, learner: Learner, split: str, number: int,
                iteration: int, interrupts: Interrupts, shots: int, batch: int,
                progress: Callable[[int], Any] = lambda number: None
                ) -> list[dict[str, Any]]:
    """Result rows of one K on one split, one for each mode."""
    def between(number_scored):
        interrupts.check()
        progress(number_scored)

    drawn = run.source.evaluation_tasks(
        split, shots, batch, number,
        evaluation_generator(run.config.seed, split, shots, iteration))
    run.say_compiling(f"the evaluation with shots={shots}")
    return [run.source.row(split, shots, batch, measured)
            for measured in run.evaluator.evaluate(
                learner.weights, learner.state, drawn, between)]


def final(run: Experiment, interrupts: Interrupts
          ) -> tuple[dict[str, Any], ScoredCells]:
    """Evaluate phi, and what it was at the start, on every split.

    What was scored before a stop is not scored again.

    Returns:
      result.json's content, and what is to be removed once it is written.
    """
    c, learner, iteration = run.config, run.trainer.learner, (
        run.trainer.iteration)
    run.log.info("final evaluation: %s tasks a cell of the "
                 "initialization, %s of the network at the start",
                 f"{c.eval_samples:,}", f"{c.eval_interval_samples:,}")
    untrained = learner_of(run.source, c, run.start.model, learner.engine,
                           run.start.state)
    sources = {"results": (learner, c.eval_samples),
               "untrained": (untrained, c.eval_interval_samples)}
    cells = [*itertools.product(c.final_splits(run.source.splits), sources,
                                c.evaluations())]
    start = checksum(untrained.weights)
    made_by = {"commit": run.commit, "code": f"{run.code:08x}",
               **run.environment()}
    scored = run.directory.scored_cells(
        c, weights=checksum(learner.weights), data=run.fingerprint,
        start=start,
        code=run.code, versions=made_by["versions"])
    # Of several processes all have to score the same.
    scored.keep(-run.replicas.maximum(-len(scored))[0])
    if scored.others:
        run.log.info("%s cells that are scored are of other code, data, "
                     "weights or flags: scored again", scored.others)
    if len(scored):
        run.log.info("going on with it: %s of %s cells are scored",
                     len(scored), len(cells))
        run.elapsed = max(run.elapsed, scored.seconds)
    numbers = [sources[name][1] for _, name, _ in cells]
    rows = {name: [] for name in sources}
    with run.progress.bar(run.log, sum(numbers),
                          sum(numbers[:len(scored)]), "task") as bar:
        for i, (split, name, (shots, batch)) in enumerate(cells):
            if i == len(scored):
                scored.add(_score_cell(
                    run, sources[name][0], split, numbers[i], iteration,
                    interrupts, shots, batch, bar.update), run.seconds())
            rows[name] += scored[i]
    return {
        "algorithm": c.algorithm, "dataset": run.dataset.NAME,
        "data_source": run.source.source, "ways": c.ways,
        "shots": list(c.shots), "seed": c.seed,
        **({"init": c.init, "start_checksum": f"{start:08x}"} if c.init
           else {}),
        "meta_iters": iteration, "trained_with": run.commits, **made_by,
        "wall_seconds": round(run.seconds(), 1),
        **run.source.facts(lambda x: learner.inner_loop.outputs(
            learner.weights, tf.convert_to_tensor(x))), **rows}, scored
