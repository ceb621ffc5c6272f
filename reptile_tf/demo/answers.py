"""The demonstration's answers to its pages, each as a JSON object."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from reptile_tf.datasets import glyphs
from reptile_tf.demo import drawing, requests
from reptile_tf.demo.classifier import Classifier
from reptile_tf.demo.waves import Waves

MARGIN = 0.05  # Of an example's drawings.


class Answers:
    """Without state: each request says all that its answer depends on.

    Args:
      initialization: a run's, for images.
      sines: runs', for functions of x.
      missing: folders that would have been in `sines`, for the page to say.

    Attributes:
      posts: path -> body -> answer.

    Raises:
      InputError: no learner is there, or one of other examples.
    """

    def __init__(self, initialization: Path, sines: Sequence[Path],
                 missing: Sequence[Path] = ()) -> None:
        self.classifier, self.waves = Classifier(initialization), Waves(sines)
        self.posts = {"/classify": self.classify, "/example": self.example,
                      "/sine": self.sine}
        self.about = {
            "initialization": str(initialization),
            "classes": min(self.classifier.ways, requests.MOST_CLASSES),
            "drawings": requests.MOST_DRAWINGS,
            "steps": self.classifier.steps,
            "most_steps": max(requests.MOST_STEPS, self.classifier.steps),
            "grid": self.waves.grid.tolist(),
            "missing": [str(path) for path in missing]}

    def classify(self, body: dict[str, Any]) -> dict[str, Any]:
        """{pictures: {support, queries}, probabilities}.

        A picture is 28 * 28 characters, 0 for ink and 1 for paper.
        Probabilities [Q, C] are null until every class has a drawing and
        there is a query.
        """
        asked = requests.question(body, self.classifier.ways,
                                  self.about["most_steps"])
        support = [[_picture(d) for d in of_class]
                   for of_class in asked.support]
        queries = [_picture(d) for d in asked.queries]
        probabilities = None
        if queries and all(support):
            labels = np.repeat(np.arange(len(support)), [*map(len, support)])
            probabilities = self.classifier.probabilities(
                np.concatenate([np.stack(s) for s in support]), labels,
                np.stack(queries), asked.steps, asked.transductive).tolist()
        return {"pictures": {"support": [[*map(_text, s)] for s in support],
                             "queries": [*map(_text, queries)]},
                "probabilities": probabilities}

    def example(self, body: dict[str, Any]) -> dict[str, Any]:
        """{support, queries}: drawings of built-in characters."""
        classes = requests.whole(body, "classes", 2, self.about["classes"])
        shots, number = (
            requests.whole(body, name, 1, requests.MOST_DRAWINGS)
            for name in ("drawings", "queries"))
        seed = requests.whole(body, "seed", 1, requests.LARGEST_SEED)
        drawn = glyphs.curves(seed, classes, shots + number)
        all_drawings = [
            [_on_paper(one[used] / glyphs.SIZE) for one in of_class]
            for of_class, used in zip(drawn.points, drawn.used, strict=True)]
        asked = np.random.default_rng(seed).integers(classes, size=number)
        return {"support": [d[:shots] for d in all_drawings],
                "queries": [all_drawings[c][shots + i]
                            for i, c in enumerate(asked)]}

    def sine(self, body: dict[str, Any]) -> dict[str, Any]:
        """{curves: [{name, y}]}: f at the grid, of each initialization."""
        return {"curves": self.waves.curves(
            requests.points(body),
            requests.whole(body, "steps", 0, requests.MOST_SINE_STEPS))}


def _on_paper(points: np.ndarray) -> list[list[float]]:
    """Strokes [n, 56, 2], moved where they would leave the paper."""
    low, high = points.min((0, 1)), points.max((0, 1))
    moved = points + np.maximum(MARGIN - low, 0) - np.maximum(
        high - 1 + MARGIN, 0)
    return [stroke.ravel().tolist()
            for stroke in np.clip(moved, 0, 1).round(3)]


def _picture(strokes: drawing.Strokes) -> np.ndarray:
    return _kept_picture(tuple(stroke.tobytes() for stroke in strokes))


# All drawings of a request but one are those of the request before.
@lru_cache(256)
def _kept_picture(strokes: tuple[bytes, ...]) -> np.ndarray:
    return drawing.picture([np.frombuffer(stroke).reshape(-1, 2)
                            for stroke in strokes])


def _text(picture: np.ndarray) -> str:
    return "".join("01"[int(pixel)] for pixel in picture.ravel())
