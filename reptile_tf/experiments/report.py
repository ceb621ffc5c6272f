"""What an experiment leaves: its table, claims, JSON and figure."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reptile_tf.datasets.few_shot import mode_name
from reptile_tf.experiments.claims import Claim
from reptile_tf.experiments.outcomes import Column, Outcome
from reptile_tf.records.run_log import logger
from reptile_tf.reporting import plotting
from reptile_tf.reporting.plotting import Axes, Figure
from reptile_tf.reporting.tables import markdown_table


def write(home: Path, name: str, outcomes: Sequence[Outcome],
          claims: Sequence[Claim], figure: Figure,
          left_out: Sequence[str] = ()) -> None:
    """Print the table and claims; write them, JSON and the figure.

    Args:
      home: folder of the files.
      name: of the files.
      outcomes: the settings' finished runs.
      claims: what the paper states.
      figure: of these.
      left_out: settings that are impossible, and why.
    """
    lines = [*table(outcomes), "", *described(outcomes), *(
        f"Left out: {line}." for line in left_out)]
    if claims:
        lines += ["", "What the paper states, in points of accuracy with "
                  "95 % intervals:", *(f"- {claim}" for claim in claims)]
    for line in lines:
        logger().info("%s", line)
    home.mkdir(parents=True, exist_ok=True)
    (home / f"{name}.md").write_text("\n".join(lines) + "\n",
                                     encoding="utf-8")
    (home / f"{name}.json").write_text(json.dumps(
        as_json(outcomes, claims, left_out), indent=1) + "\n")
    for path in plotting.save(figure, home, name):
        logger().info("figure: %s", path)


def column_name(column: Column) -> str:
    """For the head of a table."""
    return f"{column[0]}-shot {mode_name(column[1])}"


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Final accuracies, as Markdown."""
    columns = outcomes[0].columns
    return markdown_table(
        [f"{outcomes[0].split} accuracy, %", *map(column_name, columns)],
        [[o.setting.name, *(str(o.final(column)) for column in columns)]
         for o in outcomes])


def plot_curve(axes: Axes, outcome: Outcome, column: Column,
               **style: Any) -> None:
    """Accuracy against meta-iterations: mean over seeds, and a band.

    The band is the standard deviation across seeds; one seed has none.
    """
    plotting.mean_and_band(axes, *outcome.curve(column),
                           label=outcome.setting.name, **style)


def interval_text(outcomes: Sequence[Outcome]) -> str:
    """What the ± of these is."""
    seeds = len(outcomes[0].results)
    return ("95 % interval over tasks" if seeds == 1
            else f"standard deviation across {seeds} seeds")


def in_short(outcomes: Sequence[Outcome]) -> str:
    """For the title of a figure."""
    seeds, first = len(outcomes[0].results), outcomes[0]
    return (f"{first.results[0]['meta_iters']:,} meta-iterations, "
            f"{first.configs[0].eval_samples:,} {first.split} tasks, "
            f"{seeds} seed{'s' * (seeds > 1)}")


def of_curves(outcomes: Sequence[Outcome]) -> str:
    """What the curves on the way are of."""
    first = outcomes[0]
    return (f"{first.configs[0].eval_interval_samples:,} {first.curve_split} "
            "tasks" + ("; band: standard deviation"
                       if len(first.results) > 1 else ""))


def _commits(outcomes: Sequence[Outcome]) -> list[str]:
    """Of the runs, each once: a stopped command may go on with another."""
    return sorted({commit for o in outcomes for r in o.results
                   for commit in (r["commit"], *r.get("trained_with", ()))})


def described(outcomes: Sequence[Outcome]) -> list[str]:
    """How these were measured."""
    result, config = outcomes[0].results[0], outcomes[0].configs[0]
    commits = _commits(outcomes)
    seeds = [str(r["seed"]) for r in outcomes[0].results]
    return [f"{result['ways']}-way, {result['meta_iters']:,} meta-iterations, "
            f"{config.eval_samples:,} {outcomes[0].split} tasks, "
            f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}; ±: "
            f"{interval_text(outcomes)}. Data: {result['data_source']}; "
            f"commit{'s' * (len(commits) > 1)} {', '.join(commits)}."]


def as_json(outcomes: Sequence[Outcome], claims: Sequence[Claim],
            left_out: Sequence[str]) -> dict[str, Any]:
    """Everything that the table and the figure show; accuracies in %."""
    settings = []
    for o in outcomes:
        final, curves = [], []
        for column in o.columns:
            what = dict(zip(("shots", "transductive"), column, strict=True))
            iterations, accuracies = o.curve(column)
            final.append({**what, "accuracies": o.accuracies(column),
                          **dataclasses.asdict(o.final(column))})
            curves.append({**what, "iterations": iterations.tolist(),
                           "accuracies": accuracies.tolist()})
        settings.append({
            "name": o.setting.name, "flagfile": o.setting.flagfile,
            "flags": list(o.setting.flags),
            "runs": [config.run_dir for config in o.configs],
            "wall_seconds": [r["wall_seconds"] for r in o.results],
            "final": final, "curves": curves})
    result = outcomes[0].results[0]
    return {
        **{key: result[key] for key in (
            "dataset", "data_source", "ways", "meta_iters", "versions",
            "device", "num_threads")},
        "commits": _commits(outcomes),
        "seeds": [r["seed"] for r in outcomes[0].results],
        "eval_samples": outcomes[0].configs[0].eval_samples,
        "split": outcomes[0].split, "curve_split": outcomes[0].curve_split,
        "interval": interval_text(outcomes), "settings": settings,
        "claims": [{"text": c.text, **dataclasses.asdict(c.estimate),
                    "verdict": c.verdict} for c in claims],
        "left_out": list(left_out)}
