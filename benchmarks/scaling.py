"""Time and peak memory of a meta-iteration against each size of the work.

    python benchmarks/scaling.py [--out=results/scaling]

Each point is measured in a process of its own and written at once; the same
command goes on where it was stopped. Omniglot's network, random images,
configs/omniglot_5way.cfg but for the flags of CURVES. A line a + b x is fitted
to each curve. Memory is what a meta-iteration takes above the compiled program,
which is counted apart.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import meta_iteration
import numpy as np
import resident
from absl import app, flags
from matplotlib.figure import Figure

from reptile_tf import tasks
from reptile_tf.records.provenance import commit, environment
from reptile_tf.reporting import plotting
from reptile_tf.reporting.tables import markdown_table
from reptile_tf.runs.building import trainer_of

FLAGS = flags.FLAGS
TIMED_SECONDS, FEWEST, MOST = 2.0, 5, 40
MEASURES = {"ms": "ms a meta-iteration", "peak_mb": "peak memory, MB"}
RECOMPUTED = "maml --recompute_gradients"


@dataclass(frozen=True)
class Curve:
    """One flag swept.

    Attributes:
      name: of the rule.
      flag: which is swept.
      values: of it.
      fixed: other flags than the flagfile's.
    """

    name: str
    flag: str
    values: tuple[int, ...]
    fixed: dict[str, Any] = field(default_factory=dict)

    def point(self, value: int) -> str:
        """The flags of one point: those that differ from the flagfile's."""
        base = meta_iteration.config_of("omniglot", 5, [])
        words = []
        for name, wanted in {**self.fixed, self.flag: value}.items():
            if wanted != getattr(base, name):
                words.append(f"--{name}" + (
                    "" if wanted is True else f"={wanted}"))
        return " ".join(words)


# Rules side by side with one task: MAML compiles every step of every task.
ONE_TASK = {"meta_batch": 1}
CURVES = (
    Curve("reptile", "inner_iters", (1, 8, 24, 64), ONE_TASK),
    Curve("fomaml", "inner_iters", (1, 8, 24, 64),
          {**ONE_TASK, "algorithm": "fomaml"}),
    Curve("maml", "inner_iters", (2, 8, 24, 64),
          {**ONE_TASK, "algorithm": "maml"}),
    Curve(RECOMPUTED, "inner_iters", (2, 8, 24, 64),
          {**ONE_TASK, "algorithm": "maml", "recompute_gradients": True}),
    Curve("reptile", "meta_batch", (1, 4, 16, 64)),
    Curve("reptile", "inner_batch", (10, 40, 80, 160)),
    Curve("reptile", "classes", (5, 20, 35, 50)),
)
LABELS = {"inner_iters": "inner steps, one task",
          "meta_batch": "tasks of a meta-batch",
          "inner_batch": "examples of a mini-batch",
          "classes": "classes of a task"}


@dataclass(frozen=True)
class Line:
    """y = a + b x.

    Attributes:
      a, b: with the least sum of squared relative deviations.
      worst: the largest |a + b x - y| / y.
    """

    a: float
    b: float
    worst: float


def fit(x: list[float], y: list[float]) -> Line:
    """The line through measured points, each as important as the others."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    b, a = np.polyfit(x, y, 1, w=1 / y)
    return Line(float(a), float(b), float(np.abs((a + b * x) / y - 1).max()))


def measure(point: str) -> dict[str, float]:
    """Time and memory of one point, in this process."""
    config, source = meta_iteration.source_of("omniglot", 5, point.split())
    trainer = trainer_of(source, config, source.network())
    sampler = source.sampler(tasks.generator(0, tasks.TRAINING_STREAM))
    empty = resident.trimmed()

    def train():
        trainer.train_step(sampler(config.meta_batch))

    compile_seconds = meta_iteration.first_call(train)
    once = meta_iteration.seconds_each(train, 2)
    seconds = meta_iteration.seconds_each(
        train, int(np.clip(TIMED_SECONDS / once, FEWEST, MOST)))
    compiled = resident.trimmed()
    with resident.Peak() as peak:
        for _ in range(3):
            train()
    # The pool's pages have been the process's since the first call.
    return {"ms": 1e3 * seconds,
            "peak_mb": 1e-6 * (peak.bytes - compiled + peak.pooled),
            "program_mb": 1e-6 * (compiled - empty - peak.pooled),
            "compile_seconds": compile_seconds}


def measured_apart(point: str) -> dict[str, float]:
    """`measure` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, f"--point={point}"],
                          stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def fits(points: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """For each curve its lines, and the program at its largest value."""
    rows = []
    for curve in CURVES:
        values = [points[curve.point(v)] for v in curve.values]
        rows.append({
            "name": curve.name, "flag": curve.flag, "values": curve.values,
            **{m: asdict(fit(curve.values, [v[m] for v in values]))
               for m in MEASURES},
            "peaks": [v["peak_mb"] for v in values],
            "program_mb": values[-1]["program_mb"],
            "compile_seconds": values[-1]["compile_seconds"]})
    return rows


def ratios(points: dict[str, dict[str, float]]) -> dict[int, float]:
    """Time with --recompute_gradients by time without, by inner steps."""
    curves = {c.name: c for c in CURVES if c.flag == "inner_iters"}
    with_, without = curves[RECOMPUTED], curves["maml"]
    return {v: points[with_.point(v)]["ms"] / points[without.point(v)]["ms"]
            for v in without.values}


def table(result: dict[str, Any]) -> list[str]:
    """The lines, as Markdown."""
    rows = []
    for row in result["fits"]:
        ms, mb = row["ms"], row["peak_mb"]
        rows.append([
            row["name"], LABELS[row["flag"]],
            f"{row['values'][0]}, {row['values'][-1]}",
            f"{ms['a']:.3g} + {ms['b']:.3g} x", f"{100 * ms['worst']:.0f} %",
            f"{mb['a']:.3g} + {mb['b']:.2g} x", f"{100 * mb['worst']:.0f} %",
            f"{min(row['peaks']):.3g}, {max(row['peaks']):.3g}",
            f"{row['program_mb']:.0f}", f"{row['compile_seconds']:.0f}"])
    lines = [
        f"{result['device']}, {result['num_threads']} threads; float32 "
        f"matmul {result['matmul_gflops']:.0f} GFLOP/s; commit "
        f"{result['commit'][:12]}", "", *markdown_table(
            ["rule", "x", "from, to", "time, ms", "off the line by at most",
             "peak memory, MB", "off by at most", "lowest, highest",
             "program at the largest x, MB", "compiled in, s"], rows)]
    return lines + [
        "", "Time with --recompute_gradients by time without: " + ", ".join(
            f"{ratio:.2f} at {steps} steps"
            for steps, ratio in result["recompute_ratio"].items())]


def draw(result: dict[str, Any]) -> Figure:
    """Measured points and fitted lines: time above, memory below."""
    figure = Figure(figsize=(3.4 * len(LABELS), 6.6), layout="constrained")
    panels = figure.subplots(len(MEASURES), len(LABELS))
    for column, (flag, label) in zip(panels.T, LABELS.items(), strict=True):
        curves = [c for c in CURVES if c.flag == flag]
        for axes, (name, unit) in zip(column, MEASURES.items(), strict=True):
            for i, curve in enumerate(curves):
                y = [result["points"][curve.point(v)][name]
                     for v in curve.values]
                line, x = fit(curve.values, y), np.array(curve.values)
                axes.plot(x, line.a + line.b * x,
                          color=plotting.COLOURS[i],
                          linestyle=plotting.LINE_STYLES[i],
                          label=f"{curve.name}: {line.a:.3g} + "
                                f"{line.b:.2g} x")
                axes.plot(x, y, "o", ms=4, color=plotting.COLOURS[i])
            axes.set(xlabel=label, ylabel=unit, xlim=0)
            axes.set_ylim(0)
            axes.legend(fontsize=7)
            axes.grid(alpha=0.3)
    figure.suptitle("A meta-iteration on Omniglot's network: measured points, "
                    "fitted lines")
    return figure


def begun(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The points of an earlier command that was stopped, if it was this."""
    if path.exists():
        found = json.loads(path.read_text())
        if "fits" not in found and facts.items() <= found.items():
            return found["points"]
    return {}


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the JSON file, whole or not at all."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(beside, path)


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag")
    if FLAGS.point is not None:
        print(json.dumps(measure(FLAGS.point)))
        return
    out = Path(FLAGS.out).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    facts = {"commit": commit(), **environment()}
    points = begun(out / "scaling.json", facts)
    wanted = list(dict.fromkeys(c.point(v) for c in CURVES for v in c.values))
    before = meta_iteration.matmul_gflops()
    for i, point in enumerate(wanted, 1):
        if point not in points:
            points[point] = measured_apart(point)
            write(out / "scaling.json", {**facts, "points": points})
        print(f"{i}/{len(wanted)} {point or 'the flagfile'}: " + ", ".join(
            f"{name} {value:.3g}" for name, value in points[point].items()),
            flush=True)
    result = {
        **facts, "points": points, "fits": fits(points),
        "recompute_ratio": ratios(points),
        "matmul_gflops": max(before, meta_iteration.matmul_gflops())}
    write(out / "scaling.json", result)
    lines = table(result)
    (out / "scaling.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    for path in plotting.save(draw(result), out, "scaling"):
        print(f"figure: {path}")


if __name__ == "__main__":
    flags.DEFINE_string("out", f"{meta_iteration.ROOT}/results/scaling",
                        "folder of scaling.json, scaling.md and the figure")
    flags.DEFINE_string("point", None, "measure this one, print it as JSON")
    app.run(main)
