"""What only a GPU can show; the other tests marked so hold on a CPU too."""

import numpy as np
import pytest
import tensorflow as tf

from reptile_tf.execution import devices, memory

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow lists no GPU")


def test_memory_is_taken_as_it_is_needed():
    free = memory.available()
    kept = tf.zeros([2**28])  # 1 GiB
    info = tf.config.experimental.get_memory_info("GPU:0")
    assert 2**30 <= info["current"] < 2 * 2**30
    assert 2**30 / 2 < free - memory.available() < 3 * 2**30
    del kept


def test_products_are_float32_and_repeat():
    x = tf.random.stateless_normal([512, 4096], [1, 2])
    product = tf.function(lambda x: tf.matmul(x, x, transpose_b=True),
                          autograph=False, jit_compile=True)
    got = product(x)
    np.testing.assert_array_equal(got, product(x))
    want = tf.matmul(*[tf.cast(x, tf.float64)] * 2, transpose_b=True)
    # TF32's 10 bits are off by 3e-4 here; float32's are, added one after the
    # other, by up to 1e-6.
    assert float(tf.norm(tf.cast(got, tf.float64) - want)
                 / tf.norm(want)) < 1e-5
    assert devices.deterministic()
