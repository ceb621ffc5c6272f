"""The rows of a comparison for programs: JSON and CSV."""

import csv
import io
import json
import math
from typing import Any

from reptile_tf.compare.rows import Row


def _record(row: Row) -> dict[str, Any]:
    """All there is to know of a row; accuracies in %."""
    first = row.group.runs[0].result
    return {
        "dataset": first["dataset"], "data": row.group.runs[0].data,
        "ways": first["ways"], "algorithm": row.group.algorithm,
        "differs": list(row.group.differs), "cell": row.cell,
        **dict(row.key),
        "metric": row.metric, "mean": row.measured.mean,
        "std": row.measured.std, "ci95": row.measured.ci95,
        "values": list(row.measured.values), "tasks": row.tasks,
        "seeds": row.seeds,
        "meta_iters": row.meta_iters, "wall_seconds": row.seconds,
        "paper": row.paper and row.paper.accuracy,
        "paper_interval": row.paper and row.paper.interval,
        "paper_meta_iters": row.paper and row.paper.meta_iters,
        "difference": row.difference, "unlike_paper": list(row.unlike),
        "runs": [str(run.directory.path) for run in row.group.runs]}


def as_json(rows: list[Row], left_out: list[str]) -> list[str]:
    """One object: the rows, and the runs that are not counted.

    JSON has no infinity and no NaN: null.
    """
    def finite(value: Any) -> Any:
        if isinstance(value, list):
            return [*map(finite, value)]
        return None if isinstance(value, float) and not (
            math.isfinite(value)) else value

    records = [{key: finite(value) for key, value in _record(r).items()}
               for r in rows]
    return [json.dumps({"rows": records, "not_counted": left_out}, indent=1,
                       allow_nan=False)]


def as_csv(rows: list[Row], left_out: list[str]) -> list[str]:
    """A line per row; lists have semicolons between their values."""
    records = [{key: ";".join(map(str, value)) if isinstance(value, list)
                else value for key, value in _record(r).items()}
               for r in rows]
    names = list(dict.fromkeys(key for r in records for key in r))
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue().splitlines()
