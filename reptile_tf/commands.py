"""The commands: those of the scripts, installed as reptile-omniglot and so on.

Each takes the words of the process's own command line, and returns the exit
status.
"""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)

from reptile_tf import quiet_tensorflow  # noqa: F401
from reptile_tf.runs.command_line import main


def omniglot() -> int:
    """Meta-train on Omniglot with any of the rules (paper, section 6.1)."""
    from reptile_tf.datasets import omniglot as dataset
    return main(dataset, sys.argv)


def miniimagenet() -> int:
    """Meta-train on Mini-ImageNet or on your own images (section 6.1)."""
    from reptile_tf.datasets import mini_imagenet as dataset
    return main(dataset, sys.argv)


def sine() -> int:
    """Meta-train on sine waves with any of the rules (section 4)."""
    from reptile_tf.datasets import sine as dataset
    from reptile_tf.experiments import sine_waves
    return main(dataset, sys.argv, sine_waves.run)


def compare() -> int:
    """Finished runs beside each other and beside the paper."""
    from reptile_tf.compare import command
    return command.main(sys.argv)
