"""How GPUs are set up, seen without one: TensorFlow's list is replaced."""

import inspect
import logging
import os
import re
from pathlib import Path

import pytest
import tensorflow as tf

from reptile_tf.configuration import flags
from reptile_tf.datasets import omniglot, sine
from reptile_tf.execution import devices
from reptile_tf.records.provenance import environment
from reptile_tf.runs import run

ROOT = Path(__file__).parent.parent
ON, OFF = (f"--xla_gpu_deterministic_ops={x}" for x in ("true", "false"))


@pytest.fixture
def growing(monkeypatch):
    """One GPU is listed; those whose memory is to grow are noted here."""
    gpus = []
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: ["GPU"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth",
                        lambda gpu, on: gpus.append((gpu, on)))
    return gpus


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_reaches_tensorflow_and_what_is_recorded(tf32):
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        devices.prepare_gpus(tf32)
        assert tf.config.experimental.tensor_float_32_execution_enabled() == (
            tf32)
        assert environment()["tf32"] == tf32
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@pytest.mark.parametrize("there, asked, after, repeats", [
    ("", True, f" {ON}", True),
    ("", False, f" {OFF}", False),
    ("--xla_dump_to=/x", True, f"--xla_dump_to=/x {ON}", True),
    (OFF, True, OFF, False),
    (f"{OFF} {ON}", False, f"{OFF} {ON}", True),
    ("--xla_gpu_exclude_nondeterministic_ops", False,
     "--xla_gpu_exclude_nondeterministic_ops", True),
    ("--xla_gpu_deterministic_ops_of_mine=1", True,
     f"--xla_gpu_deterministic_ops_of_mine=1 {ON}", True)])
def test_xla_is_asked_to_repeat_unless_its_flags_say(
        monkeypatch, growing, there, asked, after, repeats):
    monkeypatch.setenv("XLA_FLAGS", there)
    devices.prepare_gpus(deterministic=asked)
    assert os.environ["XLA_FLAGS"] == after
    assert growing == [("GPU", True)]
    assert devices.deterministic() == repeats
    assert not devices.deterministic(jit=False)


def test_on_a_cpu_xlas_flags_stay_as_they_are(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: [])
    devices.prepare_gpus()
    assert "XLA_FLAGS" not in os.environ and devices.deterministic()
    assert devices.deterministic(jit=False)


@pytest.mark.parametrize("dataset, hidden", [(sine, [([], "GPU")]),
                                             (omniglot, [])])
def test_tasks_too_small_for_a_thread_leave_the_gpu_to_others(
        monkeypatch, growing, dataset, hidden):
    asked = []
    monkeypatch.setattr(tf.config, "set_visible_devices",
                        lambda *args: asked.append(args))
    monkeypatch.setenv("XLA_FLAGS", "")
    run.prepared_replicas(dataset, flags.parse(
        [""], dataset.CONFIG, dataset.DEFAULTS), logging.getLogger())
    assert asked == hidden


@pytest.mark.parametrize("asked, want", [
    ((), (0, 0, False, True)),
    (("--num_threads=3",), (0, 3, False, True)),
    (("--tf32",), (0, 0, True, True)),
    (("--nodeterministic",), (0, 0, False, False)),
    (("--num_threads=7", "--tf32", "--nodeterministic", "--meta_batch=6",
      "--jit_compile=auto"), (6, 7, True, False)),
    # XLA runs one task after the other.
    (("--meta_batch=6", "--jit_compile=on"), (0, 0, False, True)),
    (("--meta_batch=6", "--jit_compile=off", "--task_order=sequential"),
     (1, 0, False, True))])
def test_a_run_prepares_the_devices_as_its_flags_say(monkeypatch, asked, want):
    given = []
    signature = inspect.signature(run.prepare_devices)
    monkeypatch.setattr(
        run, "prepare_devices", lambda *args, **named: given.append(
            signature.bind(*args, **named).arguments))
    run.prepared_replicas(omniglot, flags.parse(
        ["", "--jit_compile=on", *asked], omniglot.CONFIG, {}),
        logging.getLogger())
    assert given == [dict(zip(signature.parameters, want, strict=True))]


def test_devices_stay_as_they_are_once_tensorflow_has_begun(monkeypatch):
    asked = []

    def refuse(*args):
        asked.append(args)
        raise RuntimeError("cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: ["0", "1"])
    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    devices.hide_gpus()
    devices.take_memory_as_needed()
    assert asked == [([], "GPU"), ("0", True), ("1", True)]


@pytest.mark.parametrize("nvidia, listed, visible, warned", [
    (True, [], None, True), (True, [], "0", True), (True, ["GPU"], None, False),
    (False, [], None, False), (True, [], "-1", False), (True, [], "", False)])
def test_a_gpu_that_tensorflow_does_not_use(nvidia, listed, visible, warned):
    text = devices.warning_of_unused(nvidia, listed, visible)
    assert bool(text) == warned
    assert not text or "reptile_tf[gpu]" in text


def test_the_extra_has_the_bounds_of_the_requirement():
    gpu, training = (re.findall(
        rf"^tensorflow{extra}([^\s;]+)", (
            ROOT / "requirements" / name).read_text(), re.M)
        for name, extra in (("gpu.txt", r"\[and-cuda\]"),
                            ("training.txt", "")))
    assert len(gpu) == 1 and gpu == training
