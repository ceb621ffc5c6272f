"""Convolutions as matrix products of patches, for the inner loop's clone.

The convolutions of few-shot networks are small: a matrix product of the same
size is faster than a convolution kernel, and side by side over tasks, with
other weights for each, it becomes a batched product where a stock convolution
becomes a loop. The two classes differ in how they lay out the patches.
"""

import itertools
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


def built_shape(layer: keras.layers.Layer) -> tuple[int | None, ...]:
    """The shape of the inputs that a layer was first called with.

    `layer.input` is there for a layer that is called once only.
    """
    config = layer.get_build_config()  # None of a layer without weights.
    return tuple(config["input_shape"] if config
                 else layer._inbound_nodes[0].input_tensors[0].shape)


def padded(images: tf.Tensor, margins: Sequence[Sequence[int]],
           value: float = 0.0) -> tf.Tensor:
    """[B, positions..., C] with (before, after) of `value` around each axis.

    tf.pad, with a cropping as its gradient whose own gradient vectorizes
    under XLA.
    """
    if not any(itertools.chain(*margins)):
        return images
    inside = [slice(before, before + size) for (before, _), size in
              zip(margins, images.shape[1:-1], strict=True)]

    @tf.custom_gradient
    def pad(images):
        return tf.pad(
            images, [[0, 0], *map(list, margins), [0, 0]],
            constant_values=value), lambda upstream: upstream[
                (slice(None), *inside)]

    return pad(images)


def frame(sizes: Sequence[int], windows: Sequence[int],
          strides: Sequence[int], padding: str) -> list[tuple[int, int, int]]:
    """(outputs, padding before, padding after), axis by axis."""
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
      images: [B, positions..., C].
      windows: their size along each axis of positions.
      strides: along each of them.
      padding: "same", with `value` around the images, or "valid".

    Returns:
      as many tensors [B, outputs..., C] as a window has positions.
    """
    frames = frame(images.shape[1:-1], windows, strides, padding)
    images = padded(images, [margins for _, *margins in frames], value)
    return [
        images[(slice(None), *(
            slice(first, first + (outputs - 1) * stride + 1, stride)
            for first, (outputs, *_), stride in zip(
                place, frames, strides, strict=True)))]
        for place in itertools.product(*map(range, windows))]


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

    slices, product = staticmethod(window_slices), staticmethod(product)

    @classmethod
    def supports(cls, layer: keras.layers.Layer) -> bool:
        """Whether this class can replace `layer`."""
        return (type(layer) is keras.layers.Conv2D
                and layer.data_format == "channels_last"
                and layer.dilation_rate == (1, 1) and layer.groups == 1
                and layer.padding in ("same", "valid")
                and None not in built_shape(layer)[1:])

    def frame(self, inputs: tf.Tensor) -> list[tuple[int, int, int]]:
        """(outputs, padding before, padding after), down and across."""
        return frame(inputs.shape[1:3], self.kernel_size, self.strides,
                     self.padding)

    def convolve(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C], [rows * columns * C, F] -> [B * positions, F]."""
        # Stacked, not concatenated, whose second derivative under XLA is an
        # operation that does not vectorize.
        patches = tf.stack(self.slices(
            inputs, self.kernel_size, self.strides, self.padding), axis=3)
        return self.product(tf.reshape(patches, [-1, kernel.shape[0]]), kernel)

    def call(self, inputs):
        outputs = self.convolve(
            inputs, tf.reshape(self.kernel, [-1, self.filters]))
        # The bias before the reshape: TensorFlow fuses it into the product.
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        (out_h, *_), (out_w, *_) = self.frame(inputs)
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
            layer.compute_output_shape(built_shape(layer))[1:3]))
            <= MAX_GATHERED_POSITIONS)

    def _places(self, inputs: tf.Tensor) -> np.ndarray:
        """For each element of the patches of an image, its pixel's place."""
        height, width = inputs.shape[1:3]
        rows, columns = (
            (np.arange(outputs) * stride - before)[:, None] + np.arange(kernel)
            for (outputs, before, _), stride, kernel in zip(
                self.frame(inputs), self.strides, self.kernel_size,
                strict=True))
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
            tf.gather(pixels, self._places(inputs), axis=1),
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

            (out_h, *_), (out_w, *_) = self.frame(inputs)
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
