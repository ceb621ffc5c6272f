"""Figure 4 (section 6.3): mini-batches that overlap, shared and separate tails.

    python -m reptile_tf.experiments.overlap [--sweep=inner_iters]
        [--values=2,4,5,8] [--seed=0,1,2] [--data_dir=DIR] [--meta_iters=N] ...

Shared-tail FOMAML, cycling through a task's 100 examples or drawing each batch
afresh, separate-tail FOMAML and Reptile, against the number of inner steps
(4a), the inner batch (4b) or, on full batches, the outer step size (4c). What
two sweeps have in common is trained once.
"""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)
from collections.abc import Sequence
from dataclasses import dataclass

from reptile_tf import quiet_tensorflow  # noqa: F401

import numpy as np

from reptile_tf.configuration.config import Config
from reptile_tf.configuration.run_flags import flag
from reptile_tf.datasets import omniglot
from reptile_tf.errors import InputError
from reptile_tf.experiments import report
from reptile_tf.experiments.claims import (
    Claim,
    combination,
    difference,
)
from reptile_tf.experiments.command import Command
from reptile_tf.experiments.outcomes import Outcome, Setting
from reptile_tf.reporting import plotting
from reptile_tf.reporting.plotting import Figure
from reptile_tf.runs.command_line import status_of

METHODS = {
    "shared_tail_cycling": "shared-tail FOMAML, cycling",
    "shared_tail_replacement": "shared-tail FOMAML, with replacement",
    "separate_tail": "separate-tail FOMAML",
    "reptile": "Reptile",
}
FIGURES = {"inner_iters": "4a", "inner_batch": "4b", "meta_step": "4c"}
VALUES = {"inner_iters": (2, 4, 5, 8), "inner_batch": (10, 25, 50, 100),
          "meta_step": (0.1, 0.3, 1, 3)}
FULL_BATCH = 100  # Of 4c.
# {method: {value: its runs}}
Outcomes = dict[str, dict[float, Outcome]]


def config_of(dataset) -> type[Config]:
    """The data set's flags, and which sweep."""
    @dataclass(frozen=True)
    class OverlapConfig(dataset.CONFIG):
        sweep: str = flag("inner_iters", "what is varied: figure 4a, 4b or "
                          "4c", False, tuple(VALUES))
        values: tuple[float, ...] = flag(
            (), "its values; unset means " + "; ".join(
                f"{','.join(f'{v:g}' for v in values)} for {name}"
                for name, values in VALUES.items()))

        def check(self) -> None:
            super().check()
            if len(set(self.values)) < len(self.values):
                raise InputError(
                    f"values={','.join(f'{v:g}' for v in self.values)} "
                    "repeats a value")

    return OverlapConfig


def settings(options: Config) -> dict[tuple[str, float], Setting]:
    """By method and value; the folders do not depend on the sweep."""
    found = {}
    for value in sorted(options.values or VALUES[options.sweep]):
        own = {options.sweep: value}
        if options.sweep == "meta_step":
            own = {"inner_batch": FULL_BATCH, **own}
        name = ", ".join(f"{key} {v:.12g}" for key, v in own.items())
        folder = "-".join(f"{key}{own.get(key, getattr(options, key)):.12g}"
                          for key in VALUES)
        for method, words in METHODS.items():
            found[method, value] = Setting(
                f"{words}, {name}", f"{method}-{folder}",
                f"figure4_{method}.cfg",
                tuple(f"--{key}={v:.12g}" for key, v in own.items()))
    return found


def overlaps(config: Config) -> bool:
    """Whether cycling comes back to examples of an earlier mini-batch."""
    task = config.task
    return task.inner_iters * task.inner_batch > task.ways * task.train_shots


def claims(sweep: str, outcomes: Outcomes) -> list[Claim]:
    """What section 6.3 states of this sweep, as far as it was run."""
    if sweep == "meta_step":
        return _best_steps(outcomes)
    drops = {}
    for method, by_value in outcomes.items():
        before = [o for o in by_value.values() if not overlaps(o.configs[0])]
        after = [o for o in by_value.values() if overlaps(o.configs[0])]
        if before and after:
            drops[method] = [(1, before[-1]),
                             *((-1 / len(after), o) for o in after)]
    if len(drops) < len(METHODS):
        return []
    cycling, *others = METHODS
    column = drops[cycling][0][1].columns[0]
    found = [Claim(
        f"{METHODS[cycling]}, loses where its mini-batches repeat examples: "
        "the last value before minus the mean of those",
        combination(drops[cycling], column))]
    for method in others:
        own = combination(drops[method], column)
        less = [*drops[cycling], *((-c, o) for c, o in drops[method])]
        found.append(Claim(
            f"{METHODS[method]}, loses less at these values (it loses "
            f"{own.mean:+.2f})",
            combination(less, column)))
    return found


def _best_steps(outcomes: Outcomes) -> list[Claim]:
    column = _any(outcomes).columns[0]
    best = {method: max(by_value.values(),
                        key=lambda o: o.final(column).mean)
            for method, by_value in outcomes.items()}
    return [Claim(f"{METHODS[better]} minus {METHODS[worse]}, each at the best "
                  "of its outer steps",
                  difference(best[better], best[worse], column))
            for worse in ("shared_tail_cycling", "shared_tail_replacement")
            for better in ("separate_tail", "reptile")
            if {worse, better} <= best.keys()]


def _any(outcomes: Outcomes) -> Outcome:
    """All are evaluated alike."""
    return next(iter(next(iter(outcomes.values())).values()))


def draw(sweep: str, outcomes: Outcomes, title: str) -> Figure:
    """Final accuracy against the swept value, with a band of its ±."""
    one = _any(outcomes)
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axes = figure.subplots()
    column, every = one.columns[0], {}
    for i, (method, by_value) in enumerate(outcomes.items()):
        every |= {value: o.configs[0] for value, o in by_value.items()}
        mean, interval = np.array([
            (f.mean, f.interval) for f in (
                o.final(column) for o in by_value.values())]).T
        # Where two methods are the same, the first shows around the next.
        axes.plot([*by_value], mean, label=METHODS[method], marker="os^D"[i],
                  color=plotting.COLOURS[i], lw=1.8 if i else 3.6,
                  ms=6 if i else 9,
                  linestyle=plotting.LINE_STYLES[i])
        axes.fill_between([*by_value], mean - interval, mean + interval, lw=0,
                          color=plotting.COLOURS[i], alpha=0.13)
    if sweep == "meta_step":
        axes.set_xscale("log")
    else:
        _shade(axes, every)
    axes.minorticks_off()
    axes.set_xticks(sorted(every), [f"{v:g}" for v in sorted(every)])
    axes.set(
        xlabel={"inner_iters": "inner steps", "inner_batch": "inner batch",
                "meta_step": "outer step size at the start"}[sweep],
        ylabel=f"{one.split} accuracy, %, "
               f"{report.column_name(column)}")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=9, loc="outside lower center", ncols=2)
    axes.set_title(title, fontsize=8)
    figure.suptitle(f"Overlapping mini-batches (figure {FIGURES[sweep]})")
    return figure


def _shade(axes, configs: dict[float, Config]) -> None:
    """Mark where cycling repeats examples."""
    fewer = [v for v, c in configs.items() if not overlaps(c)]
    more = [v for v, c in configs.items() if overlaps(c)]
    if fewer and more:
        start, ends = (max(fewer) + min(more)) / 2, axes.get_xlim()
        axes.axvspan(start, ends[1], color="#000000", alpha=0.06, lw=0)
        axes.set_xlim(ends)
        axes.annotate("cycling repeats examples", (start, 0.01), xytext=(4, 2),
                      xycoords=("data", "axes fraction"), fontsize=8,
                      textcoords="offset points", color="#555555")


def run(argv: Sequence[str], dataset) -> None:
    """Train what is missing, then table, claims and figure."""
    command = Command(
        argv, "overlap", dataset,
        [f"figure4_{method}.cfg" for method in METHODS], config_of(dataset))
    options = command.options
    if options is None:
        return
    planned = settings(options)
    kept, left_out = command.possible(list(planned.values()))
    done = dict(zip(kept, command.run(kept), strict=True))
    outcomes = {method: {} for method in METHODS}
    for (method, value), setting in planned.items():
        if setting in done:
            outcomes[method][value] = done[setting]
    outcomes = {m: by_value for m, by_value in outcomes.items() if by_value}
    every = list(done.values())
    title = (f"{report.in_short(every)}; band: "
             f"{report.interval_text(every)}")
    absent = [s.name for s in planned.values() if s not in done]
    if absent:
        title += f"\nimpossible, left out: {'; '.join(absent)}"
    command.report(every, claims(options.sweep, outcomes),
                   draw(options.sweep, outcomes, title), left_out,
                   f"figure{FIGURES[options.sweep]}")


def main(argv: Sequence[str], dataset=omniglot) -> int:
    """The command; returns the exit status."""
    return status_of(lambda: run(argv, dataset))


if __name__ == "__main__":
    sys.exit(main(["-m reptile_tf.experiments.overlap", *sys.argv[1:]]))
