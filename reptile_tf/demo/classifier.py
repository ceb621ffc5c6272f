"""What the drawing page asks for: few examples in, probabilities out."""

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import tensorflow as tf

from reptile_tf import trained
from reptile_tf.errors import InputError
from reptile_tf.learning.learner import Adapted

IMAGE = (28, 28, 1)
# Adapted weights that are kept, 0.5 MB each: those of the support sets and
# steps last asked for, so that a stroke of a query costs one prediction.
KEPT = 64


class Classifier:
    """A learner of Omniglot's pictures, for several clients at once.

    Args:
      directory: that `Learner.save`, or a run, wrote.

    Attributes:
      ways: N, the most classes.
      steps: inner steps of its own `adapt_and_predict`.

    Raises:
      InputError: no learner is there, or one of other examples.
    """

    def __init__(self, directory: Path) -> None:
        self._learner = trained.load_from(directory)
        inputs, outputs = (tuple(x[0].shape[1:]) for x in (
            self._learner.architecture.inputs,
            self._learner.architecture.outputs))
        if inputs != IMAGE or len(outputs) != 1:
            raise InputError(
                f"{directory} takes examples of shape {list(inputs)}: give an "
                f"initialization for images {list(IMAGE)}, a run of "
                "run_omniglot.py")
        self.ways, self.steps = outputs[0], self._learner.adaptation.steps
        self._lock = threading.Lock()
        self._adapted: OrderedDict[bytes, Adapted] = OrderedDict()
        self._warm_up()

    def probabilities(self, support: np.ndarray, labels: np.ndarray,
                      queries: np.ndarray, steps: int, transductive: bool
                      ) -> np.ndarray:
        """[Q, C] of queries [Q, 28, 28, 1], for the classes 0 to C - 1.

        C is the number of classes in the support set. Outputs of the network
        for more classes than these are left out of the softmax.

        Args:
          support: examples [S, 28, 28, 1].
          labels: [S].
          queries: examples.
          steps: inner steps.
          transductive: batch normalization sees all queries at once.
        """
        logits = self.logits(support, labels, queries, steps, transductive)
        return tf.nn.softmax(logits[:, :labels.max() + 1]).numpy()

    def logits(self, support: np.ndarray, labels: np.ndarray,
               queries: np.ndarray, steps: int, transductive: bool
               ) -> np.ndarray:
        """[Q, N]; arguments as of `probabilities`."""
        with self._lock:
            return self._adapt(support, labels, steps).predict(
                queries, transductive).numpy()

    def _adapt(self, support, labels, steps) -> Adapted:
        key = hashlib.sha256(repr((support.shape, steps)).encode() + b"".join(
            np.ascontiguousarray(a).tobytes() for a in (support, labels))
        ).digest()
        if key not in self._adapted:
            self._adapted[key] = self._learner.adapt(support, labels, steps)
            while len(self._adapted) > KEPT:
                self._adapted.popitem(last=False)
        self._adapted.move_to_end(key)
        return self._adapted[key]

    def _warm_up(self) -> None:
        """Trace before the first request; two sizes make the graphs general.
        """
        for size, steps in ((1, 1), (2, 2)):
            images = np.ones([size, *IMAGE], np.float32)
            labels = np.zeros(size, np.int64)
            for transductive in (False, True):
                self.logits(images, labels, images, steps, transductive)
        self._adapted.clear()
