"""The paper's networks: plain Keras models of stock layers."""

import keras

from reptile_tf.tasks import WEIGHTS_STREAM, generator


def _initializers(seed: int):
    rng = generator(seed, WEIGHTS_STREAM)
    while True:
        yield keras.initializers.GlorotUniform(int(rng.integers(2**31)))


def omniglot(ways: int, seed: int = 0) -> keras.Model:
    """Images [B, 28, 28, 1] to logits [B, ways] (paper, section 6.1).

    Four times 3x3 convolution of 64 filters and stride 2, batch
    normalization, ReLU; then a dense layer. Kernels are glorot uniform,
    biases 0, drawn from `seed`.
    """
    kernels = _initializers(seed)
    layers = [keras.Input([28, 28, 1])]
    for i in range(1, 5):
        layers += [
            keras.layers.Conv2D(64, 3, strides=2, padding="same",
                                kernel_initializer=next(kernels),
                                name=f"conv{i}"),
            keras.layers.BatchNormalization(epsilon=1e-3, name=f"norm{i}"),
            keras.layers.ReLU(name=f"relu{i}"),
        ]
    layers += [keras.layers.Flatten(name="flatten"),
               keras.layers.Dense(ways, kernel_initializer=next(kernels),
                                  name="logits")]
    return keras.Sequential(layers, name="omniglot")


def mini_imagenet(ways: int, seed: int = 0, size: int = 84,
                  channels: int = 3) -> keras.Model:
    """Images [B, size, size, channels] to logits [B, ways] (section 6.1).

    Four times 3x3 convolution of 32 filters, batch normalization, 2x2 max
    pooling, ReLU; then a dense layer. The order of pooling and ReLU is that
    of the authors' code.
    """
    kernels = _initializers(seed)
    layers = [keras.Input([size, size, channels])]
    for i in range(1, 5):
        layers += [
            keras.layers.Conv2D(32, 3, padding="same",
                                kernel_initializer=next(kernels),
                                name=f"conv{i}"),
            keras.layers.BatchNormalization(epsilon=1e-3, name=f"norm{i}"),
            keras.layers.MaxPool2D(2, padding="same", name=f"pool{i}"),
            keras.layers.ReLU(name=f"relu{i}"),
        ]
    layers += [keras.layers.Flatten(name="flatten"),
               keras.layers.Dense(ways, kernel_initializer=next(kernels),
                                  name="logits")]
    return keras.Sequential(layers, name="mini_imagenet")


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
