"""Meta-train on Omniglot with Reptile, FOMAML or MAML (paper, section 6.1)."""

import sys

from reptile_tf.commands import omniglot

if __name__ == "__main__":
    sys.exit(omniglot())
