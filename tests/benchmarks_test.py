"""The benchmark runs and counts the work right; no timings are judged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reptile_tf import models

ROOT = Path(__file__).parent.parent


def test_json_holds_the_figures():
    done = subprocess.run(
        [sys.executable, "benchmarks/meta_iteration.py", "--dataset=sine",
         "--repeats=2", "--json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert set(measured) >= {
        "ms_per_meta_iteration", "gflops", "matmul_gflops", "ratio",
        "sampling_fraction", "eval_ms_per_task", "eval_ratio",
        "compile_seconds", "peak_memory_mb"}
    assert measured["ratio"] == pytest.approx(
        measured["gflops"] / measured["matmul_gflops"])
    # 5 steps of 10: 2 FLOP x (3 x (64 + 64 x 64 + 64) - 64) multiply-adds.
    assert measured["gflop_per_meta_iteration"] == pytest.approx(
        50 * 2 * (3 * (64 + 4096 + 64) - 64) / 1e9)


@pytest.mark.parametrize("build, ways, examples, gflop", [
    (models.omniglot, 5, 5 * 5 * 10, 3.93024),
    (models.omniglot, 20, 5 * 10 * 20, 15.744),
    (models.mini_imagenet, 5, 5 * 8 * 10, 61.215437)])
def test_work_of_a_meta_iteration(build, ways, examples, gflop, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import meta_iteration
    assert 1e-9 * examples * meta_iteration.training_flop(
        build(ways)) == pytest.approx(gflop, rel=1e-7)


def test_a_configuration_that_does_not_exist():
    done = subprocess.run(
        [sys.executable, "benchmarks/meta_iteration.py", "--classes=7"],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "--classes=7 has no flagfile" in done.stdout + done.stderr
