"""The rules against the paper's formulas, and the contract of the registry."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import EACH_ENGINE, EACH_ENGINE_SLOWLY, ENGINES

from reptile_tf import networks as models
from reptile_tf.errors import InputError
from reptile_tf.learning import meta_batch as engines
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import squared_error
from reptile_tf.learning.optimizers import InnerConfig, InnerState
from reptile_tf.learning.rules import REGISTRY, unweighted
from reptile_tf.tasks import Batches

ALPHA = 0.02
TASKS = 2  # Of a meta-batch; in it are k mini-batches of 5, the last of 4.
WEIGHTS = (0.5, 0.0, 0.0, -2.0)


def dense(dtype="float64"):
    keras.utils.set_random_seed(5)
    return keras.Sequential([
        keras.Input([3], dtype=dtype),
        keras.layers.Dense(4, activation="tanh", dtype=dtype),
        keras.layers.Dense(2, dtype=dtype)])


def convolutional(dtype):
    """As the paper's, small; no conv biases: their gradient is rounding."""
    keras.utils.set_random_seed(5)
    keras.config.set_dtype_policy(dtype)
    try:
        return keras.Sequential([
            keras.Input([5, 6, 2], dtype=dtype),
            keras.layers.Conv2D(3, 3, strides=2, padding="same",
                                use_bias=False),
            keras.layers.BatchNormalization(epsilon=1e-3),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3)])
    finally:
        keras.config.set_dtype_policy("float32")


def inner_of(model, second_order=False, **config):
    clone = models.inner_clone(model)
    loss = config.pop("loss", None)
    return InnerLoop(clone, InnerConfig(**config),
                     *([loss] if loss else []),
                     unrolled_steps=math.inf if second_order else 0)


def regression_batches(rng, k, batch=5, last=4):
    return Batches(*(tf.constant(rng.normal(size=s)) for s in (
        (k - 1, batch, 3), (k - 1, batch, 2), (last, 3), (last, 2))))


def phi_of(model):
    return [w.value.value() for w in model.trainable_variables]


def loss_at(model, weights, x, y):
    for variable, value in zip(model.trainable_variables, weights,
                               strict=True):
        variable.assign(value)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(x) - y))
    return loss, tape.gradient(
        loss, [v.value for v in model.trainable_variables])


def sgd_path(model, batches):
    """Gradients g_1..g_k of a plain SGD path, by Keras alone."""
    w = phi_of(model)
    steps = [*zip(batches.inputs, batches.targets, strict=True),
             (batches.last_inputs, batches.last_targets)]
    gradients = []
    for x, y in steps:
        _, g = loss_at(model, w, x, y)
        gradients.append(g)
        w = [a - ALPHA * b for a, b in zip(w, g, strict=True)]
    return gradients


def rule_of(name, weights=WEIGHTS[-3:]):
    return REGISTRY[name].with_weights(weights)


def displacement(name, model, batches, weights=(), **config):
    second_order = REGISTRY[name].second_order
    config = {"learning_rate": ALPHA, "inner_optimizer": "sgd",
              "loss": squared_error, **config}
    inner = inner_of(model, second_order, **config)
    return rule_of(name, weights)(
        inner, phi_of(model), inner.initial_state(), batches)[0]


def assert_close(got, want, rtol=1e-9):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


def test_registry():
    assert set(REGISTRY) == {"reptile", "fomaml", "maml", "joint",
                             "gradient_sum"}
    assert set(REGISTRY) - set(unweighted()) == {"gradient_sum"}


def test_reptile_is_alpha_times_the_sum_of_gradients(rng):
    model, batches = dense(), regression_batches(rng, 4)
    got = displacement("reptile", model, batches)
    assert_close(got, [ALPHA * sum(g) for g in
                       zip(*sgd_path(dense(), batches), strict=True)])


@pytest.mark.parametrize("weights", [
    WEIGHTS, (0, 0, 1, 1), (1, 2, 3, 4), (0.25,) * 4])
def test_gradient_sum_is_the_weighted_sum_of_gradients(rng, weights):
    batches = regression_batches(rng, 4)
    got = displacement("gradient_sum", dense(), batches, weights)
    assert_close(got, [
        ALPHA * sum(a * x for a, x in zip(weights, g, strict=True))
        for g in zip(*sgd_path(dense(), batches), strict=True)])


@pytest.mark.parametrize("config", [
    dict(inner_optimizer="sgd"), dict(inner_optimizer="adam"),
    dict(inner_optimizer="adam", inner_beta1=0.9, weight_decay=0.9)])
@pytest.mark.parametrize("k", [1, 4])
def test_reptile_and_fomaml_are_gradient_sums(rng, k, config):
    batches = regression_batches(rng, k)
    for name, weights in (("reptile", [1.0] * k),
                          ("fomaml", [0.0] * (k - 1) + [1.0])):
        assert_close(
            displacement("gradient_sum", dense(), batches, weights, **config),
            displacement(name, dense(), batches, **config), rtol=1e-12)


def test_gradient_sums_displacements_include_their_steps_decay(rng):
    """Step by step, by the sum that the rule does not keep."""
    batches, config = regression_batches(rng, 4), dict(
        learning_rate=ALPHA, weight_decay=0.9)
    inner = inner_of(dense(), loss=squared_error, **config)
    w, state, want = phi_of(dense()), inner.initial_state(), None
    steps = [*zip(batches.inputs, batches.targets, strict=True),
             (batches.last_inputs, batches.last_targets)]
    for weight, (x, y) in zip(WEIGHTS, steps, strict=True):
        after, state = inner.step(w, state, x, y)
        moved = [weight * (a - b) for a, b in zip(w, after, strict=True)]
        want = moved if want is None else [
            a + b for a, b in zip(want, moved, strict=True)]
        w = after
    assert_close(displacement("gradient_sum", dense(), batches, WEIGHTS,
                              inner_optimizer="adam", weight_decay=0.9), want)


@pytest.mark.parametrize("weights, message", [
    ((1, 1), "gradient_weights=1,1 are 2 and inner_iters=3"),
    ((0, 0, 0), "gradient_weights=0,0,0.*not all 0"),
    ((1, float("nan"), 1), "1,nan,1 must be finite")])
def test_bad_weights(rng, weights, message):
    with pytest.raises(InputError, match=message):
        displacement("gradient_sum", dense(), regression_batches(rng, 3),
                     weights)


@pytest.mark.parametrize("name", ["reptile", "joint", "fomaml"])
def test_one_step_is_the_sgd_step(rng, name):
    batches = regression_batches(rng, 1)
    [gradient] = sgd_path(dense(), batches)
    assert_close(displacement(name, dense(), batches),
                 [ALPHA * g for g in gradient])


def test_fomaml_is_the_last_gradient(rng):
    batches = regression_batches(rng, 3)
    assert_close(displacement("fomaml", dense(), batches),
                 [ALPHA * g for g in sgd_path(dense(), batches)[-1]])


def test_fomamls_displacement_includes_the_last_steps_decay(rng):
    batches, inner = regression_batches(rng, 2), inner_of(
        dense(), learning_rate=ALPHA, inner_optimizer="sgd",
        weight_decay=0.9, loss=squared_error)
    phi, state = phi_of(dense()), inner.initial_state()
    before, state = inner.step(phi, state, batches.inputs[0],
                               batches.targets[0])
    after, _ = inner.step(before, state, batches.last_inputs,
                          batches.last_targets)
    got = displacement("fomaml", dense(), batches, weight_decay=0.9)
    assert_close(got, [a - b for a, b in zip(before, after, strict=True)])


def test_joint_takes_every_gradient_at_phi(rng):
    batches, total = regression_batches(rng, 4), None
    for x, y in [*zip(batches.inputs, batches.targets, strict=True),
                 (batches.last_inputs, batches.last_targets)]:
        model = dense()
        _, g = loss_at(model, phi_of(model), x, y)
        total = g if total is None else [
            a + b for a, b in zip(total, g, strict=True)]
    assert_close(displacement("joint", dense(), batches),
                 [ALPHA * g for g in total])


@pytest.mark.parametrize("frozen, moving", [
    ("*/kernel", [False, True] * 2), ("*/bias", [True, False] * 2)])
def test_joint_learns_frozen_weights_from_the_last_mini_batch(
        rng, frozen, moving):
    """Until then their decay rests, too."""
    batches, phi = regression_batches(rng, 4), phi_of(dense())
    want = [0 * p for p in phi]
    for x, y, moves in [
            *((x, y, moving) for x, y in zip(batches.inputs, batches.targets,
                                             strict=True)),
            (batches.last_inputs, batches.last_targets, [True] * 4)]:
        at = [0.75 * p if m else p for p, m in zip(phi, moves, strict=True)]
        _, gradient = loss_at(dense(), at, x, y)
        want = [d + p - (w - ALPHA * g) if m else d for d, p, w, g, m in zip(
            want, phi, at, gradient, moves, strict=True)]
    assert_close(displacement("joint", dense(), batches, weight_decay=0.75,
                              inner_frozen=frozen), want)


def test_maml_is_equation_21_on_linear_regression(rng):
    """g_MAML = (I - alpha H_1) (I - alpha H_2) g_3, with H = 2 X^T X."""
    model = keras.Sequential([
        keras.Input([3], dtype="float64"),
        keras.layers.Dense(2, use_bias=False, dtype="float64")])
    batches = regression_batches(rng, 3)
    w = phi_of(model)[0].numpy()
    factors = []
    for x, y in zip(batches.inputs.numpy(), batches.targets.numpy(),
                    strict=True):
        factors.append(np.eye(3) - ALPHA * 2 * x.T @ x)
        w = w - ALPHA * 2 * x.T @ (x @ w - y)
    x, y = batches.last_inputs.numpy(), batches.last_targets.numpy()
    want = factors[0] @ factors[1] @ (2 * x.T @ (x @ w - y))
    [got] = displacement("maml", model, batches)
    np.testing.assert_allclose(got, ALPHA * want, rtol=1e-10)


def test_maml_is_the_gradient_of_the_real_network():
    """Central finite differences in float64, along random directions.

    The differences run stock Keras in training mode: first derivatives only,
    which are right there.
    """
    rng = np.random.default_rng(2)
    rate, h = 1e-4, 1e-6
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    try:
        model = models.omniglot(5, 1)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    x = tf.constant(rng.random((3, 10, 28, 28, 1)))
    y = tf.constant(rng.integers(0, 5, (3, 10)))
    inner = inner_of(model, True, learning_rate=rate, inner_optimizer="sgd")
    phi = phi_of(model)
    batches = Batches(x[:2], y[:2], x[2], y[2])
    d, _ = REGISTRY["maml"].rule(inner, phi, inner.initial_state(), batches)
    gradient = [a / rate for a in d]
    variables = [v.value for v in model.trainable_variables]

    def stock_loss(x, y):
        return tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                y, model(x, training=True)))

    @tf.function(autograph=False)
    def last_loss(start):
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        for i in range(2):
            with tf.GradientTape() as tape:
                loss = stock_loss(x[i], y[i])
            for variable, g in zip(variables, tape.gradient(loss, variables),
                                   strict=True):
                variable.assign_sub(rate * g)
        return stock_loss(x[2], y[2])

    for _ in range(3):
        direction = [tf.constant(rng.normal(size=p.shape)) for p in phi]
        norm = tf.linalg.global_norm(direction)
        direction = [u / norm for u in direction]
        up, down = (last_loss([p + sign * h * u for p, u in
                               zip(phi, direction, strict=True)])
                    for sign in (1, -1))
        want = float(up - down) / (2 * h)
        got = float(sum(tf.reduce_sum(g * u) for g, u in
                        zip(gradient, direction, strict=True)))
        assert abs(got - want) < 1e-6 * abs(want)


@pytest.mark.parametrize("beta1", [0.0, 0.75])
def test_adam_maml_replaces_the_last_gradient(rng, beta1):
    """Adam's k-th step with g_k replaced by the MAML gradient."""
    batches = regression_batches(rng, 3)
    inner = inner_of(dense(), True, learning_rate=ALPHA, loss=squared_error,
                     inner_beta1=beta1)
    phi = phi_of(dense())
    state = InnerState([0.5 + tf.zeros_like(p) for p in phi],
                       tf.constant(4, tf.int64),
                       [0.3 - p for p in phi] if beta1 else [])
    got, _ = REGISTRY["maml"].rule(inner, phi, state, batches)

    def last_loss(start):
        w, _ = inner.adapt(start, state, batches.inputs, batches.targets)
        return float(inner.loss(w, batches.last_inputs, batches.last_targets))

    gradient, h = [], 1e-6
    for i, p in enumerate(phi):
        column = np.zeros(p.shape)
        for place in np.ndindex(*p.shape):
            move = np.zeros(p.shape)
            move[place] = h
            ends = [last_loss([q + sign * move if j == i else q
                               for j, q in enumerate(phi)])
                    for sign in (1, -1)]
            column[place] = (ends[0] - ends[1]) / (2 * h)
        gradient.append(column)
    w, after = inner.adapt(phi, state, batches.inputs, batches.targets)
    want = []
    moments = after.m or [0.0] * len(phi)
    for g, v, m in zip(gradient, after.v, moments, strict=True):
        new_v = 0.999 * v + 0.001 * g**2
        new_m = (beta1 * m + (1 - beta1) * g) / (1 - beta1**7)
        want.append(ALPHA * np.sqrt(1 - 0.999**7) * new_m
                    / (np.sqrt(new_v) + 1e-8))
    assert_close(got, want, rtol=1e-6)


def meta_batch(rng, dtype, k=3):
    """TASKS tasks of k steps; unequal sizes everywhere."""
    def labels(*shape):
        return tf.constant(rng.integers(0, 3, shape), tf.int32)

    def images(*shape):
        return tf.constant(rng.normal(size=(*shape, 5, 6, 2)), dtype)

    return Batches(images(TASKS, k - 1, 5), labels(TASKS, k - 1, 5),
                   images(TASKS, 4), labels(TASKS, 4))


def oracle(name, inner, phi, state, batches, order):
    """One task at a time, in a plain loop."""
    total, slots, carried = 0, [], None
    for i in range(TASKS):
        task = Batches(*(a[i] for a in batches))
        start = carried or InnerState(
            *([x[i if order == "parallel" else 0] for x in moments]
              if isinstance(moments, list) else moments for moments in state))
        d, after = rule_of(name)(inner, phi, start, task)
        total = [a / TASKS for a in d] if i == 0 else [
            a + b / TASKS for a, b in zip(total, d, strict=True)]
        slots.append(after)
        carried = after if order == "sequential" else None
    kept = slots if order == "parallel" else slots[-1:]
    return total, InnerState(
        [np.stack(v) for v in zip(*(s.v for s in kept), strict=True)],
        slots[-1].t,
        [np.stack(m) for m in zip(*(s.m for s in kept), strict=True)])


def setting(name, order, engine, optimizer, dtype, recompute=False,
            mixed=False, beta1=0.0):
    """(model, inner, phi, state): a state that is not zero."""
    model = convolutional(dtype)
    clone = models.inner_clone(model, engine.convolutions, mixed)
    config = InnerConfig(learning_rate=0.01, inner_optimizer=optimizer,
                         inner_beta1=beta1)
    inner = InnerLoop(
        clone, config, recompute=recompute, one_graph=engine.jit,
        unrolled_steps=math.inf if REGISTRY[name].second_order
        else engine.unrolled_steps)
    phi = [tf.constant(w) for w in model.get_weights()[:3]
           + model.get_weights()[5:]]
    slots = TASKS if order == "parallel" else 1
    state = InnerState(
        [tf.abs(tf.stack([p + i for i in range(slots)])) * 0.1 for p in phi]
        if optimizer == "adam" else [], tf.constant(11, tf.int64),
        [tf.stack([p - i for i in range(slots)]) for p in phi]
        if beta1 else [])
    return model, inner, phi, state


def mapped(name, order, engine, optimizer, dtype, batches, compiled=True,
           **more):
    """(inner, phi, state, result of the engine)."""
    model, inner, phi, state = setting(name, order, engine, optimizer, dtype,
                                       **more)

    def run(phi, state, batches):
        return engines.mean_displacement(
            rule_of(name), inner, phi, state, batches, order, engine)

    before = [p.numpy() for p in phi]
    result = (engine.function(run) if compiled else run)(phi, state, batches)
    for a, b in zip(before, phi, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)
    return inner, phi, state, result


@pytest.mark.parametrize("engine", EACH_ENGINE_SLOWLY)
@pytest.mark.parametrize("order", engines.TASK_ORDERS)
def test_momentum_is_mapped_as_v_is(rng, order, engine):
    batches = meta_batch(rng, "float64")
    inner, phi, state, (got, after) = mapped(
        "fomaml", order, ENGINES[engine], "adam", "float64", batches,
        beta1=0.9)
    want, want_after = oracle("fomaml", inner, phi, state, batches, order)
    assert len(after.m) == len(after.v) == len(phi)
    for a, b in zip([*got, *after.v, *after.m],
                    [*want, *want_after.v, *want_after.m], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("engine", EACH_ENGINE_SLOWLY)
@pytest.mark.parametrize("order", engines.TASK_ORDERS)
@pytest.mark.parametrize("name", REGISTRY)
def test_contract(rng, name, order, engine):
    """Every rule and way of mapping gives the plain oracle's displacement.

    Where a graph is no more than what Python does, it is not made: others
    here compile it.
    """
    batches = meta_batch(rng, "float64")
    inner, phi, state, (got, after) = mapped(
        name, order, ENGINES[engine], "adam", "float64", batches,
        compiled=ENGINES[engine].jit or ENGINES[engine].vectorized)
    want, want_after = oracle(name, inner, phi, state, batches, order)
    for a, b in zip([*got, *after.v], [*want, *want_after.v], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    assert int(after.t) == int(want_after.t)
    assert int(after.t) == 11 + 3 * (TASKS if order == "sequential" else 1)


@pytest.mark.parametrize("engine", EACH_ENGINE_SLOWLY)
@pytest.mark.parametrize("optimizer, beta1", [
    *(pytest.param(*case, marks=pytest.mark.slow)
      for case in (("adam", 0.0), ("sgd", 0.0))), ("adam", 0.9)])
def test_recomputed_gradients_are_the_same(rng, optimizer, beta1, engine):
    """They go through all four steps, and through the v made inside."""
    batches = meta_batch(rng, "float64", k=4)
    inner, phi, start, (again, state_again) = mapped(
        "maml", "parallel", ENGINES[engine], optimizer, "float64", batches,
        recompute=True, beta1=beta1)
    inner.recompute = False
    kept, state = oracle("maml", inner, phi, start, batches, "parallel")
    assert len(state.m) == (len(kept) if beta1 else 0)
    for a, b in zip([*again, *state_again.v, *state_again.m],
                    [*kept, *state.v, *state.m], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert int(state_again.t) == int(state.t)


@pytest.mark.parametrize("engine", EACH_ENGINE)
def test_one_step_is_compiled_by_every_engine(rng, engine):
    batches = meta_batch(rng, "float64", k=1)
    inner, phi, state, (got, _) = mapped(
        "reptile", "parallel", ENGINES[engine], "sgd", "float64", batches)
    want, _ = oracle("reptile", inner, phi, state, batches, "parallel")
    assert_close(got, want)


@pytest.mark.parametrize("name", [
    "maml", *(pytest.param(name, marks=pytest.mark.slow)
              for name in REGISTRY if name != "maml")])
def test_contract_in_float32(rng, name):
    """Displacements are about 0.01: 1e-5 is float32's rounding in Adam."""
    batches = meta_batch(rng, "float32")
    inner, phi, state, (got, _) = mapped(
        name, "parallel", ENGINES["xla-vectorized"], "adam", "float32",
        batches)
    want, _ = oracle(name, inner, phi, state, batches, "parallel")
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("optimizer, same", [("sgd", True), ("adam", False)])
def test_task_orders_agree_with_sgd_only(rng, optimizer, same):
    batches = meta_batch(rng, "float64")
    parallel, sequential = (
        mapped("reptile", order, ENGINES["graph-unrolled"], optimizer,
               "float64", batches)[3][0] for order in engines.TASK_ORDERS)
    assert same == all(np.allclose(a, b, rtol=1e-10, atol=1e-12)
                       for a, b in zip(parallel, sequential, strict=True))


@pytest.mark.parametrize("engine", EACH_ENGINE_SLOWLY)
@pytest.mark.parametrize("name", ["reptile", "maml"])
def test_mixed_bfloat16_is_near_float32(rng, name, engine):
    """bfloat16 has 8 bits, float32 24: far from equal, and not far off."""
    batches = meta_batch(rng, "float32")
    *_, state, (got, after) = mapped(
        name, "parallel", ENGINES[engine], "adam", "float32", batches,
        mixed=True)
    _, *plain = setting(name, "parallel", ENGINES[engine], "adam", "float32")
    want, _ = oracle(name, *plain, batches, "parallel")
    for a, b in zip([*got, *after.v], [*want, *state.v], strict=True):
        assert a.dtype == tf.float32 and a.shape == b.shape
    a, b = (np.concatenate([np.ravel(x) for x in d]) for d in (got, want))
    assert 2**-13 < np.linalg.norm(a - b) / np.linalg.norm(b) < 2**-4
