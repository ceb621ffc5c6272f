"""Whole runs on a tiny data set, through the scripts' own main."""

import csv
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from unittest.mock import Mock

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from forks import ROOT, Fork
from processes import newest, wait_for

from reptile_tf.configuration import flags as flag_parser
from reptile_tf.errors import InputError
from reptile_tf.execution import memory
from reptile_tf.learning.adaptation import AdaptConfig
from reptile_tf.learning.evaluation import Evaluator
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.meta_training import MetaTrainer
from reptile_tf.learning.optimizers import InnerConfig
from reptile_tf.records import metrics
from reptile_tf.records.checkpoints import Checkpoints
from reptile_tf.records.lock import Lock
from reptile_tf.records.run_directory import RunDirectory
from reptile_tf.runs import command_line as experiment
from reptile_tf.runs import experiment as experiment_parts
from reptile_tf.runs import resuming, training

# For tests of what is around training and evaluation.
SHORT = ["--meta_iters=2", "--meta_batch=1", "--shots=1", "--transductive",
         "--eval_samples=2", "--eval_iters=1", "--noexport"]
UNTRAINED = [*SHORT, "--meta_iters=0"]


def main(run_dir, *flags):
    return experiment.main(tiny, ["tiny.py", f"--run_dir={run_dir}", *flags])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: (folder, what it printed)."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "tiny.py", f"--run_dir={folder}",
         "--val_classes=4"],
        env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def copied(finished, tmp_path):
    """The folder of a finished run, for a test that changes it."""
    return shutil.copytree(finished[0], tmp_path / "copied")


def test_the_run_directory(finished):
    folder, _ = finished
    assert {p.name for p in folder.iterdir()} == {
        "flags.cfg", "metrics.csv", "result.json", "run.log", "checkpoints",
        "tensorboard", "initialization"}
    assert list((folder / "tensorboard").iterdir())
    assert Checkpoints(folder / "checkpoints").iterations() == [5, 10, 12]
    assert {p.name for p in (folder / "initialization").iterdir()} >= {
        "saved_model.pb", "variables", "model.keras"}


def test_the_initialization_is_the_last_checkpoints_learner(finished):
    learner = Learner.load(finished[0] / "initialization")
    # 3 ways, --shots=1,2, and a --eval_batch for both.
    assert learner.adaptation == AdaptConfig(2, 5, False, ((3, 5),))
    assert learner.inner == InnerConfig(0.01)
    arrays, _ = Checkpoints(finished[0] / "checkpoints").load(print)
    assert int(learner.state.t) == arrays["t"] == 12 * 2
    for i, (phi, v) in enumerate(zip(learner.weights, learner.state.v,
                                     strict=True)):
        np.testing.assert_array_equal(phi, arrays[f"phi/{i}"])
        assert len(arrays[f"v/{i}"]) == 2
        np.testing.assert_allclose(v, arrays[f"v/{i}"].mean(0), rtol=1e-6)


def test_result_json(finished):
    result = json.loads((finished[0] / "result.json").read_text())
    assert set(result) == {
        "algorithm", "dataset", "data_source", "ways", "shots", "seed",
        "meta_iters", "trained_with", "commit", "code", "versions", "device",
        "num_threads",
        "onednn", "tf32", "deterministic", "replicas", "wall_seconds",
        "results", "untrained"}
    assert result["shots"] == [1, 2] and result["meta_iters"] == 12
    cells = {(r["split"], r["shots"], r["transductive"])
             for r in result["results"]}
    assert cells == {(s, k, t) for s in ("test", "val", "train")
                     for k in (1, 2) for t in (True, False)}
    assert len(result["results"]) == len(result["untrained"]) == 12
    for row in result["results"]:
        assert set(row) == {"split", "shots", "transductive", "tasks",
                            "accuracy", "ci95", "eval_batch", "eval_iters",
                            "eval_queries"}
        assert row["tasks"] == 9 and row["eval_batch"] == 5
        assert round(row["accuracy"] * 27, 6) % 1 == 0


def test_metrics_report_validation_for_the_curve(finished):
    with open(finished[0] / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["iteration", "split", "metric", "value"]
    assert {int(r["iteration"]) for r in rows} == {5, 10, 12}
    assert {r["split"] for r in rows} == {"val"}
    assert {r["metric"] for r in rows} == {
        f"accuracy_{k}shot_{m}" for k in (1, 2)
        for m in ("transductive", "non-transductive")}


def test_the_curve_ends_at_a_final_evaluation_of_as_many_tasks(copied):
    """One meta-iteration and split draw the same tasks in both."""
    assert main(copied, "--val_classes=4", "--pretrained", "--eval_samples=4",
                "--eval_splits=val") == 0
    rows = json.loads((copied / "result.json").read_text())["results"]
    curves = metrics.read(copied / "metrics.csv")
    found = {(r["shots"], r["transductive"]): 100 * r["accuracy"]
             for r in rows}
    assert len(rows) == len(found) == len(curves) == 4
    assert len(set(found.values())) == 4  # So that none stands for another.
    for (shots, transductive), accuracy in found.items():
        mode = "transductive" if transductive else "non-transductive"
        curve = curves["val", f"accuracy_{shots}shot_{mode}"]
        assert curve[12] == pytest.approx(accuracy)


def test_the_first_lines_and_plain_output(finished):
    folder, done = finished
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    assert done.stderr == ""  # No chatter of TensorFlow's either.
    text = done.stdout
    for word in ("data: tiny images: 8 train classes, 8 test classes, 4 val",
                 "device: CPU", "threads", "engine: ", "expected duration: ",
                 "untrained", "meta-trained"):
        assert word in text, word
    # Once each, before the silence.
    assert re.findall("compiling (.*), ...", text) == [
        "the meta-iteration", "the evaluation with shots=1",
        "the evaluation with shots=2"]
    log = (folder / "run.log").read_text()
    for line in text.splitlines():
        assert line in log, line


def test_a_finished_run_is_not_run_again(finished, capsys):
    folder, _ = finished
    before = (folder / "result.json").read_bytes()
    assert main(folder, "--val_classes=4") == 0
    assert "already finished" in capsys.readouterr().out
    assert (folder / "result.json").read_bytes() == before


def test_what_changes_no_number_makes_no_run_again(tmp_path, capsys):
    run, where = tmp_path / "run", "--data_dir=somewhere"

    def again(*flags, dataset=tiny):
        status = experiment.main(dataset, [
            "tiny.py", f"--run_dir={run}", *SHORT, *flags])
        captured = capsys.readouterr()
        assert status == 1 or (
            "final evaluation" not in captured.out
            and (run / "result.json").read_bytes() == result)
        return captured.err if status else captured.out

    assert main(run, *SHORT) == 0
    result = (run / "result.json").read_bytes()
    capsys.readouterr()
    for flag in ("--eval_interval=1", "--nodeterministic"):
        assert "already finished" in again(flag)
    # What lies elsewhere may be other data, which the checkpoint knows.
    others = types.SimpleNamespace(**{
        **vars(tiny), "load": functools.partial(tiny.load, examples=7)})
    assert "trained on other data" in again(where, dataset=others)
    assert "going on from meta-iteration 2" in again(where)
    assert where in (run / "flags.cfg").read_text()
    assert "already finished" in again(where)
    again("--export")
    assert (run / "initialization" / "model.keras").exists()
    shutil.rmtree(run / "initialization")
    again("--export")
    assert (run / "initialization" / "model.keras").exists()
    # What else is there is seen before anything is evaluated.
    (run / "initialization" / "notes").touch()
    assert "already finished" in again("--export")
    assert "or give --noexport" in again("--export", "--eval_samples=3")
    # An older phi is not exported beside the result of the last.
    newest = max((run / "checkpoints").iterdir())
    whole = newest.read_bytes()
    newest.write_bytes(b"gone")
    shutil.rmtree(run / "initialization")
    assert main(run, *SHORT, "--export") == 0
    assert "final evaluation" in capsys.readouterr().out
    assert json.loads(result)["results"] == json.loads(
        (run / "result.json").read_text())["results"]
    newest.write_bytes(whole)
    (run / "result.json").write_bytes(result)
    # Without a checkpoint it is as finished, and nothing is begun afresh.
    shutil.rmtree(run / "checkpoints")
    assert "already finished" in again("--export", "--data_dir=elsewhere")
    shutil.rmtree(run / "initialization")
    assert "no checkpoint to export" in again("--export")
    metrics = (run / "metrics.csv").read_bytes()
    assert "no checkpoint, without which nothing" in again("--eval_samples=3")
    assert (run / "metrics.csv").read_bytes() == metrics
    assert (run / "result.json").read_bytes() == result


def test_a_stop_while_flags_are_written_keeps_the_result(
        copied, monkeypatch, capsys):
    result = (copied / "result.json").read_bytes()
    monkeypatch.setattr(RunDirectory, "_write_flags", Mock(
        side_effect=OSError(28, "No space left on device")))
    shutil.rmtree(copied / "initialization")
    assert main(copied, "--val_classes=4", "--export") == 1
    assert "No space left" in capsys.readouterr().err
    assert (copied / "result.json").read_bytes() == result


def test_a_run_whose_folder_was_taken_over_writes_no_checkpoint(
        tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Lock, "require", Mock(side_effect=InputError("taken")))
    assert main(tmp_path / "run") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: taken"
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_only_the_chief_looks_at_what_it_writes_over(copied):
    result = json.loads((copied / "result.json").read_text())
    (copied / "flags.cfg").unlink()  # As it may be for a moment.
    assert RunDirectory(copied, writes=False).write_result(
        {**result, "results": result["results"][1:]}, tiny.CONFIG()) is None


def test_a_result_that_is_not_whole_is_none(copied):
    directory = RunDirectory(copied)
    config = flag_parser.parse(["", f"--flagfile={copied / 'flags.cfg'}"],
                               tiny.CONFIG, {})
    assert directory.finished(config)
    whole = directory.result.read_text()
    for text in ("{}", whole[:-9], whole.replace('"ways"', '"way"')):
        directory.result.write_text(text)
        assert directory.finished(config) is None


def test_pretrained_evaluates_only(copied, capsys):
    folder = copied
    old = json.loads((folder / "result.json").read_text())
    metrics = (folder / "metrics.csv").read_bytes()
    assert main(folder, "--val_classes=4", "--pretrained") == 0
    new = json.loads((folder / "result.json").read_text())
    assert new["results"] == old["results"]
    assert new["untrained"] == old["untrained"]
    assert (folder / "metrics.csv").read_bytes() == metrics
    assert not [*folder.glob("result-*")]
    flags = (folder / "flags.cfg").read_bytes()
    capsys.readouterr()
    for number, shots in ((1, 3), (2, 2)):
        # What was evaluated before is kept beside the new numbers.
        assert main(folder, "--val_classes=4", "--pretrained",
                    f"--shots={shots}", "--notransductive") == 0
        kept = folder / f"result-{number}.json"
        assert f"evaluation before: {kept}\n" in capsys.readouterr().out
        assert json.loads(kept.read_text()) == new
        assert (folder / f"flags-{number}.cfg").read_bytes() == flags
        new = json.loads((folder / "result.json").read_text())
        flags = (folder / "flags.cfg").read_bytes()
        assert {(r["shots"], r["transductive"]) for r in new["results"]} == {
            (shots, False)}


def test_a_final_evaluation_goes_on_where_it_was(tmp_path, capsys,
                                                 monkeypatch):
    flags = [*SHORT, "--shots=1,2", "--eval_interval=0"]
    assert main(tmp_path / "whole", *flags) == 0
    scored, evaluate, fails_at = [], Evaluator.evaluate, 6

    def watched(*args, **kwargs):
        scored.append(args[3].support_targets.shape)
        if len(scored) == fails_at:
            raise InputError("interrupted")
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(Evaluator, "evaluate", watched)
    run = tmp_path / "run"
    assert main(run, *flags) == 1 and len(scored) == 6
    whole = (run / "scored.json").read_text()
    # Not where other numbers are asked for, or of other weights.
    fails_at = 7
    assert main(run, *flags, "--eval_samples=3") == 1 and len(scored) == 7
    others = json.loads(whole)
    others["key"]["weights"] += 1
    (run / "scored.json").write_text(json.dumps(others))
    fails_at = 8
    capsys.readouterr()
    assert main(run, *flags) == 1 and len(scored) == 8
    assert "5 cells that are scored are of other code" in (
        capsys.readouterr().out)
    (run / "scored.json").write_text(whole[:-9])
    fails_at = 9
    assert main(run, *flags) == 1 and len(scored) == 9
    # Two splits, trained and not, two K: 8 cells, of which 5 are there.
    (run / "scored.json").write_text(json.dumps(
        {**json.loads(whole), "seconds": 5000}))
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr("reptile_tf.runs.experiment.time",
                        types.SimpleNamespace(monotonic=lambda: 7.0))
        assert main(run, *flags) == 0 and len(scored) == 9 + 3
    assert "going on with it: 5 of 8 cells" in capsys.readouterr().out
    assert not (run / "scored.json").exists()
    first, second = (json.loads((tmp_path / name / "result.json").read_text())
                     for name in ("whole", "run"))
    assert first["results"] == second["results"]
    assert first["untrained"] == second["untrained"]
    assert second["wall_seconds"] == 5000  # By a clock that stands still.


def test_another_configuration_is_refused_and_listed(finished, capsys):
    folder, _ = finished
    before = (folder / "flags.cfg").read_bytes()
    assert main(folder, "--val_classes=4", "--inner_iters=3",
                "--learning_rate=0.5", "--eval_iters=7") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "another configuration" in error
    assert "--inner_iters=2 there, --inner_iters=3 asked for" in error
    assert "--learning_rate=0.5" in error and "eval_iters" not in error
    assert (folder / "flags.cfg").read_bytes() == before


@pytest.mark.parametrize("flag", ["--classes=4", "--val_classes=3"])
def test_the_data_sets_own_flags_are_compared_too(finished, capsys, flag):
    flags = ["--val_classes=4", flag]
    assert main(finished[0], *flags) == 1
    error = capsys.readouterr().err
    assert "another configuration" in error and f"{flag} asked for" in error


@pytest.mark.slow
def test_mixed_bfloat16_trains_and_exports_float32(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(run, *SHORT, "--mixed_bfloat16", "--export") == 0
    assert main(run, *SHORT) == 1
    assert "--mixed_bfloat16 there, --nomixed_bfloat16 asked for" in (
        capsys.readouterr().err)
    assert main(tmp_path / "plain", *SHORT) == 0
    arrays, plain = (Checkpoints(tmp_path / name / "checkpoints").load(print)[0]
                     for name in ("run", "plain"))
    for name in ("phi/0", "v/0"):
        assert arrays[name].dtype == np.float32
        scale = np.abs(plain[name]).max()
        np.testing.assert_allclose(arrays[name], plain[name],
                                   atol=0.1 * scale)
        assert np.abs(arrays[name] - plain[name]).max() > 1e-5 * scale
    model = keras.models.load_model(run / "initialization" / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    np.testing.assert_array_equal(model.trainable_variables[0],
                                  arrays["phi/0"])
    loaded = tf.saved_model.load(run / "initialization")
    assert {v.dtype for v in [*loaded.phi, *loaded.v]} == {tf.float32}
    images = tf.random.stateless_uniform([5, 4, 3, 1], [1, 2])
    np.testing.assert_allclose(
        loaded.signatures["serving_default"](images=images)["logits"],
        model(images, training=True), rtol=1e-5, atol=1e-5)


def test_train_shots_that_mean_shots_do_not_change_on_resume(
        tmp_path, capsys):
    short = [*UNTRAINED, "--train_shots=0"]
    assert main(tmp_path / "run", *short, "--shots=4") == 0
    assert main(tmp_path / "run", *short, "--shots=1") == 1
    assert "--train_shots=4 there" in capsys.readouterr().err


def test_a_space_in_a_path_does_not_hinder_resuming(tmp_path, capsys):
    flags = [*UNTRAINED, f"--data_dir={tmp_path / 'my seed=7'}"]
    assert main(tmp_path / "run", *flags) == 0
    assert main(tmp_path / "run", *flags) == 0
    assert "already finished" in capsys.readouterr().out


def test_metrics_come_back_from_the_checkpoint(tmp_path):
    flags = [*SHORT, "--eval_interval=1"]
    assert main(tmp_path / "run", *flags) == 0
    metrics = tmp_path / "run" / "metrics.csv"
    before = metrics.read_bytes()
    for spoil in (metrics.unlink, lambda: metrics.write_text("x"),
                  lambda: metrics.write_bytes(before + b"2,test,more,1\n")):
        spoil()
        (tmp_path / "run" / "result.json").write_text("")  # Not whole either.
        assert main(tmp_path / "run", *flags) == 0
        assert metrics.read_bytes() == before


def test_evaluation_intervals_do_not_change_training(tmp_path):
    phi = []
    for interval in (0, 2, 3):
        run = tmp_path / str(interval)
        assert main(run, *SHORT, "--meta_iters=5",
                    f"--eval_interval={interval}") == 0
        arrays, _ = Checkpoints(run / "checkpoints").load(print)
        phi.append(arrays)
    for other in phi[1:]:
        for name, value in phi[0].items():
            np.testing.assert_array_equal(value, other[name])


def test_a_checkpoint_is_written_after_half_a_minute(tmp_path, monkeypatch):
    """Its clock goes on by 20 seconds in each meta-iteration."""
    done, saved, save, step = 0, [], Checkpoints.save, MetaTrainer.train_step

    def noted(checkpoints, iteration, *content):
        saved.append(iteration)
        return save(checkpoints, iteration, *content)

    def slow(*args):
        nonlocal done
        done += 1
        return step(*args)

    monkeypatch.setattr(Checkpoints, "save", noted)
    monkeypatch.setattr(MetaTrainer, "train_step", slow)
    clock = types.SimpleNamespace(monotonic=lambda: 20.0 * done)
    for module in (training, resuming):
        monkeypatch.setattr(module, "time", clock)
    assert main(tmp_path / "run", *SHORT, "--meta_iters=7",
                "--eval_interval=0") == 0
    assert done == 7 and saved == [0, 2, 4, 6, 7]


def test_the_seconds_before_an_interruption_count(tmp_path):
    run = tmp_path / "run"
    checkpoints = Checkpoints(run / "checkpoints")
    assert main(run, *UNTRAINED) == 0
    arrays, meta = checkpoints.load(print)
    checkpoints.save(0, arrays, {**meta, "elapsed": 5000.0})
    (run / "result.json").unlink()
    assert main(run, *UNTRAINED) == 0
    result = json.loads((run / "result.json").read_text())
    assert 5000 <= checkpoints.load(print)[1]["elapsed"] < 5600
    assert 5000 <= result["wall_seconds"] < 5600


def test_the_commits_that_trained_are_told_from_the_one_that_evaluated(
        tmp_path, capsys, monkeypatch):
    def result(commit, *flags):
        monkeypatch.setattr(experiment_parts, "commit", lambda: commit)
        assert main(tmp_path, *SHORT, "--eval_interval=1", *flags) == 0
        found = json.loads((tmp_path / "result.json").read_text())
        return found["trained_with"], found["commit"]

    def stopped(*_):
        raise RuntimeError
    with monkeypatch.context() as at_once:
        at_once.setattr(experiment_parts, "commit", lambda: "none")
        at_once.setattr(MetaTrainer, "train_step", stopped)
        with pytest.raises(RuntimeError):
            main(tmp_path, *SHORT, "--eval_interval=1")
    assert result("a") == (["a"], "a")
    newest = Checkpoints(tmp_path / "checkpoints").paths()[-1]
    newest.unlink()
    (tmp_path / "result.json").unlink()
    assert "of commit" not in capsys.readouterr().out
    assert result("b") == (["a", "b"], "b")
    assert ("warning: trained with the code of commit a so far, now b"
            in capsys.readouterr().out)
    assert result("c", "--pretrained") == (["a", "b"], "c")


def test_the_test_split_alone(tmp_path, capsys):
    assert main(tmp_path / "run", *UNTRAINED, "--val_classes=3",
                "--shots=1,3", "--eval_splits=test") == 0
    assert "warning: in evaluation 1 step of 5 examples sees 5 of a support " \
        "set of 9" in capsys.readouterr().out
    result = json.loads((tmp_path / "run/result.json").read_text())
    for rows in (result["results"], result["untrained"]):
        assert [(r["split"], r["shots"]) for r in rows] == [
            ("test", 1), ("test", 3)]


def test_validation_alone(tmp_path, capsys):
    run = ["--val_classes=3", "--shots=1,3", "--eval_splits=val"]
    assert main(tmp_path / "run", *UNTRAINED, *run) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    for rows in (result["results"], result["untrained"]):
        assert [(r["split"], r["shots"]) for r in rows] == [
            ("val", 1), ("val", 3)]
    assert "accuracy on validation classes, " in capsys.readouterr().out
    assert main(tmp_path / "none", *UNTRAINED, "--eval_splits=val") == 1
    assert "eval_splits=val: this data has no such split, it has test, train" \
        in capsys.readouterr().err


def test_memory_is_checked_before_training(tmp_path, capsys, monkeypatch):
    """4x3 pixels, flattened; 3 logits, normalized: 12 + 3 + 3 floats.

    2 tasks of 8 examples; k = 2 steps of 3 layers in the graph of each task.
    """
    needed = int(2 * (2 * 4 * (12 + 3 + 3) * 8 + 4 * 4 * (12 * 3 + 3 + 6))
                 + 60e6 + 2 * 2 * 3 * 1e5)
    flags = ["--meta_iters=2", "--eval_samples=2", "--shots=1", "--noexport",
             "--inner_batch=8"]
    monkeypatch.setattr(memory, "available", lambda: needed)
    assert main(tmp_path / "enough", *flags) == 0
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    assert main(tmp_path / "less", *flags) == 1
    assert "--meta_batch" in capsys.readouterr().err
    assert main(tmp_path / "one", *flags, "--task_order=sequential") == 0
    # A tape keeps the k = 2 steps of one task.
    assert main(tmp_path / "maml", *flags, "--task_order=sequential",
                "--algorithm=maml") == 1


def test_a_flag_newer_than_the_run_had_its_default(tmp_path, capsys):
    assert main(tmp_path / "run", *UNTRAINED) == 0
    path = tmp_path / "run" / "flags.cfg"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(x for x in lines if "outer_clip" not in x))
    assert main(tmp_path / "run", *UNTRAINED) == 0
    assert "already finished" in capsys.readouterr().out
    assert main(tmp_path / "run", *UNTRAINED, "--outer_clip=1") == 1


def test_one_task_has_no_interval(tmp_path):
    assert main(tmp_path / "run", *UNTRAINED, "--eval_samples=1") == 0
    text = (tmp_path / "run" / "result.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["results"][0]["ci95"] is None


def test_a_run_directory_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(tmp_path / "file" / "run") == 1
    assert "cannot be made or written" in capsys.readouterr().err


def test_other_data_is_refused(finished, capsys):
    assert main(finished[0], "--val_classes=4", "--data=synthetic",
                "--shots=1") == 1
    assert "other data" in capsys.readouterr().err


def test_a_start_that_failed_claims_nothing(tmp_path, capsys):
    assert main(tmp_path, "--classes=9", "--shots=1") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"flags.cfg", "run.log"}
    assert main(tmp_path, "--classes=10", "--shots=1", "--noresume") == 1
    error = capsys.readouterr().err
    assert "another configuration" not in error and "not empty" not in error


def test_noresume_refuses_what_is_there(finished, capsys):
    assert main(finished[0], "--val_classes=4", "--noresume") == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    assert main(tmp_path) == 1
    assert "thesis.tex" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_in_which_a_process_works_is_left_to_it(tmp_path, capsys):
    lock = Lock(tmp_path / "in-use")
    lock.acquire()
    try:
        assert main(tmp_path, *UNTRAINED) == 1
        assert "is in use" in capsys.readouterr().err
        assert [p.name for p in tmp_path.iterdir()] == ["in-use"]
    finally:
        lock.release()


def test_pretrained_without_a_checkpoint(tmp_path, capsys):
    assert main(tmp_path / "none", "--pretrained") == 1
    assert "has none: train first" in capsys.readouterr().err


def test_pretrained_where_the_checkpoints_were_deleted(copied, capsys):
    """Training would find the result there, and train nothing."""
    shutil.rmtree(copied / "checkpoints")
    assert main(copied, "--val_classes=4", "--pretrained") == 1
    assert "has none: copy those of the run" in capsys.readouterr().err


def test_a_corrupt_newest_checkpoint_is_said_and_passed_over(
        tmp_path, capsys):
    run = tmp_path / "run"
    flags = [*SHORT, "--meta_iters=5", "--eval_interval=3"]
    assert main(run, *flags) == 0
    metrics = (run / "metrics.csv").read_bytes()
    checkpoints = Checkpoints(run / "checkpoints")
    want, _ = checkpoints.load(print)
    checkpoints.paths()[-1].write_bytes(b"gone")
    (run / "result.json").unlink()
    assert main(run, *flags) == 0
    output = capsys.readouterr().out
    assert "corrupt" in output and "going on from meta-iteration 3" in output
    got, _ = checkpoints.load(print)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    assert (run / "metrics.csv").read_bytes() == metrics


def test_meta_iters_zero_evaluates_the_untrained_network(tmp_path):
    assert main(tmp_path / "run", *UNTRAINED, "--eval_samples=4") == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["results"] == result["untrained"]
    assert not (tmp_path / "run" / "initialization").exists()


def test_a_run_starts_from_an_initialization(tmp_path, capsys):
    """phi, (v, t) and, of a saved learner, the network."""
    first = ["--meta_iters=3", "--shots=1", "--transductive", "--export",
             "--eval_samples=7", "--eval_interval_samples=7"]
    assert main(tmp_path / "first", *first) == 0
    there = tmp_path / "first" / "initialization"
    capsys.readouterr()
    # Without a step it has the numbers that it had.
    assert main(tmp_path / "again", *first, f"--init={there}",
                "--meta_iters=0", "--noexport") == 0
    assert "start    meta-trained" in capsys.readouterr().out
    old, new = (json.loads((tmp_path / name / "result.json").read_text())
                for name in ("first", "again"))
    assert new["results"] != old["untrained"]
    assert new["results"] == new["untrained"]  # Of 7 tasks each.
    assert new["init"] == str(there) and "init" not in old
    arrays = [Checkpoints(tmp_path / name / "checkpoints").load(print)[0]
              for name in ("first", "again")]
    np.testing.assert_array_equal(arrays[0]["phi/0"], arrays[1]["phi/0"])
    np.testing.assert_allclose(  # Each slot starts from the mean.
        arrays[0]["v/0"].mean(0, keepdims=True).repeat(2, 0),
        arrays[1]["v/0"], rtol=1e-6)
    assert arrays[0]["t"] == arrays[1]["t"] == 6
    # Another optimizer has no v, and starts at t = 0.
    assert main(tmp_path / "sgd", *UNTRAINED, f"--init={there}",
                "--inner_optimizer=sgd") == 0
    arrays = Checkpoints(tmp_path / "sgd" / "checkpoints").load(print)[0]
    assert arrays["t"] == 0 and "v/0" not in arrays
    # The network of a learner of one's own.
    own = keras.Sequential([
        keras.Input([4, 3, 1]), keras.layers.Flatten(),
        keras.layers.Dense(7, "tanh"), keras.layers.Dense(3)])
    Learner(own, loss=lambda y, x: -x[:, 0]).save(tmp_path / "own")
    assert main(tmp_path / "trained", *SHORT, "--export",
                f"--init={tmp_path / 'own'}") == 0
    learner = Learner.load(tmp_path / "trained" / "initialization")
    assert [w.shape for w in learner.weights] == [
        (12, 7), (7,), (7, 3), (3,)]
    capsys.readouterr()
    # What becomes of it does not matter any more.
    (tmp_path / "own" / "notes").touch()
    assert {p.name for p in (tmp_path / "trained/start").iterdir()} >= {
        "learner.json", "model.keras", "variables"}
    result = json.loads((tmp_path / "trained/result.json").read_text())
    assert re.fullmatch("[0-9a-f]{8}", result["start_checksum"])
    (tmp_path / "own").rename(tmp_path / "elsewhere")
    assert main(tmp_path / "trained", *SHORT, "--pretrained", "--shots=2",
                f"--init={tmp_path / 'own'}") == 0
    # Carried over without it, it goes on from the folder itself.
    shutil.rmtree(tmp_path / "trained" / "start")
    (tmp_path / "elsewhere").rename(tmp_path / "own")
    assert main(tmp_path / "trained", *SHORT, "--pretrained", "--shots=3",
                f"--init={tmp_path / 'own'}") == 0
    # Into a run inside it only what was saved is copied.
    assert main(tmp_path / "own" / "inside", *UNTRAINED,
                f"--init={tmp_path / 'own'}") == 0
    assert not {"notes", "inside"} & {
        p.name for p in (tmp_path / "own" / "inside" / "start").iterdir()}
    # It belongs to the run.
    assert main(tmp_path / "trained", *SHORT) == 1
    assert "--init=" in capsys.readouterr().err
    whole = keras.Sequential([
        keras.Input([4, 3, 1], dtype="uint8"), keras.layers.Rescaling(1 / 255),
        keras.layers.Flatten(), keras.layers.Dense(3)])
    Learner(whole).save(tmp_path / "whole")
    for init, message in (
            (tmp_path / "whole", "takes uint8, and a run's pixels go from 0 "
             "to 1"),
            ("omniglot_5way_1shot_fomaml", "network from [28, 28, 1] to [5], "
             "and these tasks go from [4, 3, 1] to [3]"),
            (tmp_path / "nothing", "nothing holds no learner")):
        assert main(tmp_path / "bad", *UNTRAINED, f"--init={init}") == 1
        assert message in capsys.readouterr().err


def test_no_start_is_evaluated_on_classes_that_it_was_trained_on(
        tmp_path, capsys):
    """Through other runs too, and a learner that was saved again."""
    short = [*SHORT, "--meta_iters=1", "--eval_samples=2"]
    assert main(tmp_path / "first", *short, "--export") == 0
    first = tmp_path / "first" / "initialization"
    other = ["--data=synthetic", f"--init={first}"]
    assert main(tmp_path / "second", *short, *other, "--export") == 0
    Learner.load(tmp_path / "second/initialization").save(tmp_path / "third")
    for init in (first, tmp_path / "third"):
        # Of its 12 training classes the last three are held out.
        held_out = [*short, "--val_classes=3", f"--init={init}"]
        assert main(tmp_path / "known", *held_out) == 1
        assert (f"init={init} was trained on 3 of the 3 val classes: split "
                "them as its run did") in capsys.readouterr().err
        # By the curve too, but not where neither evaluates them.
        assert main(tmp_path / f"curve-{init.name}", *held_out,
                    "--eval_splits=test") == 1
        assert main(tmp_path / f"test-{init.name}", *held_out,
                    "--eval_splits=test", "--meta_iters=0") == 0
        assert main(tmp_path / f"of-{init.name}", *short,
                    f"--init={init}") == 0
    # Of test classes too, and where the run has its own copy of it.
    again = tmp_path / f"of-{first.name}"
    settings = again / "start" / "learner.json"
    learner = Learner.load(again / "start")
    settings.write_text(settings.read_text().replace(
        " ".join(sorted(learner.trained_on)),
        tiny.load(flag_parser.parse([""], tiny.CONFIG, tiny.DEFAULTS))
        .classes("test")[7]))
    capsys.readouterr()
    assert main(again, *short, f"--init={first}", "--pretrained") == 1
    assert "trained on 1 of the 8 test classes" in capsys.readouterr().err
    # Without a step it knows no others.
    assert main(tmp_path / "same", *UNTRAINED, *other, "--export") == 0
    known = [Learner.load(tmp_path / name).trained_on for name in (
        "first/initialization", "same/initialization", "third")]
    assert len(known[0]) == 12 and known[0] == known[1]
    assert len(known[2]) == 24 and known[0] < known[2]


def test_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(run, *SHORT, "--inner_optimizer=sgd",
                "--learning_rate=1e18", "--eval_interval=1",
                "--meta_step=1e3", "--meta_iters=40") == 1
    error = capsys.readouterr().err
    assert "NaN or infinity" in error and "is kept" in error
    arrays, _ = Checkpoints(run / "checkpoints").load(print)
    assert all(np.isfinite(a).all() for a in arrays.values())
    assert "NaN or infinity" in (run / "run.log").read_text()


@pytest.mark.slow
def test_the_algorithms_share_the_command(tmp_path):
    phi = {}
    for name, flags in {
            "reptile": [], "joint": [], "maml": [], "fomaml": [],
            "tail": ["--algorithm=fomaml", "--tail_shots=1"]}.items():
        run = tmp_path / name
        flags = flags or [f"--algorithm={name}"]
        assert main(run, *SHORT, *flags, "--eval_interval=0") == 0
        arrays, _ = Checkpoints(run / "checkpoints").load(print)
        phi[name] = arrays["phi/0"].tobytes()
    assert len(set(phi.values())) == 5


def start(run_dir, *flags):
    return Fork(
        ROOT / "tests" / "tiny.py", f"--run_dir={run_dir}",
        "--meta_iters=3000", "--eval_interval=150", "--num_threads=1",
        "--shots=1", "--eval_samples=4000", "--task_order=parallel", *flags,
        PYTHONPATH=str(ROOT))


@pytest.mark.slow
def test_killed_runs_end_as_undisturbed_ones(tmp_path):
    """SIGKILL, SIGTERM, Ctrl-C in training and in the last evaluation."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    process = start(whole)
    assert process.wait() == 0, process.output()

    stops = [(signal.SIGKILL, -9, lambda: newest(run) >= 150),
             (signal.SIGTERM, 143, lambda: newest(run) >= 600),
             (signal.SIGINT, 130, lambda: newest(run) >= 1200),
             (signal.SIGINT, 130, lambda: newest(run) == 3000 and
              "final evaluation" in (run / "run.log").read_text())]
    for number, status, condition in stops:
        process = start(run)
        wait_for(process, condition)
        time.sleep(0.05)
        process.send_signal(number)
        assert process.wait() == status, process.output()
        assert not (run / "result.json").exists()
        if number != signal.SIGKILL:
            assert "goes on from here" in process.output()
    process = start(run)
    assert process.wait() == 0, process.output()
    assert "going on from meta-iteration 3,000" in process.output()

    assert (run / "metrics.csv").read_bytes() == (
        whole / "metrics.csv").read_bytes()
    a, b = (json.loads((r / "result.json").read_text()) for r in (run, whole))
    assert a["results"] == b["results"]
    assert a["num_threads"] == 1
    a, b = (Checkpoints(r / "checkpoints").load(print) for r in (run, whole))
    for name in b[0]:
        np.testing.assert_array_equal(a[0][name], b[0][name])
    assert a[1]["sampler"] == b[1]["sampler"]


def test_a_change_of_threads_is_warned_of(copied, capsys):
    checkpoints = Checkpoints(copied / "checkpoints")
    arrays, meta = checkpoints.load(print)
    meta["environment"]["num_threads"] = 99
    checkpoints.save(12, arrays, meta)
    assert main(copied, "--val_classes=4", "--pretrained", "--shots=1",
                "--eval_samples=2", "--transductive") == 0
    assert "warning: num_threads was 99, now" in capsys.readouterr().out
