"""Figure 3 (section 6.2): which inner gradients make the meta-update.

    python -m reptile_tf.experiments.gradient_combinations [--seed=0,1,2]
        [--data_dir=DIR] [--meta_iters=N] [--run_dir=DIR] ...

Ten combinations of the gradients g_1..g_k of up to four inner steps on
mini-batches that do not overlap: their sum (Reptile), their mean (Reptile with
a smaller meta step) and the last alone (FOMAML).
"""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)
from collections.abc import Sequence

from reptile_tf import quiet_tensorflow  # noqa: F401

from reptile_tf.datasets import omniglot
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

STEPS = (2, 3, 4)
FRACTIONS = {2: ("½", "half"), 3: ("⅓", "third"), 4: ("¼", "quarter")}
# Of the sum, the mean and the last gradient of k steps.
STYLES = {"sum": ("-", "o"), "mean": ("--", "s"), "last": (":", "^")}


def _settings() -> dict[tuple[str, int], Setting]:
    """The ten, by kind and k; one step has its sum only."""
    found = {("sum", 1): Setting("g1", "g1", "figure3_g1.cfg")}
    for k in STEPS:
        terms = [f"g{i + 1}" for i in range(k)]
        folder, (sign, word) = "_".join(terms), FRACTIONS[k]
        for kind, name, of_kind in (
                ("sum", " + ".join(terms), folder),
                ("mean", f"{sign} ({' + '.join(terms)})", f"{word}_{folder}"),
                ("last", terms[-1], terms[-1])):
            found[kind, k] = Setting(name, of_kind, f"figure3_{of_kind}.cfg")
    return found


SETTINGS = _settings()


def claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """The orderings that section 6.2 states."""
    done = dict(zip(SETTINGS, outcomes, strict=True))
    column, first = outcomes[0].columns[0], done["sum", 1]
    worst = min((o for o in outcomes if o is not first),
                key=lambda o: o.final(column).mean)
    found = [
        Claim(f"g1 alone is the worst: {worst.setting.name}, the next, minus "
              "g1", difference(worst, first, column)),
        Claim("two-step FOMAML is better than two-step Reptile: g2 minus "
              "(g1 + g2)", difference(done["last", 2], done["sum", 2], column))]
    for kind, name in (("sum", "sum"), ("mean", "mean"),
                       ("last", "last gradient")):
        for k in STEPS[1:]:
            found.append(Claim(
                f"more mini-batches are better, {name}: k = {k} minus "
                f"k = {k - 1}",
                difference(done[kind, k], done[kind, k - 1], column)))
    found.append(Claim(
        "the sum gains more from k = 2 to 4 than the last gradient",
        combination([(1, done["sum", 4]), (-1, done["sum", 2]),
                     (-1, done["last", 4]), (1, done["last", 2])], column)))
    return found


def draw(outcomes: Sequence[Outcome], title: str) -> Figure:
    """The learning curves, and the final accuracies beside them."""
    column = outcomes[0].columns[0]
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    curves, final = figure.subplots(1, 2, width_ratios=[1.7, 1])
    for place, ((kind, k), outcome) in enumerate(
            zip(SETTINGS, outcomes, strict=True)):
        colour = "black" if k == 1 else plotting.COLOURS[STEPS.index(k)]
        line, marker = STYLES[kind]
        report.plot_curve(curves, outcome, column, color=colour,
                            linestyle=line, lw=1.8)
        estimate = outcome.final(column)
        final.errorbar(estimate.mean, place, xerr=estimate.interval,
                       color=colour, marker=marker, ms=6, capsize=3,
                       linestyle="none")
        final.annotate(f"{estimate.mean:.2f}", (estimate.mean, place),
                       xytext=(0, 7), textcoords="offset points",
                       ha="center", fontsize=7.5, color=colour)
    curves.set(xlabel="meta-iterations",
               ylabel=f"{outcomes[0].curve_split} accuracy, %, "
               f"{report.column_name(column)}")
    figure.legend(fontsize=8, ncols=5, loc="outside lower center")
    curves.set_title(f"while training, {report.of_curves(outcomes)}",
                     fontsize=9)
    final.set_yticks(range(len(outcomes)),
                     [o.setting.name for o in outcomes])
    final.set(ylim=(len(outcomes) - 0.5, -0.7),
              xlabel=f"{outcomes[0].split} accuracy, %")
    final.margins(x=0.1)
    final.set_title(f"at the end; ±: {report.interval_text(outcomes)}",
                    fontsize=9)
    for axes in (curves, final):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    return figure


def run(argv: Sequence[str], dataset) -> None:
    """Train what is missing, then table, claims and figure."""
    settings = list(SETTINGS.values())
    command = Command(argv, "gradient_combinations", dataset,
                               [s.flagfile for s in settings])
    if command.options is None:
        return
    outcomes = command.run(settings)
    command.report(outcomes, claims(outcomes), draw(
        outcomes, "Combinations of inner-loop gradients (figure 3): "
        + report.in_short(outcomes)), name="figure3")


def main(argv: Sequence[str], dataset=omniglot) -> int:
    """The command; returns the exit status."""
    return status_of(lambda: run(argv, dataset))


if __name__ == "__main__":
    sys.exit(main(["-m reptile_tf.experiments.gradient_combinations",
                   *sys.argv[1:]]))
