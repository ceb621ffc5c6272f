"""What a sitting at a GPU needs, in one command of at most 8 minutes.

    python benchmarks/gpu.py --out=DIR [--only=NAME,NAME] [--seconds=450]
        [--notests] [--peer_python=python3] [--profile=NAME,NAME]

Each measurement is a process of its own: all of them trace and compile side by
side, and when all are ready each is timed alone, one after the other, under a
lock. What one has found is in DIR/NAME.json at once, so that a sitting that is
cut off leaves what it had; DIR/table.txt is the whole. Then come the peers
(peers/), with the interpreter that has JAX and PyTorch, and in the time that is
left the tests marked `gpu`, to DIR/tests.txt. DIR/machine.json says where it
was. Random images, the hyper-parameters of configs/, TF32 off unless the name
says so. On a CPU the same runs with less work a call, one at a time.
"""

import argparse
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
# Agreement needs a rate at which inner steps do not amplify rounding: at 0.003
# a change of phi by 1e-6 moved D by 6 to 50 %, at this rate by 2e-3 at most,
# ReLUs that turn and the rounding of phi - W together, and one of TF32's size
# by 4 % or more.
SGD = ("--inner_optimizer=sgd", "--learning_rate=1e-6")
OMNIGLOT, TWENTY = {"dataset": "omniglot"}, {"dataset": "omniglot", "ways": 20}
MINI = {"dataset": "miniimagenet"}
SECONDS_TO_STOP = 15
NONDETERMINISTIC = "--xla_gpu_deterministic_ops=false"


def flagfile(name: str) -> dict:
    """Further flags of a row of the paper's tables."""
    return {"flags": (f"--flagfile={HERE.parent}/configs/{name}.cfg",)}


# name -> what is measured; in the order of what matters most.
MEASUREMENTS = {
    "omniglot": OMNIGLOT,
    "miniimagenet": MINI,
    "omniglot20": TWENTY,
    "omniglot-evaluation": OMNIGLOT | {"kind": "evaluate"},
    "miniimagenet-evaluation": MINI | {"kind": "evaluate"},
    "omniglot20-evaluation": TWENTY | {"kind": "evaluate"},
    # What is left without the queries' loop of non-transductive scoring.
    "miniimagenet-evaluation-transductive": MINI | {
        "kind": "evaluate", "flags": ("--transductive",)},
    "omniglot20-evaluation-transductive": TWENTY | {
        "kind": "evaluate", "flags": ("--transductive",)},
    "omniglot-agreement": OMNIGLOT | {"kind": "agree", "flags": SGD},
    "miniimagenet-agreement": MINI | {"kind": "agree", "flags": SGD},
    "omniglot-loop": OMNIGLOT | {"unrolled_steps": 0},
    "miniimagenet-loop": MINI | {"unrolled_steps": 0},
    "miniimagenet-stock": MINI | {
        "vectorized": False, "convolutions": "compiled"},
    "omniglot-nondeterministic": OMNIGLOT | {"xla": NONDETERMINISTIC},
    "miniimagenet-nondeterministic": MINI | {"xla": NONDETERMINISTIC},
    "omniglot-tf32": OMNIGLOT | {"tf32": True},
    "miniimagenet-tf32": MINI | {"tf32": True},
    "omniglot-bfloat16": OMNIGLOT | {"flags": ("--mixed_bfloat16",)},
    "miniimagenet-bfloat16": MINI | {"flags": ("--mixed_bfloat16",)},
    "omniglot-maml": OMNIGLOT | flagfile("omniglot_5way_1shot_maml"),
    "miniimagenet-maml": MINI | flagfile("miniimagenet_5way_1shot_maml"),
    "omniglot-maml-agreement": OMNIGLOT | {
        "kind": "agree", "flags": (
            *flagfile("omniglot_5way_1shot_maml")["flags"], *SGD)},
    "miniimagenet-maml-agreement": MINI | {
        "kind": "agree", "flags": (
            *flagfile("miniimagenet_5way_1shot_maml")["flags"], *SGD)},
    "omniglot-fomaml-agreement": OMNIGLOT | {
        "kind": "agree", "flags": ("--algorithm=fomaml", *SGD)},
}
# Of a measurement, what replaces the engine's own choice.
ENGINE = ("vectorized", "convolutions", "unrolled_steps")
COLUMNS = ("ms", "ms_with_sampling", "tasks_per_second", "relative_l2",
           "compile_seconds", "peak_mb", "repeats", "alone")
PEERS = {
    "omniglot": "omniglot5", "omniglot20": "omniglot20",
    "miniimagenet": "mini"}
PEER_MODES = {
    "torch-graphs": ("torch_reptile.py", "--mode=graphs"),
    "torch-eager": ("torch_reptile.py",),
    "jax-lax": ("jax_reptile.py", "--convolution=lax", "--unroll"),
    "jax-patches": ("jax_reptile.py", "--unroll", "--iterations_per_call=10")}
# Of this interpreter: another one would not start with them.
OWN = ("PYTHONHOME", "PYTHONPATH")


class Measurement:
    """One of MEASUREMENTS, in this process."""

    def __init__(self, spec: dict) -> None:
        from reptile_tf.execution import engine

        self.spec = spec
        self.config, self.source = self._source()
        self.engine = dataclasses.replace(
            engine.choose(self.source.network()),
            **{field: spec[field] for field in ENGINE if field in spec})
        self.trainer = self._trainer(self.source, self.engine)

    def _source(self):
        import meta_iteration

        return meta_iteration.source_of(
            self.spec["dataset"], self.spec.get("ways", 5),
            self.spec.get("flags", ()), self.spec.get("tf32", False))

    def _trainer(self, source, engine):
        from reptile_tf.runs.building import trainer_of

        return trainer_of(source, self.config, source.network(),
                          engine=engine)

    def agree(self) -> dict:
        """The displacement against the CPU's, and against itself."""
        import numpy as np
        import tensorflow as tf

        from reptile_tf import tasks
        from reptile_tf.execution.engine import Engine

        batches = self.source.sampler(tasks.generator(0, 1))(
            self.config.meta_batch)

        def displacement(trainer):
            return np.concatenate(
                [np.ravel(x) for x in trainer.displacement(batches)])

        start = time.perf_counter()
        got = displacement(self.trainer)
        seconds = time.perf_counter() - start
        with tf.device("CPU:0"):
            want = displacement(self._trainer(
                self._source()[1], Engine(False, False)))
        return {
            "compile_seconds": seconds,
            "relative_l2": float(np.linalg.norm(got - want)
                                 / np.linalg.norm(want)),
            "repeats": bool(np.array_equal(got, displacement(self.trainer)))}

    def work(self):
        """(what is timed, its units, the same with sampling or None)."""
        from reptile_tf import tasks
        from reptile_tf.runs.building import evaluator_of

        if self.spec.get("kind") == "evaluate":
            evaluator = evaluator_of(self.source, self.config,
                                     self.trainer.learner)
            shots, batch = self.config.evaluations()[-1]
            drawn = self.source.evaluation_tasks(
                "test", shots, batch, self.engine.tasks_per_call,
                tasks.generator(0, 2))
            weights, state = self.trainer.weights, self.trainer.learner.state
            return (lambda: evaluator.evaluate(weights, state, drawn),
                    self.engine.tasks_per_call, None)
        units = self.trainer.iterations_per_call
        sampler = self.source.sampler(tasks.generator(0, 1))
        number = units * self.config.meta_batch
        fixed = sampler(number)
        return (lambda: self.trainer.train_step(fixed), units,
                lambda: self.trainer.train_step(sampler(number)))

    def peak_mb(self) -> float | None:
        """Of the GPU's memory; None without one."""
        import tensorflow as tf

        from reptile_tf.execution import devices

        if not devices.gpus():
            return None
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6


def median_seconds(fn, seconds: float) -> float:
    """Of a call, repeated for some seconds, three times at least."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def profile(fn, folder: Path, most: int = 40) -> dict:
    """Where a call's time goes: the device's busy time, the longest kernels.

    Returns:
      "span_ms" from the first kernel's start to the last one's end, "busy_ms"
      of it, "launches", and "kernels": [name, times, ms in all].
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    shutil.rmtree(folder, ignore_errors=True)
    tf.profiler.experimental.start(str(folder))
    fn()
    tf.profiler.experimental.stop()
    space = xplane_pb2.XSpace()
    space.ParseFromString(next(folder.rglob("*.xplane.pb")).read_bytes())
    kernels, spans = {}, []
    for plane in space.planes:
        for line in plane.lines:
            if "GPU" not in plane.name or not line.name.startswith("Stream"):
                continue
            for event in line.events:
                start = line.timestamp_ns / 1e6 + event.offset_ps / 1e9
                ms = event.duration_ps / 1e9
                spans.append((start, start + ms))
                name = plane.event_metadata[event.metadata_id].name
                times, total = kernels.get(name, (0, 0))
                kernels[name] = times + 1, total + ms
    busy = end = 0
    for start, stop in sorted(spans):
        busy += max(stop - max(start, end), 0)
        end = max(end, stop)
    return {"span_ms": end - min(spans)[0] if spans else 0, "busy_ms": busy,
            "launches": len(spans), "kernels": sorted(
                ([name, *x] for name, x in kernels.items()),
                key=lambda row: -row[2])[:most]}


def measure(name: str, out: Path, others: int, deadline: float,
            profiled: bool) -> None:
    """A worker's whole work: compile, wait for the others, time alone."""
    found = {"name": name}

    def write(**figures):
        found.update(figures)
        (out / f"{name}.json").write_text(json.dumps(found))

    ready = out / f"{name}.ready"
    try:
        measurement = Measurement(MEASUREMENTS[name])
        write(engine=str(measurement.engine))
        if measurement.spec.get("kind") == "agree":
            write(**measurement.agree())
            return
        timed, units, with_sampling = measurement.work()
        start = time.perf_counter()
        timed()
        write(compile_seconds=time.perf_counter() - start)
        ready.touch()
        while (len(list(out.glob("*.ready"))) < others
               and time.time() < deadline):
            time.sleep(0.2)
        with open(out / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write(alone=len(list(out.glob("*.ready"))) >= others)
            timed()
            each = median_seconds(timed, 2) / units
            if with_sampling is None:
                write(tasks_per_second=1 / each)
            else:
                write(ms=1e3 * each, ms_with_sampling=1e3 * median_seconds(
                    with_sampling, 1) / units)
            write(peak_mb=measurement.peak_mb())
            if profiled:
                write(profile=profile(timed, out / f"{name}.trace"))
    except Exception as e:
        write(error=f"{type(e).__name__}: {e}"[:500])
        raise
    finally:
        ready.touch()


def run_tests(out: Path, end: float) -> str:
    """The last line of the tests that must hold on a GPU."""
    with open(out / "tests.txt", "w") as log:
        tests = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-m", "gpu"],
            cwd=HERE.parent, stdout=log, stderr=subprocess.STDOUT)
        try:
            tests.wait(end - time.time())
        except subprocess.TimeoutExpired:
            # pytest then says what has failed so far.
            tests.send_signal(signal.SIGINT)
            try:
                tests.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                tests.kill()
                tests.wait()
    lines = (out / "tests.txt").read_text().strip().splitlines()
    return lines[-1] if lines else "not done in time"


def peers(python: str, out: Path, end: float) -> list[str]:
    """Lines of the peers' figures, while there is time."""
    lines = []
    env = {k: v for k, v in os.environ.items() if k not in OWN}
    for mode, (script, *flags) in PEER_MODES.items():
        for name, work in PEERS.items():
            left = end - time.time()
            if left < 20:
                return [*lines, "peers: cut off, no time was left"]
            try:
                done = subprocess.run(
                    [python, HERE / "peers" / script, f"--work={work}",
                     "--repeats=20", "--json", *flags], capture_output=True,
                    text=True, timeout=min(left, 60), env=env)
                line = (done.stdout.splitlines() or [done.stderr.strip()])[-1]
            except subprocess.TimeoutExpired:
                line = "not done in time"
            except OSError as e:
                return [*lines, f"peers: --peer_python={python} does not "
                        f"start ({e.strerror})"]
            (out / f"{mode}-{name}.txt").write_text(line + "\n")
            lines.append(f"{mode} {name}: {line[:300]}")
    return lines


def table(names: list[str], out: Path) -> list[str]:
    """Lines of what the workers have written."""
    from reptile_tf.reporting.tables import plain_table

    rows = []
    for name in names:
        path = out / f"{name}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        values = [found.get(column) for column in COLUMNS]
        rows.append([name, *(
            "-" if x is None else f"{x:.4g}" if isinstance(x, float)
            else str(x) for x in values), found.get("error", "")])
    return plain_table(["", *COLUMNS, "error"], rows)


def write_table(out: Path, lines: list[str], new: list[str] | None = None
                ) -> None:
    """Write all lines to table.txt, and print the new ones."""
    (out / "table.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines if new is None else new), flush=True)


def machine(out: Path) -> bool:
    """Write machine.json; whether there is a GPU.

    In a process of its own: this one must not hold a GPU.
    """
    program = (
        "from reptile_tf import quiet_tensorflow;"
        "import json;"
        "from reptile_tf.execution import devices;"
        "from reptile_tf.records.provenance import commit, environment;"
        "devices.prepare_gpus();"
        "print(json.dumps({'commit': commit(), 'gpus': len(devices.gpus()),"
        " **environment()}))")
    found = json.loads(subprocess.run(
        [sys.executable, "-c", program], cwd=HERE.parent, check=True,
        text=True, stdout=subprocess.PIPE).stdout)
    (out / "machine.json").write_text(json.dumps(found, indent=1) + "\n")
    return found["gpus"] > 0


def wait(workers: list[subprocess.Popen], end: float) -> None:
    """Until they are done; those that are not by then are stopped."""
    for worker in workers:
        try:
            worker.wait(max(end - time.time(), 0))
        except subprocess.TimeoutExpired:
            worker.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--only", default=",".join(MEASUREMENTS),
                        help="measurements, comma-separated")
    parser.add_argument("--seconds", type=float, default=450,
                        help="after which whatever is left is stopped")
    parser.add_argument("--peer_python", default="",
                        help="interpreter with JAX and PyTorch; none: no peers")
    parser.add_argument("--notests", action="store_true",
                        help="measure only")
    parser.add_argument("--profile", default="",
                        help="measurements whose kernels are listed too, for "
                        "TensorBoard in NAME.trace")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.worker:
        name, others, deadline, profiled = args.worker
        sys.argv[1:] = []
        from absl import flags
        flags.FLAGS(sys.argv)
        measure(name, args.out, int(others), float(deadline),
                profiled == "profiled")
        return
    names, profiled = (list(filter(None, x.split(",")))
                       for x in (args.only, args.profile))
    for flag, among, allowed in (("only", names, MEASUREMENTS),
                                 ("profile", profiled, names)):
        for name in among:
            if name not in allowed:
                parser.error(
                    f"--{flag}={name} is none of {', '.join(allowed)}")
    # Those of another sitting would be waited for no more.
    for stale in (*args.out.glob("*.ready"), *(
            args.out / f"{name}.json" for name in names)):
        stale.unlink(missing_ok=True)
    start = time.time()
    on_gpu = machine(args.out)
    # Half for tracing and compiling, then those that are ready are timed.
    end, deadline = start + args.seconds, start + args.seconds / 2
    workers = []
    for name in names:
        if time.time() > end:
            break
        env = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", XLA_FLAGS=" ".join(
            [os.environ.get("XLA_FLAGS", ""),
             MEASUREMENTS[name].get("xla", "")]).strip())
        with open(args.out / f"{name}.log", "w") as log:
            workers.append(subprocess.Popen(
                [sys.executable, __file__, f"--out={args.out}", "--worker",
                 name, str(len(names) if on_gpu else 1), str(deadline),
                 "profiled" if name in profiled else "plain"], env=env,
                stdout=log, stderr=subprocess.STDOUT))
        if not on_gpu:  # There compiling and computing share the cores.
            wait(workers, end)
    wait(workers, end)
    lines = table(names, args.out)
    write_table(args.out, lines)
    if args.peer_python:
        of_peers = peers(args.peer_python, args.out, end)
        lines += of_peers
        write_table(args.out, lines, of_peers)
    if not args.notests and end - time.time() > SECONDS_TO_STOP:
        tests = f"tests marked gpu: {run_tests(args.out, end)}"
        write_table(args.out, [*lines, tests], [tests])


if __name__ == "__main__":
    main()
