"""What a comparison says to people, whatever it is written in."""

import itertools

from reptile_tf.compare.rows import Row
from reptile_tf.reporting.durations import duration

MARK = "*"
# What a metric's column is called, and its decimals.
METRICS = {"accuracy": ("accuracy, %", 2), "mse": ("mean squared error", 4)}


def _value(mean: float, spread: float | None, decimals: int) -> str:
    text = f"{mean:.{decimals}f}"
    return text if spread is None else f"{text} ± {spread:.{decimals}f}"


def columns_of(rows: list[Row]) -> dict[str, list[str]]:
    """The columns of a table after its first, by their headers."""
    decimals = METRICS[rows[0].metric][1]
    columns = {"this code": [
        _value(r.measured.mean, r.measured.interval, decimals)
        for r in rows]}
    if any(r.paper for r in rows):
        unmarked = " " if any(r.unlike for r in rows) else ""
        columns["paper"] = [
            _value(r.paper.accuracy, r.paper.interval, decimals)
            if r.paper else "" for r in rows]
        columns[f"diff{unmarked}"] = [
            f"{r.difference:+.{decimals}f}{MARK if r.unlike else unmarked}"
            if r.paper else "" for r in rows]
    return columns | {
        "seeds": [str(len(r.seeds)) for r in rows],
        "iterations": [f"{r.meta_iters:,}" for r in rows],
        "time": [duration(r.seconds) for r in rows]}


def tables_of(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """(title, rows) of each table."""
    found = []
    for title, of_table in itertools.groupby(rows, lambda r: r.table):
        of_table = list(of_table)
        tasks = sorted({r.tasks for r in of_table})
        span = " to ".join(f"{n:,}" for n in dict.fromkeys(
            (tasks[0], tasks[-1])))
        found.append((f"{title}; {span} {of_table[0].split} tasks", of_table))
    return found


def marks_of(rows: list[Row]) -> list[str]:
    """For each marked row of a table, what its mark means."""
    cells: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for row in rows:
        if row.unlike:
            cells.setdefault(row.group.name, {}).setdefault(
                row.unlike, []).append(row.cell)
    return [
        f"{MARK} {name}"
        + (f" ({', '.join(of_cells)})" if len(of_name) > 1 else "")
        + f" is not as published: {'; '.join(unlike)}."
        for name, of_name in cells.items()
        for unlike, of_cells in of_name.items()]


def notes_of(rows: list[Row], left_out: list[str]) -> list[str]:
    """What stands below the tables."""
    notes = ["± is the standard deviation over seeds; of one seed, the 95 % "
             "interval over tasks."]
    if any(r.paper for r in rows):
        notes.append("The paper's ±: the standard deviation over 3 runs; of "
                     "maml and fomaml, the 95 % interval over tasks.")
    if any(r.group.differs for r in rows):
        notes.append("A flag beside a name is where these runs differ; without "
                     "it the value is the published one, else the default.")
    notes.append("time: of a run, training and evaluation, the mean over "
                 "seeds.")
    return notes + [f"not counted: {line}" for line in left_out]
