"""Models of one's own: shapes of graphs, frozen layers, masks, own layers.

They train as Keras computes, by layers_test's differences, or are refused.
"""

import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import EACH_ENGINE_SLOWLY, ENGINES
from layers_test import batches_of, displacements, error, precision

from reptile_tf import networks
from reptile_tf.errors import InputError
from reptile_tf.execution.engine import Engine, choose
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import squared_error
from reptile_tf.learning.meta_batch import mean_displacement
from reptile_tf.learning.optimizers import InnerConfig
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.tasks import Batches

layers = keras.layers


class Gate(layers.Layer):
    """That only computes."""

    def build(self, shape):
        self.gate = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return x * tf.tanh(self.gate)


class Holder(layers.Layer):
    def __init__(self, **more):
        super().__init__(**more)
        self.inner = layers.LayerNormalization(name="hidden")

    def call(self, x):
        return self.inner(x)


class Counter(layers.Layer):
    """Its state's value does not change where the inputs are 0."""

    def build(self, shape):
        self.total = self.add_weight(shape=(), trainable=False,
                                     initializer="zeros")

    def call(self, x):
        self.total.assign_add(tf.reduce_sum(x))
        return x


class Centred(layers.Layer):
    """By moments, of which the mean's gradient is stopped."""

    def call(self, x):
        mean, variance = keras.ops.moments(x, [1], keepdims=True)
        return (x - mean) / keras.ops.sqrt(variance + 1)


class DropsPaths(layers.Layer):
    """By Keras's own seed, which is no weight of any layer."""

    def call(self, x, training=None):
        if not training:
            return x
        kept = keras.random.uniform((keras.ops.shape(x)[0], 1)) > 0.5
        return 2 * x * keras.ops.cast(kept, x.dtype)


class Adds(layers.Layer):
    def call(self, x):
        self.add_loss(tf.reduce_sum(x))
        return x


class Undescribed(layers.Layer):
    def __init__(self, function, **more):
        super().__init__(**more)
        self.function = function

    def call(self, x):
        return self.function(x)


def chain(*between, inputs=(4,), dtype=None):
    return keras.Sequential([keras.Input(inputs, dtype=dtype), *between,
                             layers.Dense(2)])


def graph(make, inputs=(4,)):
    start = keras.Input(inputs)
    return keras.Model(start, layers.Dense(2)(layers.Flatten()(make(start))))


def residual(x):
    x = layers.Dense(4)(x)
    return layers.Add()([x, layers.BatchNormalization()(x)]) + x


def shared(x):
    """Called twice, in a model that is, and beside it."""
    dense = layers.Dense(4, "tanh")
    inner = keras.Sequential([keras.Input([4]), dense,
                              layers.BatchNormalization()])
    return layers.Add()([inner(x), inner(dense(x))])


def shared_on_two_sizes(x):
    convolution = layers.Conv2D(1, 3, padding="same")
    pooling = layers.MaxPooling2D(2)
    return pooling(convolution(pooling(convolution(x))))


def frozen(*between, index=1, **more):
    model = chain(layers.Dense(4, "tanh"), *between, **more)
    model.layers[index].trainable = False
    return model


def frozen_variable():
    model = chain(layers.Dense(4, "tanh"))
    model.layers[0].kernel.trainable = False
    return model


def frozen_direction():
    model = chain(layers.Bidirectional(layers.SimpleRNN(2)), inputs=(3, 2))
    model.layers[0].forward_layer.trainable = False
    return model


def adapted_by_factors(name):
    model = chain(layers.Dense(3, name=name))
    model.layers[0].enable_lora(2)
    return model


EXACT = {
    "constant random features": lambda: chain(layers.Lambda(
        lambda x: x @ keras.random.normal((4, 3), seed=7, dtype=x.dtype))),
    "function over a batch": lambda: graph(
        lambda x: keras.ops.vectorized_map(
            lambda row: keras.ops.tanh(row), layers.Dense(3)(x))),
    "functional": lambda: graph(lambda x: layers.BatchNormalization()(
        layers.Dense(5)(x))),
    "residual": lambda: graph(residual),
    "shared": lambda: graph(shared),
    "shared on two sizes": lambda: graph(shared_on_two_sizes, (6, 6, 1)),
    "own layer": lambda: chain(Gate()),
    "own function": lambda: chain(layers.Dense(3, lambda x: tf.sin(x))),
    "softsign": lambda: chain(layers.Dense(3, "softsign")),
    "Lambda of functions": lambda: chain(layers.Lambda(
        lambda x, a: a * tf.sin(x), lambda shape: shape,
        arguments={"a": 0.5})),
    "operations": lambda: graph(lambda x: keras.ops.relu(layers.Dense(3)(
        x)) * keras.ops.sum(x, -1, keepdims=True)),
    "model at each time": lambda: chain(layers.TimeDistributed(chain(
        layers.BatchNormalization(), inputs=(2,))), layers.Flatten(),
        inputs=(3, 2)),
    "mask": lambda: chain(
        layers.Embedding(4, 2, mask_zero=True), layers.BatchNormalization(),
        layers.SimpleRNN(2), inputs=(7,), dtype="int32"),
    "frozen dense": lambda: frozen(layers.Dense(3, "tanh")),
    "frozen first": lambda: frozen(layers.Dense(3, "tanh"), index=0),
    "frozen batch normalization": lambda: frozen(layers.BatchNormalization()),
    "frozen layer normalization": lambda: frozen(layers.LayerNormalization()),
    "frozen model": lambda: frozen(chain(layers.BatchNormalization())),
    "frozen variable": frozen_variable,
    "frozen direction": frozen_direction,
}


@pytest.mark.parametrize("name", EXACT)
def test_own_models_train_exactly(name):
    with precision("float64"):
        keras.utils.set_random_seed(4)
        assert error(EXACT[name]()) < 1e-6


@pytest.mark.parametrize("name, function", [
    (name, getattr(keras.activations, name)) for name in sorted(
        vars(keras.activations))
    if name[0] != "_" and name not in (
        "get", "serialize", "deserialize", "threshold")
    and callable(getattr(keras.activations, name))])
def test_activations_train_exactly(name, function):
    with precision("float64"):
        x = tf.constant([-4.0, -1.3, -0.2, 0.4, 1.7, 3.5], tf.float64)
        layer = networks.inner_clone(keras.Sequential([
            keras.Input([6]), layers.Activation(name)])).layers[0]
        u = tf.constant([1, -2, 0.5, 1, 3, -1], tf.float64)

        def slope(f, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = f(x[None])
                loss = tf.reduce_sum(tf.sin(y * u[:y.shape[-1]]))
            return tape.gradient(loss, x)

        with tf.GradientTape() as tape:
            tape.watch(x)
            along = tf.reduce_sum(slope(layer, x) * u)
        want = (slope(function, x + 1e-6 * u)
                - slope(function, x - 1e-6 * u)) / 2e-6
        np.testing.assert_allclose(
            tape.gradient(along, x, unconnected_gradients="zero"), want,
            atol=1e-6)


@pytest.mark.parametrize("make, message", [
    (lambda: chain(Holder(name="own")),
     "'own' .Holder. holds the LayerNormalization 'hidden'.*make it a layer"),
    (lambda: chain(Counter(name="own")), "'own' .Counter. changes its own"),
    (lambda: chain(Adds(name="own")), "'own' .Adds. adds a loss"),
    (lambda: chain(layers.Dense(3), DropsPaths(name="own")),
     "'own' draws random numbers in training"),
    (lambda: chain(layers.Lambda(lambda x: tf.cond(
        tf.reduce_sum(x) >= 0, lambda: x + keras.random.normal((4,)),
        lambda: x), name="own")), "a state that is no layer's.*'own'"),
    (lambda: chain(layers.Lambda(lambda x: x + tf.random.normal([4]),
                                 name="own")),
     "'own' draws random numbers in training"),
    (lambda: chain(layers.Dense(3, dtype="mixed_float16", name="own")),
     "'own' .Dense. computes in float16.*mixed_bfloat16"),
    (lambda: chain(adapted_by_factors(name="own")),
     "'own' .Dense. has LoRA's factors"),
    (lambda: chain(layers.Dense(3, activity_regularizer="l2", name="own")),
     "'own' .Dense. adds a loss .activity_regularizer"),
    (lambda: chain(Undescribed(tf.sin, name="own")),
     "'own' .Undescribed. cannot be copied: give its class a get_config"),
    (lambda: chain(layers.BatchNormalization(renorm=True, name="own")),
     "'own' has renorm=True.*set renorm=False"),
    (lambda: graph(keras.ops.layer_normalization), "LayerNorm.*use the layer"),
    (lambda: graph(lambda x: keras.ops.moments(x, [1])[1]), "Moments"),
    (lambda: chain(layers.Dense(3), Centred(name="own")),
     "'own' calls keras.ops.moments.*write it with keras.ops.mean"),
    (lambda: chain(layers.Lambda(
        lambda x: x / (1 + tf.nn.moments(x, [0])[1]), name="own")),
     "'own' calls keras.ops.moments"),
    (lambda: keras.Model(
        one := keras.Input([2], name="one"), {"y": layers.Dense(3)(one)}),
     "returns its output in a dict"),
    (lambda: chain(layers.Embedding(3, 2, mask_zero=True),
                   layers.Flatten(name="own"), dtype="int32"),
     "'own' .Flatten. has an input with a mask.*remove Masking or mask_zero"),
    (lambda: chain(layers.Masking(), layers.LSTM(2, return_sequences=True),
                   inputs=(3, 2)), "has a mask.*return_sequences=False"),
])
def test_what_would_be_something_else_is_refused(make, message):
    with warnings.catch_warnings():  # Keras's own, of the mask.
        warnings.simplefilter("ignore")
        model = make()
    with pytest.raises(InputError, match=message):
        networks.inner_clone(model)


def test_float16_that_no_weight_is_learned_through_is_taken():
    networks.inner_clone(chain(
        layers.Rescaling(0.5, dtype="float16"),
        layers.Dense(3, dtype="mixed_float16", trainable=False)))


def test_an_operation_that_holds_a_function_is_copied():
    model = graph(lambda x: keras.ops.vectorized_map(keras.ops.tanh, x))
    operation = model.operations[1]
    networks.copied(model)
    assert len(operation._inbound_nodes) == 1


def test_pooling_that_xla_compares_inexactly_is_refused():
    model = graph(lambda x: keras.ops.max_pool(x, 2), (4, 4, 1))
    networks.inner_clone(model, "stock")
    with pytest.raises(InputError, match="MaxPool of keras.ops"):
        networks.inner_clone(model, "compiled")


def test_an_operation_without_second_derivative_is_named():
    model = chain(layers.Dense(3), layers.Lambda(lambda x: tf.nn.softsign(x)))
    batches = batches_of(model, np.random.default_rng(0))
    displacements(model, batches, 0.01, ["reptile"])
    with pytest.raises(InputError, match="SoftsignGrad.*write it with others"):
        displacements(model, batches, 0.01, ["maml"])


def test_a_model_with_nothing_to_train_is_refused():
    model = frozen(index=0)
    model.layers[1].trainable = False
    with pytest.raises(InputError, match="no trainable weights: set"):
        displacements(model, batches_of(model, np.random.default_rng(0)), 0.1)


@pytest.mark.parametrize("name", EACH_ENGINE_SLOWLY)
def test_frozen_layers_under_every_engine(rng, name):
    """They keep their weights and the rest trains, task by task alike."""
    engine = ENGINES[name]
    with precision("float64"):
        keras.utils.set_random_seed(4)
        model = chain(
            layers.Conv2D(2, 2), layers.Conv2D(2, 2),
            layers.BatchNormalization(), layers.Flatten(),
            layers.Dense(3, "tanh"), inputs=(4, 3, 1))
        for i in (1, 2, 4):
            model.layers[i].trainable = False
        tasks = [batches_of(model, rng) for _ in range(2)]
        inner = InnerLoop(
            networks.inner_clone(model, engine.convolutions), InnerConfig(
                0.05, "sgd"), squared_error, one_graph=engine.jit,
            unrolled_steps=math.inf)
        phi = [v.value.value() for v in model.trainable_variables]

        def mapped(batches):
            return mean_displacement(
                REGISTRY["maml"].rule, inner, phi, inner.initial_state(),
                batches, "parallel", engine)[0]

        got = engine.function(mapped)(Batches(*map(tf.stack, zip(
            *tasks, strict=True))))
        wants = [displacements(model, task, 0.05)[1] for task in tasks]
    assert len(got) == 4
    for a, *b in zip(got, *wants, strict=True):
        assert np.abs(a).max() > 1e-4
        np.testing.assert_allclose(a, sum(b) / 2, rtol=1e-9, atol=1e-12)


def test_xla_is_left_to_models_that_it_compiles():
    """A layer may say that it is none, as Keras's look-ups of strings."""
    model = chain(layers.Embedding(3, 2, name="own"), inputs=(3,))
    assert choose(model, "on").jit
    model.layers[0].supports_jit = False
    assert not choose(model).jit and "'own'" in str(choose(model))
    assert choose(model, "off").jit is False
    with pytest.raises(InputError, match="jit_compile=on.*'own'.*auto"):
        choose(model, "on")


def test_unknown_layers_and_functions_run_one_sub_graph_each():
    """Whether they vectorize over tasks nobody has tried."""
    for own in (layers.Dense(3), layers.Dense(3, "tanh")):
        assert choose(chain(own), "on").vectorized
    for own in (Gate(), layers.Dense(3, lambda x: x * x),
                layers.Activation("sparsemax"), layers.Lambda(lambda x: x)):
        assert not choose(chain(own), "on").vectorized
    assert not choose(graph(lambda x: keras.ops.cumsum(x)), "on").vectorized


def test_xla_wants_layers_that_are_exact_under_it():
    for convolutions in ("stock", "gathered"):
        with pytest.raises(InputError, match="inexact.*compiled"):
            Engine(False, True, convolutions)
