"""Layers with exact and fast derivatives of second order, for the clone."""

from reptile_tf.networks.layers.activations import EXACT_FUNCTIONS
from reptile_tf.networks.layers.convolutions import (
    MAX_SLICED_POSITIONS,
    GatheredConv2D,
    SlicedConv2D,
    built_shape,
)
from reptile_tf.networks.layers.lite import (
    LITE_FUNCTIONS,
    LiteConv2D,
    LiteMaxPooling2D,
    LiteReLU,
)
from reptile_tf.networks.layers.normalization import (
    BatchNormalization,
    GroupNormalization,
    LayerNormalization,
)
from reptile_tf.networks.layers.pooling import (
    GLOBAL_MAX_POOLINGS,
    SLICED_POOLINGS,
    MaxPooling2D,
    SlicedMaxPooling2D,
)

__all__ = ["EXACT_FUNCTIONS", "GLOBAL_MAX_POOLINGS", "LITE_FUNCTIONS",
           "MAX_SLICED_POSITIONS", "SLICED_POOLINGS", "BatchNormalization",
           "GatheredConv2D", "GroupNormalization", "LayerNormalization",
           "LiteConv2D", "LiteMaxPooling2D", "LiteReLU", "MaxPooling2D",
           "SlicedConv2D", "SlicedMaxPooling2D", "built_shape"]
