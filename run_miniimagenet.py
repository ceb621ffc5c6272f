"""Meta-train on Mini-ImageNet or on your own images (paper, section 6.1)."""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)

from reptile_tf import quiet  # noqa: F401
from reptile_tf import experiment
from reptile_tf.datasets import mini_imagenet

if __name__ == "__main__":
    sys.exit(experiment.main(mini_imagenet, sys.argv))
