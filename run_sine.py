"""Meta-train on sine waves with any of the rules (paper, section 4)."""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)

from reptile_tf import quiet_tensorflow  # noqa: F401
from reptile_tf.datasets import sine
from reptile_tf.experiments import sine_waves
from reptile_tf.runs.command_line import main

# Flags whose defaults depend on --algorithm. FOMAML and MAML give the last
# mini-batch's gradient alone: an outer Adam sets its scale.
OUTER_ADAM = {"outer_optimizer": "adam", "meta_step": 0.001,
              "meta_step_final": 0.001}
BY_ALGORITHM = {"fomaml": OUTER_ADAM, "maml": OUTER_ADAM}

if __name__ == "__main__":
    sys.exit(main(sine, sys.argv, BY_ALGORITHM, sine_waves.run))
