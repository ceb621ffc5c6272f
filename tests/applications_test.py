"""keras.applications: of each family one trains exactly, or is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from layers_test import precision

from reptile_tf import networks
from reptile_tf.errors import InputError

pytestmark = pytest.mark.slow
# Of a family the smallest; larger ones repeat its layers. Left out for their
# minutes: ConvNeXt, DenseNet, Inception and NASNet, which are exact, too.
SIZES = {"MobileNetV2": 32, "ResNet50V2": 32, "VGG16": 32, "Xception": 71}
# Whose dropout no argument of theirs leaves out.
REFUSED = ("EfficientNetB0", "EfficientNetV2B0", "MobileNet",
           "MobileNetV3Small")


def built(name, size=32):
    keras.utils.set_random_seed(1)
    return getattr(keras.applications, name)(
        weights=None, classes=2, input_shape=(size, size, 3),
        classifier_activation=None)


@pytest.mark.parametrize("name", SIZES)
def test_second_derivatives_are_exact(name):
    """Along the gradient, against differences of the stock gradient.

    Normalized over 4 images, such deep networks bend sharply: differences
    need small steps, which float64 has.
    """
    rng = np.random.default_rng(0)
    with precision("float64"):
        model = built(name, SIZES[name])
        clone = networks.inner_clone(model)
        x = tf.constant(rng.normal(size=(4, *model.inputs[0].shape[1:])))
        y = tf.constant(rng.normal(size=(4, 2)))
        constants = [v.value for v in clone.non_trainable_variables]
        variables = [v.value for v in model.trainable_variables]
        phi = [v.value() for v in variables]

        def gradient(loss, weights):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                value = loss(weights)
            return tape.gradient(value, weights)

        def loss(weights):
            outputs, _ = clone.stateless_call(weights, constants, x,
                                              training=True)
            return tf.reduce_sum(tf.square(outputs - y))

        def stock_gradient(at):
            for variable, value in zip(variables, at, strict=True):
                variable.assign(value)
            return gradient(lambda _: tf.reduce_sum(tf.square(
                model(x, training=True) - y)), variables)

        along = stock_gradient(phi)
        norm = tf.linalg.global_norm(along)
        along = [g / norm for g in along]
        products = tf.function(autograph=False)(lambda: gradient(
            lambda w: sum(tf.reduce_sum(a * b) for a, b in zip(
                gradient(loss, w), along, strict=True)), phi))()

        def difference(h):
            up, down = (stock_gradient(
                [p + sign * h * a for p, a in zip(phi, along, strict=True)])
                for sign in (1, -1))
            return [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]

        errors = []
        for h in (1e-7, 1e-9):
            want = difference(h)
            errors.append(float(tf.linalg.global_norm(
                [a - b for a, b in zip(products, want, strict=True)])
                / tf.linalg.global_norm(want)))
        assert min(errors) < 1e-5, errors


@pytest.mark.parametrize("name", REFUSED)
def test_a_dropout_of_rate_0_is_taken(name):
    model = built(name)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
    networks.inner_clone(model)


@pytest.mark.parametrize("name", REFUSED)
def test_dropout_is_refused_by_name(name):
    with pytest.raises(InputError, match="drop.* .Dropout. changes its own"):
        networks.inner_clone(built(name))
