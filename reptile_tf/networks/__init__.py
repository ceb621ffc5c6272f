"""The paper's networks, and the clone of a model that is adapted."""

from reptile_tf.networks.cloning import CONVOLUTIONS, inner_clone
from reptile_tf.networks.paper_networks import mini_imagenet, omniglot, sine

__all__ = ["CONVOLUTIONS", "inner_clone", "mini_imagenet", "omniglot", "sine"]
