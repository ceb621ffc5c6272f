"""Training a run to its last meta-iteration, evaluating on the way."""

import time

from reptile_tf.reporting.durations import duration
from reptile_tf.runs.experiment import Experiment
from reptile_tf.runs.interrupts import Interrupts
from reptile_tf.runs.resuming import save
from reptile_tf.runs.scoring import score

CHECKPOINT_SECONDS = 30
TIMED_CALLS = 10


def train(run: Experiment, interrupts: Interrupts) -> None:
    """Train to meta_iters, evaluating and saving on the way."""
    c, trainer = run.config, run.trainer
    calls = trainer.train(run.sampler, c.eval_interval)
    timed, spent, counted, done = 0, 0.0, 0, trainer.iteration
    with run.progress.bar(run.log, c.meta_iters, done, "it") as bar:
        while True:
            _evaluate_if_due(run, done, interrupts)
            if interrupts.check(time.monotonic() - run.last_save
                                > CHECKPOINT_SECONDS):
                save(run)
            if done >= c.meta_iters:
                break
            run.say_compiling("the meta-iteration")
            start = time.monotonic()
            made = next(calls) - done
            done += made
            _note_commit(run)
            bar.update(made)
            timed += 1
            if timed > 1:  # The first call compiles.
                spent += time.monotonic() - start
                counted += made
            if timed == TIMED_CALLS:
                _log_duration(run, spent / counted)
    save(run)


def _note_commit(run: Experiment) -> None:
    """That the meta-iterations just made are of the code of this process."""
    if run.commit not in run.commits[-1:]:
        if run.commits:
            run.log.warning("warning: trained with the code of commit %s so "
                            "far, now %s", run.commits[-1], run.commit)
        run.commits.append(run.commit)


def _log_duration(run: Experiment, seconds: float) -> None:
    left = run.config.meta_iters - run.trainer.iteration
    run.log.info(
        "expected duration: %s for %s meta-iterations of %.3g ms, "
        "evaluations not counted", duration(left * seconds), f"{left:,}",
        1e3 * seconds)


def _evaluate_if_due(run: Experiment, done: int, interrupts: Interrupts
                     ) -> None:
    c, split = run.config, run.source.curve
    if done <= run.evaluated or not c.eval_interval:
        return
    if done % c.eval_interval and done < c.meta_iters:
        return
    rows = score(run, run.trainer.learner, split, c.eval_interval_samples,
                 done, interrupts)
    run.directory.record(done, split, run.source.curve_values(rows))
    run.evaluated = done
    save(run)
    run.log.info("%s/%s  %s  (%s, %s tasks)", f"{done:,}",
                 f"{c.meta_iters:,}", run.source.headline(rows), split,
                 c.eval_interval_samples)
