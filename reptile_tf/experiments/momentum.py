"""Momentum in the inner Adam (section 6.1, footnote: it hurts).

    python -m reptile_tf.experiments.momentum [--seed=0,1,2]
        [--data_dir=DIR] [--meta_iters=N] [--run_dir=DIR] ...

Reptile on Omniglot, 5-way, with beta1 = 0, as in all of the paper's
experiments, and with 0.9, Adam's usual value.
"""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)
from collections.abc import Sequence

from reptile_tf import quiet_tensorflow  # noqa: F401

from reptile_tf.datasets import omniglot
from reptile_tf.experiments import report
from reptile_tf.experiments.claims import (
    Claim,
    difference,
)
from reptile_tf.experiments.command import Command
from reptile_tf.experiments.outcomes import Outcome, Setting
from reptile_tf.reporting import plotting
from reptile_tf.reporting.plotting import Figure
from reptile_tf.runs.command_line import status_of

SETTINGS = [Setting(f"beta1 = {beta}", f"beta{beta}", "omniglot_5way.cfg",
                    (f"--inner_beta1={beta}",)) for beta in (0, 0.9)]


def claims(outcomes: Sequence[Outcome]) -> list[Claim]:
    """That momentum hurts, in each cell."""
    without, momentum = outcomes
    return [Claim(f"momentum hurts, {report.column_name(column)}: without "
                  "minus with", difference(without, momentum, column))
            for column in without.columns]


def draw(outcomes: Sequence[Outcome], title: str) -> Figure:
    """Learning curves, a panel for each cell."""
    columns = outcomes[0].columns
    figure = Figure(figsize=(max(3.6 * len(columns), 5), 3.9),
                    layout="constrained")
    for axes, column in zip(figure.subplots(1, len(columns), squeeze=False)[0],
                            columns, strict=True):
        for i, outcome in enumerate(outcomes):
            report.plot_curve(axes, outcome, column, lw=1.8,
                                color=plotting.COLOURS[i],
                                linestyle=plotting.LINE_STYLES[i])
        axes.set(xlabel="meta-iterations", title="\n".join(
            [report.column_name(column), *(
                f"{o.setting.name}: {o.final(column)} at the end"
                for o in outcomes)]))
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(f"{outcomes[0].curve_split} accuracy, %")
    figure.axes[0].legend(fontsize=9, loc="lower right")
    figure.suptitle(f"{title}; ±: {report.interval_text(outcomes)}\n"
                    f"Curves: {report.of_curves(outcomes)}", fontsize=10)
    return figure


def run(argv: Sequence[str], dataset) -> None:
    """Train what is missing, then table, claims and figure."""
    command = Command(argv, "momentum", dataset,
                               [s.flagfile for s in SETTINGS])
    if command.options is None:
        return
    outcomes = command.run(SETTINGS)
    command.report(outcomes, claims(outcomes), draw(
        outcomes, "Momentum in the inner Adam: "
        + report.in_short(outcomes)))


def main(argv: Sequence[str], dataset=omniglot) -> int:
    """The command; returns the exit status."""
    return status_of(lambda: run(argv, dataset))


if __name__ == "__main__":
    sys.exit(main(["-m reptile_tf.experiments.momentum", *sys.argv[1:]]))
