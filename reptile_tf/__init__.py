"""Reptile, FOMAML and MAML in TensorFlow 2 and Keras 3.

Names are imported on first use, so that `import reptile_tf` alone does not
start TensorFlow.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "AdaptConfig": "learning.adaptation",
    "Batches": "tasks",
    "EvaluationTasks": "tasks",
    "InnerConfig": "learning.optimizers",
    "Learner": "learning.learner",
    "MetaConfig": "learning.meta_config",
    "MetaTrainer": "learning.meta_training",
    "cross_entropy": "learning.losses",
    "load": "trained",
    "meta_train": "learning.meta_training",
    "squared_error": "learning.losses",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"reptile_tf.{_HOMES[name]}"),
                       name)
    raise AttributeError(f"module 'reptile_tf' has no attribute {name!r}")
