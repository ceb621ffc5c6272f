"""Failures of the machine become one line; what was saved stays."""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from forks import ROOT, Fork

from reptile_tf import quiet_tensorflow
from reptile_tf.configuration import flags
from reptile_tf.datasets import sine
from reptile_tf.errors import InputError, first_line
from reptile_tf.execution import strategies
from reptile_tf.records.checkpoints import Checkpoints
from reptile_tf.records.run_log import log_error, log_to, logger
from reptile_tf.runs import run
from reptile_tf.runs.command_line import status_of
from reptile_tf.runs.failures import as_input_errors, explained
from reptile_tf.runs.interrupts import Interrupts, Stopped
from reptile_tf.whole_files import beside, replacing


@pytest.fixture
def full():
    """Files may not grow above 4,000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
                                     (4000, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path, full):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"phi": np.arange(5)}, {"a": 1})
    full()
    with pytest.raises(InputError, match=(
            r"checkpoint-000000002\S* cannot be written.*too large.*"
            "goes on from 1")), as_input_errors(
                lambda: str(checkpoints.iterations()[-1])):
        checkpoints.save(2, {"phi": np.arange(5000)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-000000001.npz"]
    arrays, meta = checkpoints.load(pytest.fail)
    np.testing.assert_array_equal(arrays["phi"], np.arange(5))
    assert meta == {"a": 1}


def test_what_an_error_says_is_not_where_in_a_graph_it_was():
    table = tf.constant([1.0, 2.0])
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        tf.function(lambda i: tf.gather(table, i), autograph=False)(
            tf.constant(7))
    assert "{{function_node" in str(error.value).splitlines()[0]
    assert first_line(error.value) == "indices = 7 is not in [0, 2)"
    assert first_line(tf.errors.UnavailableError(None, None, (
        "Graph execution error:\n\nDetected at node Reduce defined at (most "
        'recent call last):\n  File "own.py", line 9, in <module>\n\n'
        "Collective ops is aborted by: Socket closed\nAdditional"))) == (
            "Collective ops is aborted by: Socket closed")
    assert first_line(ValueError("  one\ntwo")) == "one"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk],
                      capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 4, 20, 40, 120, 300])
def test_a_full_disk_costs_one_line_and_nothing_else(small_disk, free):
    """Kilobytes for flags, a checkpoint, metrics or the export."""
    def start():
        return Fork(ROOT / "tests/tiny.py", f"--run_dir={small_disk / 'run'}",
                    "--shots=1", PYTHONPATH=str(ROOT))

    filler = small_disk / "filler"
    filler.write_bytes(bytes(2**22 - free * 1024))
    process = start()
    assert process.wait() == 1
    output = process.output()
    assert "Traceback" not in output
    assert len(re.findall("^error: ", output, re.M)) == 1
    assert "No space left" in output
    temporary = beside(small_disk / "*").name
    assert not [*small_disk.rglob(temporary)]
    filler.unlink()
    process = start()
    assert process.wait() == 0, process.output()
    assert (small_disk / "run/initialization/saved_model.pb").exists()
    assert not [*small_disk.rglob(temporary)]


def test_what_replaces_is_whole_or_not_there(tmp_path):
    file, folder = tmp_path / "a.txt", tmp_path / "b"
    folder.mkdir()
    (folder / "old").touch()
    file.write_text("old")
    for path in (file, folder):
        with pytest.raises(KeyError), replacing(path) as temporary:
            temporary.mkdir()
            raise KeyError
    assert sorted(tmp_path.glob("**/*")) == [file, folder, folder / "old"]
    with replacing(file) as temporary:
        temporary.write_text("new")
    with replacing(folder) as temporary:
        temporary.mkdir()
    assert file.read_text() == "new" and not [*folder.iterdir()]
    assert len([*tmp_path.iterdir()]) == 2


@pytest.mark.parametrize("broken", ["second_rename", "removal"])
def test_a_replaced_folder_is_never_lost(tmp_path, monkeypatch, broken):
    """Not by Ctrl-C, a mount point or a folder that cannot be removed."""
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "old").touch()
    rename = os.rename

    def interrupted(source, target):
        if target == folder and source == beside(folder):
            raise KeyboardInterrupt
        rename(source, target)
    if broken == "second_rename":
        monkeypatch.setattr(os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt), replacing(folder) as temporary:
            temporary.mkdir()
        assert [p.name for p in tmp_path.rglob("*")] == ["b", "old"]
        return

    def killed(path, ignore_errors=False):
        if (path / "old").exists():
            (path / "old").unlink()
            raise KeyboardInterrupt
    with monkeypatch.context() as removing:
        removing.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt), replacing(folder) as temporary:
            temporary.mkdir()
            (temporary / "new").touch()
    assert [p.name for p in folder.iterdir()] == ["new"]
    shutil.rmtree(folder)  # Half of the old one is not put in its place.
    with pytest.raises(KeyError), replacing(folder):
        raise KeyError
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", [".b.reptile_tf", ".b.reptile_tf-before"])
def test_what_cannot_be_removed_is_named_before_anything_is_written(
        tmp_path, monkeypatch, name):
    (tmp_path / "b").mkdir()
    (tmp_path / name).mkdir()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(PermissionError, match=f"cannot be removed.*{name}'"
                       ) as error, replacing(tmp_path / "b"):
        pytest.fail("It would be written.")
    assert "allow it" in explained(error.value)


def test_a_folder_that_a_killed_process_had_set_aside_is_put_back(tmp_path):
    folder = tmp_path / "b"
    (tmp_path / ".b.reptile_tf-before").mkdir()
    (tmp_path / ".b.reptile_tf-before" / "old").touch()
    with pytest.raises(KeyError), replacing(folder):
        raise KeyError
    assert [p.name for p in tmp_path.rglob("*")] == ["b", "old"]


def test_without_a_folder_for_temporary_files_it_starts(monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")
    monkeypatch.setattr(quiet_tensorflow.tempfile, "TemporaryFile", none)
    with quiet_tensorflow._capture() as held:
        assert held.write(b"chatter") == 7


def test_a_full_log_is_an_error_and_no_traceback(tmp_path, capsys):
    (tmp_path / "run.log").symlink_to("/dev/full")
    log = logger()
    log_to(log, tmp_path)
    with pytest.raises(InputError, match="No space left"), as_input_errors(
            lambda: "the start"):
        log.info("a line")
    log_error("error: full")
    logger()
    assert capsys.readouterr().err == "error: full\n"


def test_what_is_used_up_or_not_compiled():
    text = explained(tf.errors.ResourceExhaustedError(
        None, None, "OOM when allocating tensor\nmore"))
    assert "OOM when allocating tensor)" in text and "--meta_batch" in text
    assert "--inner_batch" in explained(MemoryError())
    assert "No space left" in explained(tf.errors.ResourceExhaustedError(
        None, None, "x; No space left on device")) and (
            "--meta_batch" not in explained(tf.errors.ResourceExhaustedError(
                None, None, "x; No space left on device")))
    assert "--jit_compile=off" in explained(tf.errors.UnimplementedError(
        None, None, "XLA cannot"))
    for text in ("Dst tensor is not initialized.",
                 "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
                 "Failed to allocate 9 bytes for new constant"):
        assert "--meta_batch" in explained(
            tf.errors.InternalError(None, None, text)), text
    for error in (
            tf.errors.InvalidArgumentError(
                None, None, "Detected unsupported operations when trying to "
                "compile graph f on XLA_GPU_JIT: Where"),
            ValueError("No pfor vectorization defined for Where\nmore")):
        assert "--jit_compile=off" in explained(error)
    assert explained(InputError("XLA does not compile it")) is None
    assert explained(tf.errors.InvalidArgumentError(
        None, None, "XLA: a label of 7")) is None
    assert explained(tf.errors.InternalError(None, None, "a bug")) is None
    assert explained(FileNotFoundError(2, "not there", "x")) is None
    with pytest.raises(KeyError), as_input_errors(str):
        raise KeyError


@pytest.mark.parametrize("error, text", [
    (tf.errors.InternalError(None, None, "XLA cannot"), "--jit_compile=off"),
    (tf.errors.InternalError(None, None, "stream ended"), "worker has ended"),
    (tf.errors.UnavailableError(None, None, "gone"), "worker has ended")])
def test_of_several_workers_too_a_compilers_error_is_none_lost(
        monkeypatch, tmp_path, error, text):
    def fail(*_):
        raise error

    replicas = strategies.Distributed.__new__(strategies.Distributed)
    replicas.cluster = SimpleNamespace(processes=2)
    monkeypatch.setattr(run, "prepared_replicas", lambda *_: replicas)
    monkeypatch.setattr(run, "_run", fail)
    with pytest.raises(InputError, match=text):
        run.run(sine, flags.parse(["", f"--run_dir={tmp_path}"], sine.CONFIG,
                                  sine.DEFAULTS))


def test_in_another_thread_signals_are_left_alone():
    before, errors = signal.getsignal(signal.SIGINT), []

    def work():
        try:
            with Interrupts() as interrupts:
                interrupts.check()
                assert signal.getsignal(signal.SIGINT) is before
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_outside_a_run_too_and_while_a_script_is_imported(capsys):
    def fail():
        with open("/dev/full", "w") as file:
            file.write("x")

    assert status_of(fail) == 1
    quiet_tensorflow.quietly(KeyboardInterrupt, KeyboardInterrupt(), None)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    quiet_tensorflow.quietly(ValueError, ValueError("told"), None)
    assert "ValueError: told" in capsys.readouterr().err


def test_a_signal_while_a_layer_is_called_stops_as_any_other():
    class Interrupted(keras.layers.Layer):
        def call(self, inputs):
            raise Stopped(signal.SIGTERM)

    with pytest.raises(Stopped) as stopped:
        Interrupted()(tf.zeros([1]))
    assert stopped.value.status == 143


def test_what_tensorflow_makes_of_a_signal_is_that_signal():
    def fail():
        with Interrupts() as interrupts:
            interrupts.at_once = True
            with contextlib.suppress(Stopped):
                signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the stack of control dependencies")

    assert status_of(fail) == 143
