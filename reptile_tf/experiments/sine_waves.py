"""Figure 1 (section 4): sine functions before and after adaptation."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reptile_tf.datasets import sine
from reptile_tf.errors import InputError
from reptile_tf.execution.cluster import cluster_of
from reptile_tf.execution.engine import Engine
from reptile_tf.learning.evaluation import Evaluator
from reptile_tf.learning.rules import unweighted
from reptile_tf.reporting import plotting
from reptile_tf.reporting.plotting import Figure
from reptile_tf.runs import run as single
from reptile_tf.runs.building import learner_of
from reptile_tf.runs.experiment import Experiment
from reptile_tf.runs.many_runs import PlannedRun, run_all
from reptile_tf.runs.resuming import restore
from reptile_tf.tasks import EvaluationTasks, evaluation_generator

SHOWN_TASKS = 2
UNTRAINED = "random initialization"


@dataclasses.dataclass(frozen=True)
class Column:
    """What one column shows.

    Attributes:
      name: of the algorithm.
      settings: how it was trained, in one short line.
      before, after: outputs [T, 50] of phi and after eval_iters steps.
      mean_abs: mean |f| of phi over the 50 points.
      rows: of result.json.
    """

    name: str
    settings: str
    before: np.ndarray
    after: np.ndarray
    mean_abs: float
    rows: list[dict[str, Any]]


def run(dataset, config: sine.SineConfig,
        parse_with: Callable[..., sine.SineConfig]) -> None:
    """Train one algorithm, or all with --compare, and draw the figure."""
    home = single.run_directory_of(dataset, config).path
    if config.compare:
        home = Path(config.run_dir or f"runs/sine-compare-seed{config.seed}")
        planned = [
            PlannedRun(name, parse_with(f"--algorithm={name}", "--nocompare",
                                        f"--run_dir={home / name}"))
            for name in unweighted()]
        results = run_all(dataset, planned)
        configs = [one.config for one in planned]
    else:
        results, configs = [single.run(dataset, config)], [config]
    log = logging.getLogger("reptile_tf")
    if config.compare:
        for line in comparison([
                (start_of(config), rows_of(results[0]["untrained"], config)),
                *((r["algorithm"], rows_of(r["results"], config))
                  for r in results)]):
            log.info("%s", line)
    if not cluster_of(config.distribution).chief:
        return
    try:
        plotting.require("figure 1")
        opened = [reopen(dataset, one) for one in configs]
    except InputError as e:  # What was trained and printed is no less worth.
        log.warning("%s", e)
        return
    shown = shown_tasks(opened[0])
    # Every algorithm has the same inner loop: one compiled function for all.
    evaluator = Evaluator(
        opened[0].trainer.learner.inner_loop, Engine(True, False),
        modes=(True,), steps=(0, config.eval_iters))
    columns = [column_of(opened[0], results[0], shown, evaluator, False)] + [
        column_of(e, r, shown, evaluator)
        for e, r in zip(opened, results, strict=True)]
    for path in plotting.save(draw(columns, shown, config), home, "figure1"):
        log.info("figure: %s", path)


def reopen(dataset, config: sine.SineConfig) -> Experiment:
    """A finished run, from its newest checkpoint.

    Raises:
      InputError: it has none of the last phi.
    """
    config = dataclasses.replace(config, pretrained=True)
    directory = single.run_directory_of(dataset, config)
    if not directory.checkpoints.paths():
        raise InputError(
            f"figure 1 is not drawn: {directory.path} has no checkpoint. Copy "
            "its checkpoints there, or train in another --run_dir")
    silent = logging.getLogger("reptile_tf.reopened")
    silent.propagate = False
    silent.setLevel(logging.CRITICAL)
    opened = Experiment(dataset, config, directory, silent)
    restore(opened)
    if opened.trainer.iteration < config.meta_iters:
        raise InputError(
            "figure 1 is not drawn: the newest checkpoint of "
            f"{directory.path} that can be read is of meta-iteration "
            f"{opened.trainer.iteration:,}")
    return opened


def shown_tasks(opened: Experiment) -> EvaluationTasks:
    """The same for every algorithm of a seed."""
    c = opened.config
    shots, batch = c.evaluations()[0]
    return opened.source.evaluation_tasks(
        "test", shots, batch, SHOWN_TASKS,
        evaluation_generator(c.seed, "figure 1", shots, 0))


def column_of(opened: Experiment, result: dict[str, Any],
              shown: EvaluationTasks, evaluator: Evaluator,
              trained: bool = True) -> Column:
    """The column of a run, or of the network it started from."""
    c, source = opened.config, opened.source
    learner = (opened.trainer.learner if trained
               else learner_of(source, c, opened.start.model,
                               state=opened.start.state))
    before, after = (
        x.numpy()[..., 0] for x in evaluator.outputs(
            learner.weights, learner.state, shown))
    return Column(
        c.algorithm if trained else start_of(c),
        f"outer {c.outer_optimizer} {c.meta_step:g} to {c.meta_step_final:g}"
        if trained else "before this training" if c.init
        else "not meta-trained",
        before, after, float(np.abs(before[0]).mean()),
        rows_of(result["results" if trained else "untrained"], c))


def start_of(config: sine.SineConfig) -> str:
    """What the network before meta-training is called."""
    return "start" if config.init else UNTRAINED


def rows_of(rows: list[dict[str, Any]], config: sine.SineConfig
            ) -> list[dict[str, Any]]:
    """Those of the first of --shots, which the figure shows."""
    return [row for row in rows if row["points"] == config.shots[0]]


def comparison(named: list[tuple[str, list[dict[str, Any]]]]) -> list[str]:
    """Lines of text: mean squared error by steps and algorithm.

    Args:
      named: algorithms and their rows of result.json.
    """
    rows = named[0][1]
    lines = [f"mean squared error, {rows[0]['points']} points seen",
             f"  {'steps':24}{'tasks':>7}" + "".join(
                 f"{row['steps']:>9}" for row in rows)]
    return lines + [
        f"  {name:24}{rows[0]['tasks']:>7,}" + "".join(
            f"{row['mse']:>9.4f}" for row in rows)
        for name, rows in named]


def draw(columns: list[Column], shown: EvaluationTasks,
         config: sine.SineConfig) -> Figure:
    """One column per algorithm, and the curves of all below."""
    figure = Figure(figsize=(3.1 * max(len(columns), 3), 8.6),
                    layout="constrained")
    grid = figure.add_gridspec(SHOWN_TASKS + 1, len(columns),
                               height_ratios=[1] * SHOWN_TASKS + [1.5])
    x = np.linspace(*config.x_range, sine.GRID_POINTS)
    high = 1.25 * max(np.abs(shown.query_targets).max(), 1.0)
    for j, column in enumerate(columns):
        for i in range(SHOWN_TASKS):
            axes = figure.add_subplot(grid[i, j])
            axes.plot(x, shown.query_targets[i, :, 0], color="black", lw=1,
                      label="truth")
            axes.plot(x, column.before[i], ":", color="#666666",
                      label="before")
            axes.plot(x, column.after[i], color=plotting.COLOURS[j], lw=2,
                      label=f"after {config.eval_iters} steps, in the "
                      "column's colour")
            axes.plot(shown.support_inputs[i, :, 0], seen_values(shown, i),
                      "^", color="black", ms=5, label="seen points")
            axes.set(ylim=(-high, high), xlim=config.x_range)
            axes.tick_params(labelleft=j == 0, labelbottom=i > 0)
            if i == 0:
                axes.set_title(f"{column.name}\n{column.settings}\nmean |f| "
                               f"before: {column.mean_abs:.2f}", fontsize=9)
            if j == 0:
                axes.set_ylabel(f"task {i + 1}: f(x)")
            if i == SHOWN_TASKS - 1:
                axes.set_xlabel("x", labelpad=1)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8,
                  loc="outside lower center", ncols=4)
    axes = figure.add_subplot(grid[-1, :])
    for j, column in enumerate(columns):
        steps = [row["steps"] for row in column.rows]
        mse = np.array([row["mse"] for row in column.rows])
        ci95 = np.array([row["ci95"] or 0 for row in column.rows])
        axes.plot(steps, mse, color=plotting.COLOURS[j], marker="o", ms=4,
                  linestyle=plotting.LINE_STYLES[j],
                  label=f"{column.name}, {column.rows[0]['tasks']:,} tasks")
        axes.fill_between(steps, mse - ci95, mse + ci95, alpha=0.2,
                          color=plotting.COLOURS[j], lw=0)
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.set_xticks(steps, steps)
    axes.set(yscale="log", xlabel="inner steps",
             ylabel="mean squared error on 50 points")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title(f"{columns[0].rows[0]['points']} points seen, mean of the "
                   "test tasks, band: 95 % interval", fontsize=9)
    figure.suptitle(
        f"Sine waves: {config.activation} network, "
        f"{config.meta_iters:,} meta-iterations, seed {config.seed}")
    return figure


def seen_values(shown: EvaluationTasks, i: int) -> np.ndarray:
    """f at the support points of task i; NaN where no mini-batch has it."""
    values = shown.support_targets[i, :, 0]
    seen = np.isin(np.arange(len(values)), shown.positions[i])
    return np.where(seen, values, np.nan)
