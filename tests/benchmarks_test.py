"""The benchmark runs and counts the work right; no timings are judged."""

import gc
import json
import math
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from forks import ROOT, Fork

from reptile_tf import networks as models
from reptile_tf.reporting import plotting

SCRIPT = str(ROOT / "benchmarks" / "meta_iteration.py")
# The rate of products, which it measures in further processes, is given.
AT_A_RATE = f"""
import runpy, subprocess, sys, types
def run(words, **_):
    assert words == [sys.executable, {SCRIPT!r}, "--matmul"], words
    return types.SimpleNamespace(stdout="200.5")
subprocess.run = run
runpy.run_path({SCRIPT!r}, run_name="__main__")
"""


@pytest.fixture
def benchmarks(monkeypatch):
    """benchmarks/ as a place of modules."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.slow
def test_json_holds_the_figures(tmp_path):
    config = tmp_path / "a.cfg"
    config.write_text("--algorithm=fomaml\n--inner_iters=3\n")
    benchmark = Fork("-c", AT_A_RATE, "--dataset=sine", f"--config={config}",
                     "--repeats=2", "--json", folder=ROOT)
    assert benchmark.wait() == 0, benchmark.output()
    measured = json.loads(benchmark.output().splitlines()[-1])
    assert set(measured) >= {
        "ms_per_meta_iteration", "gflops", "matmul_gflops", "ratio",
        "sampling_fraction", "eval_ms_per_task", "eval_ratio",
        "compile_seconds", "peak_memory_mb"}
    assert measured["matmul_gflops"] == 200.5
    assert measured["ratio"] == pytest.approx(measured["gflops"] / 200.5)
    assert measured["algorithm"] == "fomaml"
    # 3 steps of 10: 2 FLOP x (3 x (64 + 64 x 64 + 64) - 64) multiply-adds.
    assert measured["gflop_per_meta_iteration"] == pytest.approx(
        30 * 2 * (3 * (64 + 4096 + 64) - 64) / 1e9)


def test_an_algorithm_has_the_defaults_of_the_script(benchmarks):
    import meta_iteration

    config = meta_iteration.config_of("sine", 1, ["--algorithm=maml"])
    assert (config.outer_optimizer, config.meta_step) == ("adam", 0.001)


@pytest.mark.parametrize("build, ways, examples, gflop", [
    (models.omniglot, 5, 5 * 5 * 10, 3.93024),
    (models.omniglot, 20, 5 * 10 * 20, 15.744),
    (models.mini_imagenet, 5, 5 * 8 * 10, 61.215437)])
def test_work_of_a_meta_iteration(build, ways, examples, gflop, benchmarks):
    import meta_iteration
    assert 1e-9 * examples * meta_iteration.training_flop(
        build(ways)) == pytest.approx(gflop, rel=1e-7)


@pytest.mark.slow
def test_a_configuration_that_does_not_exist():
    benchmark = Fork(SCRIPT, "--classes=7")
    assert benchmark.wait() == 1
    assert "--classes=7 has no flagfile" in benchmark.output()


def test_the_rate_of_products():
    benchmark = Fork(SCRIPT, "--matmul")
    assert benchmark.wait() == 0, benchmark.output()
    assert 0 < float(benchmark.output()) < math.inf


def test_a_line_through_points(benchmarks):
    import scaling
    line = scaling.fit([1, 2, 4], [3, 5, 9])
    np.testing.assert_allclose([line.a, line.b, line.worst], [1, 2, 0],
                               atol=1e-12)
    # b = 0 by symmetry; 2 (a - 1)^2 + (a / 2 - 1)^2 is least at a = 10 / 9.
    line = scaling.fit([1, 2, 3], [1, 2, 1])
    np.testing.assert_allclose([line.a, line.b, line.worst],
                               [10 / 9, 0, 4 / 9], atol=1e-12)


def test_points_of_the_curves(benchmarks):
    """A value of the flagfile is no flag: curves share that point."""
    import scaling
    assert scaling.Curve("reptile", "classes", (5,)).point(5) == ""
    assert scaling.Curve("reptile", "inner_batch", (10,)).point(10) == ""
    curve = scaling.Curve("maml", "inner_iters", (5,), {
        "meta_batch": 1, "algorithm": "maml", "recompute_gradients": True})
    assert curve.point(64) == (
        "--meta_batch=1 --algorithm=maml --recompute_gradients "
        "--inner_iters=64")


def test_the_table_and_the_figure_of_measured_points(benchmarks, tmp_path):
    import scaling
    points = {
        curve.point(x): {"ms": 10 + 2 * x, "peak_mb": 3.0, "program_mb": 40.0,
                         "compile_seconds": 5.0}
        for curve in scaling.CURVES for x in curve.values}
    for curve in scaling.CURVES:
        if curve.name == scaling.RECOMPUTED:
            for x in curve.values:
                points[curve.point(x)]["ms"] = 1.5 * (10 + 2 * x)
    result = {"device": "CPU", "num_threads": 2, "commit": "0123456789abcdef",
              "matmul_gflops": 200.0, "points": points,
              "fits": scaling.fits(points),
              "recompute_ratio": scaling.ratios(points)}
    lines = scaling.table(result)
    assert ("| maml | inner steps, one task | 2, 64 | 10 + 2 x | 0 % | "
            in "\n".join(lines))
    assert ("| maml --recompute_gradients | inner steps, one task | 2, 64 | "
            "15 + 3 x | 0 % | " in "\n".join(lines))
    assert "1.50 at 2 steps" in lines[-1] and "1.50 at 64 steps" in lines[-1]
    paths = plotting.save(scaling.draw(result), tmp_path, "scaling")
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_a_stopped_measurement_goes_on_and_a_finished_one_starts_again(
        benchmarks, tmp_path):
    import scaling
    path, facts = tmp_path / "scaling.json", {"commit": "a", "num_threads": 2}
    points = {"--classes=20": {"ms": 1.0}}
    assert scaling.begun(path, facts) == {}
    scaling.write(path, {**facts, "points": points})
    assert scaling.begun(path, facts) == points
    assert scaling.begun(path, {**facts, "commit": "b"}) == {}
    scaling.write(path, {**facts, "points": points, "fits": []})
    assert scaling.begun(path, facts) == {}


def test_the_peak_of_memory(benchmarks):
    import resident
    gc.collect()  # Not meanwhile.
    before = resident.trimmed()
    with resident.Peak() as peak:
        held = np.ones(8 * 2**20)  # 64 MiB, given back before the end.
        deadline = time.monotonic() + 10
        while peak.bytes - before < 64 * 2**20:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        del held
    grown = peak.bytes - before
    assert 64 * 2**20 <= grown < 96 * 2**20
    assert resident.trimmed() - before < 16 * 2**20


def test_the_peak_of_pooled_tensors(benchmarks):
    """A product of 16 MB, in a function that keeps nothing."""
    import resident
    try:
        tf.config.experimental.get_memory_info("CPU:0")
    except ValueError:
        pytest.skip("TensorFlow has no pool here: oneDNN is off")
    x = tf.ones([2000, 2000])
    square = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, x)),
                         autograph=False)
    square(x)
    for _ in range(2):
        with resident.Peak() as peak:
            square(x)
        assert 16e6 <= peak.pooled < 20e6


def test_a_data_set_in_a_sparse_file(benchmarks, tmp_path):
    """3 MB: 347 classes of 20 images of 432 bytes, 35 + 35 held out."""
    import larger_than_memory
    measured = larger_than_memory.measure(tmp_path, 3e6, 20, [
        "--image_size=12", "--meta_iters=3", "--meta_batch=2",
        "--inner_iters=2", "--inner_batch=5"])
    assert measured["images"] == 347 * 20
    assert measured["training_images"] == 277 * 20
    assert measured["bytes"] > 347 * 20 * 432 > 10 * measured["bytes_on_disk"]
    assert measured["meta_iterations"] == 3
    # 3 x 2 tasks of 2 x 5 images of 5 classes.
    assert 6 < measured["classes_seen"] <= 30
    assert measured["classes_seen"] < measured["images_seen"] <= 60
    assert 0 <= measured["lowest_image"] < measured["highest_image"] < 5540


def test_a_mark_that_is_not_read_is_noticed(benchmarks, tmp_path,
                                            monkeypatch):
    import larger_than_memory
    monkeypatch.setattr(larger_than_memory.FewShotImages, "fetch",
                        lambda self, rows: self.data.images[rows * 0])
    with pytest.raises(SystemExit, match="first and last image"):
        larger_than_memory.measure(tmp_path, 1e6, 20, ["--image_size=12"])


@pytest.mark.slow
def test_the_sitting_at_a_gpu_runs_on_a_cpu(tmp_path):
    """Each kind of measurement once, written as soon as it is there."""
    names = "omniglot,omniglot-evaluation,omniglot-fomaml-agreement"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--notests",
         f"--out={tmp_path}", f"--only={names}", "--seconds=5000",
         "--profile=omniglot", "--peer_python=not there"],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {name: json.loads((tmp_path / f"{name}.json").read_text())
             for name in names.split(",")}
    assert found["omniglot"]["ms"] > 0
    assert found["omniglot"]["profile"] == {  # No GPU, no kernels.
        "span_ms": 0, "busy_ms": 0, "launches": 0, "kernels": []}
    assert found["omniglot-evaluation"]["tasks_per_second"] > 0
    # To the bit where both engines round alike, 4e-5 where one of them has
    # oneDNN's convolutions for AVX2 and 9e-4 where for AMX, by a ReLU that
    # turns over (2e-3 at most, see gpu.py); TF32 would be 4e-2.
    assert found["omniglot-fomaml-agreement"]["relative_l2"] < 1e-3
    assert found["omniglot-fomaml-agreement"]["repeats"]
    assert found["omniglot"]["alone"]
    assert "peers: --peer_python=not there does not start" in done.stdout
    assert (tmp_path / "table.txt").read_text() == done.stdout
    machine = json.loads((tmp_path / "machine.json").read_text())
    assert machine["device"].startswith("CPU ") and machine["gpus"] == 0


def test_a_peers_interpreter_starts_beside_any(benchmarks, tmp_path,
                                               monkeypatch):
    """Where this one was moved by PYTHONHOME, another has no modules."""
    import gpu
    monkeypatch.setenv("PYTHONHOME", "/moved")
    monkeypatch.setenv("PYTHONPATH", "/moved")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "home=$PYTHONHOME path=$PYTHONPATH"\n')
    python.chmod(0o755)
    lines = gpu.peers(str(python), tmp_path, time.time() + 600)
    assert lines[0] == "torch-graphs omniglot: home= path="
    assert len(lines) == len(gpu.PEER_MODES) * len(gpu.PEERS)


@pytest.mark.parametrize("flag", [
    "--only=omniglot,sine", "--profile=omniglot20"])
def test_the_sitting_names_what_it_does_not_know(tmp_path, flag):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--notests",
         f"--out={tmp_path}", "--only=omniglot", flag],
        capture_output=True, text=True)
    assert done.returncode == 2
    name = flag.split(",")[-1].split("=")[-1]
    assert f"{name} is none of omniglot" in done.stderr


@pytest.mark.parametrize("said, last", [
    ("echo 2 passed; echo 1 failed", "1 failed"), ("true", "not done in time")])
def test_tests_that_are_cut_off_leave_what_they_said(
        benchmarks, tmp_path, monkeypatch, said, last):
    import gpu
    script, begun = tmp_path / "python", tmp_path / "begun"
    script.write_text(f"#!/bin/sh\n{said}\ntouch {begun}\nexec sleep 60\n")
    script.chmod(0o755)

    def end_of_time():
        deadline = time.monotonic() + 10
        while not begun.exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return 1000.0

    monkeypatch.setattr(gpu.sys, "executable", str(script))
    monkeypatch.setattr(gpu, "time", SimpleNamespace(time=end_of_time))
    assert gpu.run_tests(tmp_path, 1000.0) == last
