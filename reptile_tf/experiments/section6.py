"""What the experiments of section 6 share: command line, runs, report.

An experiment is a list of settings, each a flagfile of configs/ and perhaps
further flags. Its command line has the flags of run_omniglot.py, for all of
its runs; --seed is a list, and --run_dir the folder that holds all.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reptile_tf import flags
from reptile_tf.cells import Cell, run_cells
from reptile_tf.config import Config
from reptile_tf.datasets.few_shot import mode_name
from reptile_tf.distribution import cluster_of
from reptile_tf.errors import InputError
from reptile_tf.experiments import plotting
from reptile_tf.experiments.outcomes import Claim, Column, Outcome, Setting
from reptile_tf.run_directory import logger

CONFIGS = Path(__file__).parents[2] / "configs"


class Command:
    """The command line of an experiment.

    Args:
      argv: the command's name and its arguments.
      name: of the experiment; names its folder and files.
      dataset: a module of `datasets`.
      flagfiles: of its settings, in configs/; a flag in which they differ
        cannot be given.
      config: dataset.CONFIG, or a subclass with flags of the experiment.

    Attributes:
      options: the flags; None if --help was asked for.
      seeds: each setting's.
      home: the folder of all runs.

    Raises:
      InputError: bad flags.
    """

    def __init__(self, argv: Sequence[str], name: str, dataset,
                 flagfiles: Sequence[str],
                 config: type[Config] | None = None) -> None:
        self.name, self.dataset = name, dataset
        self._argv, self._config = argv, config or dataset.CONFIG
        if not CONFIGS.is_dir():
            raise InputError(
                f"{CONFIGS} is not there: the experiments need the flagfiles "
                "of configs/, so run them from a checkout of the project")
        first, *others = map(self._values, flagfiles)
        own = {name for each in others for name in first
               if each[name] != first[name]}
        self._refuse(own)
        base = Setting("", "", flagfiles[0])
        runs = flags.runs(self._line(base), self._config, dataset.DEFAULTS)
        self.seeds = list(dict.fromkeys(run["seed"] for run in runs))
        # What --help says, too; the same values as without these defaults.
        self.options = flags.parse(
            self._line(base, f"--seed={self.seeds[0]}"), self._config,
            {**dataset.DEFAULTS, **first,
             "run_dir": f"runs/{dataset.NAME}-{name}"}, hidden=own)
        if self.options is not None:
            self.home = Path(self.options.run_dir)

    def _line(self, setting: Setting, *more: str) -> list[str]:
        return [self._argv[0], f"--flagfile={CONFIGS / setting.flagfile}",
                *self._argv[1:], *setting.flags, *more]

    def _parse(self, setting: Setting, *more: str) -> Config | None:
        return flags.parse(self._line(setting, *more), self._config,
                           self.dataset.DEFAULTS)

    def config(self, setting: Setting, seed: int) -> Config:
        """A run's, without the flags of the experiment."""
        config = self._parse(
            setting, f"--seed={seed}",
            f"--run_dir={self.home}/{setting.folder}-seed{seed}")
        return self.dataset.CONFIG(**{
            field.name: getattr(config, field.name)
            for field in dataclasses.fields(self.dataset.CONFIG)})

    def possible(self, settings: Sequence[Setting]
                 ) -> tuple[list[Setting], list[str]]:
        """The settings that can be, and a line for each that cannot.

        Raises:
          InputError: a flag was given that the settings are made of, or
            flags that no setting can have.
        """
        self._refuse_flags_of(settings)
        impossible = {}
        for setting in settings:
            self._parse(dataclasses.replace(setting, flags=()),
                        f"--seed={self.seeds[0]}")
            try:
                self.config(setting, self.seeds[0])
            except InputError as e:
                impossible[setting] = e
        for setting, error in impossible.items():
            if all(other in impossible for other in settings
                   if other.flags == setting.flags):
                raise error
        return ([s for s in settings if s not in impossible],
                [f"{s.name}: {e}" for s, e in impossible.items()])

    def _values(self, flagfile: str) -> dict[str, Any]:
        """Of all of the data set's flags, with this flagfile."""
        return dataclasses.asdict(flags.parse(
            ["", f"--flagfile={CONFIGS / flagfile}"], self.dataset.CONFIG,
            self.dataset.DEFAULTS))

    def _refuse_flags_of(self, settings: Sequence[Setting]) -> None:
        self._refuse({flag.lstrip("-").partition("=")[0]
                      for setting in settings for flag in setting.flags})

    def _refuse(self, own: set[str]) -> None:
        """Raise InputError if a flag was given that makes a setting."""
        given = flags.given(self._argv, self._config, self.dataset.DEFAULTS)
        for name in sorted(own & given):
            raise InputError(
                f"--{name} cannot be given: {self.name} sets it, for each of "
                "its runs")

    def run(self, settings: Sequence[Setting]) -> list[Outcome]:
        """Train and evaluate each setting with each seed (`run_cells`).

        Raises:
          InputError: a flag was given that the settings are made of, or a
            setting is impossible with those given, before anything runs; or
            some runs failed.
          Stopped: a signal came.
        """
        self._refuse_flags_of(settings)
        configs = [tuple(self.config(setting, seed) for seed in self.seeds)
                   for setting in settings]
        # Seeds in the outer loop: after the first, every setting has a run.
        done = {}
        cells = [Cell(f"{setting.name}, seed {config.seed}", config)
                 for of_seed in zip(*configs, strict=True)
                 for setting, config in zip(settings, of_seed, strict=True)]
        for cell, result in zip(cells, run_cells(self.dataset, cells),
                                strict=True):
            done[cell.config.run_dir] = result
        return [Outcome(setting, of_setting, tuple(
            done[config.run_dir] for config in of_setting))
            for setting, of_setting in zip(settings, configs, strict=True)]

    def report(self, outcomes: Sequence[Outcome], claims: Sequence[Claim],
               figure: Figure, left_out: Sequence[str] = (),
               name: str = "") -> None:
        """Print the table and claims; write them, JSON and the figure.

        Of several processes the chief does.
        """
        if not cluster_of(self.options.distribution).chief:
            return
        name = name or self.name
        lines = [*table(outcomes), "", *described(outcomes), *(
            f"Left out: {line}." for line in left_out)]
        if claims:
            lines += ["", "What the paper states, in points of accuracy with "
                      "95 % intervals:", *(f"- {claim}" for claim in claims)]
        for line in lines:
            logger().info("%s", line)
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / f"{name}.md").write_text("\n".join(lines) + "\n")
        (self.home / f"{name}.json").write_text(json.dumps(
            as_json(outcomes, claims, left_out), indent=1) + "\n")
        for path in plotting.save(figure, self.home, name):
            logger().info("figure: %s", path)


def column_name(column: Column) -> str:
    """For the head of a table."""
    return f"{column[0]}-shot {mode_name(column[1])}"


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Final test accuracies, as Markdown."""
    columns = outcomes[0].columns
    return ["| test accuracy, % | " + " | ".join(
        map(column_name, columns)) + " |", "|---" * (len(columns) + 1) + "|",
        *(f"| {o.setting.name} | " + " | ".join(
            str(o.final(column)) for column in columns) + " |"
          for o in outcomes)]


def plot_curve(axes: Axes, outcome: Outcome, column: Column,
               **style: Any) -> None:
    """Accuracy against meta-iterations: mean over seeds, and a band.

    The band is the standard deviation across seeds; one seed has none.
    """
    iterations, accuracies = outcome.curve(column)
    mean = accuracies.mean(0)
    [line] = axes.plot(iterations, mean, label=outcome.setting.name, **style)
    if len(accuracies) > 1:
        std = accuracies.std(0, ddof=1)
        axes.fill_between(iterations, mean - std, mean + std, lw=0,
                          alpha=0.15, color=line.get_color())


def interval_text(outcomes: Sequence[Outcome]) -> str:
    """What the ± of these is."""
    seeds = len(outcomes[0].results)
    return ("95 % interval over tasks" if seeds == 1
            else f"standard deviation across {seeds} seeds")


def in_short(outcomes: Sequence[Outcome]) -> str:
    """For the title of a figure."""
    seeds, of = len(outcomes[0].results), outcomes[0]
    return (f"{of.results[0]['meta_iters']:,} meta-iterations, "
            f"{of.configs[0].eval_samples:,} test tasks, "
            f"{seeds} seed{'s' * (seeds > 1)}")


def _commits(outcomes: Sequence[Outcome]) -> list[str]:
    """Of the runs, each once: a stopped command may go on with another."""
    return sorted({r["commit"] for o in outcomes for r in o.results})


def described(outcomes: Sequence[Outcome]) -> list[str]:
    """How these were measured."""
    result, config = outcomes[0].results[0], outcomes[0].configs[0]
    commits = _commits(outcomes)
    seeds = [str(r["seed"]) for r in outcomes[0].results]
    return [f"{result['ways']}-way, {result['meta_iters']:,} meta-iterations, "
            f"{config.eval_samples:,} test tasks, "
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
        "interval": interval_text(outcomes), "settings": settings,
        "claims": [{"text": c.text, **dataclasses.asdict(c.estimate),
                    "verdict": c.verdict} for c in claims],
        "left_out": list(left_out)}
