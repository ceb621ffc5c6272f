"""Evaluation against a plain computation, one task at a time."""

from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import EACH_ENGINE_SLOWLY, ENGINES

from reptile_tf import networks as models
from reptile_tf import tasks
from reptile_tf.learning.evaluation import (
    Evaluator,
    mean_and_ci95,
    score_logits,
)
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.optimizers import InnerConfig, InnerState

WAYS, SHOTS, SIZE = 3, 2, (5, 4, 1)
TASKS, STEPS = 3, 4  # Of a compiled call: all tests share what is traced.
CLASSES = np.arange(7 * 6).reshape(7, 6)


def network(normalized=True):
    keras.utils.set_random_seed(3)
    norm = [keras.layers.BatchNormalization()] if normalized else []
    return keras.Sequential([
        keras.Input(SIZE), keras.layers.Conv2D(4, 3, use_bias=False), *norm,
        keras.layers.ReLU(), keras.layers.Flatten(),
        keras.layers.Dense(WAYS)])


def images():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(7, 1, *SIZE))
    noise = rng.normal(size=(7, 6, *SIZE))
    return (centres + noise).reshape(-1, *SIZE).astype("float32")


def draw(number=TASKS):
    return tasks.evaluation_tasks(CLASSES, WAYS, SHOTS, 4, STEPS, False,
                                  number, np.random.default_rng(2))


def setting(normalized=True, engine="graph-vectorized", modes=(True, False)):
    """(evaluator, phi, state): a state that is not zero.

    The same for all tests that ask for the same: it is traced once.
    """
    return new_setting(normalized, engine, modes)


@cache
def new_setting(normalized, engine, modes):
    engine = replace(ENGINES[engine], tasks_per_call=TASKS)
    model = network(normalized)
    inner = InnerLoop(models.inner_clone(model, engine.convolutions),
                      InnerConfig(learning_rate=0.02))
    phi = [w.value.value() for w in model.trainable_variables]
    state = InnerState([0.1 + tf.square(p) for p in phi],
                       tf.constant(40, tf.int64), [])
    table = tf.constant(images())
    return Evaluator(inner, engine, lambda i: tf.gather(table, i),
                     modes), phi, state


def plain_logits(task):
    """Of both modes, transductive first.

    Stock Keras: its Adam set to (v, t), its batch norm in training mode.
    """
    model, pixels = network(), images()
    optimizer = keras.optimizers.Adam(0.02, beta_1=0.0, epsilon=1e-8)
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(40)
    for slot, p in zip(optimizer._velocities, model.trainable_variables,
                       strict=True):
        slot.assign(0.1 + tf.square(p.value))
    for rows in task.positions:
        x, y = task.support_inputs[rows], task.support_targets[rows]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(
                keras.losses.sparse_categorical_crossentropy(
                    y, model(pixels[x], training=True), from_logits=True))
        variables = [v.value for v in model.trainable_variables]
        optimizer.apply(tape.gradient(loss, variables),
                        model.trainable_variables)
    return model(pixels[task.query_inputs], training=True).numpy(), np.stack([
        model(pixels[[*task.support_inputs, q]], training=True)[-1]
        for q in task.query_inputs])


@pytest.mark.parametrize("engine", EACH_ENGINE_SLOWLY)
def test_logits_equal_a_plain_computation(engine):
    evaluator, phi, state = setting(engine=engine)
    drawn = draw()
    got = evaluator.outputs(phi, state, drawn)
    for i in range(TASKS):
        want = plain_logits(tasks.EvaluationTasks(*(a[i] for a in drawn)))
        for logits, plain in zip(got, want, strict=True):
            assert logits.shape == (TASKS, WAYS, WAYS)
            np.testing.assert_allclose(logits[i], plain, atol=2e-4)


def test_scores_count_every_query_of_every_task():
    evaluator, phi, state = setting()
    drawn, done = draw(5), []
    scores = evaluator.evaluate(phi, state, drawn, done.append)
    assert done == [3, 2]
    plain = [plain_logits(tasks.EvaluationTasks(*(a[i] for a in drawn)))
             for i in range(5)]
    for score, mode, logits in zip(scores, (True, False),
                                   zip(*plain, strict=True), strict=True):
        correct = [(x.argmax(-1) == np.arange(WAYS)).mean() for x in logits]
        assert score.transductive == mode and score.tasks == 5
        assert score.steps == STEPS
        np.testing.assert_allclose(score.mean, np.mean(correct))
        np.testing.assert_allclose(
            score.ci95, 1.96 * np.std(correct, ddof=1) / np.sqrt(5))


def test_scores_after_several_numbers_of_steps():
    """Each time as if it had been the last."""
    one, phi, state = setting(engine="graph-stock")
    evaluator = Evaluator(
        one.inner_loop, replace(one.engine, tasks_per_call=1), one.lookup,
        (True,), steps=(0, 1, 3))
    drawn = draw(1)
    got = evaluator.outputs(phi, state, drawn)
    task = tasks.EvaluationTasks(*(a[0] for a in drawn))
    for steps, logits in zip((0, 1, 3), got, strict=True):
        want, _ = plain_logits(task._replace(positions=task.positions[:steps]))
        np.testing.assert_allclose(logits[0], want, atol=2e-4)
    assert [score.steps for score in evaluator.evaluate(phi, state, drawn)] == [
        0, 1, 3]


@pytest.mark.gpu
@pytest.mark.parametrize("engine", [
    "graph-vectorized",
    pytest.param("xla-vectorized", marks=pytest.mark.slow)])
def test_one_trace_serves_many_tasks(engine):
    evaluator, phi, state = setting(engine=engine)
    for number in (2, 3, 7):
        evaluator.evaluate(phi, state, draw(number))
    assert evaluator._compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("normalized, same", [(False, True), (True, False)])
def test_modes_differ_only_through_batch_normalization(normalized, same):
    evaluator, phi, state = setting(normalized, "graph-stock")
    a, b = evaluator.outputs(phi, state, draw())
    assert np.allclose(a, b, atol=1e-5) == same


def test_evaluation_leaves_phi_and_state_and_depends_on_state():
    evaluator, phi, state = setting()
    before = [x.numpy() for x in [*phi, *state.v, state.t]]
    first = evaluator.outputs(phi, state, draw())
    again = evaluator.outputs(phi, state, draw())
    for a, b in zip(before, [*phi, *state.v, state.t], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    fresh = evaluator.outputs(phi, evaluator.inner_loop.initial_state(), draw())
    assert not np.allclose(first[0], fresh[0], atol=1e-3)


def test_a_task_does_not_depend_on_the_others():
    evaluator, phi, state = setting()
    drawn = draw()
    turned = tasks.EvaluationTasks(*(a[::-1] for a in drawn))
    a = evaluator.outputs(phi, state, drawn)[0]
    b = evaluator.outputs(phi, state, turned)[0]
    np.testing.assert_allclose(a[0], b[2], atol=1e-5)


def test_only_the_modes_asked_for():
    evaluator, phi, state = setting(engine="graph-stock", modes=(False,))
    [score] = evaluator.evaluate(phi, state, draw(4))
    assert not score.transductive


def test_non_transductive_queries_do_not_see_each_other():
    evaluator, phi, _ = setting()
    pixels = images()
    def logits(queries):
        return score_logits(evaluator.inner_loop, phi, tf.constant(pixels[:6]),
                            tf.constant(pixels[queries]), False)
    np.testing.assert_allclose(logits([10, 20, 30])[1], logits([20])[0],
                               atol=1e-6)


def test_a_query_without_an_output_spoils_no_other():
    evaluator, phi, _ = setting()
    queries = images()[[10, 20, 30]]
    queries[1] = np.nan
    got = score_logits(evaluator.inner_loop, phi, tf.constant(images()[:6]),
                       tf.constant(queries), False).numpy()
    np.testing.assert_array_equal(np.isfinite(got).all(-1), [True, False, True])


def test_memory_that_is_used_up_halves_the_tasks_of_a_call(monkeypatch):
    """The scores are those of all tasks, each counted once."""
    evaluator, *arguments = new_setting.__wrapped__(
        True, "graph-vectorized", (True,))
    arguments.append(draw(7))
    want = evaluator.evaluate(*arguments)
    evaluator.engine = replace(evaluator.engine, tasks_per_call=8)
    outputs, sizes, counted = evaluator.outputs, [], []
    error = tf.errors.ResourceExhaustedError(None, None, "OOM")

    def with_room_for_three(phi, state, tasks):
        sizes.append(len(tasks.query_targets))
        if sizes[-1] > 3:
            raise error
        return outputs(phi, state, tasks)

    monkeypatch.setattr(evaluator, "outputs", with_room_for_three)
    got = evaluator.evaluate(*arguments, counted.append)
    assert sizes == [8, 4, 2, 2, 2, 2] and counted == [2, 2, 2, 1]
    assert evaluator.engine.tasks_per_call == 2
    np.testing.assert_allclose(got[0].values, want[0].values)
    # One task that does not fit, and any other failure, are the caller's.
    monkeypatch.setattr(evaluator, "outputs", lambda *_: [][0])
    with pytest.raises(IndexError):
        evaluator.evaluate(*arguments)

    def no_room(phi, state, tasks):
        raise error

    monkeypatch.setattr(evaluator, "outputs", no_room)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        evaluator.evaluate(*arguments)
    assert evaluator.engine.tasks_per_call == 1


def test_interval_by_hand():
    assert mean_and_ci95([0.5]) == (0.5, None)
    mean, ci95 = mean_and_ci95([0.2, 0.4, 0.9])
    # deviations -0.3, -0.1, 0.4: variance 0.26 / 2
    assert mean == pytest.approx(0.5)
    assert ci95 == pytest.approx(1.96 * (0.13 / 3) ** 0.5)
