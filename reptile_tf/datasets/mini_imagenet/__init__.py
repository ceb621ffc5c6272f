"""Mini-ImageNet, or one's own images laid out like it (section 6.1)."""

from reptile_tf.datasets.few_shot import table
from reptile_tf.datasets.mini_imagenet.config import MiniImageNetConfig
from reptile_tf.datasets.mini_imagenet.dataset import (
    BY_ALGORITHM,
    DEFAULTS,
    FILLS_A_THREAD,
    NAME,
    PER_CLASS,
    load,
    network_of,
)

CONFIG = MiniImageNetConfig

__all__ = ["BY_ALGORITHM", "CONFIG", "DEFAULTS", "FILLS_A_THREAD", "NAME",
           "PER_CLASS", "MiniImageNetConfig", "load", "network_of", "table"]
