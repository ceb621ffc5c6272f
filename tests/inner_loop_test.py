"""Inner steps against Keras's optimizers and numbers worked by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from reptile_tf import networks as models
from reptile_tf.errors import InputError
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import cross_entropy, squared_error
from reptile_tf.learning.optimizers import (
    InnerConfig,
    InnerState,
    mean_state,
)
from reptile_tf.learning.packing import packed
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.tasks import Batches

RATE = 1 / 32  # Keras keeps rates in float32


def linear(inputs=3, outputs=1):
    model = keras.Sequential([
        keras.Input([inputs], dtype="float64"),
        keras.layers.Dense(outputs, dtype="float64",
                           bias_initializer="ones")])
    return models.inner_clone(model)


def loop(model=None, loss=squared_error, **config):
    return InnerLoop(model or linear(), InnerConfig(**config), loss)


def two_layers():
    model = keras.Sequential([
        keras.Input([3], dtype="float64"),
        keras.layers.Dense(2, dtype="float64", name="body"),
        keras.layers.Dense(1, dtype="float64", name="head")])
    return models.inner_clone(model)


@pytest.mark.parametrize("frozen, moving", [
    ("", [True] * 4), ("body/*", [False, False, True, True]),
    ("*/bias", [True, False, True, False]),
    ("body/bias,head/kernel", [True, False, False, True])])
def test_frozen_weights_stay_while_others_adapt(rng, frozen, moving):
    """Decay and moments, too. The last step, which trains them, moves all."""
    inner = loop(two_layers(), learning_rate=0.1, inner_optimizer="adam",
                 inner_beta1=0.5, weight_decay=0.5, inner_frozen=frozen)
    plain = loop(two_layers(), learning_rate=0.1, inner_optimizer="adam",
                 inner_beta1=0.5)
    start = [tf.constant(rng.normal(size=w.shape))
             for w in inner.model.trainable_variables]
    x, y = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 4, 1))
    want, state = list(start), inner.initial_state()
    for inputs, targets in zip(x, y, strict=True):
        want = [0.5 * w if m else w for w, m in zip(want, moving, strict=True)]
        stepped, after = plain.apply_gradient(
            want, inner.gradient(want, inputs, targets), state)
        want, v, m = (
            [a if moves else b for a, b, moves in zip(*both, moving,
                                                      strict=True)]
            for both in ((stepped, want), (after.v, state.v),
                         (after.m, state.m)))
        state = InnerState(v, after.t, m)
    got, reached = inner.adapt(start, inner.initial_state(),
                               tf.constant(x), tf.constant(y))
    assert int(reached.t) == 2
    for a, b in zip([*got, *reached.v, *reached.m],
                    [*want, *state.v, *state.m], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    for a, b, v, moves in zip(got, start, reached.v, moving, strict=True):
        assert moves != np.array_equal(a, b) and moves == bool(np.any(v))
    last = inner.step(got, reached, x[0], y[0])[0]
    assert not any(np.array_equal(a, b)
                   for a, b in zip(got, last, strict=True))


@pytest.mark.parametrize("recompute", [False, True])
def test_mamls_gradient_of_frozen_weights_is_that_of_differences(
        rng, recompute):
    """Of the last mini-batch's loss at what the others have become."""
    inner = InnerLoop(
        two_layers(), InnerConfig(0.05, "sgd", "mean", inner_frozen="*/bias"),
        squared_error, recompute=recompute, unrolled_steps=9)
    phi = [tf.constant(rng.normal(size=w.shape))
           for w in inner.model.trainable_variables]
    batches = Batches(*(tf.constant(rng.normal(size=size)) for size in (
        (2, 4, 3), (2, 4, 1), (4, 3), (4, 1))))
    found, _ = REGISTRY["maml"].rule(inner, phi, inner.initial_state(),
                                     batches)

    def loss(weights):
        w, _ = inner.adapt(weights, inner.initial_state(), batches.inputs,
                           batches.targets)
        return float(inner.loss(w, batches.last_inputs,
                                batches.last_targets))

    for i, d in enumerate(found):
        place = (0,) * len(d.shape)
        step = np.zeros(d.shape)
        step[place] = 1e-5
        difference = (loss([*phi[:i], phi[i] + step, *phi[i + 1:]])
                      - loss([*phi[:i], phi[i] - step, *phi[i + 1:]])) / 2e-5
        np.testing.assert_allclose(d.numpy()[place], 0.05 * difference,
                                   rtol=1e-6)


@pytest.mark.parametrize("frozen, message", [
    ("tail/*", r"inner_frozen=tail/\* fits no weight of .*: they are "
     ".*/body/kernel, .*/body/bias, .*/head/kernel, .*/head/bias"),
    ("body/*,head/*", "leaves nothing to adapt")])
def test_frozen_weights_are_some_of_the_network(frozen, message):
    with pytest.raises(InputError, match=message):
        loop(two_layers(), inner_frozen=frozen)


@pytest.mark.parametrize("frozen, moving", [
    ("encoder/*", [False] * 3 + [True] * 5),
    ("decoder/lstm_cell/bias", [True] * 5 + [False] + [True] * 2),
    ("lstm_cell/*", [False] * 6 + [True] * 2)])
def test_a_layer_inside_another_is_frozen_by_either_name(frozen, moving):
    model = keras.Sequential([
        keras.Input([5, 3]),
        keras.layers.LSTM(4, name="encoder", return_sequences=True),
        keras.layers.LSTM(4, name="decoder"), keras.layers.Dense(2)])
    assert loop(model, inner_frozen=frozen)._moving == moving


def keras_adam(beta_1):
    return keras.optimizers.Adam(RATE, beta_1=beta_1, beta_2=0.999,
                                 epsilon=1e-8)


@pytest.mark.parametrize("name, beta1, optimizer", [
    ("sgd", 0.0, keras.optimizers.SGD(RATE)),
    ("adam", 0.0, keras_adam(0.0)),
    ("adam", 0.9, keras_adam(0.9)),
])
def test_steps_equal_kerass_optimizers(rng, name, beta1, optimizer):
    inner = loop(learning_rate=RATE, inner_optimizer=name, inner_beta1=beta1)
    variables = [keras.Variable(rng.normal(size=w.shape), dtype="float64")
                 for w in inner.model.trainable_variables]
    weights, state = [v.value.value() for v in variables], None
    state = inner.initial_state()
    for _ in range(12):
        gradient = [tf.constant(rng.normal(size=w.shape)) for w in weights]
        weights, state = inner.apply_gradient(weights, gradient, state)
        optimizer.apply(gradient, variables)
        for ours, keras_one in zip(weights, variables, strict=True):
            # Keras takes beta2 = 0.999 through float32, hence not 1e-12.
            np.testing.assert_allclose(ours, keras_one.numpy(), atol=3e-6)
    assert int(state.t) == 12
    assert len(state.m) == (len(weights) if beta1 else 0)


def test_adam_by_hand():
    inner = loop(learning_rate=0.1)
    w, state = [tf.constant([2.0, -1.0], tf.float64)], InnerState(
        [tf.constant([0.0, 0.04], tf.float64)], tf.constant(1, tf.int64))
    w, state = inner.apply_gradient(
        w, [tf.constant([0.5, -0.2], tf.float64)], state)
    # v = 0.999 v + 0.001 g^2 = [0.00025, 0.04]; 1 - 0.999^2 = 0.001999;
    # steps 0.1 sqrt(0.001999) g / (sqrt(v) + 1e-8)
    np.testing.assert_allclose(state.v[0], [0.00025, 0.04], rtol=1e-12)
    root = 0.001999 ** 0.5
    np.testing.assert_allclose(
        w[0], [2 - 0.05 * root / (0.00025 ** 0.5 + 1e-8),
               -1 + 0.02 * root / (0.2 + 1e-8)], rtol=1e-12)
    assert int(state.t) == 2


def test_momentum_by_hand():
    inner = loop(learning_rate=0.1, inner_beta1=0.75)
    w, state = [tf.constant([2.0], tf.float64)], InnerState(
        [tf.constant([0.04], tf.float64)], tf.constant(1, tf.int64),
        [tf.constant([0.4], tf.float64)])
    w, state = inner.apply_gradient(
        w, [tf.constant([-0.2], tf.float64)], state)
    # m = 0.75 0.4 - 0.25 0.2 = 0.25; 1 - 0.75^2 = 0.4375; v stays 0.04
    np.testing.assert_allclose(state.m[0], [0.25], rtol=1e-12)
    np.testing.assert_allclose(
        w[0], [2 - 0.1 * 0.001999 ** 0.5 * 0.25 / 0.4375 / (0.2 + 1e-8)],
        rtol=1e-12)


def test_first_adam_step_moves_by_the_learning_rate():
    inner = loop(learning_rate=0.01)
    w, _ = inner.apply_gradient(
        [tf.constant([1.0, 1.0])], [tf.constant([3.0, -1e-3])],
        InnerState([tf.zeros(2)], tf.constant(0, tf.int64)))
    np.testing.assert_allclose(w[0], [0.99, 1.01], rtol=1e-5)


def test_late_t_needs_no_precision():
    inner = loop(learning_rate=1.0)
    for t in (0, 1, 1000, 2_500_000):
        w, _ = inner.apply_gradient(
            [tf.constant([0.0])], [tf.constant([1.0])],
            InnerState([tf.constant([1.0])], tf.constant(t, tf.int64)))
        expected = -np.sqrt(1 - 0.999 ** np.float64(t + 1))
        np.testing.assert_allclose(w[0], [expected], rtol=2e-7)


@pytest.mark.parametrize("reduction, factor", [("sum", 1), ("mean", 4)])
def test_sum_not_mean(rng, reduction, factor):
    inner = loop(learning_rate=0.02, inner_optimizer="sgd",
                 inner_loss=reduction)
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 1))
    kernel = inner.model.trainable_variables[0].numpy()
    weights = [tf.constant(kernel), tf.ones(1, tf.float64)]
    new, _ = inner.step(weights, inner.initial_state(), tf.constant(x),
                        tf.constant(y))
    residual = x @ kernel + 1 - y
    np.testing.assert_allclose(
        new[0], kernel - 0.02 * 2 * x.T @ residual / factor, rtol=1e-10)
    np.testing.assert_allclose(
        new[1], 1 - 0.02 * 2 * residual.sum(0) / factor, rtol=1e-10)


@pytest.mark.parametrize("reduction, number", [("sum", 1), ("mean", 6)])
def test_every_loss_of_an_example_counts(reduction, number):
    """Of 3 examples and 2 outputs the mean is of 6 losses. By hand: errors
    1, 2, 3 and -1, 0, 4, so that each bias moves by 2 alpha times their sum,
    6 and 3, over the number."""
    inner = loop(linear(outputs=2), learning_rate=0.25,
                 inner_optimizer="sgd", inner_loss=reduction)
    weights = [tf.zeros([3, 2], tf.float64), tf.zeros(2, tf.float64)]
    x = tf.zeros([3, 3], tf.float64)
    y = -np.array([[1.0, -1], [2, 0], [3, 4]])
    assert float(inner.loss(weights, x, y)) == 31 / number
    new, _ = inner.step(weights, inner.initial_state(), x, y)
    np.testing.assert_allclose(new[1], [-3 / number, -1.5 / number],
                               rtol=1e-12)


def test_the_default_loss_is_the_sum():
    assert InnerConfig().inner_loss == "sum"


def test_weight_decay_comes_before_the_gradient(rng):
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 1))
    weights = [tf.constant(rng.normal(size=(3, 1))), tf.ones(1, tf.float64)]
    config = dict(learning_rate=0.02, inner_optimizer="sgd")
    decayed = loop(**config, weight_decay=0.5)
    plain = loop(**config)
    got, _ = decayed.step(weights, decayed.initial_state(), x, y)
    want, _ = plain.step([0.5 * w for w in weights], plain.initial_state(), x,
                         y)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("unrolled_steps", [5, 6])
def test_adapt_is_k_steps(rng, unrolled_steps):
    inner = loop(learning_rate=0.1)
    inner.unrolled_steps = unrolled_steps
    x = tf.constant(rng.normal(size=(6, 4, 3)))
    y = tf.constant(rng.normal(size=(6, 4, 1)))
    weights = [w.value.value() for w in inner.model.trainable_variables]
    w, state = weights, inner.initial_state()
    for i in range(6):
        w, state = inner.step(w, state, x[i], y[i])
    got, got_state = tf.function(inner.adapt, autograph=False)(
        weights, inner.initial_state(), x, y)
    for a, b in zip([*got, *got_state.v], [*w, *state.v], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert int(got_state.t) == 6


@pytest.mark.parametrize("jit", [False, True])
def test_no_nan_through_adam_from_v_zero(jit):
    """A weight without gradient has v = 0, where sqrt has slope infinity."""
    inner = loop(learning_rate=0.1)

    @tf.function(autograph=False, jit_compile=jit)
    def slope(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            state = InnerState([tf.zeros(2)], tf.constant(0, tf.int64))
            gradient = tf.stack([w[0] ** 2, 0.0 * w[1]])
            new, _ = inner.apply_gradient([w], [gradient], state)
            loss = tf.reduce_sum(new[0])
        return tape.gradient(loss, w)

    # Adam's first step does not depend on the size of g: slope 1.
    np.testing.assert_allclose(slope(tf.constant([2.0, 3.0])), [1, 1],
                               atol=1e-4)


@pytest.mark.parametrize("shapes, number", [
    ([(3,), (70, 60), (2, 5), (4096,), (1,)], 3), ([(4095,)], 1),
    ([(64, 65)], 1)])
def test_small_weights_are_stepped_together(rng, shapes, number):
    """The same bits, weight by weight, as one after the other."""
    def tensors():
        return [tf.constant(rng.normal(size=s), tf.float32) for s in shapes]

    weights, gradient = tensors(), tensors()
    state = InnerState([tf.square(x) for x in tensors()],
                       tf.constant(4, tf.int64))
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
    (want, want_state), (got, got_state) = (
        InnerLoop(models.inner_clone(model), InnerConfig(), squared_error,
                  one_graph=jit).apply_gradient(weights, gradient, state)
        for jit in (True, False))
    assert [w.shape for w in got] == shapes
    for a, b in zip([*got, *got_state.v], [*want, *want_state.v],
                    strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(got_state.t) == 5
    assert len(packed(weights)) == number


def test_cross_entropy_by_hand():
    logits = tf.math.log(tf.constant([[1.0, 2, 1], [6, 1, 1]]))
    np.testing.assert_allclose(
        cross_entropy(tf.constant([1, 2]), logits),
        [np.log(2), np.log(8)], rtol=1e-6)


def test_mean_state():
    state = mean_state(InnerState([tf.constant([[1.0, 2], [3, 6]])],
                                  tf.constant(9, tf.int64),
                                  [tf.constant([[0.0, 5], [1, 7]])]))
    np.testing.assert_array_equal(state.v[0], [2, 4])
    np.testing.assert_array_equal(state.m[0], [0.5, 6])
    assert int(state.t) == 9


@pytest.mark.parametrize("config, message", [
    (dict(inner_optimizer="rmsprop"), "rmsprop.*adam"),
    (dict(inner_loss="max"), "max.*sum"),
    (dict(learning_rate=0.0), "learning_rate=0.0.*positive"),
    (dict(weight_decay=1.5), r"weight_decay=1.5.*\[0.5, 1\]"),
    (dict(weight_decay=1e-4), "weight_decay=0.0001.*0.9999 takes 0.0001"),
    (dict(inner_beta1=1.0), r"inner_beta1=1.0 must be in \[0, 1\)"),
    (dict(inner_beta1=float("nan")), "inner_beta1=nan"),
    (dict(inner_beta1=0.9, inner_optimizer="sgd"),
     "inner_beta1=0.9.*sgd has none: use 0, or adam"),
])
def test_bad_config(config, message):
    with pytest.raises(InputError, match=message):
        InnerConfig(**config)
