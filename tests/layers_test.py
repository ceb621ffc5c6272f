"""Every layer that keras.layers exports trains exactly, or is refused by name.

The oracle is Keras's own model, whose first derivatives are right: central
differences of its last loss after plain SGD steps, in float64.
"""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from reptile_tf import networks
from reptile_tf.errors import InputError
from reptile_tf.learning.inner_loop import InnerLoop
from reptile_tf.learning.losses import squared_error
from reptile_tf.learning.optimizers import InnerConfig
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.networks import refusals
from reptile_tf.tasks import Batches

layers = keras.layers
VECTOR, SEQUENCE, IMAGE, VOLUME = (4,), (5, 2), (5, 4, 2), (4, 3, 4, 2)
# No dense layer comes before; whole numbers, and strings.
PIXELS, NUMBERS, TEXTS = (8, 8, 3), (3,), (1,)
INPUTS = {NUMBERS: "int32", TEXTS: "string"}


def two(x):
    """x and something else of its shape."""
    return [x, layers.Dense(x.shape[-1], "sigmoid")(x)]


# Layer, and which of several -> what goes in, and what is made of it.
VECTORS = {
    "Activation": lambda x: layers.Activation("gelu")(x),
    "Add": lambda x: layers.Add()(two(x)),
    "Average": lambda x: layers.Average()(two(x)),
    "BatchNormalization": lambda x: layers.BatchNormalization()(x),
    "Concatenate": lambda x: layers.Concatenate()(two(x)),
    "Dense": lambda x: layers.Dense(3, "tanh")(x),
    "Dot": lambda x: layers.Dot(1)(two(x)),
    "ELU": lambda x: layers.ELU()(x),
    "Flatten": lambda x: layers.Flatten()(x),
    "Identity": lambda x: layers.Identity()(x),
    "Lambda": lambda x: layers.Lambda(lambda t: tf.sin(t))(x),
    "LayerNormalization": lambda x: layers.LayerNormalization()(x),
    "LeakyReLU": lambda x: layers.LeakyReLU()(x),
    "Maximum": lambda x: layers.Maximum()(two(x)),
    "Minimum": lambda x: layers.Minimum()(two(x)),
    "Multiply": lambda x: layers.Multiply()(two(x)),
    "Normalization": lambda x: layers.Normalization(
        mean=0.5, variance=2.0)(x),
    "PReLU": lambda x: layers.PReLU("ones")(x),
    "RMSNormalization": lambda x: layers.RMSNormalization()(x),
    "ReLU": lambda x: layers.ReLU(max_value=0.5)(x),
    "RepeatVector": lambda x: layers.RepeatVector(2)(x),
    "Rescaling": lambda x: layers.Rescaling(2.0, 1.0)(x),
    "Reshape": lambda x: layers.Reshape((2, 2))(x),
    "Softmax": lambda x: layers.Softmax()(x),
    "Subtract": lambda x: layers.Subtract()(two(x)),
    "UnitNormalization": lambda x: layers.UnitNormalization()(x),
}
SEQUENCES = {
    "AdaptiveAveragePooling1D": lambda x: layers.AdaptiveAveragePooling1D(
        2)(x),
    "AdaptiveMaxPooling1D": lambda x: layers.AdaptiveMaxPooling1D(2)(x),
    "AdditiveAttention": lambda x: layers.AdditiveAttention()(two(x)),
    "Attention": lambda x: layers.Attention(use_scale=True)(two(x)),
    "AveragePooling1D": lambda x: layers.AveragePooling1D(3, 2)(x),
    "Conv1D": lambda x: layers.Conv1D(2, 3)(x),
    "Conv1DTranspose": lambda x: layers.Conv1DTranspose(2, 3)(x),
    "Cropping1D": lambda x: layers.Cropping1D(1)(x),
    "DepthwiseConv1D": lambda x: layers.DepthwiseConv1D(3)(x),
    "EinsumDense": lambda x: layers.EinsumDense("abc,cd->abd", (5, 3))(x),
    "GlobalAveragePooling1D": lambda x: layers.GlobalAveragePooling1D()(x),
    "GlobalMaxPooling1D": lambda x: layers.GlobalMaxPooling1D()(x),
    "GroupedQueryAttention": lambda x: layers.GroupQueryAttention(2, 2, 1)(
        x, x),
    "LSTM": lambda x: layers.LSTM(2)(x),
    "MaxPooling1D": lambda x: layers.MaxPooling1D(3, 2)(x),
    "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 2)(x, x),
    "Permute": lambda x: layers.Permute((2, 1))(x),
    "SeparableConv1D": lambda x: layers.SeparableConv1D(2, 3)(x),
    "TimeDistributed": lambda x: layers.TimeDistributed(
        layers.BatchNormalization())(x),
    "UpSampling1D": lambda x: layers.UpSampling1D(2)(x),
    "ZeroPadding1D": lambda x: layers.ZeroPadding1D(1)(x),
}
IMAGES = {
    "AdaptiveAveragePooling2D": lambda x: layers.AdaptiveAveragePooling2D(
        2)(x),
    "AdaptiveMaxPooling2D": lambda x: layers.AdaptiveMaxPooling2D((2, 3))(x),
    "AveragePooling2D": lambda x: layers.AveragePooling2D(3, 2)(x),
    "BatchNormalization, no gamma": lambda x: layers.BatchNormalization(
        scale=False)(x),
    "CenterCrop": lambda x: layers.CenterCrop(2, 3)(x),
    "Conv2D": lambda x: layers.Conv2D(2, 3)(x),
    "Conv2D, dilated": lambda x: layers.Conv2D(2, 2, dilation_rate=2)(x),
    "Conv2DTranspose": lambda x: layers.Conv2DTranspose(2, 3, 2)(x),
    "Cropping2D": lambda x: layers.Cropping2D(1)(x),
    "DepthwiseConv2D": lambda x: layers.DepthwiseConv2D(3)(x),
    "GlobalAveragePooling2D": lambda x: layers.GlobalAveragePooling2D()(x),
    "GlobalMaxPooling2D": lambda x: layers.GlobalMaxPooling2D()(x),
    "GroupNormalization": lambda x: layers.GroupNormalization(2)(x),
    "GroupNormalization, of rows": lambda x: layers.GroupNormalization(
        1, axis=1)(x),
    "LayerNormalization, of two axes": lambda x: layers.LayerNormalization(
        [1, 3], center=False)(x),
    "MaxPooling2D": lambda x: layers.MaxPooling2D(3, 2)(x),
    "MaxPooling2D, side by side": lambda x: layers.MaxPooling2D(2)(x),
    "Pipeline": lambda x: layers.Pipeline([layers.Rescaling(2.0)])(x),
    "SeparableConv2D": lambda x: layers.SeparableConv2D(2, 3)(x),
    "UpSampling2D": lambda x: layers.UpSampling2D(2)(x),
    "ZeroPadding2D": lambda x: layers.ZeroPadding2D(1)(x),
}
VOLUMES = {
    "Conv3D": lambda x: layers.Conv3D(2, 2)(x),
    "Conv3DTranspose": lambda x: layers.Conv3DTranspose(1, 2)(x),
    "Cropping3D": lambda x: layers.Cropping3D(1)(x),
    "GlobalAveragePooling3D": lambda x: layers.GlobalAveragePooling3D()(x),
    "GlobalMaxPooling3D": lambda x: layers.GlobalMaxPooling3D()(x),
    "UpSampling3D": lambda x: layers.UpSampling3D(2)(x),
    "ZeroPadding3D": lambda x: layers.ZeroPadding3D(1)(x),
}
OF_NUMBERS = {
    "CategoryEncoding": lambda x: layers.CategoryEncoding(4)(x),
    "Discretization": lambda x: layers.Discretization(
        [0.5, 2.0], output_mode="one_hot")(x),
    "Embedding": lambda x: layers.Embedding(4, 2)(x),
    "HashedCrossing": lambda x: layers.HashedCrossing(3)(
        (x[:, :1], x[:, 1:2])),
    "Hashing": lambda x: layers.Hashing(3)(x),
    "IntegerLookup": lambda x: layers.IntegerLookup(vocabulary=[1, 2])(x),
    "ReversibleEmbedding": lambda x: layers.ReversibleEmbedding(4, 2)(x),
}
OF_TEXTS = {
    "StringLookup": lambda x: layers.Embedding(3, 2)(
        layers.StringLookup(vocabulary=["a", "b"])(x)),
    "TextVectorization": lambda x: layers.Embedding(4, 2)(
        layers.TextVectorization(vocabulary=["a", "b"],
                                 output_sequence_length=1)(x)),
}
PREPROCESSING = {
    "AutoContrast": lambda x: layers.AutoContrast((-3.0, 3.0))(x),
    "ContrastLimitedAdaptiveHistogramEqualization": lambda x: (
        layers.ContrastLimitedAdaptiveHistogramEqualization(
            (-3.0, 3.0))(x)),
    "MaxNumBoundingBoxes": lambda x: layers.MaxNumBoundingBoxes(3)(x),
    "MelSpectrogram": lambda x: layers.MelSpectrogram(
        16, 16, num_mel_bins=4, sampling_rate=8000)(
            layers.Reshape((-1,))(x)),
    "Resizing": lambda x: layers.Resizing(3, 3)(x),
    "STFTSpectrogram": lambda x: layers.STFTSpectrogram(
        "real", frame_length=16, frame_step=16, fft_length=16, window=None)(
            layers.Reshape((-1, 1))(x)),
}


def apart(x):
    """x from -1 to 1, and so far apart that no small step changes a maximum."""
    places = np.random.default_rng(0).permutation(np.prod(x.shape[1:]))
    return x + 2.5 * places.reshape(x.shape[1:]).astype("float32")


VOLUMES_32 = {
    "AdaptiveAveragePooling3D": lambda x: layers.AdaptiveAveragePooling3D(
        2)(x),
    "AdaptiveMaxPooling3D": lambda x: layers.Rescaling(0.01)(
        layers.AdaptiveMaxPooling3D(2)(apart(x))),
    "AveragePooling3D": lambda x: layers.AveragePooling3D(2)(x),
    "MaxPooling3D": lambda x: layers.Rescaling(0.01)(
        layers.MaxPooling3D(2, 1)(apart(x))),
    "UpSampling2D, bilinear": lambda x: layers.UpSampling2D(
        2, interpolation="bilinear")(layers.Cropping2D((1, 2))(
            layers.Reshape((4, 6, 4))(x))),
}
RECURRENT = {
    "Bidirectional": lambda x: layers.Bidirectional(layers.SimpleRNN(2))(x),
    "GRU": lambda x: layers.GRU(2)(x),
    "GRU, reset before": lambda x: layers.GRU(2, reset_after=False)(x),
    "GRUCell": lambda x: layers.RNN(layers.GRUCell(2))(x),
    "LSTMCell": lambda x: layers.RNN(layers.LSTMCell(2))(x),
    "RNN": lambda x: layers.RNN(layers.SimpleRNNCell(2), unroll=True)(x),
    "SimpleRNN": lambda x: layers.SimpleRNN(2)(x),
    "SimpleRNNCell": lambda x: layers.RNN(layers.SimpleRNNCell(2))(x),
    "StackedRNNCells": lambda x: layers.RNN(layers.StackedRNNCells(
        [layers.SimpleRNNCell(2), layers.LSTMCell(1)]))(x),
}
SLOW = {
    "ConvLSTM1D": lambda x: layers.ConvLSTM1D(1, 2)(
        layers.Reshape((4, 3, 8))(x)),
    "ConvLSTM2D": lambda x: layers.ConvLSTM2D(1, 2)(x),
    "ConvLSTM3D": lambda x: layers.ConvLSTM3D(1, 1)(layers.Reshape(
        (*VOLUME, 1))(x)),
    "Conv2D, grouped": lambda x: layers.Conv2D(2, 3, groups=2)(
        layers.Reshape((4, 6, 4))(x)),
}
TRAINED = {
    "vectors": (VECTOR, VECTORS), "sequences": (SEQUENCE, SEQUENCES),
    "images": (IMAGE, IMAGES),
    "volumes": (VOLUME, VOLUMES), "numbers": (NUMBERS, OF_NUMBERS),
    "texts": (TEXTS, OF_TEXTS),
    # TensorFlow computes these in float32 only.
    "preprocessing32": (PIXELS, PREPROCESSING),
    "volumes32": (VOLUME, VOLUMES_32), "slow": (VOLUME, SLOW),
    "slow recurrent": (SEQUENCE, RECURRENT)}


@contextlib.contextmanager
def precision(dtype):
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


def side_by_side(shape, makes):
    """A model of all of `makes`, between two dense layers."""
    keras.utils.set_random_seed(3)
    inputs = x = keras.Input(shape, dtype=INPUTS.get(shape))
    if shape not in (PIXELS, *INPUTS):
        x = layers.Dense(shape[-1], "tanh")(inputs)
    found = [layers.Flatten()(make(x)) for make in makes]
    if len(found) > 1:
        found = [layers.Concatenate()(found)]
    return keras.Model(inputs, layers.Dense(2)(found[0]))


def batches_of(model, rng):
    """Three mini-batches, of 3, 3 and 4 examples."""
    dtype, size = model.inputs[0].dtype, model.inputs[0].shape[1:]

    def inputs(*number):
        if dtype == "int32":
            return tf.constant(rng.integers(0, 4, (*number, *size)), dtype)
        if dtype == "string":
            return tf.constant(rng.choice(["a", "b", "c"], (*number, *size)))
        return tf.constant(rng.normal(size=(*number, *size)), dtype)

    def targets(*number):
        return tf.constant(rng.normal(size=(*number, 2)),
                           model.outputs[0].dtype)

    return Batches(inputs(2, 3), targets(2, 3), inputs(4), targets(4))


def stock_last_loss(model, start, batches, rate):
    """Of Keras's model in training mode, after plain SGD steps."""
    variables = [v.value for v in model.trainable_variables]
    for variable, value in zip(variables, start, strict=True):
        variable.assign(value)

    def loss(x, y):
        return tf.reduce_sum(tf.square(model(x, training=True) - y))

    for x, y in zip(batches.inputs, batches.targets, strict=True):
        with tf.GradientTape() as tape:
            value = loss(x, y)
        for v, g in zip(variables, tape.gradient(value, variables),
                        strict=True):
            v.assign_sub(rate * tf.convert_to_tensor(g))
    return float(loss(batches.last_inputs, batches.last_targets))


def displacements(model, batches, rate, names=("reptile", "maml"),
                  convolutions="gathered", compiled=lambda rule: rule):
    """Those of the rules, by the clone."""
    inner = InnerLoop(networks.inner_clone(model, convolutions), InnerConfig(
        rate, "sgd"), squared_error, unrolled_steps=9)
    phi = [v.value.value() for v in model.trainable_variables]
    return [compiled(REGISTRY[name].rule)(
        inner, phi, inner.initial_state(), batches)[0] for name in names]


def error(model, h=1e-5, rate=0.01, **how):
    """|MAML's gradient - differences| / |differences|, along a direction."""
    rng = np.random.default_rng(5)
    batches = batches_of(model, rng)
    phi = [v.value.value() for v in model.trainable_variables]
    moved, d = displacements(model, batches, rate, **how)
    assert all(np.all(np.isfinite(x)) for x in moved)
    assert any(np.any(x) for x in moved)
    # In float32 the steepest direction drowns the least in rounding.
    direction = d if d[0].dtype == tf.float32 else [
        tf.constant(rng.normal(size=p.shape)) for p in phi]
    norm = tf.linalg.global_norm(direction)
    direction = [u / norm for u in direction]
    up, down = (stock_last_loss(model, [
        p + sign * h * u for p, u in zip(phi, direction, strict=True)],
        batches, rate) for sign in (1, -1))
    want = (up - down) / (2 * h)
    got = sum(float(tf.reduce_sum(a * u))
              for a, u in zip(d, direction, strict=True)) / rate
    return abs(got - want) / abs(want)


def under_xla(rule):
    def displacement(*arguments):
        return tf.function(lambda: rule(*arguments), autograph=False,
                           jit_compile=True)()
    return displacement


GRAPH, XLA = {}, {"convolutions": "compiled", "compiled": under_xla}


@pytest.mark.parametrize("group, engine", [
    *(pytest.param(name, GRAPH, id=name, marks=[pytest.mark.slow]
                   if "slow" in name else []) for name in TRAINED),
    *(pytest.param(name, XLA, id=f"{name}, XLA", marks=pytest.mark.slow)
      for name in ("vectors", "sequences", "images", "volumes"))])
def test_layers_train_exactly(group, engine):
    """Side by side in one model; only if one fails, each in its own."""
    shape, makes = TRAINED[group]
    dtype, how, most = (
        ("float32", {"h": 1e-2, "rate": 1e-3}, 1e-3) if group.endswith("32")
        else ("float64", engine, 1e-6))
    with precision(dtype):
        if error(side_by_side(shape, makes.values()), **how) < most:
            return
        for name, make in makes.items():
            wrong = error(side_by_side(shape, [make]), **how)
            assert wrong < most, f"{name}: {wrong}"
    pytest.fail("only together")


def test_equalization_trains_exactly():
    """Keras takes it into a Sequential model only."""
    assert error(keras.Sequential([
        keras.Input(PIXELS), layers.Equalization((-3.0, 3.0)),
        layers.Flatten(), layers.Dense(2)]), 1e-2, 1e-3) < 1e-3


def drawn(name, *arguments, shape=PIXELS):
    return (lambda: getattr(layers, name)(*arguments), shape,
            f"'.*' .{name}. changes its own state in training")


REFUSED = {
    "ActivityRegularization": (
        lambda: layers.ActivityRegularization(0.5), VECTOR,
        "'.*' .ActivityRegularization. adds a loss.*part of the loss"),
    "Masking": (lambda: layers.Masking(), SEQUENCE, "has a mask.*remove"),
    **{name: drawn(name) for name in (
        "CutMix", "MixUp", "RandAugment", "RandomElasticTransform",
        "RandomErasing", "RandomFlip", "RandomGaussianBlur",
        "RandomGrayscale", "RandomPerspective", "Solarization", "AugMix")},
    **{name: drawn(name, 0.5) for name in (
        "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise",
        "RandomBrightness", "RandomColorDegeneration", "RandomContrast",
        "RandomHue", "RandomInvert", "RandomRotation", "RandomSaturation",
        "RandomSharpness", "RandomZoom",
        "SpatialDropout2D")},
    "RandomColorJitter": drawn("RandomColorJitter", (0, 255), 0.5),
    "RandomCrop": drawn("RandomCrop", 4, 4),
    "RandomPosterization": drawn("RandomPosterization", 4),
    # Its from_config does not take what its get_config gives.
    "RandomShear": (lambda: layers.RandomShear(0.5), PIXELS,
                    "RandomShear. cannot be copied: give its class"),
    "RandomTranslation": drawn("RandomTranslation", 0.5, 0.5),
    "SpatialDropout1D": drawn("SpatialDropout1D", 0.5, shape=SEQUENCE),
    "SpatialDropout3D": drawn("SpatialDropout3D", 0.5, shape=VOLUME),
    "SpectralNormalization": (
        lambda: layers.SpectralNormalization(layers.Dense(2)), VECTOR,
        "SpectralNormalization. changes its own state"),
}
# Of other backends or programs; the rest are what others derive from, and a
# model's inputs.
FOREIGN = ["FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"]
BASES = ["InputLayer", "Layer", "Wrapper"]


def test_every_layer_of_keras_is_known():
    """A layer new in Keras is tried here, before anyone relies on it."""
    exported = {x.__name__ for x in vars(layers).values()
                if isinstance(x, type) and issubclass(x, layers.Layer)}
    tried = {name.partition(",")[0] for _, makes in TRAINED.values()
             for name in makes}
    assert exported == tried | {*REFUSED, *FOREIGN, *BASES, "Equalization"}
    assert not tried & {*REFUSED}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_are_refused_by_name(name):
    make, shape, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        networks.inner_clone(keras.Sequential([keras.Input(shape), make()]))


@pytest.mark.parametrize("name", FOREIGN)
def test_layers_of_other_programs_are_refused(name):
    kind = getattr(layers, name)
    layer = kind.__new__(kind)  # Its program may not be installed.
    object.__setattr__(layer, "name", "mine")
    with pytest.raises(InputError, match=f"'mine' .{name}..*write it"):
        refusals.check_foreign(layer)
