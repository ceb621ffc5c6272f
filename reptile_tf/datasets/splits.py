"""What results are of, for people: splits, the one reported, the start."""

from collections.abc import Iterable
from typing import Any

# How people call the classes of a split.
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


def curve_split(splits: Iterable[str]) -> str:
    """Whose learning curve a run draws: val, where there is one, else test."""
    return "val" if "val" in splits else "test"


def reported_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the split that tables show: test, or the one evaluated alone."""
    rows = result["results"]
    splits = [row["split"] for row in rows]
    shown = "test" if "test" in splits else next(iter(splits), None)
    return [row for row in rows if row["split"] == shown]


def reported_split(result: dict[str, Any]) -> str:
    """Whose classes those are, for people; test where there are none."""
    rows = reported_rows(result)
    return SPLIT_NAMES[rows[0]["split"] if rows else "test"]


def start_name(result: dict[str, Any]) -> str:
    """What was before meta-training: its rows are result["untrained"]."""
    return "start" if result.get("init") else "untrained"
