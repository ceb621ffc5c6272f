"""Free memory, with NVML and TensorFlow replaced; needed, by hand."""

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import psutil
import pynvml
import pytest
import tensorflow as tf

from reptile_tf.configuration import flags
from reptile_tf.datasets import omniglot
from reptile_tf.errors import InputError
from reptile_tf.execution import limits, memory
from reptile_tf.execution.engine import Engine
from reptile_tf.runs import required_memory

ROOT = Path(__file__).parent.parent


def gpu_is_listed(monkeypatch):
    """TensorFlow must not be asked before its memory is to grow."""
    grown = []
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: ["GPU"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth",
                        lambda gpu, on: grown.append(gpu))
    monkeypatch.setattr(
        tf.config.experimental, "get_memory_info",
        lambda _: {"current": 100, "peak": 300} if grown else None)


@pytest.mark.parametrize("visible, device", [
    (None, 0), ("2,1", 2), ("GPU-ab,GPU-cd", "GPU-ab")])
def test_free_memory_of_the_first_visible_gpu(monkeypatch, visible, device):
    """1,000 bytes are no process's; of 300 of TensorFlow's it uses 100."""
    alike = [0, 1, 2]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu_is_listed(monkeypatch)
    monkeypatch.setattr(memory, "pynvml", SimpleNamespace(
        NVMLError=OSError, nvmlInit=lambda: None, nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda i: i, nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(
            free=1000 if handle == device else -1,
            total=2000 if handle in alike else 500)))
    assert memory.available() == 1200
    if isinstance(device, int):
        # CUDA may count cards that are not alike in another order.
        alike.pop()
        assert memory.available() == math.inf
        monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        assert memory.available() == 1200


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups: writes (the lines of /proc/self/cgroup, files)."""
    monkeypatch.setattr(limits, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "SELF", tmp_path / "self")
    monkeypatch.setattr(psutil, "virtual_memory",
                        lambda: SimpleNamespace(available=9000))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(8)},
                        raising=False)

    def write(lines, files):
        (tmp_path / "self").write_text(lines)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return write


STAT = "anon 7\n{0}inactive_file 100\n{0}active_file 50\n"


@pytest.mark.parametrize("lines, files, free, cpus", [
    ("", {}, 9000, 8),  # Not on Linux.
    ("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}, 9000, 8),
    # The group's own limit, or that of the one around it.
    ("0::/a/b\n", {
        "a/b/memory.max": "5000", "a/b/memory.current": "1000",
        "a/b/memory.stat": STAT.format(""), "a/memory.max": "6000",
        "a/memory.current": "1500", "a/b/cpu.max": "max 100000",
        "a/cpu.max": "250000 100000"}, 4150, 3),
    ("4:memory:/x\n2:cpu,cpuacct:/\n", {
        # The container sees its own group as the root.
        "memory/memory.limit_in_bytes": "800",
        "memory/memory.usage_in_bytes": "900", "memory/memory.stat": "",
        "cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"},
     0, 1),
    ("4:memory:/\n2:cpu:/\n", {
        "memory/memory.limit_in_bytes": str(2**63 - 4096),
        "memory/memory.usage_in_bytes": "900",
        "memory/memory.stat": STAT.format("total_"),
        "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
     9000, 8),
    ("4:memory:/\n", {
        "memory/memory.limit_in_bytes": "2000",
        "memory/memory.usage_in_bytes": "900",
        "memory/memory.stat": STAT.format("total_")}, 1250, 8)])
def test_what_a_container_leaves(groups, lines, files, free, cpus):
    groups(lines, files)
    assert limits.free_memory() == memory.available() == free
    assert limits.cpus() == cpus


def test_a_driver_that_does_not_say_forbids_nothing(monkeypatch):
    def fail():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    gpu_is_listed(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert memory.available() == math.inf
    memory.require(memory.Estimate(10**15, 0), "everything", "")


def two_by_two():
    """F = 4 (7*5*3 + 4*3*4 + 48 + 5) of outputs and 4*3 * 2*3*3 of patches.

    W = 4 (18*4 + 4 + 48*5 + 5).
    """
    return keras.Sequential([
        keras.Input([7, 5, 3]),
        keras.layers.ReLU(),
        keras.layers.Conv2D(4, (2, 3), strides=2, padding="same"),
        keras.layers.Flatten(), keras.layers.Dense(5)])


def test_outputs_and_patches_of_an_example():
    assert memory.example(two_by_two(), "stock") == 4 * 206
    for patched in ("sliced", "gathered"):
        assert memory.example(two_by_two(), patched) == 4 * (206 + 216)


def test_the_layers_of_models_inside_and_all_outputs_count():
    *body, head = two_by_two().layers
    inside = keras.Sequential([keras.Input([7, 5, 3]), *body])
    model = keras.Sequential([keras.Input([7, 5, 3]), inside, head])
    assert memory.example(model, "sliced") == 4 * (206 + 216)
    series = keras.Input([4, 3])  # 12, three outputs of 6, and 2.
    outputs, *_ = keras.layers.LSTM(6, return_state=True)(series)
    model = keras.Model(series, keras.layers.Dense(2)(outputs))
    assert memory.example(model, "sliced") == 4 * (12 + 18 + 2)


@pytest.mark.parametrize("arguments, examples, weights, copies, factor", [
    # The last of k = 4 mini-batches of 10 is larger, or smaller.
    ({"last": 30}, 30, 1, 2, 1), ({"last": 3}, 10, 1, 2, 1),
    ({"last": 30, "second_order": True}, 60, 4, 4, 3.5),
    ({"last": 3, "second_order": True, "recompute": True}, 10, 4, 4, 7)])
@pytest.mark.parametrize("xla", [True, False])
def test_an_estimate_worked_by_hand(arguments, examples, weights, copies,
                                    factor, xla):
    """6 tasks, of 4 layers; a loop has one step's graph, and the last's."""
    engine = Engine(xla, xla, "sliced", unrolled_steps=2)
    got = memory.estimate(two_by_two(), engine, 6, 4, 10, **arguments)
    assert got.tensors == 6 * (2 * 4 * 422 * examples + 4 * 4 * 321 * weights)
    assert got.graph == 60e6 + copies * 4 * (14e6 if xla else 6e5 * factor)
    if not arguments.get("second_order"):
        written = memory.estimate(two_by_two(), engine, 6, 3, 10)
        assert written.graph == 60e6 + 3 * 4 * (14e6 if xla else 6e5)


def configuration(*more):
    return flags.parse(["", *more], omniglot.CONFIG, omniglot.DEFAULTS)


@pytest.mark.parametrize("more, remedies", [
    ([], "--inner_batch or --meta_batch, or use --task_order=sequential"),
    (["--task_order=sequential"], "--inner_batch$"),
    (["--algorithm=maml", "--meta_batch=1", "--tail_shots=2"],
     "--inner_batch or --inner_iters or --tail_shots, or use "
     "--recompute_gradients$"),
    (["--algorithm=maml", "--recompute_gradients"],
     "--meta_batch or --inner_iters, or use --task_order=sequential$")])
def test_what_helps_is_named(monkeypatch, more, remedies):
    monkeypatch.setattr(memory, "available", lambda: 0)
    with pytest.raises(InputError, match=f"lower .*{remedies}"):
        required_memory.fitting(two_by_two(), configuration(*more),
                                Engine(False, False))


def test_the_tail_and_the_support_set_count():
    """5 ways: a tail of 15 is 75; 13 is half of 5-shot's scored 26, 5 of
    1-shot's 6 the mini-batch, 38 half of 15 queries'."""
    engine, model = Engine(True, True, "compiled"), two_by_two()
    maml = ["--algorithm=maml", "--inner_iters=3", "--meta_batch=1"]
    plain, tail = (required_memory.training(
        model, configuration(*maml, *more), engine).tensors
        for more in ([], ["--train_shots=16", "--tail_shots=15"]))
    assert tail - plain == (75 - 10) * 2 * 4 * 206
    for shots, queries, examples in ((5, 1, 13), (1, 1, 5), (1, 15, 38)):
        assert required_memory.evaluation(model, configuration(
            f"--shots={shots}", f"--eval_queries={queries}"), engine, 2
        ).tensors == 2 * (2 * 4 * 206 * examples + 4 * 4 * 321)


def test_evaluation_takes_as_many_tasks_as_fit(monkeypatch):
    model, config = two_by_two(), configuration("--pretrained", "--run_dir=x")
    engine = Engine(True, True, "sliced", tasks_per_call=8)
    for fits in (8, 7, 3, 1):
        there = sum(required_memory.evaluation(model, config, engine, fits))
        monkeypatch.setattr(memory, "available", lambda there=there: there)
        assert required_memory.fitting(
            model, config, engine).tasks_per_call == {7: 4, 3: 2}.get(
                fits, fits)
    monkeypatch.setattr(memory, "available", lambda: there - 1)
    with pytest.raises(InputError, match="evaluating a task.*--eval_batch"):
        required_memory.fitting(model, config, engine)


def test_the_graph_is_the_hosts_and_tensors_the_gpus(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10)
    monkeypatch.setattr(psutil, "virtual_memory",
                        lambda: SimpleNamespace(available=20))
    assert not memory.fits(memory.Estimate(6, 5))
    gpu_is_listed(monkeypatch)
    assert memory.fits(memory.Estimate(10, 20))
    assert not memory.fits(memory.Estimate(11, 0))
    assert not memory.fits(memory.Estimate(0, 21))


CASES = {
    "omniglot, MAML, k=5": ("omniglot", ["--algorithm=maml"]),
    "omniglot, MAML, k=25": ("omniglot", [
        "--algorithm=maml", "--inner_iters=25", "--meta_batch=2"]),
    "omniglot, MAML, k=25, twice run": ("omniglot", [
        "--algorithm=maml", "--inner_iters=25", "--meta_batch=2",
        "--recompute_gradients"]),
    "Mini-ImageNet, Reptile": ("miniimagenet", [])}
PROGRAM = f"""
import os, sys
sys.path.insert(0, "benchmarks")
import meta_iteration
from reptile_tf import tasks
from reptile_tf.runs.building import trainer_of
from reptile_tf.runs.required_memory import training

def status(name):
    with open("/proc/self/status") as file:
        return 1024 * int(next(
            line for line in file if line.startswith(name)).split()[1])

for name, (dataset, flags) in {CASES}.items():
    if os.fork():
        os.wait()
        continue
    config, source = meta_iteration.source_of(dataset, 5, flags)
    model = source.network()
    trainer = trainer_of(source, config, model)
    batches = source.sampler(tasks.generator(0, 1))(config.meta_batch)
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # Peaks are counted from here.
    trainer.train_step(batches)
    print(name, sum(training(model, config, trainer.learner.engine)),
          status("VmHWM") - before, sep="; ", flush=True)
    os._exit(0)
"""


@pytest.mark.slow
def test_measured_peaks_are_within_a_factor_of_two():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ratios = {name: int(estimated) / int(measured)
              for name, estimated, measured in (
                  line.split("; ") for line in done.stdout.splitlines())}
    print(ratios)
    assert set(ratios) == set(CASES)
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios
