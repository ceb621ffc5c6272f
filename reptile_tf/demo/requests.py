"""What a page may ask: JSON bodies, checked, as arrays."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from reptile_tf.demo.drawing import Strokes
from reptile_tf.errors import InputError

MOST_CLASSES, MOST_DRAWINGS, MOST_STEPS = 5, 5, 50
MOST_STROKES, MOST_NUMBERS = 100, 10_000
MOST_SINE_STEPS, MOST_POINTS, HIGHEST = 32, 50, 10.0
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Question:
    """What the drawing page asks.

    Attributes:
      support: the drawings of each class, which may have none yet.
      queries: drawings.
      steps: inner steps.
      transductive: batch normalization sees all queries at once.
    """

    support: list[list[Strokes]]
    queries: list[Strokes]
    steps: int
    transductive: bool


def body_of(content: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
      InputError: anything else.
    """
    def refuse(constant):
        raise ValueError(f"{constant} is not a number")

    try:
        body = json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise InputError(f"the body is not JSON: {e}") from e
    if not isinstance(body, dict):
        raise InputError("the body must be a JSON object")
    return body


def question(body: dict[str, Any], ways: int, most_steps: int) -> Question:
    """The `Question` of {support: [[drawing]], queries, steps, transductive}.

    A drawing is a list of strokes [x, y, x, y, ...] from 0 to 1.

    Args:
      body: as sent.
      ways: the network's outputs.
      most_steps: that may be asked for.

    Raises:
      InputError: what is wrong, in one sentence.
    """
    most = min(ways, MOST_CLASSES)
    support = _list(body, "support")
    if not 2 <= len(support) <= most:
        raise InputError(f"support has {len(support)} classes: give 2 to "
                         f"{most}")
    if not isinstance(body.get("transductive"), bool):
        raise InputError("transductive must be true or false")
    return Question(
        [_drawings(of_class, f"class {label}")
         for label, of_class in enumerate(support)],
        _drawings(_list(body, "queries"), "queries"),
        whole(body, "steps", 0, most_steps), body["transductive"])


def points(body: dict[str, Any]) -> np.ndarray:
    """float32 [p, 2] of {points: [[x, y], ...]}.

    Raises:
      InputError: what is wrong, in one sentence.
    """
    given = _list(body, "points")
    if not 1 <= len(given) <= MOST_POINTS:
        raise InputError(f"points has {len(given)}: give 1 to {MOST_POINTS}")
    return np.stack([_numbers(p, "a point", (2, 2), -HIGHEST, HIGHEST)
                     for p in given]).astype(np.float32)


def whole(body: dict[str, Any], name: str, least: int, most: int) -> int:
    """A whole number of the body.

    Raises:
      InputError: it is none, or not from least to most.
    """
    value = body.get(name)
    if type(value) is not int or not least <= value <= most:
        raise InputError(f"{name} must be a whole number from {least} to "
                         f"{most}")
    return value


def _list(body, name) -> list[Any]:
    if not isinstance(body.get(name), list):
        raise InputError(f"{name} must be a list")
    return body[name]


def _drawings(given: Any, name: str) -> list[Strokes]:
    if not isinstance(given, list) or len(given) > MOST_DRAWINGS:
        raise InputError(f"{name} must be a list of at most {MOST_DRAWINGS} "
                         "drawings")
    return [_strokes(drawing) for drawing in given]


def _strokes(drawing: Any) -> Strokes:
    if not isinstance(drawing, list) or not (
            1 <= len(drawing) <= MOST_STROKES):
        raise InputError(
            f"a drawing must be a list of 1 to {MOST_STROKES} strokes")
    return [_numbers(stroke, "a stroke", (2, MOST_NUMBERS), 0, 1)
            .reshape(-1, 2) for stroke in drawing]


def _numbers(given: Any, name: str, count: tuple[int, int], least: float,
             most: float) -> np.ndarray:
    """float64 [n], n even."""
    if not isinstance(given, list) or len(given) % 2 or not (
            count[0] <= len(given) <= count[1]):
        raise InputError(f"{name} must be a list x, y, ... of {count[0]} to "
                         f"{count[1]} numbers")
    if not all(type(v) in (int, float) and least <= v <= most
               for v in given):
        raise InputError(f"{name} must have numbers from {least:g} to "
                         f"{most:g}")
    return np.array(given, float)
