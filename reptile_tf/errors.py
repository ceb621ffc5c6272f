"""The one error that a user can do something about."""

import importlib
import math
import re
from types import ModuleType
from typing import Any


class InputError(ValueError):
    """A flag, a file or an argument is wrong.

    The message names the value, what is allowed, and the remedy. The scripts
    print it and exit with status 1.
    """


def require_at_least(least: int, **values: float) -> None:
    """Raise InputError unless these, by their names, are so much or more."""
    for name, value in values.items():
        if not math.isfinite(value) or value < least:
            finite = "" if math.isfinite(value) else "a finite number, "
            raise InputError(f"{name}={value} must be {finite}{least} or more")


def require_choice(allowed: tuple[str, ...], **values: str) -> None:
    """Raise InputError unless these, by their names, are among the allowed."""
    for name, value in values.items():
        if value not in allowed:
            raise InputError(f"{name}={value!r} is none of {allowed}")


def kind_of(thing: Any) -> str:
    """For people: an instance of what it is."""
    if thing is None:
        return "None"
    name = type(thing).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def first_line(error: BaseException) -> str:
    """What an error says, its first line; its class, where it says nothing.

    TensorFlow may first say where in a graph it was: that is no first line.
    """
    text = re.sub(r"\{\{function_node \S+\}\} ", "", str(error))
    lines = [line for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith((
        "Graph execution error", "Detected at node", "  File "))]
    return (said or lines or [type(error).__name__])[0].strip()


def of_extra(module: str, extra: str, feature: str) -> ModuleType:
    """Import what `pip install .` leaves to one of its extras.

    Args:
      module: its name.
      extra: that brings it.
      feature: that needs it, for the message.

    Raises:
      InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        raise InputError(f"{feature}: {e.name} is not installed, which `pip "
                         f"install \"reptile_tf[{extra}]\"` brings") from e
