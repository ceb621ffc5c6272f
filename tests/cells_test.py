"""Several runs, one after the other."""

import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
import types
from pathlib import Path

import pytest
import tiny

from reptile_tf.compare import finished_runs
from reptile_tf.configuration import flags
from reptile_tf.datasets import sine
from reptile_tf.errors import InputError
from reptile_tf.experiments import sine_waves as figure1
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.records.checkpoints import Checkpoints
from reptile_tf.runs import command_line as experiment
from reptile_tf.runs import many_runs as cells
from reptile_tf.runs.interrupts import Interrupts, Stopped
from reptile_tf.runs.many_runs import ManyRunsProgress as CellsProgress
from reptile_tf.runs.many_runs import PlannedRun as Cell
from reptile_tf.runs.many_runs import run_all as run_cells

ROOT = Path(__file__).parent.parent
SMALL = ["--shots=1", "--transductive", "--eval_samples=2", "--noexport",
         "--meta_batch=1", "--eval_iters=1"]
NAN = ["--inner_optimizer=sgd", "--learning_rate=1e18", "--meta_step=1e3",
       "--meta_iters=40"]


def cell(home, name, *more):
    return Cell(name, flags.parse(
        ["tiny.py", *SMALL, f"--run_dir={home / name}", *more], tiny.CONFIG,
        tiny.DEFAULTS))


def files(run):
    """What is byte-identical however often a run was stopped."""
    return ((run / "metrics.csv").read_bytes(),
            json.loads((run / "result.json").read_text())["results"])


@pytest.mark.slow
def test_a_cell_is_the_same_run_as_alone(tmp_path, capsys):
    cells = [cell(tmp_path, "a", "--seed=1"),
             cell(tmp_path, "b", "--algorithm=maml", "--seed=2")]
    results = run_cells(tiny, cells)
    assert [(r["algorithm"], r["seed"]) for r in results] == [
        ("reptile", 1), ("maml", 2)]
    output = capsys.readouterr().out
    assert "\r" not in output
    lines = [x for x in output.splitlines() if x.startswith("[")]
    assert lines[0] == "[1/2] a"
    assert lines[1].startswith("[2/2] b; about ")
    assert lines[1].endswith(" s left for all")
    assert "[2/2]" not in (tmp_path / "a" / "run.log").read_text()
    alone = cell(tmp_path, "alone", "--algorithm=maml", "--seed=2")
    experiment.run(tiny, alone.config)
    assert files(tmp_path / "b") == files(tmp_path / "alone")
    # The same call again trains nothing.
    before = (tmp_path / "b" / "result.json").read_bytes()
    assert run_cells(tiny, cells) == results
    assert capsys.readouterr().out.count("already finished") == 2
    assert (tmp_path / "b" / "result.json").read_bytes() == before


def test_a_cell_that_fails_leaves_the_others(tmp_path, capsys):
    cells = [cell(tmp_path, "nan", *NAN), cell(tmp_path, "good"),
             cell(tmp_path, "ways", "--classes=9"),
             cell(tmp_path, "more ways", "--classes=9")]
    with pytest.raises(InputError, match="^3 of 4 runs failed: nan; ways; "
                                         "more ways. The same command"):
        run_cells(tiny, cells)
    assert (tmp_path / "good" / "result.json").exists()
    error = capsys.readouterr().err.splitlines()
    assert error[0].startswith("error: nan: NaN or infinity")
    assert error[1].startswith("error: ways: classes=9 needs")
    assert error[2:] == ["error: more ways: the same as ways"]
    assert "NaN or infinity" in (tmp_path / "nan" / "run.log").read_text()
    assert "error" not in (tmp_path / "good" / "run.log").read_text()
    # It is tried again, and may succeed.
    config = dataclasses.replace(cells[2].config, classes=3)
    assert len(run_cells(tiny, [Cell("ways", config)])) == 1


def test_the_time_left():
    """Worked by hand: 2 reptile cells of 10 and 20 s, maml's of 60 s."""
    class Config:
        def __init__(self, algorithm):
            self.algorithm = algorithm

    progress = CellsProgress([
        Cell(a, Config(a)) for a in (
            "reptile", "reptile", "maml", "maml", "reptile", "fomaml")])
    progress.start(0)
    assert progress.left() is None and progress.left(7.0) is None
    assert progress.left(7.0, pace=11.0) == 7 + 5 * 11
    # 30 of 40 made, 10 of them since a resume, in 5 s: 0.5 s each.
    training = {"n": 30, "initial": 20, "total": 40, "elapsed": 5.0,
                "unit": "it"}
    assert progress.left_for_all(training) == ", all: 2 min"  # 5 + 5 * 20 s.
    # A run is its evaluation, of 10 s a task, too: 50 + 5 * (20 + 100) s.
    evaluation = {"n": 5, "initial": 0, "total": 10, "elapsed": 50.0,
                  "unit": "task"}
    assert progress.left_for_all(evaluation) == ", all: 11 min"
    # How long a training takes is not known where it was done before.
    progress.start(0)
    assert progress.left_for_all({**training, "n": 40, "initial": 40}) == ""
    assert progress.left_for_all(evaluation) == ""
    progress.finish(10.0)
    progress.start(1)
    assert progress.left() == 5 * 10
    progress.finish(20.0)
    progress.start(2)
    progress.finish(60.0)
    progress.start(3)
    assert progress.label == "[4/6] maml"
    # maml as maml, reptile as the mean of two, fomaml as the mean of all.
    assert progress.left() == 60 + 15 + 30
    assert progress.left(4.0, pace=1.0) == 4 + 15 + 30
    assert progress.left_for_all({**training, "n": 20}) == ""


def main(*more):
    return experiment.main(tiny, ["tiny.py", *SMALL, *more])


def test_lists_make_a_run_of_each_and_a_table(tmp_path, capsys):
    lists = ["--algorithm=reptile,maml", "--seed=0,2",
             f"--run_dir={tmp_path}/cmp"]
    assert main(*lists) == 0
    first = capsys.readouterr().out
    names = {"reptile-seed0", "reptile-seed2", "maml-seed0", "maml-seed2"}
    assert {p.name for p in (tmp_path / "cmp").iterdir()} == names
    assert [x.partition(";")[0] for x in first.splitlines()
            if x.startswith("[")] == [
        "[1/4] reptile, seed 0", "[2/4] reptile, seed 2",
        "[3/4] maml, seed 0", "[4/4] maml, seed 2"]
    accuracy = {}
    for name in names:
        result = json.loads((tmp_path / "cmp" / name / "result.json")
                            .read_text())
        assert f"{result['algorithm']}-seed{result['seed']}" == name
        accuracy[name], = (100 * r["accuracy"] for r in result["results"]
                           if r["split"] == "test")
    table = first.partition("\n\n")[2]
    assert table.startswith("tiny, 3-way: tiny images; 2 test tasks\n")
    for a in ("reptile", "maml"):
        one, two = accuracy[f"{a}-seed0"], accuracy[f"{a}-seed2"]
        assert f"{(one + two) / 2:.2f} ± {abs(one - two) / 2**0.5:.2f}" in (
            next(x for x in table.splitlines() if x.startswith(f"  {a} ")))
    # The same command trains nothing and ends alike.
    assert main(*lists) == 0
    again = capsys.readouterr().out
    assert again.count("already finished") == 4
    assert again.partition("\n\n")[2] == table


def test_the_table_comes_with_what_failed(tmp_path, capsys):
    """Half of the runs' folders are taken, by runs of another kind."""
    home = f"--run_dir={tmp_path}/cmp"
    assert main("--seed=0,1", home, "--inner_iters=3", "--meta_iters=0") == 0
    assert main("--algorithm=reptile,joint", home) == 1
    captured = capsys.readouterr()
    assert "error: reptile, seed 0: --run_dir=" in captured.err
    assert captured.err.splitlines()[-1].startswith(
        "error: 1 of 2 runs failed: reptile, seed 0.")
    table = captured.out.rpartition("\n\n")[0].rpartition("\n\n")[2]
    assert "  joint " in table and "  reptile " not in table
    assert main("--algorithm=reptile", "--seed=0,1", home) == 1
    captured = capsys.readouterr()
    assert "2 of 2 runs failed" in captured.err
    assert "test tasks" not in captured.out


def test_of_several_processes_a_failure_ends_the_list(
        tmp_path, capsys, monkeypatch):
    """The others might not fail, and would be in another cell."""
    home = f"--run_dir={tmp_path}/cmp"
    assert main("--seed=0,1", home, "--inner_iters=3", "--meta_iters=0") == 0
    monkeypatch.setattr(cells, "cluster_of", lambda distribution: (
        types.SimpleNamespace(processes=2, chief=True)))
    capsys.readouterr()
    assert main("--seed=0,1,2", home) == 1
    [error] = capsys.readouterr().err.splitlines()
    assert re.match("error: --run_dir=.*reptile-seed0 holds a run of", error)
    assert not (tmp_path / "cmp" / "reptile-seed2").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--seed=0,1", "--algorithm=reptile,anil"], "anil.*reptile"),
    (["--seed=0,0"], "seed=0,0: a value is there twice"),
    (["--seed=0,,1"], "seed=0,,1"),
    (["--seed=0,-1"], "seed=-1 must be 0 or more"),
    (["--algorithm=reptile,maml", "--inner_iters=1"], "inner_iters=1.*maml"),
    (["--seed=0,1", "--run_dir={}/file"], "file is a file: name a folder"),
    (["--seed=0,1", "--run_dir={}/run"], "run is a run: name a folder"),
    (["--seed=0,1", "--pretrained"], "--pretrained.*give --run_dir")])
def test_bad_lists_are_one_error_before_anything_runs(
        tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "flags.cfg").touch()
    assert main(*(a.format(tmp_path) for a in arguments)) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and len(error.splitlines()) == 1
    assert {p.name for p in tmp_path.rglob("*")} == {
        "file", "run", "flags.cfg"}


def test_folders_without_run_dir(tmp_path, monkeypatch):
    """Of several runs, and of one as ever."""
    monkeypatch.chdir(tmp_path)
    assert main("--seed=3,1", "--meta_iters=0") == 0
    assert main("--seed=3", "--meta_iters=0") == 0
    assert {str(p.parent) for p in Path("runs").rglob("result.json")} == {
        "runs/tiny-compare/reptile-seed3", "runs/tiny-compare/reptile-seed1",
        "runs/tiny-reptile-seed3"}


def test_help_of_lists(capsys):
    assert main("--seed=0,1", "--help") == 0
    output = capsys.readouterr().out
    assert "--seed\n" in output and "(default: 0)" in output
    assert f"--algorithm {{{','.join(REGISTRY)}}}" in output
    assert "(default: reptile)" in output


def test_defaults_by_algorithm_and_no_figure_of_several(tmp_path, capsys):
    """run_sine.py: each algorithm has its own defaults."""
    arguments = ["run_sine.py", "--meta_iters=2", "--eval_samples=2",
                 "--eval_interval=0", "--noexport", f"--run_dir={tmp_path}",
                 "--eval_interval_samples=2", "--eval_iters=3",
                 "--jit_compile=off", "--algorithm=reptile,fomaml"]
    assert experiment.main(sine, arguments, figure1.run) == 0
    found, _ = finished_runs.find([tmp_path])
    assert {r.result["algorithm"]: (r.flags["outer_optimizer"],
                                    r.flags["meta_step"]) for r in found} == {
        "reptile": ("--outer_optimizer=sgd", "--meta_step=0.1"),
        "fomaml": ("--outer_optimizer=adam", "--meta_step=0.001")}
    assert "10 points, 3 steps" in capsys.readouterr().out
    assert experiment.main(sine, [*arguments, "--compare"], figure1.run) == 1
    assert "--compare trains every algorithm" in capsys.readouterr().err


def test_a_signal_that_came_too_late_for_a_run_stops_what_is_around_it():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as stopped, Interrupts() as outer:
        outer.check()
        with Interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
        outer.check()
    assert stopped.value.status == 143
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_that_came_too_early_for_a_run_stops_it():
    with pytest.raises(Stopped), Interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        with Interrupts() as inner:
            inner.check()


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
import tiny
from cells_test import cell
from reptile_tf.runs import command_line as experiment
from reptile_tf.runs.many_runs import run_all as run_cells
home = Path({home!r})
def work(dataset, config, again):
    run_cells(dataset, [cell(home, n, "--meta_iters=3000",
                             "--eval_interval=150", "--num_threads=1",
                             "--eval_samples=2000") for n in ("a", "b")])
if __name__ == "__main__":
    sys.exit(experiment.main(tiny, ["tiny.py"], run_instead=work))
"""


def start(tmp_path, home, **streams):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(
        root=str(ROOT), tests=str(ROOT / "tests"), home=str(home)))
    return subprocess.Popen([sys.executable, program], **streams)


def newest(run):
    return (Checkpoints(run / "checkpoints").iterations() or [0])[-1]


@pytest.mark.slow
def test_stopped_cells_end_as_undisturbed_ones(tmp_path):
    whole, home = tmp_path / "whole", tmp_path / "stopped"
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT,
               "text": True}
    process = start(tmp_path, whole, **streams)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    for number, status, run in ((signal.SIGTERM, 143, "a"),
                                (signal.SIGINT, 130, "b")):
        process = start(tmp_path, home, **streams)
        deadline = time.monotonic() + 1800
        while newest(home / run) < 300:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        output, _ = process.communicate()
        assert process.returncode == status, output
        assert "the same command goes on from here" in output
        assert not (home / run / "result.json").exists()
    assert (home / "a" / "result.json").exists()
    process = start(tmp_path, home, **streams)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "already finished" in output and "going on from" in output
    for run in ("a", "b"):
        assert files(home / run) == files(whole / run)


@pytest.mark.slow
def test_a_terminal_has_one_progress_line(tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = start(tmp_path, tmp_path / "runs", stdout=theirs, stderr=theirs)
    os.close(theirs)
    output = b""
    while True:
        try:
            output += os.read(ours, 65536)
        except OSError:  # The other end is closed.
            break
    assert process.wait() == 0, output
    text = output.decode()
    drawn = [x for x in text.replace("\n", "\r").split("\r") if "|" in x]
    assert any(x.startswith("[1/2] a: ") for x in drawn)
    assert any(x.startswith("[2/2] b: ") and ", all: " in x for x in drawn)
    assert all(len(x) <= 80 for x in drawn)
    assert "\x1b[A" not in text  # No second bar above or below.
