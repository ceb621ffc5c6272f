"""Random generators: one for each purpose, all from the run's seed."""

import zlib

import numpy as np

SPLIT_STREAM, TRAINING_STREAM, EVALUATION_STREAM, WEIGHTS_STREAM = range(4)


def generator(seed: int, stream: int, *key: int) -> np.random.Generator:
    """The random generator of one purpose: streams never share a state."""
    return np.random.default_rng([seed, stream, *key])


def evaluation_generator(
    seed: int, split: str, shots: int, iteration: int
) -> np.random.Generator:
    """The generator of one evaluation, independent of training's.

    Keyed by (seed, split, iteration), and by shots, so that neither the
    evaluation interval nor the other cells of a run change its tasks.
    """
    return generator(seed, EVALUATION_STREAM, zlib.crc32(split.encode()),
                     shots, iteration)
