"""Meta-train on sine waves with any of the rules (paper, section 4)."""

import sys

from reptile_tf.commands import sine

if __name__ == "__main__":
    sys.exit(sine())
