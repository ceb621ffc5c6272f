"""What is scored of a task, by hand."""

import numpy as np
import pytest

from reptile_tf.errors import InputError
from reptile_tf.learning.measures import accuracy, mean_squared_error


def test_accuracy_by_hand():
    """Of 2 tasks, 3 queries, 2 classes; and of 2 labels for each query."""
    logits = np.array([[[1, 2], [3, 1], [0, 5]], [[2, 1], [1, 2], [9, 0]]])
    np.testing.assert_allclose(
        accuracy(logits, np.array([[1, 0, 0], [1, 0, 1]])), [2 / 3, 0])
    np.testing.assert_allclose(accuracy(
        np.stack([logits, -logits], 2), np.zeros([2, 3, 2], int)), [0.5, 0.5])


@pytest.mark.parametrize("logits, labels", [
    ((2, 3, 1), (2, 3)), ((2, 3, 1), (2, 3, 1)), ((2, 3, 3), (2, 3, 3)),
    ((3, 3, 4), (3, 3, 1)), ((2, 3), (2, 3))])
def test_accuracy_is_of_a_label_and_its_logits(logits, labels):
    """Silently shapes would broadcast, and one logit always be the largest."""
    with pytest.raises(InputError, match="measure of your own"):
        accuracy(np.zeros(logits), np.zeros(labels, int))


def test_mean_squared_error_by_hand():
    np.testing.assert_allclose(mean_squared_error(
        np.array([[1.0, 2], [0, 4]]), np.array([[0.0, 0], [0, 1]])),
        [2.5, 4.5])
