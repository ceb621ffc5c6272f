"""Combinations of flags that no data could satisfy, or nobody means.

Each takes a `config.Config`.
"""

from typing import Any

from reptile_tf.errors import InputError
from reptile_tf.learning.adaptation import unseen
from reptile_tf.learning.rules import REGISTRY


def check_evaluations(config) -> None:
    """Raise InputError if --shots and --eval_batch do not go together."""
    for name in ("shots", "eval_batch"):
        values = getattr(config, name)
        if not values or min(values) < 1:
            raise InputError(f"{name}={as_text(values)} must be positive "
                             "numbers, such as 5 or 1,5")
    if len(set(config.shots)) < len(config.shots):
        raise InputError(f"shots={as_text(config.shots)} repeats a value")
    if len(config.eval_batch) not in (1, len(config.shots)):
        raise InputError(
            f"eval_batch={as_text(config.eval_batch)} has "
            f"{len(config.eval_batch)} values and "
            f"shots={as_text(config.shots)} has {len(config.shots)}: give one "
            "value, or one for each of --shots")
    if not config.train_shots and len(config.shots) > 1:
        raise InputError(
            f"train_shots=0 means --shots, but shots={as_text(config.shots)} "
            "is a list: give --train_shots")


def check_tail(config) -> None:
    """Raise InputError if a tail, or the rule, needs more."""
    config.task  # noqa: B018 (it checks itself)
    fewest = REGISTRY[config.algorithm].min_iters
    if config.inner_iters < fewest:
        raise InputError(
            f"inner_iters={config.inner_iters} with "
            f"--algorithm={config.algorithm}, whose last step needs one "
            f"before it: use {fewest} or more")


def check_replacement(config) -> None:
    """Raise InputError if a batch would repeat examples."""
    if not config.replacement:
        return
    pool = config.ways * (config.task.train_shots - config.tail_shots)
    sizes = [("inner_batch", config.inner_batch, pool)] + [
        ("eval_batch", batch, config.ways * shots)
        for shots, batch in config.evaluations()]
    for name, batch, most in sizes:
        if batch > most:
            raise InputError(
                f"{name}={batch} with --replacement is drawn without "
                f"repeats from {most} examples: use {most} or fewer, or "
                "--noreplacement")


def unseen_examples(config) -> list[str]:
    """Where support sets are larger than what their inner steps see.

    Of training tasks those with a tail set apart: without one, examples are
    drawn for the steps alone.
    """
    sets = [("evaluation", "--eval_batch or --eval_iters", config.eval_iters,
             batch, config.ways * shots)
            for shots, batch in config.evaluations() if config.eval_iters]
    if config.tail_shots:
        sets.insert(0, (
            "training", "--inner_batch or --inner_iters",
            config.inner_iters - 1, config.inner_batch,
            config.ways * (config.task.train_shots - config.tail_shots)))
    found = [(where, unseen(*numbers, config.replacement), flags)
             for where, flags, *numbers in sets]
    return [f"in {where} {text}: all with a larger {flags}"
            for where, text, flags in found if text]


def as_text(value: Any) -> str:
    """A flag's value as it is typed."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
