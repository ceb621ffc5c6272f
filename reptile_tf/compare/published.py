"""The paper's numbers: tables 1 and 2 (section 6.1)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A cell of table 1 or 2.

    Attributes:
      accuracy: on test tasks, %.
      interval: its ±, %. Reptile: the standard deviation across 3 runs; MAML
        and FOMAML, copied by the paper from Finn et al.: the 95 % interval
        over 600 tasks.
      meta_iters: of the training run behind it.
    """

    accuracy: float
    interval: float
    meta_iters: int


# (data set, ways, shots) of the columns, in the order of the rows below.
_COLUMNS = (("omniglot", 5, 1), ("omniglot", 5, 5), ("omniglot", 20, 1),
            ("omniglot", 20, 5), ("miniimagenet", 5, 1),
            ("miniimagenet", 5, 5))
# By (algorithm, transductive). MAML and FOMAML are transductive ("+
# transduction") alone.
_ROWS = {
    ("maml", True): ((98.7, 0.4), (99.9, 0.1), (95.8, 0.3), (98.9, 0.2),
                     (48.70, 1.84), (63.11, 0.92)),
    ("fomaml", True): ((98.3, 0.5), (99.2, 0.2), (89.4, 0.5), (97.9, 0.1),
                       (48.07, 1.75), (63.15, 0.91)),
    ("reptile", False): ((95.39, 0.09), (98.90, 0.10), (88.14, 0.15),
                         (96.65, 0.33), (47.07, 0.26), (62.74, 0.37)),
    ("reptile", True): ((97.68, 0.04), (99.48, 0.06), (89.43, 0.14),
                        (97.12, 0.32), (49.97, 0.32), (65.99, 0.58)),
}


def published(dataset: str, ways: int, shots: int, algorithm: str,
              transductive: bool) -> Published | None:
    """The paper's number, if it has one.

    Args:
      dataset: NAME of a module of `datasets`.
      ways, shots: N and K of the test tasks.
      algorithm: a key of `rules.REGISTRY`.
      transductive: the batch-norm mode.
    """
    column, row = (dataset, ways, shots), (algorithm, transductive)
    if column not in _COLUMNS or row not in _ROWS:
        return None
    return Published(*_ROWS[row][_COLUMNS.index(column)],
                     _meta_iters(dataset, ways, algorithm))


def _meta_iters(dataset: str, ways: int, algorithm: str) -> int:
    """Tables 3 to 5 of the paper; Finn et al., appendix A.1."""
    if algorithm != "reptile":
        return 60_000
    return 200_000 if (dataset, ways) == ("omniglot", 20) else 100_000
