"""adapt_and_predict in TensorFlow Lite's interpreter and operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from reptile_tf import (
    AdaptConfig,
    InnerConfig,
    Learner,
    cross_entropy,
    networks,
    squared_error,
)
from reptile_tf.errors import InputError

pytestmark = pytest.mark.filterwarnings(
    r"ignore:\s+Warning:UserWarning")  # LiteRT's package shall be used.
ADAPTATION = AdaptConfig(steps=3, batch=4)


def runner(learner, file):
    learner.save_tflite(file)
    return tf.lite.Interpreter(str(file)).get_signature_runner()


@pytest.mark.parametrize("model, inner, loss", [
    pytest.param(lambda: networks.omniglot(3), InnerConfig(), cross_entropy,
                 marks=pytest.mark.slow),
    pytest.param(lambda: networks.mini_imagenet(3, 0, 11), InnerConfig(
        inner_beta1=0.9, weight_decay=0.99), cross_entropy,
        marks=pytest.mark.slow),
    (networks.sine, InnerConfig(0.02, "sgd", "mean"), squared_error)],
    ids=["omniglot", "mini_imagenet", "sine"])
def test_it_gives_the_same_logits_for_any_number(rng, tmp_path, model, inner,
                                                 loss):
    learner = Learner(model(), inner, loss, ADAPTATION)
    learner.state = learner.state._replace(
        v=[0.01 + tf.square(v) for v in learner.weights] if learner.state.v
        else [], t=tf.constant(1234, tf.int64))
    call = runner(learner, tmp_path / "model.tflite")
    shape = learner.model.inputs[0].shape[1:]
    for support, queries in ((7, 2), (3, 5)):
        x, q = (rng.normal(size=(n, *shape)).astype("float32")
                for n in (support, queries))
        y = (rng.integers(0, 3, support) if loss is cross_entropy
             else np.sin(x))
        for transductive in (True, False):
            got = call(support_images=x, support_labels=y, query_images=q,
                       transductive=np.array(transductive))["logits"]
            np.testing.assert_allclose(
                got, learner.adapt(x, y).predict(q, transductive), atol=1e-4)


@pytest.mark.parametrize("stride, padding, window, size", [
    (1, "same", 3, (5, 4)), (2, "valid", 3, (6, 7)), (3, "same", 2, (7, 5)),
    (2, "same", 5, (4, 4)), (3, "valid", 1, (5, 8))])
def test_its_layers_are_the_stock_ones(rng, stride, padding, window, size):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        keras.Input([*size, 2]),
        keras.layers.Conv2D(3, window, stride, padding, activation="relu"),
        keras.layers.MaxPooling2D(2, 1, "same"), keras.layers.ReLU()])
    lite = networks.inner_clone(model, "lite")
    x = tf.constant(rng.normal(size=(4, *size, 2)), tf.float32)
    results = []
    for one in (model, lite):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = one(x)
            loss = tf.reduce_sum(tf.square(y))
        results.append([y, *tape.gradient(
            loss, [x, *(w.value for w in one.trainable_variables)])])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_what_it_cannot_compute_is_named(tmp_path):
    model = keras.Sequential([
        keras.Input([6, 6, 1]), keras.layers.Conv2DTranspose(2, 3),
        keras.layers.Flatten(), keras.layers.Dense(3)])
    file = tmp_path / "model.tflite"
    with pytest.raises(InputError, match="has no .*Conv2DBackpropFilter"):
        Learner(model, adaptation=ADAPTATION).save_tflite(file)
    assert not file.exists()
    with pytest.raises(InputError, match="MaxPooling2D.*takes any"):
        Learner(keras.Sequential([
            keras.Input([None, None, 1]), keras.layers.MaxPooling2D(),
            keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)
        ]), adaptation=ADAPTATION).save_tflite(file)
    with pytest.raises(InputError, match="weights are float64"):
        Learner(keras.Sequential([
            keras.Input([4]), keras.layers.Dense(3, dtype="float64")
        ])).save_tflite(file)
    with pytest.raises(InputError, match="recurrent layer.*unroll=True"):
        Learner(keras.Sequential([
            keras.Input([3, 2]), keras.layers.SimpleRNN(2),
            keras.layers.Dense(3)]), adaptation=ADAPTATION).save_tflite(file)
    assert not file.exists()
    with pytest.raises(InputError, match="none is not a folder"):
        Learner(model).save_tflite(tmp_path / "none" / "model.tflite")
