"""Tables 1 and 2 (section 6.1): all training runs of one, in one command.

    python -m reptile_tf.experiments.tables 2 [--seed=0,1,2]
        [--data_dir=DIR] [--eval_samples=N] [--run_dir=DIR] ...

Table 1 is Mini-ImageNet's, table 2 Omniglot's. A run for each flagfile of
configs/ and seed, those first that say most; what is finished is not made
again, and what was stopped goes on, from a folder that was carried over from
another machine, too. Reptile's rows have seeds 0 to 2, as in the paper, the
others seed 0, unless --seed is given. It ends in the table, beside the
paper's.
"""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)
from collections.abc import Sequence

from reptile_tf import quiet_tensorflow  # noqa: F401

from reptile_tf.configuration import flags
from reptile_tf.datasets import mini_imagenet, omniglot
from reptile_tf.errors import InputError
from reptile_tf.experiments.command import Command
from reptile_tf.experiments.outcomes import Setting
from reptile_tf.runs.command_line import status_of
from reptile_tf.runs.many_runs import PlannedRun, compared, run_all


def _finn(which: str) -> list[tuple[str, int]]:
    """Finn et al.'s rows, of both shots."""
    return [(f"{which}_{shots}shot_{rule}", 0)
            for shots in (1, 5) for rule in ("fomaml", "maml")]


# Of each table the data set, and (flagfile, seed) of its runs, in their order.
TABLES = {
    "1": (mini_imagenet, [
        ("miniimagenet_5way", 0), *_finn("miniimagenet_5way"),
        ("miniimagenet_5way", 1), ("miniimagenet_5way", 2)]),
    "2": (omniglot, [
        ("omniglot_5way", 0), ("omniglot_20way", 0), *_finn("omniglot_5way"),
        *((f"omniglot_{ways}way", seed) for seed in (1, 2)
          for ways in (5, 20)),
        *_finn("omniglot_20way")])}


def run(argv: Sequence[str], tables=TABLES) -> None:
    """Train what is missing, then the table.

    Args:
      argv: the command, the table's number, flags of the data set's script.
      tables: as TABLES.

    Raises:
      InputError: no table, bad flags, or some runs failed.
      Stopped: a signal came; a checkpoint was written.
    """
    name, *words = argv
    if not words or words[0] not in tables:
        raise InputError(
            f"which table? Give {' or '.join(tables)}, and then flags of the "
            "data set's script, such as --data_dir; "
            f"{name} 2 --help lists them")
    table, *words = words
    dataset, rows = tables[table]
    command = Command([f"{name} {table}", *words], f"table{table}", dataset,
                      [f"{flagfile}.cfg" for flagfile, _ in rows],
                      figure=False, common=["--eval_splits=test"])
    if command.options is None:
        return
    if "seed" in flags.given([name, *words], dataset.CONFIG,
                             dataset.DEFAULTS):
        rows = [(flagfile, seed) for seed in command.seeds
                for flagfile in dict(rows)]
    planned = [PlannedRun(f"{flagfile}, seed {seed}", command.config(
        Setting(flagfile, flagfile, f"{flagfile}.cfg"), seed))
        for flagfile, seed in rows]
    run_all(dataset, planned, compared(command.options))


def main(argv: Sequence[str], tables=TABLES) -> int:
    """The command; returns the exit status."""
    return status_of(lambda: run(argv, tables))


if __name__ == "__main__":
    sys.exit(main(["-m reptile_tf.experiments.tables", *sys.argv[1:]]))
