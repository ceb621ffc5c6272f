"""The flags of N-way classification of images."""

from dataclasses import dataclass

from reptile_tf.configuration.checks import at_least
from reptile_tf.configuration.config import Config
from reptile_tf.configuration.run_flags import flag
from reptile_tf.errors import InputError


@dataclass(frozen=True)
class ImageConfig(Config):
    """Flags of N-way classification of images."""

    classes: int = flag(5, "N, the ways: classes per task", True)
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
        at_least(self, 2, "classes")  # Of one, every answer is right.
        super().check()

    def check_data(self, splits: dict[str, list]) -> None:
        """Raise InputError if the classes or their examples do not suffice."""
        needs = {name: max(self.shots) + 1 for name in splits}
        needs["train"] = max(needs["train"], self.task.train_shots)
        for name, classes in splits.items():
            fewest = min(map(len, classes), default=0)
            if fewest < 2:
                raise InputError(
                    f"{name} has {len(classes)} classes and, in the smallest "
                    f"of them, {fewest} examples: "
                    f"add some; a task needs --classes={self.classes} "
                    "classes of 2 or more")
            if len(classes) < self.classes:
                raise InputError(
                    f"classes={self.classes} needs as many classes in "
                    f"every split, {name} has {len(classes)}: use "
                    f"--classes={len(classes)} or fewer")
            if max(self.shots) + 1 > fewest:
                raise InputError(
                    f"shots={max(self.shots)} needs {max(self.shots) + 1} "
                    "examples a class for a test example, the smallest class "
                    f"of {name} has {fewest}: use --shots={fewest - 1} or "
                    "fewer")
            if needs[name] > fewest:
                raise InputError(
                    f"train_shots={self.task.train_shots} is more than the "
                    f"{fewest} examples of the smallest training class: use "
                    f"--train_shots={fewest} or fewer")
