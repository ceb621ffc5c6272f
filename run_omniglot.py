"""Meta-train on Omniglot with Reptile, FOMAML or MAML (paper, section 6.1)."""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)

from reptile_tf import quiet_tensorflow  # noqa: F401
from reptile_tf.datasets import omniglot
from reptile_tf.runs.command_line import main

if __name__ == "__main__":
    sys.exit(main(omniglot, sys.argv))
