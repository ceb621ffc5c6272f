"""The README's commands and examples, run as they stand there."""

import json
import os
import re
import subprocess
import sys

import pytest
from forks import ROOT, Fork

README = (ROOT / "README.md").read_text()


def examples(section: str) -> str:
    """All Python blocks of a section, as one program."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert blocks
    return "\n".join(blocks)


def python(folder, *arguments):
    clean = {k: v for k, v in os.environ.items()
             if k not in ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")}
    return subprocess.run([sys.executable, *arguments], cwd=folder, text=True,
                          capture_output=True, env=clean)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder with runs/demo: the real script, with shrunken flags."""
    folder = tmp_path_factory.mktemp("demo")
    done = python(
        folder, str(ROOT / "run_omniglot.py"),
        f"--flagfile={ROOT}/configs/omniglot_5way.cfg", "--data=synthetic",
        "--meta_iters=2", "--meta_batch=1", "--inner_iters=1", "--shots=1",
        "--transductive", "--eval_samples=8", "--eval_interval=0",
        "--eval_interval_samples=8", "--run_dir=runs/demo")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_script_runs_on_the_built_in_glyphs(demo):
    folder, done = demo
    assert "built-in glyphs" in done.stdout and done.stderr == ""
    result = json.loads((folder / "runs/demo/result.json").read_text())
    assert result["dataset"] == "omniglot" and result["meta_iters"] == 2
    assert {(r["split"], r["tasks"]) for r in result["results"]} == {
        ("test", 8), ("train", 8)}


def test_the_examples_of_the_initialization_run_without_this_package(demo):
    folder, _ = demo
    program = examples("Use an initialization") + (
        "\nimport sys"
        "\nassert not any(m.startswith('reptile_tf') for m in sys.modules)"
        "\nserved = loaded.signatures['serving_default'](images=images)"
        "\nnp.testing.assert_allclose(logits, served['logits'], atol=1e-4)"
        "\nassert logits.shape == (7, 5) and predicted.shape == (3,)")
    user = Fork("-c", program, folder=folder)
    assert user.wait() == 0, user.output()


def test_the_library_example_runs_and_is_short(tmp_path):
    program = examples("Your own model and tasks")
    training = program.partition("meta_train(")[0]
    assert len([line for line in training.splitlines() if line.strip()]) <= 15
    user = Fork("-c", program, folder=tmp_path, PYTHONPATH=str(ROOT))
    assert user.wait() == 0, user.output()
    mean, interval = map(float, user.output().split("±"))
    assert 1 / 3 < mean - interval < mean + interval <= 1
    assert (tmp_path / "runs/own/model.keras").exists()


def test_no_two_commands_train_different_runs_in_one_folder():
    """Typed one after the other, none finds another's run in its folder."""
    commands = re.findall(
        r"^    (?:\S*/)?python (run_\w+\.py|-m reptile_tf\.experiments\.\w+)"
        r"([^#\n]*)", README.replace("\\\n", ""), re.M)
    runs = {}
    for program, rest in commands:
        # The sweeps of figure 4 share what they have in common.
        arguments = {a for a in rest.split() if not a.startswith("--sweep=")}
        files = [ROOT / name for name in re.findall(r"--flagfile=(\S+)", rest)]
        given = " ".join([*(file.read_text() for file in files), rest])
        folder = (re.findall(r"--run_dir=(\S+)", rest)
                  or [program, *re.findall(r"--algorithm=(\S+)", given)[-1:],
                      *re.findall("--compare", rest)])
        if "--help" not in arguments:
            runs.setdefault(tuple(folder), set()).add(
                frozenset({program, *arguments}))
    assert len(runs) > 20
    assert {f: r for f, r in runs.items() if len(r) > 1} == {}


def test_the_flagfiles_that_are_named_exist():
    names = set(re.findall(r"configs/\w+\.cfg", README))
    assert names and all((ROOT / name).exists() for name in names)
