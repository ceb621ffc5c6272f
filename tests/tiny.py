"""A data set of 4x3 images and its entry script, for tests of whole runs."""

import sys  # noqa: I001

from reptile_tf import quiet_tensorflow  # noqa: F401

import keras
import numpy as np

from reptile_tf import tasks
from reptile_tf.datasets import few_shot, omniglot
from reptile_tf.execution import engine

NAME, FILLS_A_THREAD = "tiny", False
CONFIG, table = omniglot.CONFIG, few_shot.table
DEFAULTS = {
    "classes": 3, "train_shots": 4, "inner_batch": 5, "inner_iters": 2,
    "meta_batch": 2, "meta_iters": 12, "eval_iters": 2, "eval_samples": 9,
    "eval_interval": 5, "eval_interval_samples": 4, "shots": (1, 2),
    "learning_rate": 0.01,
    # XLA compiles longer than these runs take.
    "jit_compile": "off"}
BY_ALGORITHM: dict = {}


def load(config, examples: int = 6) -> few_shot.FewShotImages:
    rng = np.random.default_rng(1 if config.data == "synthetic" else 0)
    images = rng.integers(0, 256, (20 * examples, 4, 3, 1)).astype(np.uint8)
    classes = list(np.arange(len(images)).reshape(20, examples))
    splits = {"train": classes[:12], "test": classes[12:]}
    if config.val_classes:
        splits["val"] = splits["train"][-config.val_classes:]
        del splits["train"][-config.val_classes:]
    data = few_shot.ImageData(images, splits, "tiny images")
    return few_shot.FewShotImages(data, config, build_model)


def build_model(ways: int, seed: int) -> keras.Model:
    seed = int(tasks.generator(seed, tasks.WEIGHTS_STREAM).integers(2**31))
    return keras.Sequential([
        keras.Input([4, 3, 1]), keras.layers.Flatten(),
        keras.layers.Dense(
            ways, kernel_initializer=keras.initializers.GlorotUniform(seed)),
        keras.layers.BatchNormalization()])


if __name__ == "__main__":
    engine.CPU_TASKS_PER_CALL = 2  # As in conftest.py.
    from reptile_tf.runs import command_line as experiment
    sys.exit(experiment.main(sys.modules["__main__"], sys.argv))
