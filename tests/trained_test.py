"""The initializations that come with the package."""

import hashlib
import importlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import reptile_tf
from reptile_tf import trained
from reptile_tf.configuration import flags
from reptile_tf.datasets import glyphs, omniglot
from reptile_tf.demo.classifier import Classifier
from reptile_tf.errors import InputError
from reptile_tf.runs.building import evaluator_of
from reptile_tf.tasks import generator

ROOT = Path(__file__).parent.parent
NAMES = [p.name for p in sorted((ROOT / "initializations").iterdir())]
TASKS = 200


def test_each_folder_has_its_name_and_its_flagfile():
    assert trained.names() == NAMES and NAMES
    assert trained.FOLDER.resolve() == ROOT / "initializations"
    assert all((ROOT / f"configs/{name}.cfg").exists() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_card_states_the_results_and_the_checksums_are_of_all_files(name):
    folder = ROOT / "initializations" / name
    result = json.loads((folder / "result.json").read_text())
    card = (folder / "README.md").read_text()
    stated = {float(x) for x in re.findall(r"\| (\d+\.\d\d) ±", card)}
    assert stated == {round(100 * r["accuracy"], 2)
                      for r in result["results"] + result["untrained"]
                      if r["split"] == "test"}
    assert f'load("{name}")' in card and result["commit"][:7] in card
    assert "dirty" not in result["commit"]
    listed = {}
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, file = line.split("  ")
        listed[file] = digest
    files = {str(p.relative_to(folder)): hashlib.sha256(
        p.read_bytes()).hexdigest() for p in folder.glob("**/*")
        if p.is_file() and p.name not in ("SHA256SUMS", "README.md")}
    assert listed == files


def test_another_name_is_answered_with_the_list():
    with pytest.raises(InputError, match=f"'mnist' comes.*{NAMES[0]}"):
        reptile_tf.load("mnist")
    with pytest.raises(InputError, match=NAMES[0]):
        reptile_tf.load("../configs")


def test_an_installation_without_any_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(trained, "FOLDER", tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path} holds no initial"):
        reptile_tf.load("omniglot_5way")


def test_a_damaged_file_is_named(monkeypatch, tmp_path):
    shutil.copytree(ROOT / "initializations" / NAMES[0], tmp_path / NAMES[0])
    monkeypatch.setattr(trained, "FOLDER", tmp_path)
    index = tmp_path / NAMES[0] / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(InputError, match="variables.index is not the publ"):
        trained.load(NAMES[0])
    index.unlink()
    for load in (lambda: trained.load(NAMES[0]),
                 lambda: Classifier(tmp_path / NAMES[0])):
        with pytest.raises(InputError, match="variables.index is not the pub"):
            load()


def test_however_a_published_one_is_named_it_is_checked(
        monkeypatch, tmp_path):
    """By a relative path, or one through a link; one's own there is not."""
    home = tmp_path / "initializations"
    for name in (NAMES[0], "mine"):
        shutil.copytree(ROOT / "initializations" / NAMES[0], home / name)
    (home / "mine" / trained.CHECKSUMS).unlink()
    (home / NAMES[0] / "learner.json").write_text("{}")
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setattr(trained, "FOLDER", home)
    monkeypatch.chdir(home)
    for path in (home / NAMES[0], tmp_path / "link" / NAMES[0],
                 Path(NAMES[0])):
        with pytest.raises(InputError, match="json is not the published"):
            trained.load_from(path)
    trained.load_from(home / "mine")


@pytest.mark.parametrize("name", NAMES)
def test_it_adapts_to_glyphs_that_it_was_not_trained_on(name):
    """Half of the classes it was trained to tell are told, of other drawings
    than any that it has seen: by chance, a fifth or a twentieth."""
    learner = reptile_tf.load(name)
    ways = learner.model.output_shape[1]
    drawings = glyphs.draw(7, ways, 6)[..., None] / np.float32(255)
    labels = np.arange(ways)
    adapted = learner.adapt(drawings[:, 0], labels)
    right = [np.mean(np.argmax(adapted.predict(
        drawings[:, i], transductive=True), -1) == labels)
        for i in range(1, 6)]
    assert np.mean(right) > 0.5


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_accuracy_that_its_card_states(real_data, name):
    config = flags.parse(
        ["", f"--flagfile={ROOT}/configs/{name}.cfg",
         f"--data_dir={real_data}"], omniglot.CONFIG, omniglot.DEFAULTS)
    source, learner = omniglot.load(config), reptile_tf.load(name)
    assert learner.trained_on == {*source.classes("train")}
    result = json.loads(
        (ROOT / "initializations" / name / "result.json").read_text())
    stated = {(r["shots"], r["transductive"]): r for r in result["results"]
              if r["split"] == "test"}
    for shots, batch in config.evaluations():
        for score in evaluator_of(source, config, learner).evaluate(
                learner.weights, learner.state, source.evaluation_tasks(
                    "test", shots, batch, TASKS, generator(0, 77))):
            cell = stated[shots, score.transductive]
            # The 95 % interval of the difference, by the card's deviation of
            # a task: of these tasks' own there is none where all are right.
            assert abs(score.mean - cell["accuracy"]) < (
                cell["ci95"] * math.sqrt(1 + cell["tasks"] / score.tasks))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_published_is_made_of_a_run(monkeypatch, tmp_path, name):
    """Its card is the tool's, and names no folder of who trained it."""
    monkeypatch.syspath_prepend(ROOT / "docs/tooling")
    tool = importlib.import_module("publish_initialization")
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "published")
    ours, run = ROOT / "initializations" / name, tmp_path / "run"
    shutil.copytree(ours, run / "initialization", ignore=(
        shutil.ignore_patterns("README.md", "SHA256SUMS", "result.json")))
    result = json.loads((ours / "result.json").read_text())
    result["data_source"] += " in /home/mé/data"
    (run / "result.json").write_text(json.dumps(result, indent=1))
    config = flags.parse(["", f"--flagfile={ROOT}/configs/{name}.cfg"],
                         omniglot.CONFIG, omniglot.DEFAULTS)
    lines = "\n".join(config.lines().values())
    (run / "flags.cfg").write_text(lines)
    card = (ours / "README.md").read_text()
    note = re.search(r"meta-iterations\.(.*)", card)[1].strip()
    tool.publish(run, name, note)
    made = trained.FOLDER / name
    assert (made / "README.md").read_text() == card
    assert "home" not in (made / "result.json").read_text()
    assert trained.load(name).adaptation == reptile_tf.load(name).adaptation
    for other, message in (
            (lines.replace("--meta_iters=", "--meta_iters=1"),
             r"another configuration: --meta_iters=1\d+ there"),
            (lines.replace("--data=auto", "--data=synthetic"), "glyphs")):
        (run / "flags.cfg").write_text(other)
        with pytest.raises(InputError, match=message):
            tool.publish(run, name, note)
    (run / "flags.cfg").write_text(lines)
    for commit in ("0.1.0", result["commit"] + "-dirty"):
        (run / "result.json").write_text(json.dumps(
            {**result, "commit": commit}))
        with pytest.raises(InputError, match=f"no commit .{commit}"):
            tool.publish(run, name, note)
    for key, value in (("eval_queries", 15), ("eval_iters", 7)):
        rows = [{**row, key: value} for row in result["results"]]
        (run / "result.json").write_text(json.dumps(
            {**result, "results": rows}))
        with pytest.raises(InputError, match="evaluated otherwise than"):
            tool.publish(run, name, note)
    (run / "result.json").write_text(json.dumps(result))
    learner = run / "initialization" / "learner.json"
    learner.write_text(re.sub('("trained_on": )".*"', r'\1""',
                              learner.read_text()))
    with pytest.raises(InputError, match="before initializations knew"):
        tool.publish(run, name, note)
    assert (made / "README.md").read_text() == card
