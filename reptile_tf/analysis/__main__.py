"""Section 5, measured: what MAML, FOMAML and Reptile do to leading order.

    python -m reptile_tf.analysis [--out=DIR]

prints the coefficients of AvgGrad and AvgGradInner beside the paper's, draws
the residual of the expansion against alpha (`expansion`), and figure 2
(`solution_manifolds`).
"""

import sys  # noqa: I001  (TensorFlow must be imported quietly, first)
from pathlib import Path

from reptile_tf import quiet_tensorflow  # noqa: F401

import numpy as np
from absl import app, flags

from reptile_tf.analysis import expansion, solution_manifolds
from reptile_tf.analysis.leading_terms import (
    MINI_BATCHES,
    TASKS,
    Family,
    LeadingTerms,
    network,
)
from reptile_tf.errors import InputError
from reptile_tf.reporting import plotting


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag")
    out = Path(flags.FLAGS.out).expanduser()
    try:
        plotting.require("the figures of sections 3 to 5")
        out.mkdir(parents=True, exist_ok=True)
    except (InputError, OSError) as e:
        sys.exit(f"error: {e}")
    model, family = network(), Family.draw()
    terms = LeadingTerms(model, family)
    difference = np.abs(
        terms.avg_grad_inner - terms.avg_grad_inner_by_eq32).max()
    measurements = [expansion.measure(model, family, terms, name, k)
                    for name in expansion.PAPER for k in expansion.STEPS]
    lines = [
        f"{TASKS} tasks x {MINI_BATCHES} mini-batches, all sequences of k; "
        f"alpha {expansion.ALPHAS[0]:.0e} to "
        f"{expansion.ALPHAS[-1]:.0e}",
        "AvgGradInner from Hessian-vector products and by eq. 32 differ by "
        f"at most {difference:.1e}", "", *expansion.table(measurements), "",
        *solution_manifolds.table()]
    print("\n".join(lines))
    (out / "analysis.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, figure in (("section5", expansion.draw(measurements)),
                         ("figure2", solution_manifolds.draw())):
        for path in plotting.save(figure, out, name):
            print(f"figure: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/analysis", "folder of table and figures")
    app.run(main)
