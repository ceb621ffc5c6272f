"""Runs that differ in the seed alone, together."""

import string
from collections.abc import Iterable
from dataclasses import dataclass

from reptile_tf.compare.finished_runs import Run
from reptile_tf.learning.rules import REGISTRY


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone.

    Attributes:
      table: what it is compared within: data set, ways and data.
      algorithm: of the runs.
      variant: a letter where a table has several of one algorithm.
      differs: the flags that differ between these.
      runs: by seed.
    """

    table: str
    algorithm: str
    variant: str
    differs: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The algorithm and the variant."""
        return f"{self.algorithm} {self.variant}".strip()


def group_by_flags(runs: Iterable[Run]) -> list[Group]:
    """Runs that differ in the seed alone, together."""
    found: dict[tuple[str, str], dict[tuple[str, ...], list[Run]]] = {}
    for run in runs:
        r = run.result
        ways = f", {r['ways']}-way" if r["ways"] > 1 else ""
        table = f"{r['dataset']}{ways}: {run.data}"
        found.setdefault((table, r["algorithm"]), {}).setdefault(
            run.settings, []).append(run)
    groups = []
    for (table, algorithm), variants in found.items():
        lines = {settings: of_seeds[0].material
                 for settings, of_seeds in variants.items()}
        differ = [name for name in sorted(set().union(*lines.values()))
                  if len({flags.get(name) for flags in lines.values()}) > 1]
        for i, (settings, of_seeds) in enumerate(sorted(variants.items())):
            groups.append(Group(
                table, algorithm, _letters(i) if len(variants) > 1 else "",
                tuple(lines[settings].get(name, f"--{name} unset")
                      for name in differ),
                tuple(sorted(of_seeds,
                             key=lambda run: run.result["seed"]))))
    order = [*REGISTRY]
    return sorted(groups, key=lambda g: (
        g.table, order.index(g.algorithm) if g.algorithm in order
        else len(order), g.algorithm, len(g.variant), g.variant))


def _letters(i: int) -> str:
    """a, b, ..., z, ba, bb, ..."""
    more, last = divmod(i, 26)
    return (_letters(more) if more else "") + string.ascii_lowercase[last]
