"""A learner: adapt, predict, evaluate, save, and one's own loops."""

import dataclasses
import json
import os
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ENGINES

from reptile_tf import (
    AdaptConfig,
    Batches,
    EvaluationTasks,
    InnerConfig,
    Learner,
    MetaConfig,
    MetaTrainer,
    accuracy,
    cross_entropy,
    meta_train,
    squared_error,
)
from reptile_tf.errors import InputError
from reptile_tf.learning.optimizers import InnerState
from reptile_tf.learning.rules import REGISTRY

WAYS = 3
ADAPTATION = AdaptConfig(steps=4, batch=2)


def network():
    keras.utils.set_random_seed(2)
    return keras.Sequential([
        keras.Input([4]), keras.layers.Dense(5, "tanh"),
        keras.layers.BatchNormalization(), keras.layers.Dense(WAYS)])


def classifier(inner=None, **arguments):
    """A learner at a state that is not zero."""
    learner = Learner(network(), inner or InnerConfig(0.05), **{
        "adaptation": ADAPTATION, "engine": ENGINES["graph-unrolled"],
        **arguments})
    learner.state = InnerState(
        [0.1 + tf.square(v) for v in learner.weights] if learner.state.v
        else [], tf.constant(30, tf.int64))
    return learner


def support(rng):
    return (rng.normal(size=(7, 4)).astype("float32"),
            np.array([0, 1, 2, 0, 1, 2, 1]))


@pytest.mark.parametrize("transductive", [True, False])
def test_adapt_and_predict_is_keras_and_its_adam(rng, transductive):
    learner, (x, y) = classifier(), support(rng)
    queries = rng.normal(size=(3, 4)).astype("float32")
    kept = [w.numpy() for w in [*learner.weights, *learner.state.v]]
    got = learner.adapt(x, y).predict(queries, transductive)

    model, optimizer = network(), keras.optimizers.Adam(
        0.05, beta_1=0.0, epsilon=1e-8)
    optimizer.build(model.trainable_variables)
    optimizer.iterations.assign(30)
    for slot, v in zip(optimizer._velocities, learner.state.v, strict=True):
        slot.assign(v)
    for rows in ADAPTATION.positions(tf.constant(7)).numpy():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(
                keras.losses.sparse_categorical_crossentropy(
                    y[rows], model(x[rows], training=True), from_logits=True))
        variables = [v.value for v in model.trainable_variables]
        optimizer.apply(tape.gradient(loss, variables),
                        model.trainable_variables)
    want = model(queries, training=True) if transductive else np.stack([
        model(np.concatenate([x, q[None]]), training=True)[-1]
        for q in queries])
    np.testing.assert_allclose(got, want, atol=1e-4)
    for a, b in zip(kept, [*learner.weights, *learner.state.v], strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_steps_leave_phi(rng):
    learner, (x, y) = classifier(), support(rng)
    adapted = learner.adapt(x, y, steps=0)
    for w, phi in zip(adapted.weights, learner.weights, strict=True):
        np.testing.assert_array_equal(w, phi)
    assert np.any(learner.adapt(x, y, batch=7).weights[0] != adapted.weights[0])


def test_other_steps_and_sizes_are_no_new_graph(rng):
    learner, (x, y) = classifier(), support(rng)
    graphs = set()
    for steps, size in ((4, 7), (3, 6), (2, 5), (0, 5), (9, 3)):
        learner.adapt(x[:size], y[:size], steps, batch=size - 2)
        graphs |= {f.experimental_get_tracing_count()
                   for f in (learner._positions, learner._steps)}
    assert max(graphs) <= 2


def test_scores_are_means_over_tasks_of_any_shape(rng):
    """Regression, with outputs [3, 2] for each example."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential([
        keras.Input([4]), keras.layers.Dense(6), keras.layers.Reshape([3, 2])])
    learner = Learner(model, InnerConfig(0.01, "sgd"), squared_error,
                      engine=ENGINES["graph-unrolled"])
    x, q = (rng.normal(size=(11, n, 4)).astype("float32") for n in (5, 2))
    y, want = (rng.normal(size=(11, n, 3, 2)).astype("float32")
               for n in (5, 2))
    # One step on the whole support set: the order does not matter.
    tasks = EvaluationTasks.cut(x, y, q, want, steps=1, batch=5)
    score = learner.evaluate(tasks)
    losses = [np.square(learner.adapt(a, b, steps=1, batch=5).predict(c)
                        - d).mean()
              for a, b, c, d in zip(x, y, q, want, strict=True)]
    assert (score.tasks, score.steps, score.transductive) == (11, 1, False)
    assert score.mean == pytest.approx(np.mean(losses), rel=1e-5)
    assert score.values == pytest.approx(losses, rel=1e-5)
    assert score.ci95 == pytest.approx(
        1.96 * np.std(losses, ddof=1) / np.sqrt(11), rel=1e-4)


def test_tasks_without_mini_batches_are_adapted_to_as_by_adapt(rng):
    """Of S = 5 and 4 the batch is 3 and 2, by the learner's own settings."""
    learner = classifier(adaptation=AdaptConfig(4, 3, smaller=((4, 2),)))
    for size in (5, 4):
        x, y = rng.random((3, size, 4)), rng.integers(0, 3, (3, size))
        q, want = rng.random((3, 2, 4)), rng.integers(0, 3, (3, 2))
        tasks = EvaluationTasks.cut(x, y, q, want)
        assert tasks.positions is None
        score = learner.evaluate(tasks)
        right = [np.argmax(learner.adapt(a, b).predict(c), -1) == d
                 for a, b, c, d in zip(x, y, q, want, strict=True)]
        assert (score.steps, score.mean) == (4, np.mean(right))
    cuts = [EvaluationTasks.cut(x, y, q, want, seed=seed).positions
            for seed in (0, 1)]
    assert cuts[0].shape == (3, 50, 5) and np.any(cuts[0] != cuts[1])
    assert "values" not in repr(score)
    assert EvaluationTasks.cut(x, y, q, want, batch=3).positions.shape == (
        3, 50, 3)
    assert EvaluationTasks.cut(x, y, q, want, steps=7).positions.shape == (
        3, 7, 5)


def test_the_learners_model_is_at_phi(rng):
    learner = classifier()
    before = learner.model.get_weights()
    learner.phi[0].assign_add(np.ones_like(learner.phi[0]))
    model = learner.model
    np.testing.assert_array_equal(model.get_weights()[0], before[0] + 1)
    # It is the caller's: what becomes of it does not matter.
    model.trainable = False
    model.set_weights([0 * w for w in before])
    np.testing.assert_array_equal(learner.model.get_weights()[0],
                                  before[0] + 1)


def test_arrays_tensors_and_other_types_score_the_same(rng):
    learner = Learner(network(), InnerConfig(0.1), squared_error,
                      engine=ENGINES["graph-unrolled"])
    x, y = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 5, 3))
    float64 = EvaluationTasks.cut(x, y, x, y, steps=2)
    float32 = EvaluationTasks(*(
        a.astype("float32") if a.dtype == "float64" else a for a in float64))
    tensors = EvaluationTasks(*map(tf.constant, float64))
    assert (learner.evaluate(float32) == learner.evaluate(float64)
            == learner.evaluate(tensors))


@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_training_takes_numpys_own_types(rng, loss):
    """float64 and Python's integers train as float32 and int32 do."""
    x = rng.normal(size=(2, 3, 4, 4))
    y = (rng.integers(0, 3, (2, 3, 4)) if loss is cross_entropy
         else rng.normal(size=(2, 3, 4, 3)))
    small = y.astype("int32" if loss is cross_entropy else "float32")

    trainer = MetaTrainer(classifier(loss=loss), MetaConfig(meta_batch=2))
    displaced = [trainer.displacement(Batches.from_steps(*arrays))
                 for arrays in ((x, y), (x.astype("float32"), small))]
    trainer.train_step(Batches.from_steps(x, y))
    for a, b in zip(*displaced, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint32", "uint64"])
def test_training_takes_labels_of_any_integer_type(rng, dtype):
    """tf.one_hot takes four."""
    x = rng.normal(size=(2, 3, 4, 4)).astype("float32")
    y = rng.integers(0, 3, (2, 3, 4))
    trainer = MetaTrainer(classifier(), MetaConfig(meta_batch=2))
    for a, b in zip(*(trainer.displacement(Batches.from_steps(
            x, y.astype(t))) for t in (dtype, "int32")), strict=True):
        np.testing.assert_array_equal(a, b)


def test_outputs_whose_size_the_inputs_decide(rng, tmp_path):
    """A label for each place of a sequence of any length."""
    model = keras.Sequential([
        keras.Input([None, 4]), keras.layers.Dense(5, "tanh"),
        keras.layers.Dense(WAYS)])
    x = rng.normal(size=(2, 4, 3, 6, 4)).astype("float32")
    y = rng.integers(0, WAYS, (2, 4, 3, 6))
    learner = meta_train(model, lambda number: Batches.from_steps(x, y),
                         InnerConfig(0.05), MetaConfig(
                             meta_batch=2, meta_iters=1))
    adapted = learner.adapt(x[0, 0], y[0, 0], 2)
    # Without normalization the modes are one.
    np.testing.assert_allclose(
        adapted.predict(x[0, 1]), adapted.predict(x[0, 1], transductive=True),
        atol=1e-5)
    tasks = EvaluationTasks.cut(x[:, 0], y[:, 0], x[:, 1], y[:, 1],
                                steps=2, batch=3)
    logits = [learner.adapt(x[i, 0], y[i, 0], 2, len(x[i, 0])).predict(x[i, 1])
              for i in range(2)]
    for mode in (True, False):
        assert learner.evaluate(tasks, mode).mean == pytest.approx(
            np.mean(np.argmax(logits, -1) == y[:, 1]))
    learner.save(tmp_path / "saved")
    again = Learner.load(tmp_path / "saved").adapt(x[0, 0], y[0, 0], 2)
    np.testing.assert_allclose(again.predict(x[0, 1]), adapted.predict(
        x[0, 1]), atol=1e-5)
    # Another length is as good, but not in one batch with this one.
    assert adapted.predict(x[0, 1, :, :4], transductive=True).shape == [
        3, 4, WAYS]
    with pytest.raises(InputError, match="shape .4, 4. and support.*.6, 4."):
        adapted.predict(x[0, 1, :, :4])
    with pytest.raises(InputError, match="in one batch"):
        learner.evaluate(tasks._replace(
            query_inputs=tasks.query_inputs[:, :, :4],
            query_targets=tasks.query_targets[:, :, :4]))
    # Nor do labels broadcast.
    for wrong in (y[0, 0, :, :1], y[0, 0, :, :5]):
        with pytest.raises(InputError, match="takes labels of shape .6. for e"):
            learner.adapt(x[0, 0], wrong)


def test_targets_whose_size_the_inputs_decide(rng, tmp_path):
    model = keras.Sequential([keras.Input([None, 4]), keras.layers.Dense(1)])
    learner = Learner(model, InnerConfig(0.05), squared_error)
    x = rng.normal(size=(3, 6, 4)).astype("float32")
    learner.adapt(x, x[..., :1], 2)
    assert learner.target_spec().shape.as_list() == [None, 1]
    learner.save(tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    got = loaded.adapt_and_predict(x[:, :5], x[:, :5, :1], x[:, :5], True)[
        "logits"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="of the outputs"):
        loaded.adapt_and_predict(x[:, :5], x[:, :1, :1], x[:, :5], True)
    np.testing.assert_allclose(got, Learner(
        model, InnerConfig(0.05), squared_error).adapt(
            x[:, :5], x[:, :5, :1]).predict(x[:, :5], True), atol=1e-5)


def test_a_compiled_model_is_taken_as_it_is(rng):
    """With a loss and a metric that Keras cannot make again."""
    model = network()
    model.compile("adam", lambda y, outputs: keras.ops.sum(outputs, -1),
                  metrics=[lambda y, outputs: keras.ops.max(outputs, -1)])
    learner, (x, y) = Learner(model, InnerConfig(0.05)), support(rng)
    assert model.compiled and not learner.model.compiled
    np.testing.assert_array_equal(
        learner.adapt(x, y, 2).predict(x), Learner(
            network(), InnerConfig(0.05)).adapt(x, y, 2).predict(x))


def test_strings_and_objects_are_no_numbers(rng):
    learner, (x, y) = classifier(), support(rng)
    with pytest.raises(InputError, match="objects of Python: give"):
        learner.adapt(x.astype(object), y)
    with pytest.raises(InputError, match="are strings, and the network takes"):
        learner.adapt(x.astype(str), y)
    with pytest.raises(tf.errors.InvalidArgumentError):  # Not classes.
        cross_entropy(tf.constant([0.9]), tf.zeros([1, WAYS]))


def test_a_vocabulary_with_weights_is_copied():
    words = keras.layers.TextVectorization(output_mode="tf_idf")
    words.adapt(["red fish", "blue fish", "red bird"])
    model = keras.Sequential([keras.Input([], dtype="string"), words,
                              keras.layers.Dense(2)])
    texts = np.array(["red fish", "blue bird"])
    np.testing.assert_allclose(
        Learner(model).adapt(texts, [0, 1], 0).predict(texts, True),
        model(texts), rtol=1e-5)


def test_words_and_a_vocabulary_that_was_learned(tmp_path):
    words = keras.layers.TextVectorization(output_sequence_length=2)
    words.adapt(["red fish", "blue fish", "red bird"])
    model = keras.Sequential([
        keras.Input([], dtype="string"), words,
        keras.layers.Embedding(words.vocabulary_size(), 4),
        keras.layers.Flatten(), keras.layers.Dense(2)])
    learner = Learner(model, InnerConfig(0.1))
    texts, colours = np.array(["red fish", "blue fish"]), np.array([0, 1])
    adapted = learner.adapt(texts, colours, 30)
    asked = np.array(["blue fish", "red fish"])
    assert np.argmax(adapted.predict(asked), -1).tolist() == [1, 0]
    score = learner.evaluate(EvaluationTasks.cut(
        texts[None], colours[None], asked[None], 1 - colours[None], steps=30))
    assert score.mean == 1
    learner.save(tmp_path / "saved")
    loaded = Learner.load(tmp_path / "saved").adapt(texts, colours, 30)
    np.testing.assert_allclose(loaded.predict(asked), adapted.predict(asked),
                               rtol=1e-5)


def test_a_loss_of_ones_own_is_scored_by_a_measure(rng):
    """Smoothed labels: their loss, or how many are right."""
    def smoothed(y, logits):
        return 0.9 * cross_entropy(y, logits) + 0.1 * tf.math.log(3.0)

    learner = classifier(loss=smoothed)
    x, y = rng.random((5, 6, 4)), rng.integers(0, 3, (5, 6))
    tasks = EvaluationTasks.cut(x, y, x[:, ::-1], y[:, ::-1])
    outputs = [learner.adapt(a, b).predict(c, transductive=True).numpy()
               for a, b, c in zip(x, y, tasks.query_inputs, strict=True)]
    right, losses = zip(*((np.mean(o.argmax(-1) == d), np.mean(smoothed(d, o)))
                          for o, d in zip(outputs, tasks.query_targets,
                                          strict=True)), strict=True)
    for _ in range(2):
        assert learner.evaluate(tasks, True, accuracy).values == right
        assert learner.evaluate(tasks, True).values == pytest.approx(
            losses, rel=1e-5)
    for measure in (squared_error, lambda outputs, targets: 0.5):
        with pytest.raises(InputError, match=r"the measure made \[.*8 tasks'"):
            learner.evaluate(tasks, True, lambda o, t, measure=measure: (
                np.asarray(measure(o[..., 0], t))))


def test_a_saved_learner_without_its_variables(tmp_path):
    classifier().save(tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved" / "variables")
    with pytest.raises(InputError, match="has no variables.*the whole folder"):
        Learner.load(tmp_path / "saved")


def test_few_tasks_are_not_filled_up_to_many(rng):
    learner = classifier(engine=dataclasses.replace(
        ENGINES["graph-unrolled"], tasks_per_call=64))
    x, y = rng.random((5, 6, 4)), rng.integers(0, 3, (5, 6))
    learner.evaluate(EvaluationTasks.cut(x, y, x, y, steps=1))
    compiled, = learner._evaluators[False, 8]._compiled\
        ._list_all_concrete_functions()
    assert compiled.structured_outputs[0].shape == [8, 6, 3]


class Forgets(keras.layers.Layer):
    def __init__(self, factor=1.0, **more):
        super().__init__(**more)
        self.factor = factor

    def call(self, x):
        return tf.cast(x, "float32") * self.factor

    def get_config(self):
        return super().get_config()


class Keeps(Forgets):
    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def test_a_copy_computes_what_the_model_does(rng):
    """What is in no config and no weight, a copy would not have."""
    def learner(layer):
        return Learner(keras.Sequential([
            keras.Input([4]), layer, keras.layers.Dense(2)]))

    x = rng.normal(size=[3, 4])
    kept = learner(Keeps(3.0))
    np.testing.assert_allclose(
        kept.adapt(x, [0, 1, 0], 0).predict(x, True), kept.model(x), 1e-5)
    with pytest.raises(InputError, match="something else.*'forgot'"):
        Learner(keras.Sequential([
            keras.Input([4], dtype="uint8"), Forgets(3.0, name="forgot"),
            keras.layers.Dense(2)]))
    learner(Forgets())  # All that it forgets is the default.
    with pytest.raises(InputError, match="something else.*'forgot'.*__init__"):
        learner(Forgets(3.0, name="forgot"))


def test_float32_rounds_the_largest_of_32_bits_up():
    learner = Learner(keras.Sequential([
        keras.Input([2], dtype="int32"), keras.layers.Rescaling(1 / 255),
        keras.layers.Dense(WAYS)]))
    with pytest.raises(InputError, match="hold 2147483648, .* int32"):
        learner.adapt(np.full([1, 2], 2.0**31, "float32"), [0], steps=1)


def test_a_network_of_any_size_may_need_many_positions(rng):
    def model(kernel):
        return keras.Sequential([
            keras.Input([None, 1]), keras.layers.Conv1D(2, kernel),
            keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)])

    Learner(model(100)).adapt(rng.normal(size=[2, 130, 1]), [0, 1], 1)
    with pytest.raises(InputError, match="none of 32, .* 512 positions.*Input"):
        Learner(model(600))


def test_what_becomes_of_the_callers_model_does_not_matter(rng):
    """Of a frozen BatchNormalization too, whose averages are no phi."""
    model = keras.Sequential([
        keras.Input([4]), keras.layers.BatchNormalization(trainable=False),
        keras.layers.Dense(3, activation="softsign")])
    before = model.get_weights()
    learner, (x, y) = Learner(model, InnerConfig(0.1)), support(rng)
    model.set_weights([w + 1 for w in before])
    late = learner.adapt(x, y, 2).predict(x)
    model.set_weights(before)
    early = Learner(model, InnerConfig(0.1)).adapt(x, y, 2).predict(x)
    np.testing.assert_allclose(late, early, rtol=1e-5)
    # What is saved is Keras's own, and not our exact twin of it.
    assert learner.model.layers[-1].activation is keras.activations.softsign


def test_one_frozen_weight_of_a_layer(rng, tmp_path):
    model = network()
    model.layers[0].bias.trainable = False
    learner, (x, y) = Learner(model, InnerConfig(0.1)), support(rng)
    assert len(learner.phi) == len(network().trainable_variables) - 1
    want = learner.adapt(x, y, 2).predict(x)
    learner.save(tmp_path / "initialization")
    again = Learner.load(tmp_path / "initialization")
    np.testing.assert_array_equal(again.adapt(x, y, 2).predict(x), want)
    learner.phi[0].assign_add(tf.ones(learner.phi[0].shape))
    learner.assign_to(model)
    np.testing.assert_array_equal(model.layers[0].kernel, learner.weights[0])


def test_adapt_computes_in_the_type_that_evaluation_computes_in(rng):
    learner = classifier(InnerConfig(0.1, "sgd", mixed_bfloat16=True))
    x, y = support(rng)
    adapted = learner.adapt(x, y, steps=1, batch=7)
    want, _ = learner.inner_loop.adapt_to(
        learner.weights, learner.state, x.astype("float32"), y,
        AdaptConfig(1, 7).positions(tf.constant(7)))
    for a, b, phi in zip(adapted.weights, want, learner.weights, strict=True):
        # The order of a sum in bfloat16's 8 bits, and no more.
        np.testing.assert_allclose(a - phi, b - phi, rtol=0.02, atol=1e-3)
    in_float32 = classifier(InnerConfig(0.1, "sgd")).adapt(
        x, y, steps=1, batch=7)
    assert any(np.any(a != b) for a, b in zip(
        adapted.weights, in_float32.weights, strict=True))


def test_training_brings_the_learners_state_up_to_date(rng):
    x, y = rng.random((2, 3, 4, 4)), rng.integers(0, 3, (2, 3, 4))
    learner = classifier(InnerConfig(0.1))
    trainer = MetaTrainer(learner, MetaConfig(meta_batch=2, meta_iters=2))
    for _ in trainer.train(lambda number: Batches.from_steps(x, y)):
        pass
    assert int(learner.state.t) == 30 + 6
    assert all(np.any(v) for v in learner.state.v)


def test_a_model_that_cannot_be_cloned_is_refused_first():
    model = keras.Sequential([keras.layers.Conv2D(2, 3)])
    with pytest.raises(InputError, match="keras.Input"):
        Learner(model)


def test_cut_tasks_cycle_through_the_support_set(rng):
    x, y = rng.random((2, 3, 4)), np.tile([0, 1, 2], (2, 1))
    tasks = EvaluationTasks.cut(x, y, x[:, :1], y[:, :1], steps=5, batch=2)
    assert tasks.positions.shape == (2, 5, 2)
    for task in tasks.positions:
        for whole_pass in task.ravel()[:9].reshape(3, 3):
            assert sorted(whole_pass) == [0, 1, 2]
    assert np.any(tasks.positions[0] != tasks.positions[1])


@pytest.mark.parametrize("inner", [
    InnerConfig(0.05, inner_beta1=0.9, weight_decay=0.99),
    InnerConfig(0.1, "sgd", "mean")])
def test_what_is_saved_is_loaded(rng, tmp_path, inner):
    learner, (x, y) = classifier(inner), support(rng)
    learner.state = learner.state._replace(
        m=[0.3 * w for w in learner.weights] if inner.inner_beta1 else [])
    learner.phi[0].assign_add(tf.ones(learner.phi[0].shape))
    learner.save(tmp_path / "initialization")
    again = Learner.load(tmp_path / "initialization")
    assert (again.inner, again.adaptation) == (inner, ADAPTATION)
    for a, b in zip(
            tf.nest.flatten((learner.weights, learner.state)),
            tf.nest.flatten((again.weights, again.state)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    # The SavedModel answers as both do.
    served = tf.saved_model.load(tmp_path / "initialization")
    want = served.adapt_and_predict(x, y, x[:2], tf.constant(False))["logits"]
    for one in (learner, again):
        np.testing.assert_allclose(one.adapt(x, y).predict(x[:2]), want,
                                   rtol=1e-5, atol=1e-6)


def test_a_model_of_ones_own_is_not_written(tmp_path):
    model = network()
    learner = Learner(model)
    learner.phi[0].assign(0 * learner.phi[0])
    learner.save(tmp_path / "initialization")
    assert np.any(model.trainable_variables[0].numpy())
    learner.assign_to(model)
    assert not np.any(model.trainable_variables[0].numpy())


def test_nothing_else_is_replaced(tmp_path):
    (tmp_path / "photo.png").write_text("of the user")
    for there in (tmp_path, tmp_path / "photo.png"):
        with pytest.raises(InputError, match="name a folder that is new"):
            Learner(network()).save(there)
    assert (tmp_path / "photo.png").read_text() == "of the user"


def own_loss(targets, outputs):
    return tf.abs(targets - outputs)


def test_a_loss_of_ones_own_is_given_again(rng, tmp_path):
    learner = Learner(network(), InnerConfig(np.float32(0.5)), own_loss)
    learner.save(tmp_path / "initialization")
    with pytest.raises(InputError, match="of your own, 'own own_loss': give"):
        Learner.load(tmp_path / "initialization")
    again = Learner.load(tmp_path / "initialization", own_loss)
    x, y = rng.random((4, 4)), rng.random((4, 3))
    np.testing.assert_array_equal(again.adapt(x, y, 2).predict(x),
                                  learner.adapt(x, y, 2).predict(x))


def test_targets_unlike_the_outputs_are_remembered(rng, tmp_path):
    """A loss of labels that are numbers, [S], of outputs [S, 3]."""
    def loss(labels, outputs):
        return tf.square(outputs[:, 0] - labels)

    learner, (x, y) = Learner(network(), InnerConfig(0.1), loss), support(rng)
    with pytest.raises(InputError, match="none were seen: adapt to a task"):
        learner.save(tmp_path / "early")
    assert not (tmp_path / "early").exists()
    want = learner.adapt(x, y / 2, 2).predict(x)
    learner.save(tmp_path / "late")
    again = Learner.load(tmp_path / "late", loss)
    got = again.adapt(x, y / 2, 2).predict(x)
    np.testing.assert_array_equal(got, want)
    again.adaptation = AdaptConfig(2)
    again.save(tmp_path / "again")
    served = tf.saved_model.load(tmp_path / "again")
    got = served.adapt_and_predict(
        x, tf.constant(y / 2, tf.float32), x, tf.constant(False))["logits"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_what_is_not_an_initialization_is_kept(tmp_path, monkeypatch):
    """Beside a model.keras, too, and where a file is to be."""
    learner = classifier()
    (tmp_path / "models").mkdir()
    for name in ("models/model.keras", "models.tmp", "models/photo.png"):
        (tmp_path / name).write_text("mine")
    learner.save(tmp_path / "there")
    (tmp_path / "there" / "notes").write_text("mine")
    for folder, name in (("models", "photo.png"), ("there", "notes")):
        with pytest.raises(InputError, match=f"holds more .*{name}"):
            learner.save(tmp_path / folder)
    with pytest.raises(InputError, match="models is a folder: name a file"):
        learner.save_tflite(tmp_path / "models")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match="that you are in"):
        learner.save(".")
    # A link stays, and leads to what is saved.
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        learner.save("link")
    assert (tmp_path / "link").is_symlink() and (
        tmp_path / "empty" / "learner.json").exists()
    for name in ("models/model.keras", "models.tmp", "models/photo.png",
                 "there/notes"):
        assert (tmp_path / name).read_text() == "mine"


def test_what_systems_leave_in_a_folder_does_not_count(tmp_path):
    learner = classifier()
    learner.save(tmp_path / "there")
    for name in (".DS_Store", "._model.keras"):  # Of a look into the folder.
        (tmp_path / "there" / name).touch()
    learner.save(tmp_path / "there")
    (tmp_path / "there" / ".git").mkdir()
    with pytest.raises(InputError, match="holds more .*.git"):
        learner.save(tmp_path / "there")


def test_a_newer_file_is_named(tmp_path):
    classifier().save(tmp_path / "own")
    settings = tmp_path / "own" / "learner.json"
    saved = json.loads(settings.read_text())
    for key in ("inner", "adaptation"):
        newer = {**saved, key: {**saved[key], "clip": 1}}
        settings.write_text(json.dumps(newer))
        with pytest.raises(InputError, match="by a newer reptile_tf .*clip"):
            Learner.load(tmp_path / "own")


def test_supports_that_the_steps_do_not_come_to_are_warned_of(rng):
    learner, (x, y) = classifier(adaptation=AdaptConfig(
        2, 3, smaller=((4, 2),))), support(rng)
    learner.adapt(x[:6], y[:6])
    learner.adapt(x[:4], y[:4])
    with pytest.warns(match="2 steps of 3 examples see 6 of a support set of 7"
                      ) as warned:
        learner.adapt(x, y)
    assert warned[0].filename == __file__
    learner.adapt(x, y, steps=1)  # As told.
    learner.adapt(x, y, batch=2)


def test_a_mode_may_be_numpys_or_a_tensor(rng):
    learner, (x, y) = classifier(), support(rng)
    adapted = learner.adapt(x, y)
    tasks = EvaluationTasks.cut(x[None], y[None], x[None, :3], y[None, :3])
    for mode in (True, False):
        for same in (np.bool_(mode), tf.constant(mode)):
            np.testing.assert_array_equal(adapted.predict(x, same),
                                          adapted.predict(x, mode))
            assert learner.evaluate(tasks, same) == (
                learner.evaluate(tasks, mode))


def test_another_loss_at_loading_has_targets_of_its_own(rng, tmp_path):
    """Of one-hot targets where the saved one was of labels."""
    classifier().save(tmp_path / "labels")
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, reduction="none")
    learner, (x, y) = Learner.load(tmp_path / "labels", loss), support(rng)
    one_hot = np.eye(WAYS, dtype=np.float32)[y]
    want = learner.adapt(x, one_hot).predict(x)
    learner.save(tmp_path / "one-hot")
    served = tf.saved_model.load(tmp_path / "one-hot")
    got = served.adapt_and_predict(x, tf.constant(one_hot), x,
                                   tf.constant(False))["logits"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


class Scaled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learner") / "saved"
    classifier().save(folder)
    return folder


@pytest.mark.parametrize("name, damage", [
    ("learner.json", lambda b: b[:len(b) // 2]),
    ("learner.json", lambda b: b"[]"),
    ("learner.json", lambda b: b.replace(b'"inner"', b'"outer"')),
    ("learner.json", lambda b: b.replace(b'"frozen": [', b'"frozen": [999,')),
    ("model.keras", lambda b: b[:len(b) // 2]),
    ("model.keras", lambda b: b.replace(b"config.json", b"config.jsen")),
    ("variables/variables.index", lambda b: b[:9])])
def test_a_damaged_learner_is_one_error(saved, tmp_path, name, damage):
    """With no advice to switch Keras's protection off."""
    shutil.copytree(saved, tmp_path / "saved")
    file = tmp_path / "saved" / name
    content = damage(file.read_bytes())
    assert content != file.read_bytes()
    file.write_bytes(content)
    with pytest.raises(InputError, match="copy the whole folder") as error:
        Learner.load(tmp_path / "saved")
    assert "unsafe" not in str(error.value)


def test_where_a_disk_is_mounted_is_no_place(monkeypatch, tmp_path):
    """Found before a training, not when the folder cannot be replaced."""
    disk, link = tmp_path / "disk", tmp_path / "link"
    disk.mkdir()
    link.symlink_to(disk)
    monkeypatch.setattr(os.path, "ismount", lambda path: path == disk)
    for path in (disk, link):
        with pytest.raises(InputError, match="mounted.*/initialization"):
            classifier().save(path)


def doubled(x):
    return 2 * x


@pytest.mark.parametrize("layer", [
    Scaled(), keras.layers.Lambda(doubled, output_shape=(WAYS,)),
    keras.layers.Lambda(lambda x: 2 * x, output_shape=(WAYS,))])
def test_what_keras_does_not_know_is_to_be_registered(tmp_path, layer):
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(WAYS),
                              layer])
    with warnings.catch_warnings():  # Keras's own, of the lambda.
        warnings.simplefilter("ignore")
        Learner(model).save(tmp_path / "saved")
    remedy = ("a lambda is code.*enable_unsafe_deserialization" if getattr(
        layer, "function", doubled) is not doubled
        else "register_keras_serializable")
    with pytest.raises(InputError, match=remedy):
        Learner.load(tmp_path / "saved")
    with keras.saving.custom_object_scope({"Scaled": Scaled}):
        if isinstance(layer, Scaled):
            Learner.load(tmp_path / "saved")


def test_a_path_may_start_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    classifier().save("~/saved")
    assert (tmp_path / "saved").is_dir()
    assert Learner.load("~/saved").adaptation == ADAPTATION


def test_no_learner_there(tmp_path):
    with pytest.raises(InputError, match="holds no learner.*No such file"):
        Learner.load(tmp_path / "none")


@pytest.mark.parametrize("inner", [
    InnerConfig(0.1, "sgd"), InnerConfig(0.1, weight_decay=0.9)])
def test_maml_by_hand_is_the_rules_gradient(rng, inner):
    """The gradient through `adapt`, from which the rule makes its step."""
    learner, (x, y) = classifier(inner), support(rng)
    q, z = support(rng)
    rows = ADAPTATION.positions(tf.constant(7)).numpy()

    @tf.function(autograph=False)
    def meta_gradient(x, y, q, z):
        with tf.GradientTape() as tape:
            adapted = learner.adapt(x, y)
            # As every inner step, the rule's last one decays before.
            adapted.weights = [inner.weight_decay * w
                               for w in adapted.weights]
            loss = adapted.loss(q, z)
        return tape.gradient(loss, learner.phi), adapted.state, (
            adapted.weights)

    gradient, state, weights = meta_gradient(
        *(tf.constant(a) for a in (x, y, q, z)))
    displacement, after = REGISTRY["maml"].rule(
        learner.inner_loop, learner.weights, learner.state,
        Batches(*map(tf.constant, (x[rows], y[rows], q, z))))
    if inner.inner_optimizer == "sgd":
        stepped = [0.1 * g for g in gradient]
    else:
        # Keras's Adam makes the last step; D counts its decay too.
        optimizer = keras.optimizers.Adam(0.1, beta_1=0.0, epsilon=1e-8)
        variables = [keras.Variable(w) for w in weights]
        optimizer.build(variables)
        optimizer.iterations.assign(state.t)
        for slot, v in zip(optimizer._velocities, state.v, strict=True):
            slot.assign(v)
        optimizer.apply(gradient, variables)
        stepped = [w / 0.9 - v.value
                   for w, v in zip(weights, variables, strict=True)]
    assert int(after.t) == 35
    for want, got in zip(stepped, displacement, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-6)


def test_a_frozen_layer_does_not_tie_adapt_to_a_graph(rng):
    """Asked for first while a function is traced, and then outside of it."""
    model = network()
    model.layers[0].trainable = False
    learner, (x, y) = Learner(model, adaptation=ADAPTATION), support(rng)
    inside = tf.function(lambda x, y: learner.adapt(x, y).weights,
                         autograph=False)(tf.constant(x), tf.constant(y))
    for a, b in zip(inside, learner.adapt(x, y).weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_rule_in_a_function_of_ones_own(rng):
    learner, (x, y) = classifier(), support(rng)

    @tf.function(autograph=False)
    def fomaml(batches):
        return REGISTRY["fomaml"].rule(learner.inner_loop, learner.weights,
                                       learner.state, batches)[0]

    rows = ADAPTATION.positions(tf.constant(7)).numpy()
    before = learner.adapt(x, y, steps=3).weights
    after = learner.adapt(x, y, steps=4).weights
    got = fomaml(Batches(x[rows[:3]], y[rows[:3]], x[rows[3]], y[rows[3]]))
    for d, a, b in zip(got, before, after, strict=True):
        np.testing.assert_allclose(d, a - b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss, spoil, message", [
    (None, lambda x, y: (x[:, :3], y),
     r"shape \[7, 3\], and the network takes examples of shape \[4\]"),
    (None, lambda x, y: (x[0], y), r"give \[number of examples, 4\]"),
    (None, lambda x, y: (x[None], y[None]), r"shape \[1, 7, 4\]"),
    (None, lambda x, y: (x[:0], y[:0]), "are empty"),
    (None, lambda x, y: (x * np.nan, y), "support inputs hold NaN"),
    (None, lambda x, y: (x, y[:6]), r"shape \[6\], and there are \[7\]"),
    (None, lambda x, y: (x, y + 100),
     "from 100 to 102, and the network has 3 outputs"),
    (None, lambda x, y: (x, y - 1), "from -1 to 1"),
    (None, lambda x, y: (x, y.astype("float32")), "one label for each.*astype"),
    (None, lambda x, y: (x, y == 0), "each example, .*, by .astype.int"),
    (None, lambda x, y: (x, np.eye(3, dtype=int)[y]), "one-hot.*argmax"),
    (None, lambda x, y: (x, y.astype(str)), "targets are strings: number"),
    (None, lambda x, y: (x, [None] * len(y)), "targets are no array"),
    (None, lambda x, y: (x, y[:, None]),
     r"shape \[1\] each.*; give \[..., 0\]"),
    (squared_error, lambda x, y: (x, x[:, 0]),
     r"of shape \[\] each, and the network's outputs float32 of shape \[3\]"),
    (squared_error, lambda x, y: (x, x), r"shape \[4\] each"),
    (squared_error, lambda x, y: (x, x[:, :3] * np.inf), "targets hold NaN"),
])
def test_examples_that_do_not_fit_are_refused(rng, loss, spoil, message):
    learner = classifier(**({"loss": loss} if loss else {}))
    with pytest.raises(InputError, match=message):
        learner.adapt(*spoil(*support(rng)))


@pytest.mark.parametrize("end", [
    [keras.layers.Dense(3, "softmax")],
    [keras.layers.Dense(3), keras.layers.Activation("softmax")],
    [keras.layers.Dense(3), keras.layers.Softmax()],
    [keras.layers.Dense(3, tf.nn.softmax)],
    [keras.layers.Dense(3, "sigmoid")],
    [keras.layers.Dense(3), keras.layers.Activation("sigmoid")],
    [keras.Sequential([keras.Input([4]), keras.layers.Dense(3, "softmax")])],
    [keras.layers.Reshape([1, 4]), keras.layers.TimeDistributed(
        keras.layers.Dense(3, "softmax"))]],
    ids=["dense", "activation", "layer", "tensorflow", "sigmoid", "sigmoids",
         "model_inside", "distributed"])
def test_cross_entropy_takes_logits(end):
    """Silently it would train through the softmax of a softmax."""
    model = keras.Sequential([keras.Input([4]), *end])
    with pytest.raises(InputError, match="makes probabilities, and cross"):
        Learner(model)
    Learner(model, loss=keras.losses.SparseCategoricalCrossentropy(
        reduction=None))


@pytest.mark.parametrize("end, output", [
    (keras.layers.Dense(1), r"\[1\]"), (keras.layers.Reshape([]), r"\[\]")])
def test_cross_entropy_of_one_output_is_no_choice(end, output):
    """Always 0, whatever the weights are."""
    model = keras.Sequential([
        keras.Input([1]), keras.layers.Dense(1), end])
    with pytest.raises(InputError, match=f"outputs are {output}.*BinaryCross"):
        Learner(model)


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError, None])
def test_a_loss_is_a_function(loss):
    with pytest.raises(InputError, match="is no function of targets and out"):
        classifier(loss=loss)


def test_a_loss_may_be_an_instance_without_a_hash(rng):
    calls = []

    @dataclasses.dataclass
    class Scaled:
        by: float

        def __call__(self, targets, outputs):
            calls.append(tuple(targets.shape))
            return self.by * squared_error(targets, outputs)

    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
    learner, x = Learner(model, loss=Scaled(2.0)), rng.normal(size=(6, 4))
    learner.adapt(x, x[:, :1], steps=1)
    with pytest.raises(InputError, match=r"\[7919, 7919\]"):
        learner.adapt(x, x[:, 0])
    learner.adapt(x, x[:, :1], steps=1)
    assert calls.count((7919, 1)) == 1  # Checked twice, traced once.


def test_whole_numbers_beside_outputs_are_refused_with_the_remedy(rng):
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
    with pytest.raises(InputError, match=r"give them by .astype\('float32'\)"):
        Learner(model, loss=squared_error).adapt(
            rng.normal(size=(6, 4)), np.arange(6)[:, None])


def test_fractions_are_not_cut_off_to_whole_numbers(rng):
    """Images of 0 to 1 would all be 0."""
    learner = Learner(keras.Sequential([
        keras.Input([4], dtype="uint8"), keras.layers.Rescaling(1 / 255),
        keras.layers.Dense(WAYS)]))
    x, y = rng.integers(0, 256, (6, 4)), np.arange(6) % WAYS
    learner.adapt(x.astype("float64"), y, steps=1)
    x[0, :2] = 0, 1
    with pytest.raises(InputError,
                       match=f"fractions, such as {1 / 255:.3g}.*uint8"):
        learner.adapt(x / 255, y, steps=1)
    with pytest.raises(InputError, match="inputs hold NaN"):
        learner.adapt(x * np.nan, y, steps=1)


@pytest.mark.parametrize("values, wrong", [
    (np.array([[0, 255, 256, 3]], np.uint16), "256"),
    (np.array([[0., -1, 255, 3]]), "-1"),
    (tf.constant([[0, 255, 300, 3]]), "300")])
def test_values_beyond_an_integer_input_do_not_wrap_around(values, wrong):
    learner = Learner(keras.Sequential([
        keras.Input([4], dtype="uint8"), keras.layers.Rescaling(1 / 255),
        keras.layers.Dense(WAYS)]))
    with pytest.raises(InputError, match=(
            f"inputs hold {wrong}, and the network takes uint8, from 0 to")):
        learner.adapt(values, [0], steps=1)
    learner.adapt(np.clip(values, 0, 255), [0], steps=1)


def test_tokens_of_a_small_vocabulary_may_be_no_integers():
    learner = Learner(keras.Sequential([
        keras.Input([3]), keras.layers.Embedding(1, 2),
        keras.layers.Flatten(), keras.layers.Dense(WAYS)]))
    learner.adapt(np.zeros([2, 3]), [0, 1], steps=1)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("token", [-1, 4])
def test_tokens_that_an_embedding_has_not_are_refused(rng, dtype, token):
    """A GPU would take zeros for 4, and Keras the last one for -1."""
    inputs = keras.Input([5], dtype=dtype)
    x = keras.layers.Embedding(4, 2, name="words")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(WAYS)(
        keras.layers.Flatten()(x)))
    learner = Learner(model if token < 0 else keras.Sequential([
        keras.Input([5], dtype=dtype), model]))  # Within another, too.
    x, y = rng.integers(0, 4, (6, 5)), np.arange(6) % WAYS
    x[0, :2] = 0, 3
    adapted = learner.adapt(x, y, steps=1)
    x[5, 4] = token
    for use in (lambda: learner.adapt(x, y, steps=1),
                lambda: adapted.predict(x, transductive=True)):
        with pytest.raises(InputError, match=(
                f"hold the token {token}, and the Embedding words.* has 4: "
                "give whole numbers from 0 to 3")):
            use()


@pytest.mark.parametrize("name, value", [
    ("inner", InnerConfig(0.5)), ("loss", squared_error)])
def test_what_is_compiled_into_a_learner_cannot_be_changed(name, value):
    """Else `save` would write what `evaluate` does not compute."""
    with pytest.raises(AttributeError):
        setattr(classifier(), name, value)


@pytest.mark.parametrize("tasks", [(1, 2), None, Batches(1, 2, 3, 4)])
def test_what_is_no_tasks_is_not_evaluated(tasks):
    with pytest.raises(InputError, match="give EvaluationTasks"):
        classifier().evaluate(tasks)


@pytest.mark.parametrize("end", [
    keras.layers.LSTM(3, activation="softmax"), keras.layers.Softmax(axis=1)])
def test_a_softmax_of_something_else_is_none_of_classes(end):
    """Of an LSTM's cell; over positions."""
    Learner(keras.Sequential([keras.Input([5, 3]), keras.layers.Dense(3),
                              end]))


def test_a_column_of_outputs_and_a_row_of_targets_do_not_broadcast(rng):
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(1)])
    learner, (x, _) = Learner(model, loss=squared_error), support(rng)
    with pytest.raises(InputError, match=r"\[7919, 7919\]"):
        learner.adapt(x, x[:, 0])
    learner.adapt(x, x[:, :1], steps=1)


def test_evaluation_tasks_that_do_not_fit_are_refused(rng):
    learner = classifier()
    x, y = rng.random((2, 5, 4)), rng.integers(0, 3, (2, 5))
    good = EvaluationTasks.cut(x, y, x, y, steps=2)
    for bad, message in (
            ({"query_targets": y + 1}, "query_targets go from 1 to 3"),
            ({"support_inputs": x[..., :2]}, "support_inputs have shape"),
            ({"query_targets": y[:1]}, r"there are \[2, 5\] inputs"),
            ({"support_inputs": x[0]}, r"give \[tasks, number of examples"),
            ({"positions": good.positions + 1}, "go from 1 to 5"),
            ({"positions": good.positions[:1]}, r"of \[2, 1, 2\] tasks")):
        with pytest.raises(InputError, match=message):
            learner.evaluate(good._replace(**bad))


@pytest.mark.parametrize("settings", [
    {"steps": -1}, {"batch": 0}, {"batch": 6, "replacement": True}])
def test_tasks_that_cannot_be_cut(rng, settings):
    x, y = rng.random((2, 5, 4)), rng.integers(0, 3, (2, 5))
    with pytest.raises(InputError, match="mini-batch"):
        EvaluationTasks.cut(x, y, x, y, **settings)


@pytest.mark.parametrize("settings", [{"steps": -1}, {"batch": 0},
                                      {"smaller": ((3, 0),)}])
def test_bad_adaptations(settings):
    with pytest.raises(InputError, match="must be"):
        AdaptConfig(**settings)
