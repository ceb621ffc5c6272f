"""Convolutions as matrix products of patches, for the inner loop's clone.

The convolutions of few-shot networks are small: a matrix product of the same
size is faster than a convolution kernel, and side by side over tasks, with
other weights for each, it becomes a batched product where a stock convolution
becomes a loop. The two classes differ in how they lay out the patches.
"""

import functools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

# Above this many positions sliced patches no longer fit a CPU's caches.
MAX_SLICED_POSITIONS = 28 * 28
# The fewest rows of a product that a kernel's gradient is the sum of.
CHUNK = 256
# Outputs of more positions than this are convolved faster by the stock kernel.
MAX_GATHERED_POSITIONS = 14 * 14


def padded(images: tf.Tensor, down: Sequence[int], across: Sequence[int],
           value: float = 0.0) -> tf.Tensor:
    """[B, H, W, C] with (before, after) positions of `value` around it.

    tf.pad, with a cropping as its gradient whose own gradient vectorizes
    under XLA.
    """
    if not any((*down, *across)):
        return images
    height, width = images.shape[1:3]

    @tf.custom_gradient
    def pad(images):
        frame = [[0, 0], list(down), list(across), [0, 0]]
        return tf.pad(images, frame, constant_values=value), lambda upstream: (
            upstream[:, down[0]:down[0] + height,
                     across[0]:across[0] + width])

    return pad(images)


def frame(sizes: Sequence[int], windows: Sequence[int],
          strides: Sequence[int], padding: str) -> list[tuple[int, int, int]]:
    """(outputs, padding before, padding after), down and across."""
    result = []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        if padding == "same":
            outputs = -(-size // stride)
            pad = max((outputs - 1) * stride + window - size, 0)
            result.append((outputs, pad // 2, pad - pad // 2))
        else:
            result.append(((size - window) // stride + 1, 0, 0))
    return result


def window_slices(images: tf.Tensor, windows: Sequence[int],
                  strides: Sequence[int], padding: str, value: float = 0.0
                  ) -> list[tf.Tensor]:
    """For each position in a window, row by row, what all windows have there.

    Args:
      images: [B, H, W, C].
      windows: their height and width.
      strides: down and across.
      padding: "same", with `value` around the images, or "valid".

    Returns:
      height * width tensors [B, outputs down, outputs across, C].
    """
    (out_h, *pad_h), (out_w, *pad_w) = frame(
        images.shape[1:3], windows, strides, padding)
    down, across = strides
    images = padded(images, pad_h, pad_w, value)
    return [images[:, r:r + (out_h - 1) * down + 1:down,
                   c:c + (out_w - 1) * across + 1:across]
            for r in range(windows[0]) for c in range(windows[1])]


def parts(rows: int | None) -> int:
    """As many equal parts as rows can be in, of CHUNK or more; one if None."""
    if rows is None:
        return 1
    return next(n for n in range(max(rows // CHUNK, 1), 0, -1)
                if rows % n == 0)


def product(patches: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """[M, D], [D, F] -> [M, F], M large beside D and F.

    The kernel's gradient sums over M. It is computed as several products of
    equally many rows, CHUNK or more, and their sum: a GPU runs one product of
    so few results on a few of its processors.
    """
    @tf.custom_gradient
    def multiply(patches, kernel):
        def gradient(upstream):
            number = parts(patches.shape[0])
            a, b = (tf.reshape(x, [number, -1, x.shape[-1]])
                    for x in (patches, upstream))
            return (tf.matmul(upstream, kernel, transpose_b=True),
                    tf.reduce_sum(tf.matmul(a, b, transpose_a=True), 0))

        return tf.matmul(patches, kernel), gradient

    return multiply(patches, kernel)


class SlicedConv2D(keras.layers.Conv2D):
    """Conv2D as strided slices and one matrix product.

    Vectorizes over tasks, and XLA fuses the slices.
    """

    @classmethod
    def supports(cls, layer: keras.layers.Layer) -> bool:
        """Whether this class can replace `layer`."""
        return (type(layer) is keras.layers.Conv2D
                and layer.data_format == "channels_last"
                and layer.dilation_rate == (1, 1) and layer.groups == 1
                and layer.padding in ("same", "valid")
                and None not in layer.get_build_config()["input_shape"][1:])

    @property
    def frame(self) -> list[tuple[int, int, int]]:
        """(outputs, padding before, padding after), down and across."""
        return frame(self.get_build_config()["input_shape"][1:3],
                     self.kernel_size, self.strides, self.padding)

    def convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C], [rows * columns * C, F] -> [B * positions, F]."""
        # Stacked, not concatenated, whose second derivative under XLA is an
        # operation that does not vectorize.
        patches = tf.stack(window_slices(
            inputs, self.kernel_size, self.strides, self.padding), axis=3)
        return product(tf.reshape(patches, [-1, kernel.shape[0]]), kernel)

    def call(self, inputs):
        outputs = self.convolve(
            inputs, tf.reshape(self.kernel, [-1, self.filters]))
        # The bias before the reshape: TensorFlow fuses it into the product.
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        (out_h, *_), (out_w, *_) = self.frame
        return self.activation(
            tf.reshape(outputs, [-1, out_h, out_w, self.filters]))


class GatheredConv2D(SlicedConv2D):
    """Conv2D as one gather and one matrix product, for the CPU without XLA.

    The kernel's gradient is a product with the same patches; the inputs'
    gradient is the stock transposed convolution. Derivatives of all orders
    are exact: the three are bilinear, and the gradients of each the others.
    """

    @classmethod
    def supports(cls, layer: keras.layers.Layer) -> bool:
        """Whether this class can replace `layer` and is the faster one."""
        return (super().supports(layer) and int(np.prod(
            layer.output.shape[1:3])) <= MAX_GATHERED_POSITIONS)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """For each element of the patches of an image, its pixel's place."""
        height, width = self.get_build_config()["input_shape"][1:3]
        rows, columns = (
            (np.arange(outputs) * stride - before)[:, None] + np.arange(kernel)
            for (outputs, before, _), stride, kernel in zip(
                self.frame, self.strides, self.kernel_size, strict=True))
        places = rows[:, None, :, None] * width + columns[None, :, None]
        inside = (((rows >= 0) & (rows < height))[:, None, :, None]
                  & ((columns >= 0) & (columns < width))[None, :, None])
        # Outside the image is the zero that `_patches` puts behind it.
        return np.where(inside, places, height * width).astype(
            np.int32).ravel()

    def _patches(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B * positions, rows * columns * C]."""
        _, height, width, channels = inputs.shape
        outside = tf.zeros([tf.shape(inputs)[0], 1, channels], inputs.dtype)
        pixels = tf.concat([
            tf.reshape(inputs, [-1, height * width, channels]), outside], 1)
        return tf.reshape(
            tf.gather(pixels, self._places, axis=1),
            [-1, int(np.prod(self.kernel_size)) * channels])

    def convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return self._convolved(inputs, kernel, self._patches(inputs))

    def _convolved(self, inputs: tf.Tensor, kernel: tf.Tensor,
                   patches: tf.Tensor) -> tf.Tensor:
        """`convolve`, from the inputs' patches."""
        @tf.custom_gradient
        def product(inputs, kernel):
            def gradient(upstream):
                return (self._transposed(inputs, upstream, kernel),
                        self._correlated(inputs, upstream, patches))

            return tf.matmul(patches, kernel), gradient

        return product(inputs, kernel)

    def _transposed(self, inputs: tf.Tensor, upstream: tf.Tensor,
                    kernel: tf.Tensor) -> tf.Tensor:
        """The gradient with respect to the inputs, which give the shape."""
        @tf.custom_gradient
        def product(upstream, kernel):
            def gradient(of_inputs):
                patches = self._patches(of_inputs)
                return (self._convolved(of_inputs, kernel, patches),
                        self._correlated(of_inputs, upstream, patches))

            (out_h, *_), (out_w, *_) = self.frame
            return tf.ensure_shape(tf.nn.conv2d_transpose(
                tf.reshape(upstream, [-1, out_h, out_w, self.filters]),
                tf.reshape(kernel, [*self.kernel_size, -1, self.filters]),
                tf.shape(inputs), self.strides, self.padding.upper()),
                inputs.shape), gradient

        return product(upstream, kernel)

    def _correlated(self, inputs: tf.Tensor, upstream: tf.Tensor,
                    patches: tf.Tensor) -> tf.Tensor:
        """The gradient with respect to the kernel."""
        @tf.custom_gradient
        def product(inputs, upstream):
            def gradient(of_kernel):
                return (self._transposed(inputs, upstream, of_kernel),
                        self._convolved(inputs, of_kernel, patches))

            return tf.matmul(patches, upstream, transpose_a=True), gradient

        return product(inputs, upstream)
