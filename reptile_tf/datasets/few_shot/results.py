"""The results of few-shot classification, for people."""

from typing import Any

from reptile_tf.datasets.splits import (
    reported_rows,
    reported_split,
    start_name,
)


def mode_name(transductive: bool) -> str:
    """How a batch-norm mode is called in tables and metrics."""
    return "transductive" if transductive else "non-transductive"


def table(result: dict[str, Any]) -> list[str]:
    """Accuracy of the network before and after meta-training.

    On test classes; on those that were evaluated alone, if they were.
    """
    rows = reported_rows(result)
    before = {(r["split"], r["shots"], r["transductive"]): r
              for r in result["untrained"]}
    lines = [f"accuracy on {reported_split(result)} classes, "
             f"{result['ways']}-way, % (95 % interval over tasks)",
             f"  {'':26}{start_name(result):>16}{'meta-trained':>16}"]
    for row in rows:
        old = before[row["split"], row["shots"], row["transductive"]]
        cells = "".join(
            f"{100 * r['accuracy']:>10.1f} ±{100 * (r['ci95'] or 0):>4.1f}"
            for r in (old, row))
        name = f"{row['shots']}-shot {mode_name(row['transductive'])}"
        lines.append(f"  {name:26}{cells}")
    return lines
