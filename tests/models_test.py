"""The networks, exact batch normalization, and the inner loop's clone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from reptile_tf import networks as models
from reptile_tf.errors import InputError
from reptile_tf.execution.engine import vectorizes
from reptile_tf.networks.layers import BatchNormalization


@pytest.mark.parametrize("build, ways, count", [
    (models.omniglot, 5, 113_221), (models.omniglot, 20, 117_076),
    (models.mini_imagenet, 5, 34_661),
    # 640 + 3 * 36,928 + 4 * 64 and 64 N + N; 896 + 3 * 9,248 + 4 * 32 and
    # 800 N + N.
    (models.maml_omniglot, 5, 112_005), (models.maml_omniglot, 20, 112_980),
    (models.maml_mini_imagenet, 5, 32_773)])
def test_parameter_counts(build, ways, count):
    model = build(ways)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_variables
               ) == count
    assert model.output_shape == (None, ways)


def test_initial_weights():
    """Glorot uniform kernels, biases 0, gamma 1, beta 0; the seed decides."""
    model, again, other = (models.omniglot(5, s) for s in (3, 3, 4))
    for a, b, c in zip(*(m.trainable_variables for m in (model, again, other)),
                       strict=True):
        np.testing.assert_array_equal(a, b)
        if a.name == "kernel":
            fan_in = np.prod(a.shape[:-1])
            fan_out = np.prod(a.shape) / a.shape[-2]
            limit = np.sqrt(6 / (fan_in + fan_out))
            assert limit * 0.9 < np.abs(a).max() <= limit
            assert not np.array_equal(a, c)
        else:
            assert np.all(a.numpy() == (1 if a.name == "gamma" else 0))
    kernels = [w.numpy() for w in model.trainable_variables
               if w.name == "kernel"]
    assert not np.array_equal(kernels[1], kernels[2])


def test_a_seed_means_the_same_weights_for_ever():
    """Keras's initializers, by seeds drawn from stream 3 of the run's."""
    rng = np.random.default_rng([3, 3])
    seeds = [int(rng.integers(2**31)) for _ in range(5)]
    assert seeds == [677071331, 220760492, 640137751, 687080134, 1365527189]
    kernels = [w for w in models.omniglot(5, 3).trainable_variables
               if w.name == "kernel"]
    for kernel, seed in zip(kernels, seeds, strict=True):
        np.testing.assert_array_equal(
            kernel, keras.initializers.GlorotUniform(seed)(kernel.shape))


def test_relu_follows_the_pool_in_mini_imagenet():
    """The authors' order; the same function, other gradients at ties."""
    names = [layer.name for layer in models.mini_imagenet(5).layers][:4]
    assert names == ["conv1", "norm1", "pool1", "relu1"]


@pytest.mark.parametrize("build", [
    models.omniglot, models.maml_omniglot, models.mini_imagenet,
    models.maml_mini_imagenet])
def test_the_networks_do_not_depend_on_kerass_settings(build):
    usual, before = build(5), keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        other = build(5)
    finally:
        keras.config.set_image_data_format(before)
    for a, b in zip(other.layers, usual.layers, strict=True):
        assert a.output.shape == b.output.shape
        assert getattr(a, "data_format", 0) == getattr(b, "data_format", 0)


def test_finn_et_als_networks():
    """No gamma, the mean of the last 2x2, a dense kernel of deviation 1; on
    Mini-ImageNet ReLU before a pooling of whole windows."""
    omniglot = models.maml_omniglot(20, 3)
    mini = models.maml_mini_imagenet(5, 3)
    for model in (omniglot, mini):
        names = {w.name for w in model.trainable_variables}
        assert names == {"kernel", "bias", "beta"}
        *convolutions, dense = [w.numpy() for w in model.trainable_variables
                                if w.name == "kernel"]
        for kernel in convolutions:
            limit = np.sqrt(6 / (9 * (kernel.shape[2] + kernel.shape[3])))
            assert limit * 0.9 < np.abs(kernel).max() <= limit
    dense = omniglot.layers[-1].kernel.numpy()
    assert abs(dense.std() - 1) < 0.05 and np.abs(dense).max() > 2
    assert np.abs(mini.layers[-1].kernel).max() <= np.sqrt(6 / 805)
    images = np.array([0, 1, 0.25], "float32").reshape(3, 1, 1, 1)
    np.testing.assert_array_equal(
        np.ravel(omniglot.layers[0](images)), [1, 0, 0.75])
    last = np.arange(2 * 2 * 2 * 64, dtype="float32").reshape(2, 2, 2, 64)
    np.testing.assert_allclose(
        omniglot.get_layer("mean")(last), last.mean((1, 2)))
    assert [layer.name for layer in mini.layers][:4] == [
        "conv1", "norm1", "relu1", "pool1"]
    assert [layer.output.shape[1] for layer in mini.layers
            if layer.name.startswith("pool")] == [42, 21, 10, 5]


@pytest.mark.parametrize("gamma, beta", [
    (True, True), (False, True), (True, False)])
def test_batch_normalization_equals_its_derivation(rng, gamma, beta):
    """First and second derivatives, by TensorFlow's own of the definition."""
    x = tf.constant(rng.normal(1, 2, (3, 5, 2, 4)))
    weight, direction = (tf.constant(rng.normal(size=x.shape))
                         for _ in range(2))
    layer = BatchNormalization(1e-1, scale=gamma, center=beta,
                               dtype="float64")
    layer.build(x.shape)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=4))

    def definition(x):
        mean = tf.reduce_mean(x, [0, 1, 2])
        h = (x - mean) / tf.sqrt(tf.reduce_mean((x - mean)**2, [0, 1, 2])
                                 + 1e-1)
        h = h * layer.gamma if gamma else h
        return h + layer.beta if beta else h

    variables = [x, *(v.value for v in layer.trainable_variables)]
    results = []
    for function in (definition, layer):
        with tf.GradientTape() as outer:
            outer.watch(variables)
            with tf.GradientTape() as inner:
                inner.watch(variables)
                loss = tf.reduce_sum(weight * tf.sin(function(x)))
            g = inner.gradient(loss, variables)
            product = tf.reduce_sum(g[0] * direction) + sum(
                tf.reduce_sum(tf.sin(one)) for one in g[1:])
        results.append([*g, *outer.gradient(product, variables)])
    for want, got in zip(*results, strict=True):
        assert np.abs(want).max() > 0.01
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11)


def test_batch_normalization_equals_kerass_in_training(rng):
    x = rng.normal(2, 3, (4, 3, 5, 2)).astype("float32")
    ours, stock = BatchNormalization(1e-3), (
        keras.layers.BatchNormalization(epsilon=1e-3))
    want = stock(x, training=True)
    for training in (True, False, None):
        np.testing.assert_allclose(ours(x, training=training), want,
                                   atol=2e-6)
    assert not ours.non_trainable_variables


def test_fused_batch_normalization_has_the_same_derivatives(rng):
    """Outputs, first and second derivatives, in float32."""
    x = tf.constant(rng.normal(1, 2, (3, 3, 5, 4)), tf.float32)
    weight, direction = (tf.constant(rng.normal(size=x.shape), tf.float32)
                         for _ in range(2))
    results = []
    for fused in (False, True):
        layer = BatchNormalization(1e-1, fused=fused)
        layer.build(x.shape)
        layer.gamma.assign([0.5, 1, 2, -1])
        layer.beta.assign([1, 0, -1, 2])
        variables = [x, layer.gamma.value, layer.beta.value]
        with tf.GradientTape() as outer:
            outer.watch(variables)
            with tf.GradientTape() as inner:
                inner.watch(variables)
                y = layer(x)
                loss = tf.reduce_sum(weight * tf.sin(y))
            g = inner.gradient(loss, variables)
            # Not the same cotangent for all channels.
            product = tf.reduce_sum(g[0] * direction) + tf.reduce_sum(
                tf.square(g[1])) + tf.reduce_sum(tf.sin(g[2]))
        results.append([y, *g, *outer.gradient(product, variables)])
    for plain, fused in zip(*results, strict=True):
        assert np.abs(plain).max() > 0.5
        np.testing.assert_allclose(fused, plain, rtol=2e-5, atol=2e-5)


def test_third_derivatives_of_fused_batch_normalization_are_refused(rng):
    layer = BatchNormalization(1e-3, fused=True)
    x = tf.constant(rng.normal(size=(2, 3, 2, 1)), tf.float32)
    tapes = [tf.GradientTape() for _ in range(3)]
    with tapes[0], tapes[1], tapes[2]:
        for tape in tapes:
            tape.watch(x)
        y = tf.reduce_sum(layer(x) ** 3)
        for tape in tapes[:0:-1]:
            y = tf.reduce_sum(tape.gradient(y, x) ** 2)
    with pytest.raises(NotImplementedError, match="two orders"):
        tapes[0].gradient(y, x)


def plain_mini_imagenet(weights, images):
    """NumPy and loops: convolution, normalization, pool, then ReLU."""
    x, weights = images.astype(np.float64), list(weights)
    for _ in range(4):
        kernel, bias, gamma, beta = (weights.pop(0) for _ in range(4))
        n, h, w, _ = x.shape
        padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        y = np.zeros((n, h, w, kernel.shape[3])) + bias
        for r in range(3):
            for c in range(3):
                y += padded[:, r:r + h, c:c + w] @ kernel[r, c]
        y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-3)
        y = y * gamma + beta
        # "same" pooling by 2: an odd size has a last cell of one row.
        x = np.full((n, -(-h // 2), -(-w // 2), y.shape[3]), -np.inf)
        for i in range(h):
            for j in range(w):
                cell = x[:, i // 2, j // 2]
                np.maximum(cell, y[:, i, j], out=cell)
        x = np.maximum(x, 0)
    kernel, bias = weights
    return x.reshape(len(x), -1) @ kernel + bias


def test_mini_imagenet_equals_a_plain_computation(rng):
    """Also at the odd sizes of 84 -> 42 -> 21 -> 11 -> 6."""
    model = models.mini_imagenet(3, 2)
    weights = []
    for w in model.trainable_variables:
        w.assign(w + 0.1 * rng.normal(size=w.shape))
        weights.append(w.numpy())
    images = rng.random((3, 84, 84, 3)).astype("float32")
    want = plain_mini_imagenet(weights, images)
    clone = models.inner_clone(model)
    shapes = [layer.output.shape[1] for layer in clone.layers
              if layer.name.startswith("pool")]
    assert shapes == [42, 21, 11, 6]
    for convolutions in models.CONVOLUTIONS:
        got = models.inner_clone(model, convolutions)(images, training=True)
        np.testing.assert_allclose(got, want, atol=2e-3)


def test_batch_normalization_by_hand():
    layer = BatchNormalization(1e-3)
    layer.build((None, 1))
    layer.gamma.assign([2.0])
    layer.beta.assign([10.0])
    # mean 3, biased variance 8 / 3
    root = np.sqrt(8 / 3 + 1e-3)
    np.testing.assert_allclose(
        layer(tf.constant([[1.0], [3], [5]]))[:, 0],
        [10 - 4 / root, 10, 10 + 4 / root], rtol=1e-6)


def test_batch_normalization_has_exact_second_derivatives(rng):
    """Hessian-vector product against central differences of gradients."""
    layer = BatchNormalization(1e-3, dtype="float64")
    x = rng.normal(size=(5, 3))
    direction, weight = rng.normal(size=(2, 5, 3))
    layer(x)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weight * tf.tanh(layer(x)))
        return tape.gradient(loss, x)

    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        product = tf.reduce_sum(gradient(point) * direction)
    got = tape.gradient(product, point)
    h = 1e-5
    want = (gradient(point + h * direction) - gradient(point - h * direction)
            ) / (2 * h)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-8)


def small(*layers, inputs=(6, 6, 1)):
    return keras.Sequential([keras.Input(inputs), *layers])


def test_clone_copies_and_leaves_the_model_alone(rng):
    model = small(
        keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization(),
        keras.layers.Flatten(), keras.layers.Dense(2))
    for w in model.weights:
        w.assign(rng.uniform(1, 2, w.shape))
    before = [w.numpy() for w in model.weights]
    clone = models.inner_clone(model, "gathered")
    for a, b in zip(model.trainable_variables, clone.trainable_variables,
                    strict=True):
        np.testing.assert_array_equal(a, b)
        assert a is not b
        b.assign(b * 2)
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not clone.non_trainable_variables


def test_clone_goes_into_nested_models():
    inside = small(keras.layers.BatchNormalization(), inputs=(4,))
    inputs = keras.Input([4])
    model = keras.Model(inputs, keras.layers.Dense(2)(inside(inputs) + inputs))
    clone = models.inner_clone(model)
    kinds = {type(layer) for layer in clone._flatten_layers()}
    assert BatchNormalization in kinds
    assert keras.layers.BatchNormalization not in kinds
    x = np.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(clone(x), model(x, training=True), atol=1e-5)


def test_normalization_works():
    norm = keras.layers.Normalization()
    norm.adapt(np.array([[1.0, 10], [3, 30]]))
    model = small(norm, keras.layers.Dense(1), inputs=(2,))
    clone = models.inner_clone(model)
    x = np.array([[2.0, 5], [4, 7]])
    np.testing.assert_allclose(clone(x), model(x), rtol=1e-6)
    weights = [w.value for w in clone.trainable_variables]
    constants = [w.value for w in clone.non_trainable_variables]
    outputs, _ = clone.stateless_call(weights, constants, x, training=True)
    np.testing.assert_allclose(outputs, model(x), rtol=1e-6)


class Subclassed(keras.Model):
    def call(self, x):
        return x


class Doubled(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return 2 * super().call(x)


class Calls(keras.layers.Layer):
    """Another layer once more, which its copy does not share."""

    def __init__(self, layer, **arguments):
        super().__init__(**arguments)
        self.called = layer

    def call(self, x):
        return self.called(x)

    def get_config(self):
        return {**super().get_config(),
                "layer": keras.saving.serialize_keras_object(self.called)}

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config.pop("layer"))
        return cls(layer, **config)


def all_frozen_but_the_head():
    inputs = keras.Input([2])
    model = keras.Model(inputs, keras.layers.Dense(3)(
        keras.layers.Dense(4)(inputs)), name="frozen")
    model.trainable = False
    model.layers[-1].trainable = True
    return model


def tied():
    inputs, dense = keras.Input([4]), keras.layers.Dense(4)
    return keras.Model(inputs, Calls(dense)(dense(inputs)), name="tied")


def sum_of_two():
    inputs = [keras.Input([2]), keras.Input([2])]
    return keras.Model(inputs, keras.layers.Add()(inputs), name="two")


@pytest.mark.parametrize("make, message", [
    (lambda: small(keras.layers.Dropout(0.5, name="drop")),
     "'drop'.*Dropout.*state"),
    (lambda: small(keras.layers.SpectralNormalization(
        keras.layers.Conv2D(2, 3), name="spectral")),
     "'spectral'.*SpectralNormalization"),
    (lambda: small(keras.layers.BatchNormalization(axis=1, name="first")),
     "'first'.*axis 1"),
    (lambda: Subclassed(name="own"), "Subclassed 'own' is no Sequential"),
    (lambda: keras.Sequential([keras.layers.Dense(2)], name="bare"),
     "'bare' has no weights yet"),
    (lambda: Doubled([keras.Input([2]), keras.layers.Dense(2)], name="own"),
     "Doubled 'own' has a call of its own"),
    (all_frozen_but_the_head, "'frozen' is frozen as a whole"),
    (tied, "'tied' has 2 trainable weights and its clone 4"),
    (lambda: small(keras.layers.Dense(2, dtype="float16")),
     "are float16: Adam needs all in float32"),
    (lambda: small(keras.layers.Dense(2), keras.layers.Dense(
        2, dtype="float64")), "are float32 and float64: "),
    (sum_of_two, "'two' has 2 inputs and 1 outputs"),
])
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        models.inner_clone(make())


def test_images_of_any_size_are_cloned():
    model = keras.Sequential([
        keras.Input([None, None, 3]), keras.layers.Conv2D(4, 5),
        keras.layers.GlobalAveragePooling2D()])
    assert models.inner_clone(model, "gathered").count_params() == 304


def test_regularizers_are_refused():
    model = keras.Sequential([
        keras.Input([3]), keras.layers.Dense(2, kernel_regularizer="l2")])
    with pytest.raises(InputError, match="kernel.*regularizer"):
        models.inner_clone(model)


def plain_omniglot(weights, images, finn=False):
    """NumPy and loops: convolution of stride 2, normalization, then ReLU.

    Finn et al.'s is of inverted images, without gamma, and with a mean.
    """
    x, weights = images.astype(np.float64), list(weights)
    x = 1 - x if finn else x
    for _ in range(4):
        kernel, bias = weights.pop(0), weights.pop(0)
        gamma = 1 if finn else weights.pop(0)
        beta = weights.pop(0)
        size = x.shape[1]
        out = -(-size // 2)
        pad = max((out - 1) * 2 + 3 - size, 0)
        padded = np.pad(x, [(0, 0), *[(pad // 2, pad - pad // 2)] * 2, (0, 0)])
        y = np.zeros((len(x), out, out, kernel.shape[3])) + bias
        for i in range(out):
            for j in range(out):
                y[:, i, j] += np.tensordot(
                    padded[:, 2 * i:2 * i + 3, 2 * j:2 * j + 3], kernel, 3)
        y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + 1e-3)
        x = np.maximum(y * gamma + beta, 0)
    kernel, bias = weights
    x = x.mean((1, 2)) if finn else x.reshape(len(x), -1)
    return x @ kernel + bias


@pytest.mark.parametrize("finn", [False, True])
def test_omniglot_equals_a_plain_computation(rng, finn):
    build = models.maml_omniglot if finn else models.omniglot
    model, weights = build(3, 2), []
    for w in model.trainable_variables:
        w.assign(w + 0.1 * rng.normal(size=w.shape))
        weights.append(w.numpy())
    images = rng.random((6, 28, 28, 1)).astype("float32")
    want = plain_omniglot(weights, images, finn)
    sizes = [layer.output.shape[1] for layer in model.layers
             if layer.name.startswith("conv")]
    assert sizes == [14, 7, 4, 2]
    for convolutions in models.CONVOLUTIONS:
        got = models.inner_clone(model, convolutions)(images, training=True)
        np.testing.assert_allclose(got, want, atol=2e-3)


def test_dropout_of_rate_zero_is_no_state():
    models.inner_clone(small(keras.layers.Dropout(0.0)))
    model = small(keras.layers.Dropout(0.5))
    [layer] = [x for x in model.layers if isinstance(x, keras.layers.Dropout)]
    layer.rate = 0.0  # What the error says to do with a model that is there.
    models.inner_clone(model)


def test_vectorizes():
    assert vectorizes(models.omniglot(5))
    assert vectorizes(models.mini_imagenet(5))
    assert vectorizes(models.omniglot(5), 28 * 28)
    assert not vectorizes(models.omniglot(5), 27 * 28)
    assert not vectorizes(models.mini_imagenet(5), 28 * 28)
    assert vectorizes(models.sine(), 0)
    assert not vectorizes(small(keras.layers.Conv2D(2, 3, groups=1,
                                                           dilation_rate=2)))


@pytest.mark.parametrize("convolutions", [
    "stock", "gathered", pytest.param("sliced", marks=pytest.mark.slow)])
@pytest.mark.parametrize("build", [
    lambda: models.omniglot(3), pytest.param(
        lambda: models.mini_imagenet(3, 0, 12), marks=pytest.mark.slow)],
    ids=["omniglot", "mini_imagenet"])
def test_a_mixed_clone_computes_in_bfloat16(rng, build, convolutions):
    """First and second derivatives too, from weights that are float32."""
    model = build()
    # So many that the sums over them average the rounding on every CPU.
    x = tf.constant(rng.random((36, *model.input_shape[1:])), tf.float32)
    results = []
    for mixed in (False, True):
        clone = models.inner_clone(model, convolutions, mixed)
        weights = [v.value for v in clone.trainable_variables]
        direction = [tf.ones_like(w) for w in weights]

        @tf.function(autograph=False)
        def derivatives(weights, clone=clone, direction=direction):
            with tf.GradientTape() as outer:
                outer.watch(weights)
                with tf.GradientTape() as inner:
                    inner.watch(weights)
                    y = clone.stateless_call(weights, [], x, training=True)[0]
                    loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
                g = inner.gradient(loss, weights)
                along = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(
                    g, direction, strict=True)])
            return y, g[-2], outer.gradient(along, weights)[-2]

        results.append(derivatives(weights))
        dtypes = {layer.compute_dtype for layer in clone.layers}
        assert dtypes == {"bfloat16" if mixed else "float32"}
        assert results[-1][0].dtype == dtypes.pop()
        assert {w.dtype for w in weights} == {tf.float32}
        assert {w.dtype for w in results[-1][1:]} == {tf.float32}
    # Second derivatives multiply more rounded numbers.
    for want, got, most in zip(*results, (2**-5, 2**-5, 2**-2), strict=True):
        got = tf.cast(got, tf.float32)
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert 2**-13 < error < most
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


@pytest.mark.parametrize("fused", [False, True])
def test_mixed_batch_normalization_takes_statistics_in_float32(fused):
    """bfloat16 has 256 and 258, and not their mean."""
    x = np.full((3, 2, 5, 1), 256.0)
    x[1, :, :3] = 258
    layer = BatchNormalization(1e-3, fused=fused, dtype="mixed_bfloat16")
    got = layer(tf.constant(x, tf.bfloat16))
    want = (x - x.mean()) / np.sqrt(x.var() + 1e-3)
    assert got.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(got, tf.float32), want, rtol=2**-8)


def test_mixed_bfloat16_of_another_type_is_refused():
    model = keras.Sequential([
        keras.Input([3]), keras.layers.Dense(2, dtype="float64")])
    with pytest.raises(InputError, match="kernel.*is float64.*float32"):
        models.inner_clone(model, mixed_bfloat16=True)
