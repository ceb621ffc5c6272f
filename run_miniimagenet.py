"""Meta-train on Mini-ImageNet or on your own images (paper, section 6.1)."""

import sys

from reptile_tf.commands import miniimagenet

if __name__ == "__main__":
    sys.exit(miniimagenet())
