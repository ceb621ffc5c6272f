"""The paper's networks, and the clone of a model that is adapted."""

from reptile_tf.networks.calls import check_same_outputs, operations
from reptile_tf.networks.cloning import (
    CONVOLUTIONS,
    FOR_XLA,
    copied,
    inner_clone,
)
from reptile_tf.networks.paper_networks import (
    maml_mini_imagenet,
    maml_omniglot,
    mini_imagenet,
    omniglot,
    sine,
)

__all__ = ["CONVOLUTIONS", "FOR_XLA", "check_same_outputs", "copied",
           "inner_clone", "maml_mini_imagenet", "maml_omniglot",
           "mini_imagenet", "omniglot", "operations", "sine"]
