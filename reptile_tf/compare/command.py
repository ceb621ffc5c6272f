"""The command that compares, and the same as a function."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reptile_tf.compare import finished_runs, learning_curves
from reptile_tf.compare.for_programs import as_csv, as_json
from reptile_tf.compare.html_page import as_html
from reptile_tf.compare.rows import doubled, rows_of
from reptile_tf.compare.tables import markdown, text
from reptile_tf.errors import InputError
from reptile_tf.reporting.streams import print_any_name

FORMATS = {"text": text, "markdown": markdown, "csv": as_csv, "json": as_json,
           "html": as_html}


def show(folders: Sequence[Path | str], form: str = "text",
         figure: Path | str | None = None) -> None:
    """Print the table of the runs in and below the folders; draw a figure.

    Args:
      folders: each searched for runs.
      form: a key of `FORMATS`.
      figure: a .png file for the learning curves; the .svg goes beside it.

    Raises:
      InputError: a folder without any run, no finished run, or no learning
        curve to draw.
    """
    print_any_name()
    runs, left_out = finished_runs.find(folders)
    if not runs:
        raise InputError("no finished run: " + "; ".join(left_out))
    rows = rows_of(runs)
    left_out += doubled(rows)
    print("\n".join(FORMATS[form](rows, left_out)))
    if form == "csv":  # Nowhere in the table.
        for line in left_out:
            print(f"not counted: {line}", file=sys.stderr)
    if figure:
        for path in learning_curves.save(runs, Path(figure)):
            print(f"figure: {path}", file=sys.stderr)


def main(argv: Sequence[str]) -> int:
    """The command; returns the exit status, 1 after an error."""
    script = Path(argv[0]).name
    parser = argparse.ArgumentParser(
        script if script.startswith("reptile-")
        else "python -m reptile_tf.compare", allow_abbrev=False,
        description="Runs beside each other and beside the paper: the mean "
        "over seeds, its standard deviation, the difference.")
    parser.add_argument("folders", metavar="DIR", nargs="+",
                        help="searched for runs, it and below it")
    parser.add_argument("--format", choices=[*FORMATS], default="text",
                        help="of the table, on standard output")
    parser.add_argument("--figure", metavar="FILE.png",
                        help="draw the learning curves: mean and standard "
                        "deviation over seeds; FILE.svg goes beside it")
    arguments = parser.parse_args(argv[1:])
    try:
        show(arguments.folders, arguments.format, arguments.figure)
    except InputError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0
