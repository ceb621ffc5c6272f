"""What is installed: the package outside a checkout, its extras, commands."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
import tiny

import reptile_tf
from reptile_tf import shipped
from reptile_tf.configuration import flagfiles, flags
from reptile_tf.datasets import sine
from reptile_tf.datasets.prepared_tfds import tensorflow_datasets
from reptile_tf.errors import InputError, of_extra
from reptile_tf.experiments import sine_waves
from reptile_tf.runs.command_line import main

ROOT = Path(__file__).parent.parent
SHORT = ["--meta_iters=1", "--meta_batch=1", "--eval_samples=2"]


@pytest.mark.parametrize("word", [
    "--flagfile=configs/omniglot_20way.cfg", "--flagfile=omniglot_20way.cfg",
    "-flagfile=omniglot_20way"])
def test_flagfiles_of_the_package_are_found_anywhere(
        monkeypatch, tmp_path, word):
    monkeypatch.chdir(tmp_path)
    assert flags.parse(["", word], tiny.CONFIG, tiny.DEFAULTS).classes == 20
    two_words = ["", *word.split("=")]
    assert flags.parse(two_words, tiny.CONFIG, tiny.DEFAULTS).classes == 20


def test_a_flagfile_that_lies_there_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/omniglot_20way.cfg").write_text("--classes=7\n")
    words = ["", "--flagfile=configs/omniglot_20way.cfg"]
    assert flags.parse(words, tiny.CONFIG, tiny.DEFAULTS).classes == 7
    with pytest.raises(InputError, match="own/omniglot_20way.cfg"):
        flags.parse(["", "--flagfile=own/omniglot_20way.cfg"], tiny.CONFIG,
                    tiny.DEFAULTS)


def test_the_packages_flagfiles_are_those_of_the_checkout():
    assert flagfiles.FOLDER.resolve() == ROOT / "configs"


@pytest.mark.parametrize("make, where", [
    (lambda path: path.mkdir(), "package/configs"),
    (lambda path: path.write_text("../configs"), "configs"),
    (lambda path: None, "configs")])
def test_the_folders_that_come_with_the_package(
        monkeypatch, tmp_path, make, where):
    """A link that became a file, as in a ZIP file, is no folder."""
    (tmp_path / "package").mkdir()
    make(tmp_path / "package" / "configs")
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "package")
    assert shipped.folder("configs") == tmp_path / where


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())[
        "tool"]["setuptools"]
    modules = {".".join(p.parent.relative_to(ROOT).parts)
               for p in (ROOT / "reptile_tf").glob("**/__init__.py")}
    beside = {"reptile_tf.configs", "reptile_tf.initializations"}
    assert set(listed["packages"]) == modules | beside
    assert {f"reptile_tf.{folder}" for folder in
            listed["package-dir"].values()} == beside | {
                "reptile_tf.reptile_tf"}


def python(code, **environment):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True,
                          capture_output=True,
                          env={**os.environ, **environment})


def test_kerass_backend_is_tensorflow(tmp_path):
    """Whatever its file says; another one that was asked for is refused."""
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    code = "import reptile_tf, keras; print(keras.config.backend())"
    environment = {"KERAS_HOME": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    assert python(code, **environment).stdout == "tensorflow\n"
    refused = python(code, KERAS_BACKEND="jax")
    assert "set KERAS_BACKEND=tensorflow before Keras" in refused.stderr


@pytest.mark.parametrize("name", ["keras", "tensorflow"])
def test_older_packages_are_named(name):
    """Installed, or still in the memory of a notebook's kernel."""
    least = re.search(f"^{name}>=([0-9.]+)", (
        ROOT / "requirements" / "training.txt").read_text(), re.M)[1]
    for before in (
            "import importlib.metadata as m; real = m.version\n"
            f"m.version = lambda n: '2.9.1' if n == '{name}' else real(n)\n",
            f"import sys, types; sys.modules['{name}'] = types.SimpleNamespace("
            "__version__='2.9.1')\n"):
        assert f"needs {name} {least} or newer, and here is 2.9.1" in python(
            before + "import reptile_tf").stderr


def test_the_public_names_can_be_listed():
    assert {*reptile_tf.__all__, "__all__"} <= set(dir(reptile_tf))


def test_a_broken_tensorflow_datasets_is_told_from_broken_data(monkeypatch):
    """With too old a protobuf it is imported, as an empty module."""
    empty = types.ModuleType("tensorflow_datasets")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", empty)
    with pytest.raises(InputError, match="the data: .*'tensorflow-metadata<"):
        tensorflow_datasets("the data")
    empty.builder = None
    assert tensorflow_datasets("the data") is empty


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match=(
            "the download of Omniglot: tensorflow_datasets is not installed, "
            r'which `pip install "reptile_tf\[tfds\]"` brings')):
        of_extra("tensorflow_datasets", "tfds", "the download of Omniglot")
    assert of_extra("json", "tfds", "") is sys.modules["json"]


@pytest.mark.slow
def test_a_run_without_its_figure_is_finished(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = tmp_path / "run"
    assert main(sine, ["", f"--run_dir={run}", *SHORT, "--eval_iters=1",
                       "--jit_compile=off"], run_instead=sine_waves.run) == 0
    assert (run / "result.json").exists() and not [*run.glob("figure1*")]
    assert '"reptile_tf[plots]"' in capsys.readouterr().out


def test_training_needs_no_more_than_its_list():
    """Packages that modules import at their top, without those of extras."""
    names = set(re.findall(r"^[\w-]+", (
        ROOT / "requirements/training.txt").read_text(), re.M))
    brought = {module for module, packages in
               importlib.metadata.packages_distributions().items()
               if names & {p.lower() for p in packages}}
    imported = {
        match for path in (ROOT / "reptile_tf").glob("**/*.py")
        if path.name != "mini_imagenet_dataset_builder.py"
        for match in re.findall(r"^(?:import|from) (\w+)", path.read_text(),
                                re.M)}
    assert imported - brought - sys.stdlib_module_names == {"reptile_tf"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of an environment with nothing but a wheel's needs."""
    home = tmp_path_factory.mktemp("installed")
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], text=True,
                            capture_output=True)
    if listed.returncode:
        pytest.skip("needs a checkout")
    subprocess.run(f"git -C {ROOT} ls-files -z --cached --others "
                   f"--exclude-standard | tar -C {ROOT} --null -T - -c "
                   f"| (mkdir {home}/checkout && tar -C {home}/checkout -x)",
                   shell=True, check=True)
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    pip = [home / "venv/bin/pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", home, home / "checkout"],
                   check=True)
    wheel, = home.glob("*.whl")
    subprocess.run([*pip, "install", wheel], check=True)
    return home / "venv/bin"


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_environment(installed, tmp_path):
    def run(*words, status=0):
        done = subprocess.run(
            [installed / words[0], *words[1:]], cwd=tmp_path, text=True,
            capture_output=True, env={
                k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    listed = run("pip", "list", "--format=freeze").lower()
    for package in ("pytest", "ruff", "dill", "matplotlib", "selenium",
                    "tensorflow-datasets", "tensorflow_datasets"):
        assert f"\n{package}==" not in listed
    assert "usage: reptile-omniglot [--flagfile" in run(
        "reptile-omniglot", "--help")
    assert "usage: reptile-compare [-h]" in run("reptile-compare", "--help")
    run("reptile-omniglot", "--flagfile=configs/omniglot_5way.cfg",
        "--data=synthetic", "--run_dir=runs/one", "--eval_iters=1",
        "--eval_interval=0", "--eval_splits=test", *SHORT)
    assert "reptile" in run("reptile-compare", "runs")
    assert "reptile_tf[plots]" in run("reptile-sine", "--run_dir=runs/sine",
                                      "--eval_iters=1", *SHORT)
    assert "reptile_tf[plots]" in run(
        "python", "-m", "reptile_tf.experiments.momentum", status=1)
    assert "--data_dir" in run("reptile-miniimagenet", *SHORT, status=1)
    program = ("import tensorflow as tf; print(tf.saved_model.load("
               "'runs/one/initialization').signatures)")
    assert "adapt_and_predict" in run("python", "-c", program)
    program = ("import reptile_tf; from reptile_tf import trained; "
               "print(*[reptile_tf.load(n).loss for n in trained.names()])")
    assert "cross_entropy" in run("python", "-c", program)
    for name in ("datasets/mini_imagenet/mini_imagenet_dataset_builder.py",
                 "demo/page.html", "configs/figure4_reptile.cfg"):
        assert [*installed.parent.glob(
            f"lib/*/site-packages/reptile_tf/{name}")]
