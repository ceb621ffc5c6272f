"""N-way K-shot classification of images, whatever images they are."""

from reptile_tf.datasets.few_shot.config import ImageConfig
from reptile_tf.datasets.few_shot.images import ImageData
from reptile_tf.datasets.few_shot.results import mode_name, table
from reptile_tf.datasets.few_shot.source import FewShotImages

__all__ = ["FewShotImages", "ImageConfig", "ImageData", "mode_name", "table"]
