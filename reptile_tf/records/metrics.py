"""metrics.csv: the learning curves of a run."""

import csv
from pathlib import Path

from reptile_tf.errors import InputError

HEADER = "iteration,split,metric,value\n"
# {(split, metric): {iteration: value}}
Curves = dict[tuple[str, str], dict[int, float]]


def read(path: Path) -> Curves:
    """The curves of a metrics.csv; accuracies in %.

    Raises:
      InputError: it is not whole.
    """
    curves: Curves = {}
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                scale = 100 if row["metric"].startswith("accuracy") else 1
                curves.setdefault((row["split"], row["metric"]), {})[
                    int(row["iteration"])] = scale * float(row["value"])
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as e:
        raise InputError(
            f"{path} is not a run's metrics.csv ({type(e).__name__}: {e}): "
            "without its result.json the run's command makes both again, from "
            "its checkpoint") from e
    return curves
