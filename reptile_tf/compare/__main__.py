"""Runs beside each other and beside the paper.

    python -m reptile_tf.compare DIR... [--format=text|markdown|csv|json|html]
                                        [--figure=FILE.png]

reads every run in and below the folders, averages those that differ in the
seed alone, and prints their test accuracy (or mean squared error) with the
paper's number where there is one. What is not finished is named, not counted.
"""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)

from reptile_tf import quiet_tensorflow  # noqa: F401
from reptile_tf.compare.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
