"""Layers with exact and fast derivatives of second order, for the clone."""

from reptile_tf.networks.layers.convolutions import (
    MAX_SLICED_POSITIONS,
    GatheredConv2D,
    SlicedConv2D,
)
from reptile_tf.networks.layers.normalization import BatchNormalization
from reptile_tf.networks.layers.pooling import MaxPooling2D, SlicedMaxPooling2D

__all__ = ["MAX_SLICED_POSITIONS", "BatchNormalization", "GatheredConv2D",
           "MaxPooling2D", "SlicedConv2D", "SlicedMaxPooling2D"]
