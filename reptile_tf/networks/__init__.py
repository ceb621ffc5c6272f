"""The paper's networks, and the clone of a model that is adapted."""

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
from reptile_tf.networks.refusals import operations

__all__ = ["CONVOLUTIONS", "FOR_XLA", "copied", "inner_clone",
           "maml_mini_imagenet", "maml_omniglot", "mini_imagenet", "omniglot",
           "operations", "sine"]
