"""The outer optimizer: Keras's, with the annealed meta step."""

import keras

from reptile_tf.learning.meta_config import MetaConfig

ADAM_EPSILON = 1e-8


def outer_optimizer(meta: MetaConfig) -> keras.optimizers.Optimizer:
    """The outer step, with epsilon annealed linearly."""
    # (1 - i/n) * meta_step + i/n * meta_step_final
    # Floats: of an integer Keras would round the final one to integers.
    rate = keras.optimizers.schedules.PolynomialDecay(
        float(meta.meta_step), max(meta.meta_iters, 1),
        float(meta.meta_step_final), power=1)
    clip = meta.outer_clip or None
    if meta.outer_optimizer == "sgd":
        return keras.optimizers.SGD(rate, clipvalue=clip)
    return keras.optimizers.Adam(rate, epsilon=ADAM_EPSILON,
                                 clipvalue=clip)
