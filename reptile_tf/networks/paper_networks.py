"""The paper's networks: plain Keras models of stock layers.

Two for each data set of images, for its tables come from two codes: Nichol et
al.'s own made the Reptile rows, and Finn et al.'s (arXiv 1703.03400, section
5.2 and appendix A.1) the MAML and FOMAML rows. What tells the second ones
apart decides how far an inner step goes: on Omniglot the mean over the last
2x2 positions instead of all four, no gamma, a dense kernel of deviation 1.
"""

import functools
from collections.abc import Callable, Sequence

import keras

from reptile_tf.tasks import WEIGHTS_STREAM, generator

FORMAT = "channels_last"  # Of images here, whatever ~/.keras/keras.json says.


def _convolutional(
    name: str, shape: Sequence[int], ways: int, seed: int, filters: int,
    strides: int, after: Callable[[int], list[keras.layers.Layer]],
    head: keras.layers.Layer, before: Sequence[keras.layers.Layer] = (),
    gamma: bool = True,
    dense: Callable[..., keras.initializers.Initializer] =
        keras.initializers.GlorotUniform,
) -> keras.Model:
    """Four times 3x3 convolution and batch normalization; a dense layer.

    Args:
      name: of the model.
      shape: [H, W, C] of an image.
      ways: N, the logits.
      seed: draws the kernels: of convolutions glorot uniform. Biases are 0.
      filters, strides: of the convolutions.
      after: i -> what follows the i-th normalization.
      head: what precedes the dense layer.
      before: what precedes the first convolution.
      gamma: whether a normalization has one, beside its beta.
      dense: makes the initializer of the dense kernel from its seed.
    """
    rng = generator(seed, WEIGHTS_STREAM)

    def initializer(kind):
        return kind(seed=int(rng.integers(2**31)))

    layers = [keras.Input(shape), *before]
    for i in range(1, 5):
        layers += [
            keras.layers.Conv2D(
                filters, 3, strides=strides, padding="same", name=f"conv{i}",
                data_format=FORMAT, kernel_initializer=initializer(
                    keras.initializers.GlorotUniform)),
            keras.layers.BatchNormalization(epsilon=1e-3, scale=gamma,
                                            name=f"norm{i}"),
            *after(i)]
    return keras.Sequential(
        [*layers, head, keras.layers.Dense(
            ways, kernel_initializer=initializer(dense), name="logits")],
        name=name)


def omniglot(ways: int, seed: int = 0) -> keras.Model:
    """Images [B, 28, 28, 1] to logits [B, ways] (paper, section 6.1).

    Four times 3x3 convolution of 64 filters and stride 2, batch
    normalization, ReLU; then a dense layer. Kernels are glorot uniform,
    biases 0, drawn from `seed`. 113,221 weights 5-way.
    """
    return _convolutional(
        "omniglot", [28, 28, 1], ways, seed, 64, 2, lambda i: [_relu(i)],
        keras.layers.Flatten(FORMAT, name="flatten"))


def maml_omniglot(ways: int, seed: int = 0) -> keras.Model:
    """Images [B, 28, 28, 1] to logits [B, ways], as in Finn et al.'s code.

    As `omniglot`, of the same images, but for their inversion, which makes
    ink 1 and paper 0, the normalizations, which have beta and no gamma, the
    mean over the last 2x2 positions, which the dense layer is given, and its
    kernel, which is normal of deviation 1. 112,005 weights 5-way.
    """
    return _convolutional(
        "maml_omniglot", [28, 28, 1], ways, seed, 64, 2,
        lambda i: [_relu(i)],
        keras.layers.GlobalAveragePooling2D(FORMAT, name="mean"),
        before=[keras.layers.Rescaling(-1.0, 1.0, name="invert")],
        gamma=False,
        dense=functools.partial(keras.initializers.RandomNormal, stddev=1.0))


def mini_imagenet(ways: int, seed: int = 0, size: int = 84,
                  channels: int = 3) -> keras.Model:
    """Images [B, size, size, channels] to logits [B, ways] (section 6.1).

    Four times 3x3 convolution of 32 filters, batch normalization, 2x2 max
    pooling, ReLU; then a dense layer. The order of pooling and ReLU is that
    of the authors' code. 34,661 weights 5-way.
    """
    return _convolutional(
        "mini_imagenet", [size, size, channels], ways, seed, 32, 1,
        lambda i: [_pool(i, "same"), _relu(i)],
        keras.layers.Flatten(FORMAT, name="flatten"))


def maml_mini_imagenet(ways: int, seed: int = 0, size: int = 84,
                       channels: int = 3) -> keras.Model:
    """Images [B, size, size, channels] to logits [B, ways], as in Finn et
    al.'s code.

    As `mini_imagenet`, but for the normalizations, which have beta and no
    gamma, and the pooling, which follows the ReLU and leaves out windows that
    are not whole: 84 becomes 5, not 6. 32,773 weights 5-way.
    """
    return _convolutional(
        "maml_mini_imagenet", [size, size, channels], ways, seed, 32, 1,
        lambda i: [_relu(i), _pool(i, "valid")],
        keras.layers.Flatten(FORMAT, name="flatten"), gamma=False)


def _relu(i: int) -> keras.layers.Layer:
    return keras.layers.ReLU(name=f"relu{i}")


def _pool(i: int, padding: str) -> keras.layers.Layer:
    return keras.layers.MaxPool2D(2, padding=padding, data_format=FORMAT,
                                  name=f"pool{i}")


def sine(seed: int = 0, activation: str = "tanh") -> keras.Model:
    """x [B, 1] to f(x) [B, 1]: two hidden layers of 64 (paper, section 4).

    Weights and biases are uniform within 1 / sqrt(fan in), as PyTorch, in
    which the authors' demonstration is written, draws them. Without biases
    all units of the first layer would bend at x = 0.
    """
    rng = generator(seed, WEIGHTS_STREAM)

    def dense(units, fan_in, name, activation=None):
        bound = fan_in ** -0.5
        kernel, bias = (keras.initializers.RandomUniform(
            -bound, bound, int(rng.integers(2**31))) for _ in range(2))
        return keras.layers.Dense(units, activation, name=name,
                                  kernel_initializer=kernel,
                                  bias_initializer=bias)

    return keras.Sequential([
        keras.Input([1]), dense(64, 1, "hidden1", activation),
        dense(64, 64, "hidden2", activation), dense(1, 64, "output")],
        name="sine")
