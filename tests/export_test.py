"""The exported initialization, used by a process without this package."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ENGINES
from forks import Fork

from reptile_tf.datasets.few_shot import ImageConfig
from reptile_tf.learning import adaptation, initialization
from reptile_tf.learning.evaluation import Evaluator
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.meta_training import MetaTrainer
from reptile_tf.learning.optimizers import mean_state
from reptile_tf.tasks import Batches, EvaluationTasks

WAYS, SIZE = 3, (6, 5, 1)
CONFIG = ImageConfig(
    classes=WAYS, shots=(1, 3), train_shots=4, inner_batch=4, inner_iters=2,
    meta_batch=2, eval_batch=(2, 4), eval_iters=5, learning_rate=0.02,
    weight_decay=0.999)
# Support and query images; the second set is larger than any --shots, the
# last smaller than its mini-batch.
SIZES = [(3, 2), (10, 4), (9, 1), (1, 3)]

# Runs elsewhere: Keras and TensorFlow only.
USER = """
import json, sys
import keras, numpy as np, tensorflow as tf
folder, inputs, outputs = sys.argv[1:]
given = np.load(inputs)
messages = []
tf.get_logger().addFilter(lambda record: messages.append(record.getMessage()))
loaded = tf.saved_model.load(folder)
assert not messages, messages  # Such as "unsaved custom gradients".
serve = loaded.signatures["serving_default"]
adapt = loaded.signatures["adapt_and_predict"]
got = {}

def served():
    return serve(images=tf.constant(given["x0"]))["logits"].numpy()

got["served"] = served()
for i in range(int(given["number"])):
    for mode in (True, False):
        def adapted():
            return adapt(
                support_images=tf.constant(given[f"x{i}"]),
                support_labels=tf.constant(given[f"y{i}"]),
                query_images=tf.constant(given[f"q{i}"]),
                transductive=tf.constant(mode))["logits"].numpy()
        got[f"{i}{mode}"] = adapted()
        got[f"{i}{mode}again"] = adapted()
for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
             "uint64"):
    got[name] = loaded.adapt_and_predict(
        support_images=given["x0"],
        support_labels=tf.constant(given["y0"], name),
        query_images=given["q0"], transductive=True)["logits"].numpy()
    got["signature" + name] = adapt(
        support_images=given["x0"], support_labels=given["y0"].astype(name),
        query_images=given["q0"],
        transductive=np.array(True))["logits"].numpy()
got["served again"] = served()
model = keras.models.load_model(folder + "/model.keras")
got["keras"] = model(given["x0"], training=True).numpy()
got["keras predict"] = model.predict(given["x0"], verbose=0)
assert not any(name.startswith("reptile_tf") for name in sys.modules)
np.savez(outputs, **got)
"""


def network():
    keras.utils.set_random_seed(5)
    return keras.Sequential([
        keras.Input(SIZE), keras.layers.Conv2D(4, 3, padding="same"),
        keras.layers.BatchNormalization(), keras.layers.ReLU(),
        keras.layers.Flatten(), keras.layers.Dense(WAYS)])


def trainer_of(config, engine):
    return MetaTrainer(
        Learner(network(), config.inner, adaptation=config.adaptation,
                engine=ENGINES[engine]), config.meta)


@pytest.fixture(scope="module")
def trained():
    """A trainer at a phi and slots of v that are like no default."""
    trainer = trainer_of(CONFIG, "graph-vectorized")
    rng = np.random.default_rng(6)
    arrays = trainer.state_dict()
    for name, a in arrays.items():
        if name.startswith("phi"):
            arrays[name] = (a + rng.normal(0, 0.1, a.shape)).astype(a.dtype)
        elif name.startswith("v"):
            arrays[name] = rng.uniform(0.1, 2, a.shape).astype(a.dtype)
    arrays["t"] = np.int64(70)
    trainer.load_state_dict(arrays)
    return trainer


def examples():
    rng = np.random.default_rng(8)
    given = {"number": len(SIZES)}
    for i, (support, queries) in enumerate(SIZES):
        given[f"x{i}"] = rng.normal(size=(support, *SIZE)).astype("float32")
        # Sorted by class: without a shuffle each batch would be of one class.
        given[f"y{i}"] = np.sort(np.arange(support) % WAYS)
        given[f"q{i}"] = rng.normal(size=(queries, *SIZE)).astype("float32")
    return given


@pytest.fixture(scope="module")
def module(trained):
    """What the SavedModel is made of, traced once for all tests."""
    return initialization.Initialization(trained.learner)


@pytest.fixture(scope="module")
def used(trained, tmp_path_factory):
    """(what the other process was given, what it got)."""
    folder = tmp_path_factory.mktemp("export")
    trained.learner.save(folder / "initialization")
    given = examples()
    np.savez(folder / "given.npz", **given)
    user = Fork("-c", USER, "initialization", "given.npz", "got.npz",
                folder=folder)
    assert user.wait() == 0, user.output()
    return given, dict(np.load(folder / "got.npz"))


def test_serving_uses_the_batch_and_changes_nothing(trained, used):
    given, got = used
    want = trained.learner.inner_loop.outputs(trained.weights,
                                              tf.constant(given["x0"]))
    np.testing.assert_allclose(got["served"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got["served"], got["served again"])


def test_model_keras_in_training_mode_equals_serving(used):
    _, got = used
    np.testing.assert_allclose(got["keras"], got["served"], rtol=1e-5,
                               atol=1e-6)
    assert not np.allclose(got["keras predict"], got["served"], atol=0.1)


@pytest.mark.parametrize("i", range(len(SIZES)))
def test_adapt_and_predict_equals_evaluation_of_its_schedule(
        trained, used, i):
    given, got = used
    x, y, q = (given[f"{name}{i}"] for name in "xyq")
    order = CONFIG.adaptation.positions(tf.constant(len(x))).numpy()
    batch = 2 if len(x) <= 3 else 4
    assert order.shape == (5, batch)
    task = EvaluationTasks(
        x[None], y[None], order[None], q[None], np.zeros([1, len(q)]))
    learner = trained.learner
    evaluator = Evaluator(learner.inner_loop, learner.engine)
    wanted = evaluator.outputs(learner.weights, learner.state, task)
    for mode, want in zip((True, False), wanted, strict=True):
        np.testing.assert_allclose(got[f"{i}{mode}"], want[0], rtol=1e-4,
                                   atol=1e-5)
        np.testing.assert_array_equal(got[f"{i}{mode}"],
                                      got[f"{i}{mode}again"])
    if len(q) > 1:
        assert not np.allclose(wanted[0], wanted[1], atol=1e-3)


def test_the_state_is_the_mean_of_the_slots(trained, module):
    slots = trained.slots.gathered()
    assert slots.v[0].shape[0] == 2
    for v, want in zip(mean_state(slots).v, slots.v, strict=True):
        np.testing.assert_allclose(v, np.mean(want, 0), rtol=1e-6)
    np.testing.assert_allclose(module.v[0], np.mean(slots.v[0], 0), rtol=1e-6)
    assert int(module.t) == 70


@pytest.mark.slow
def test_momentum_is_exported(rng):
    config = dataclasses.replace(CONFIG, inner_beta1=0.9)
    trainer = trainer_of(config, "graph-unrolled")
    x = rng.random((2, 2, 4, *SIZE)).astype("float32")
    trainer.train_step(Batches.from_steps(x, rng.integers(0, WAYS, (2, 2, 4))))
    learner = trainer.learner
    module = initialization.Initialization(learner)
    support, labels, queries = x[0, 0], np.array([0, 1, 2, 1]), x[1, 0]
    order = config.adaptation.positions(tf.constant(4)).numpy()
    task = EvaluationTasks(
        support[None], labels[None], order[None], queries[None],
        np.zeros([1, len(queries)]))
    evaluator = Evaluator(learner.inner_loop, learner.engine, modes=(True,))

    def evaluated(state):
        return evaluator.outputs(trainer.weights, state, task)[0][0]

    got = module.adapt_and_predict(support, labels, queries, tf.constant(True))
    np.testing.assert_allclose(got["logits"], evaluated(learner.state),
                               rtol=1e-4, atol=1e-5)
    fresh = learner.state._replace(m=[0 * m for m in learner.state.m])
    assert not np.allclose(got["logits"], evaluated(fresh), atol=1e-3)


@pytest.mark.parametrize("empty", ["support", "query"])
def test_no_images_are_refused_by_name(module, empty):
    sizes = {"support": 3, "query": 2, empty: 0}
    x, q = (np.zeros((sizes[n], *SIZE), np.float32)
            for n in ("support", "query"))
    with pytest.raises(tf.errors.InvalidArgumentError,
                       match=f"{empty}_images is empty"):
        module.adapt_and_predict(x, np.zeros(len(x), np.int64), q,
                                 tf.constant(True))


@pytest.mark.parametrize("labels, message", [
    ([0, 1, 3], "must be from 0 to 2, and are.*0 1 3"),
    ([0, -1, 2], "must be from 0 to 2"),
    ([0, 1], "not as many support_labels as support_images")])
def test_labels_that_do_not_fit_are_refused(module, labels, message):
    x = np.zeros((3, *SIZE), np.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        module.adapt_and_predict(x, np.array(labels), x, tf.constant(True))


def test_any_integer_type(used):
    _, got = used
    for name in initialization.INTEGER_TYPES:
        np.testing.assert_allclose(got[name], got["0True"], rtol=1e-6)
        np.testing.assert_allclose(got["signature" + name], got["0True"],
                                   rtol=1e-6)


@pytest.mark.parametrize("examples, batch", [(12, 5), (4, 9), (7, 7)])
def test_the_schedule_cycles_as_evaluation_does(examples, batch):
    order = adaptation.stateless_schedule(
        tf.constant(examples), tf.constant(batch), 6, False).numpy()
    passes = order.ravel()[:6 * batch // examples * examples]
    for row in passes.reshape(-1, examples):
        np.testing.assert_array_equal(np.sort(row), np.arange(examples))
    assert len({row.tobytes() for row in passes.reshape(-1, examples)}) > 1


def test_every_order_of_a_shuffle_is_as_likely():
    """Of 4 examples 24 orders: chi-squared with 23 degrees of freedom."""
    keys = tf.function(adaptation.shuffling_keys, autograph=False)
    orders = [tuple(np.argsort(keys(4, tf.constant(turn))))
              for turn in range(2400)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24
    assert sum((c - 100) ** 2 / 100 for c in counts) < 49.7  # p = 0.001
    assert len(set(adaptation.shuffling_keys(5000, 7).numpy())) == 5000


def test_the_schedule_with_replacement():
    order = adaptation.stateless_schedule(
        tf.constant(8), tf.constant(5), 6, True).numpy()
    assert order.shape == (6, 5) and set(order.ravel()) == set(range(8))
    assert all(len(set(row)) == 5 for row in order)
