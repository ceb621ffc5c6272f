"""What is scored of a task: outputs beside targets to a number."""

from collections.abc import Callable

import numpy as np

from reptile_tf.errors import InputError
from reptile_tf.learning.arrays import shape_text
from reptile_tf.learning.losses import Loss, cross_entropy

# (outputs [T, Q, N], targets [T, Q, ...]) -> one number for each task [T]
Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The fraction that is right: [T, Q, ..., N], [T, Q, ...] -> [T].

    Raises:
      InputError: outputs or targets of other shapes, such as one logit.
    """
    if labels.shape != logits.shape[:-1] or logits.shape[-1] < 2:
        raise InputError(
            "accuracy is of a logit for each class and one label, and a query "
            f"has outputs {shape_text(logits.shape[2:])} and targets "
            f"{shape_text(labels.shape[2:])}: give a measure of your own"
            + (", such as lambda outputs, targets: ((outputs > 0) == "
               "targets.reshape(outputs.shape)).mean((1, 2))"
               if logits.shape[-1] == 1 else ", or such targets"))
    return _mean_of_tasks(np.argmax(logits, -1) == labels)


def mean_squared_error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Mean over queries and outputs: [T, Q, ...], [T, Q, ...] -> [T]."""
    return _mean_of_tasks(np.square(outputs - targets))


def measure_of(loss: Loss) -> Measure:
    """What is scored of a network trained with a loss.

    Accuracy for cross_entropy; else the loss itself, averaged over queries.
    """
    if loss is cross_entropy:
        return accuracy

    def mean_loss(outputs, targets):
        return np.stack([_mean_of_tasks(np.asarray(loss(y, x))[None])[0]
                         for x, y in zip(outputs, targets, strict=True)])
    return mean_loss


def _mean_of_tasks(values: np.ndarray) -> np.ndarray:
    """[T, ...] -> [T]."""
    return values.mean(tuple(range(1, values.ndim)))
