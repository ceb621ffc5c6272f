"""The commands and examples of README.md, run as they stand there.

What takes long is shortened by flags at the end of the command.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from forks import ROOT, Fork
from PIL import Image

README = (ROOT / "README.md").read_text()
PYTHON = ".venv/bin/python"
SHORT = (
    "--meta_iters=1 --meta_batch=1 --inner_iters=1 --train_shots=2 "
    "--inner_batch=2 --shots=1 --eval_batch=5 --transductive --eval_iters=1 "
    "--eval_samples=2 --eval_interval=0 --eval_interval_samples=2 --noexport "
    "--eval_splits=test"
).split()
DEMO = ("--meta_iters=2 --meta_batch=1 --inner_iters=1 --shots=1 "
        "--transductive --eval_iters=5 --eval_samples=8 --eval_interval=0 "
        "--eval_interval_samples=8").split()
# What each other Python command is shortened by, by its first words.
SHORTENED = {
    "run_omniglot.py --flagfile=configs/omniglot_5way.cfg --run_dir=runs/o5":
        [*SHORT, "--data=synthetic"],
    "run_miniimagenet.py --data_dir=DIR": [
        *SHORT, "--allow_partial", "--image_size=20"],
    "run_miniimagenet.py --data_dir=photos": [*SHORT, "--image_size=20"],
    "-m pytest": ["--version"]}
LOADED = """
loaded = Learner.load("runs/best").evaluate(tasks)
assert abs(loaded.mean - best) < 0.05
trainer.load_state_dict(dict(np.load("runs/state.npz")))
assert trainer.iteration == 60
"""
WITHOUT_THE_PACKAGE = """
import sys
assert not any(m.startswith('reptile_tf') for m in sys.modules)
served = loaded.signatures['serving_default'](images=images)
np.testing.assert_allclose(logits, served['logits'], atol=1e-4)
assert logits.shape == (7, 5) and predicted.shape == (3,)
"""


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(text: str) -> list[list[str]]:
    """The words of each command of the shell blocks."""
    found = []
    for block in blocks(text, "sh"):
        words = iter(block.replace("\\\n", "").splitlines())
        for line in words:
            while line.count("'") % 2:
                line += "\n" + next(words)
            found += filter(None, [shlex.split(line, comments=True)])
    return found


def examples(path: str, section: str) -> str:
    """All Python blocks of a section, as one program."""
    text = (ROOT / path).read_text().split(f"\n## {section}\n")[1]
    found = blocks(text.split("\n## ")[0], "python")
    assert found
    return "\n".join(found)


def python_commands() -> list[list[str]]:
    """What README.md gives to the interpreter."""
    return [words[1:] for words in commands(README) if words[0] == PYTHON]


def clean_environment(folder) -> dict[str, str]:
    return {k: v for k, v in os.environ.items()
            if k not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")} | {
                "XDG_CACHE_HOME": str(folder / "cache"),
                # Where it is slow, Matplotlib says that it makes its own.
                "MPLCONFIGDIR": matplotlib.get_cachedir()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder with what the commands name, and photographs."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "reptile_tf", *(
            p.name for p in ROOT.glob("run_*.py"))):
        (folder / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    for home, shape in (("DIR", (20, 20, 3)), ("photos", (30, 24, 3))):
        for i, split in enumerate(("train", "val", "test") * 5):
            label = folder / home / split / f"class{i}"
            label.mkdir(parents=True)
            for j in range(3):
                Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(
                    label / f"{j}.png")
    return folder


@pytest.fixture(scope="module")
def demo(clone):
    """The folder with runs/demo, and what the command printed."""
    command, = (c for c in python_commands() if c[-1].endswith("runs/demo"))
    done = subprocess.run(
        [sys.executable, *command, *DEMO], cwd=clone, text=True,
        capture_output=True, env=clean_environment(clone))
    assert done.returncode == 0, done.stderr
    return clone, done


@pytest.fixture(scope="module")
def forks(demo):
    """(status, output) of each example and each other command."""
    folder, _ = demo
    jobs = {
        "initialization": ["-c", "".join(
            "\n" + examples("docs/exports.md", section) for section in (
                "adapt_and_predict", "serving_default", "model.keras"))
            + WITHOUT_THE_PACKAGE],
        "published": ["-c", examples("README.md", "Use an initialization")],
        "lite": ["-c", examples("docs/exports.md", "On a phone")
                 + "\nassert logits.shape == (2, 5)"],
        "own": ["-c", examples("README.md", "Your own model and tasks")
                + examples("docs/own-models.md", "A loop of your own")],
        "tasks": ["-c", examples("docs/evaluation.md",
                                 "Task by task, after fewer steps")],
        "rule": ["-c", examples("docs/own-models.md", "A rule of your own"),
                 "--algorithm=half", "--data=synthetic", "--noexport", *DEMO,
                 "--run_dir=runs/half"],
        "arrays": ["-c", "".join(
            "\n" + examples("docs/own-models.md", section)
            for section in ("Your own arrays", "A long training"))
            + LOADED]}
    for start, more in SHORTENED.items():
        command, = (c for c in python_commands()
                    if " ".join(c).startswith(start))
        jobs[" ".join(command)] = [*command, *more]
    ended = {}
    for name, words in jobs.items():
        fork = Fork(*words, folder=folder, PYTHONPATH="",
                    XDG_CACHE_HOME=str(folder / "cache"))
        ended[name] = fork.wait(), fork.output()
    return ended


@pytest.mark.slow
def test_the_demo_runs_on_the_built_in_glyphs(demo):
    folder, done = demo
    assert "built-in glyphs" in done.stdout and done.stderr == ""
    result = json.loads((folder / "runs/demo/result.json").read_text())
    assert result["dataset"] == "omniglot" and result["meta_iters"] == 2
    assert {(r["split"], r["tasks"]) for r in result["results"]} == {
        ("test", 8), ("train", 8)}


@pytest.mark.slow
def test_the_examples_of_the_initialization_run_without_this_package(forks):
    status, output = forks["initialization"]
    assert status == 0, output


@pytest.mark.slow
def test_the_example_of_a_published_initialization_is_right_and_short(forks):
    status, output = forks["published"]
    assert status == 0, output
    answers = [int(x) for x in output if x.isdigit()]
    right = sum(a == i % 5 for i, a in enumerate(answers))
    assert len(answers) == 15 and right >= 12
    assert len([line for line in examples(
        "README.md", "Use an initialization").splitlines() if line]) <= 10


@pytest.mark.slow
def test_the_example_of_a_phone_runs(forks):
    status, output = forks["lite"]
    assert status == 0, output


@pytest.mark.slow
def test_the_library_example_runs_and_is_short(demo, forks):
    training = examples("README.md", "Your own model and tasks").partition(
        "meta_train(")[0]
    assert len([line for line in training.splitlines() if line.strip()]) <= 15
    status, output = forks["own"]
    assert status == 0, output
    mean, interval = map(float, output.split("±"))
    assert 1 / 3 < mean - interval < mean + interval <= 1
    assert (demo[0] / "runs/own/model.keras").exists()


@pytest.mark.slow
def test_the_example_of_a_runs_tasks_is_right(forks):
    """Untrained, almost: a little is learned from one example of each."""
    status, output = forks["tasks"]
    assert status == 0, output
    means = [float(line.split()[1]) for line in output.splitlines()
             if re.match(r"\d+: ", line)]
    assert len(means) == 3 and means[0] + 0.03 < means[2]


@pytest.mark.slow
def test_the_example_of_ones_own_rule_runs(forks, demo):
    status, output = forks["rule"]
    assert status == 0, output
    result = json.loads((demo[0] / "runs/half/result.json").read_text())
    assert result["algorithm"] == "half"


@pytest.mark.slow
def test_the_example_of_ones_own_arrays_runs(forks):
    status, output = forks["arrays"]
    assert status == 0, output
    assert [line.partition(":")[0] for line in output.splitlines()] == [
        "20", "40", "60"]


@pytest.mark.slow
def test_every_other_command_runs(demo, forks):
    for name, (status, output) in forks.items():
        assert status == 0, (name, output)
    trained = {p.parent.name: json.loads(p.read_text())
               for p in (demo[0] / "runs").glob("*/result.json")}
    assert {name: (r["dataset"], r["meta_iters"]) for name, r in
            trained.items()} == {
        "demo": ("omniglot", 2), "o5": ("omniglot", 1),
        "half": ("omniglot", 2),
        "m5": ("miniimagenet", 1), "photos": ("miniimagenet", 1)}
    assert len(python_commands()) == len(SHORTENED) + 1


def test_what_is_not_python_is_what_make_does():
    """make, and what its rule for .venv does, but for pip's silence."""
    make = shutil.which("make")
    done = subprocess.run(
        [make, "-n", "-B", "demo", "test", "PYTHON=python3"], cwd=ROOT,
        text=True, capture_output=True, env={
            k: v for k, v in os.environ.items()
            if not k.startswith("MAKE") and k != "TENSORFLOW"})
    assert done.returncode == 0, done.stderr
    done = done.stdout.replace("--quiet --disable-pip-version-check ", "")
    others = [" ".join(words) for words in commands(README)
              if words[0] != PYTHON]
    assert others[:2] == ["make demo", "make test"] and len(others) == 4
    assert all(line in done.splitlines() for line in others[2:])
