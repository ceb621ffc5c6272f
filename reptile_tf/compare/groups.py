"""Runs that differ in the seed alone, together."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from reptile_tf.compare.finished_runs import Run, text_of
from reptile_tf.compare.published import usual_settings
from reptile_tf.learning.rules import REGISTRY


@dataclass(frozen=True)
class Group:
    """Runs of a table that differ in the seed alone, as far as K matters.

    Attributes:
      algorithm: of the runs.
      differs: the flags in which the algorithm's groups differ, such as
        learning_rate=0.1, where they are not as published; of two published
        values that would give two groups one name, one is taken for it.
      runs: by seed, each seed once.
      doubled: further runs of a seed, each with the one that is counted.
    """

    algorithm: str
    differs: tuple[str, ...]
    runs: tuple[Run, ...]
    doubled: tuple[tuple[Run, Run], ...]

    @property
    def name(self) -> str:
        """The algorithm and what differs."""
        return ", ".join((self.algorithm, *self.differs))


def group_by_flags(runs: Iterable[Run], shots: int | None) -> list[Group]:
    """Group what one cell, or one learning curve, was measured of.

    Args:
      runs: of one table.
      shots: K of the evaluation; flags that matter to another K do not
        separate runs.
    """
    found: dict[str, dict[frozenset, list[Run]]] = {}
    for run in runs:
        found.setdefault(run.algorithm, {}).setdefault(
            frozenset(run.settings(shots).items()), []).append(run)
    groups = []
    for algorithm, variants in found.items():
        flags = [of_seeds[0].settings(shots) for of_seeds in variants.values()]
        differ = [name for name in dict.fromkeys(n for f in flags for n in f)
                  if len({f.get(name) for f in flags}) > 1
                  or name == "network"]  # Another column's, so always said.
        usual = [{"network": settings.get("network"),
                  **usual_settings(of_seeds[0], shots)} for settings, of_seeds
                 in zip(flags, variants.values(), strict=True)]
        names = _unusual(flags, usual, differ)
        if len(set(names)) < len(names):
            # Two are as published, each in its way: one way is usual.
            names = _unusual(flags, usual[:1] * len(usual), differ)
        groups += map(_group, itertools.repeat(algorithm), names,
                      variants.values())
    order = [*REGISTRY]
    return sorted(groups, key=lambda g: (
        order.index(g.algorithm) if g.algorithm in order else len(order),
        g.algorithm, [_by_value(text) for text in g.differs]))


def _unusual(flags: list[dict[str, str]], usual: list[dict[str, str]],
             names: list[str]) -> list[tuple[str, ...]]:
    """For each variant those of the named flags that are not as usual."""
    return [tuple(text_of(name, settings.get(name)) for name in names
                  if settings.get(name) != of_it.get(name))
            for settings, of_it in zip(flags, usual, strict=True)]


def _group(algorithm: str, differs: tuple[str, ...], runs: list[Run]) -> Group:
    counted: dict[int, Run] = {}
    doubled = []
    for run in runs:
        first = counted.setdefault(run.seed, run)
        if first is not run:
            doubled.append((run, first))
    return Group(algorithm, differs, tuple(counted[s] for s in sorted(counted)),
                 tuple(doubled))


def _by_value(text: str) -> tuple[float, str]:
    """So that 2 is before 10."""
    try:
        return float(text.partition("=")[2]), text
    except ValueError:
        return float("inf"), text
