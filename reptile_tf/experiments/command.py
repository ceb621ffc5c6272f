"""The command of an experiment of section 6: flags, runs, report.

An experiment is a list of settings, each a flagfile of configs/ and perhaps
further flags. Its command line has the flags of run_omniglot.py, for all of
its runs; --seed is a list, and --run_dir the folder that holds all.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reptile_tf.configuration import flagfiles, flags
from reptile_tf.configuration.config import Config
from reptile_tf.errors import InputError
from reptile_tf.execution.cluster import cluster_of
from reptile_tf.experiments import report
from reptile_tf.experiments.claims import Claim
from reptile_tf.experiments.outcomes import Outcome, Setting
from reptile_tf.reporting import plotting
from reptile_tf.reporting.plotting import Figure
from reptile_tf.runs.many_runs import PlannedRun, run_all


class Command:
    """The command line of an experiment.

    Args:
      argv: the command's name and its arguments.
      name: of the experiment; names its folder and files.
      dataset: a module of `datasets`.
      flagfiles: of its settings, in configs/; a flag in which they differ
        cannot be given.
      config: dataset.CONFIG, or a subclass with flags of the experiment.
      figure: whether it ends in one.
      common: flags of all its runs, unless others are given.

    Attributes:
      options: the flags; None if --help was asked for.
      seeds: each setting's.
      home: the folder of all runs.

    Raises:
      InputError: bad flags.
    """

    def __init__(self, argv: Sequence[str], name: str, dataset,
                 flagfiles: Sequence[str],
                 config: type[Config] | None = None,
                 figure: bool = True,
                 common: Sequence[str] = ()) -> None:
        self.name, self.dataset, self._common = name, dataset, common
        self._argv, self._config = argv, config or dataset.CONFIG
        if figure:
            plotting.require(f"{name}, which ends in a figure")
        first, *others = map(self._values, flagfiles)
        own = {name for values in others for name in first
               if values[name] != first[name]}
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
        return [self._argv[0],
                f"--flagfile={flagfiles.FOLDER / setting.flagfile}",
                *self._common, *self._argv[1:], *setting.flags, *more]

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
                        f"--seed={self.seeds[0]}", f"--run_dir={self.home}")
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
        """Of all of the data set's flags but its folder, with this flagfile.
        """
        values = dataclasses.asdict(flags.parse(
            # Some data sets need one.
            ["", f"--flagfile={flagfiles.FOLDER / flagfile}", *self._common,
             "--data_dir=."],
            self.dataset.CONFIG, self.dataset.DEFAULTS))
        del values["data_dir"]
        return values

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
        """Train and evaluate each setting with each seed (`run_all`).

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
        planned = [
            PlannedRun(f"{setting.name}, seed {config.seed}", config)
            for of_seed in zip(*configs, strict=True)
            for setting, config in zip(settings, of_seed, strict=True)]
        for one, result in zip(planned, run_all(self.dataset, planned),
                               strict=True):
            done[one.config.run_dir] = result
        return [Outcome(setting, of_setting, tuple(
            done[config.run_dir] for config in of_setting))
            for setting, of_setting in zip(settings, configs, strict=True)]

    def report(self, outcomes: Sequence[Outcome], claims: Sequence[Claim],
               figure: Figure, left_out: Sequence[str] = (),
               name: str = "") -> None:
        """Print and write what was found (`report.write`).

        Of several processes the chief does.
        """
        if cluster_of(self.options.distribution).chief:
            report.write(self.home, name or self.name, outcomes, claims,
                         figure, left_out)
