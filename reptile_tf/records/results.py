"""What result.json must hold."""

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
        for name in ("split", "tasks", value, "ci95", *(
                ("points", "steps") if value == "mse"
                else ("shots", "transductive"))):
            row[name]
