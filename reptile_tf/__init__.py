"""Reptile, FOMAML and MAML in TensorFlow 2 and Keras 3.

Names are imported on first use, so that `import reptile_tf` alone does not
start TensorFlow.
"""

import importlib
import importlib.metadata
import os
import platform
import sys

__version__ = "0.1.0"

# TensorFlow reads this when it is imported. Its own default is oneDNN's
# kernels only where the CPU has AVX-512's neural network instructions; with
# AVX2 alone they halve the time of 84x84 images and cost nothing on 28x28.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# A hosted notebook brings older ones, and has them imported by then.
for _name, _least in (("tensorflow", (2, 18)), ("keras", (3, 15))):
    try:
        _here = getattr(sys.modules.get(_name), "__version__", None) or (
            importlib.metadata.version(_name))
        _old = tuple(map(int, _here.split(".")[:2])) < _least
    except (importlib.metadata.PackageNotFoundError, ValueError):
        continue  # Under a name, or with a number, of its own.
    if _old:
        raise ImportError(
            f"reptile_tf needs {_name} {'.'.join(map(str, _least))} or newer, "
            f"and here is {_here}: `pip install` this package, or its "
            "requirements.txt, again, and start Python, or the notebook's "
            "kernel, anew")

# Keras reads this when it is imported, before ~/.keras/keras.json.
if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow" or (
        "keras" in sys.modules
        and sys.modules["keras"].config.backend() != "tensorflow"):
    raise ImportError(
        "reptile_tf needs Keras's TensorFlow backend: set "
        "KERAS_BACKEND=tensorflow before Keras is imported")

_HOMES = {
    "AdaptConfig": "learning.adaptation",
    "Batches": "tasks",
    "EvaluationTasks": "tasks",
    "InnerConfig": "learning.optimizers",
    "InputError": "errors",
    "Learner": "learning.learner",
    "MetaConfig": "learning.meta_config",
    "MetaTrainer": "learning.meta_training",
    "NonFiniteError": "learning.non_finite",
    "TaskConfig": "tasks",
    "TaskSampler": "tasks",
    "accuracy": "learning.measures",
    "cross_entropy": "learning.losses",
    "load": "trained",
    "meta_train": "learning.meta_training",
    "prepare_devices": "execution.preparation",
    "squared_error": "learning.losses",
}
__all__ = [*_HOMES, "__version__"]


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"reptile_tf.{_HOMES[name]}"),
                       name)
    raise AttributeError(f"module 'reptile_tf' has no attribute {name!r}")
