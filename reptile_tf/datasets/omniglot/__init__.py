"""Omniglot, in every form in which people hold it (paper, section 6.1)."""

from reptile_tf.datasets.few_shot import table
from reptile_tf.datasets.omniglot.dataset import (
    BY_ALGORITHM,
    DEFAULTS,
    FILLS_A_THREAD,
    OmniglotConfig,
    load,
    network_of,
    split,
)
from reptile_tf.datasets.omniglot.drawings import collect, shrink
from reptile_tf.datasets.omniglot.forms import ADDRESS, ARCHIVES, NAME

CONFIG = OmniglotConfig

__all__ = ["ADDRESS", "ARCHIVES", "BY_ALGORITHM", "CONFIG", "DEFAULTS",
           "FILLS_A_THREAD", "NAME", "OmniglotConfig", "collect", "load",
           "network_of", "shrink", "split", "table"]
