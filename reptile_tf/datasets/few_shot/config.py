"""The flags of N-way classification of images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reptile_tf.configuration.config import Config
from reptile_tf.configuration.run_flags import flag
from reptile_tf.datasets import files
from reptile_tf.datasets.splits import curve_split
from reptile_tf.errors import InputError, require_at_least

NETWORKS = ("reptile", "maml")


@dataclass(frozen=True)
class ImageConfig(Config):
    """Flags of N-way classification of images."""

    classes: int = flag(5, "N, the ways: classes per task", True)
    network: str = flag(
        "reptile", "whose network and, on Omniglot, turns of the characters: "
        "reptile, of the Reptile rows (Nichol et al., arXiv 1803.02999); "
        "maml, of the MAML and FOMAML rows (Finn et al., arXiv 1703.03400)",
        True, NETWORKS)
    eval_queries: int = flag(
        1, "test examples per class of an evaluation task: the paper's 1; "
        "others often report 15")
    transductive: bool | None = flag(
        None, "batch norm over all test examples of a task at once; unset "
        "evaluates both modes")

    @property
    def ways(self) -> int:
        """N."""
        return self.classes

    @property
    def modes(self) -> tuple[bool, ...]:
        """The transductive settings to evaluate."""
        return ((True, False) if self.transductive is None
                else (self.transductive,))

    def check(self) -> None:
        require_at_least(2, classes=self.classes)  # One is always right.
        require_at_least(1, eval_queries=self.eval_queries)
        super().check()

    def check_data(self, splits: dict[str, list],
                   labels: Mapping[str, Iterable[Any]] | None = None) -> None:
        """Raise InputError if the classes or their examples do not suffice.

        Args:
          splits: for each split, for each class its examples, or several
            rows of them, each the class in another way.
          labels: for each split, what its classes are called; else their
            numbers.
        """
        evaluated = self.evaluated_splits(splits, curve_split(splits))
        for split, classes in splits.items():
            names = range(len(classes)) if labels is None else labels[split]
            sizes = (np.shape(examples)[-1] for examples in classes)
            self._check_split(split, dict(zip(names, sizes, strict=True)),
                              self.eval_queries if split in evaluated else 1)

    def _check_split(self, split: str, sizes: dict[Any, int], test: int
                     ) -> None:
        if len(sizes) < self.classes:
            raise InputError(
                f"classes={self.classes} needs as many classes in every "
                f"split, {split} has {len(sizes)} classes: add some"
                + (f", or use --classes={len(sizes)} or fewer" if (
                    len(sizes) > 1) else ""))
        shots, train_shots = max(self.shots), self.task.train_shots
        flag, value, queries = "shots", shots, test
        if split == "train" and train_shots > shots + test:
            flag, value, test = "train_shots", train_shots, 0
        to_test_on = {0: "", 1: " and one to test on"}.get(
            test, f" and --eval_queries={test} to test on")
        small = {label: size for label, size in sizes.items()
                 if size < value + test}
        if small:
            least = min(small, key=small.get)
            size = small.pop(least)
            offers = self._offers(split, size, queries)
            raise InputError(
                f"class {split}/{least} has "
                f"{files.number(size, 'image', 'images')}, {value + test} are "
                "needed "
                f"(--{flag}={value}{to_test_on})"
                + (f"; {len(small):,} more of {split} have too few" if small
                   else "") + ": add images, remove what is too small"
                + (f", or use {', or '.join(f'{o} or fewer' for o in offers)}"
                   if offers else ""))

    def _offers(self, split: str, size: int, queries: int) -> list[str]:
        """Flags of which one alone makes a class of this size suffice."""
        shots = max(self.shots)
        train_shots = self.task.train_shots if split == "train" else 0
        if size < train_shots:
            return [f"--train_shots={size}"] * (size >= shots + queries)
        offers = {"shots": size - queries}
        if queries > 1:
            offers["eval_queries"] = size - shots
        return [f"--{flag}={most}" for flag, most in offers.items()
                if most > 0]
