"""What result.json must hold, and whether two hold the same."""

import json
from itertools import chain, zip_longest
from types import NoneType
from typing import Any


def check_result(result: dict[str, Any]) -> None:
    """Raise KeyError or TypeError unless it has what a table needs."""
    for name, kind in (("algorithm", str), ("dataset", str),
                       ("data_source", str), ("ways", int), ("seed", int),
                       ("meta_iters", int), ("wall_seconds", (int, float)),
                       ("results", list), ("untrained", list)):
        if not isinstance(result[name], kind):
            raise TypeError(f"{name} is {result[name]!r}")
    for row in result["results"] + result["untrained"]:
        value = "mse" if "mse" in row else "accuracy"
        number = (int, float)
        for name, kind in (
                ("split", str), ("tasks", int), (value, number),
                ("ci95", (*number, NoneType)), *(
                    (("points", int), ("steps", int)) if value == "mse"
                    else (("shots", int), ("transductive", bool)))):
            if not isinstance(row[name], kind):
                raise TypeError(f"{name} is {row[name]!r}")


def same_numbers(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two results of a run have the same rows.

    What older rows did not say is left out. As text, in which NaN is NaN.
    """
    pairs = [zip_longest(before[key], now[key], fillvalue={})
             for key in ("results", "untrained")]
    return before["meta_iters"] == now["meta_iters"] and all(
        old and json.dumps(old) == json.dumps({k: new.get(k) for k in old})
        for old, new in chain(*pairs))
