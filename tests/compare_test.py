"""Comparison: results made by hand, numbers worked out by hand."""

import csv
import dataclasses
import io
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reptile_tf.compare import command as compare
from reptile_tf.compare import finished_runs, learning_curves
from reptile_tf.compare import published as paper
from reptile_tf.compare.seeds import over_seeds
from reptile_tf.configuration import flags
from reptile_tf.configuration.config import Config
from reptile_tf.datasets import mini_imagenet, omniglot, sine
from reptile_tf.learning.rules import REGISTRY
from reptile_tf.records import metrics
from reptile_tf.reporting import plotting

ROOT = Path(__file__).parent.parent


def images(tasks=400, **values):
    """Rows (shots, transductive) of accuracy; 'shots_5t' is 5-shot +."""
    rows = []
    for name, accuracy in values.items():
        shots, mode = re.fullmatch(r"shots_(\d+)([tn])", name).groups()
        rows += [{"split": split, "shots": int(shots),
                  "transductive": mode == "t", "tasks": tasks,
                  "accuracy": accuracy - 0.5 * (split == "train"),
                  "ci95": 0.0123, "eval_batch": 5, "eval_iters": 50}
                 for split in ("test", "train")]
    return rows


def waves(*mse):
    return [{"split": "test", "points": 10, "steps": 2**i, "tasks": 30,
             "mse": value, "ci95": 0.25} for i, value in enumerate(mse)]


def make(folder, dataset, rows, seconds=100.0, source="a folder", more=(),
         **flags):
    """A finished run, with more in its result; returns its folder."""
    config = dataset.CONFIG(**{**dataset.DEFAULTS, **flags})
    folder.mkdir(parents=True)
    (folder / "flags.cfg").write_text("\n".join(config.lines().values()))
    (folder / "result.json").write_text(json.dumps({
        "algorithm": config.algorithm, "dataset": dataset.NAME,
        "data_source": source, "ways": config.ways, "seed": config.seed,
        "meta_iters": config.meta_iters, "wall_seconds": seconds,
        "results": rows, "untrained": rows, **dict(more)}))
    return folder


def records(capsys, *folders):
    """The rows of --format=json, by (algorithm, what differs, cell)."""
    compare.show(folders, "json")
    found = json.loads(capsys.readouterr().out)
    return {(r["algorithm"], ", ".join(r["differs"]), r["cell"]): r
            for r in found["rows"]}, found["not_counted"]


# As published, 1-shot.
FOMAML = {
    "algorithm": "fomaml", "shots": (1,), "train_shots": 2, "tail_shots": 1,
    "inner_batch": 5, "inner_iters": 2, "inner_optimizer": "sgd",
    "learning_rate": 0.4, "outer_optimizer": "adam", "meta_step": 0.001,
    "meta_step_final": 0.001, "meta_batch": 32, "meta_iters": 60_000,
    "eval_batch": (5,), "eval_iters": 3, "network": "maml",
    "inner_frozen": "norm*/beta"}


@pytest.fixture
def three(tmp_path):
    """Reptile with 3 seeds and fomaml with 1, Omniglot 5-way."""
    for seed, (plain, trans, seconds) in enumerate((
            (0.90, 0.950, 100), (0.92, 0.951, 200), (0.97, 0.955, 330))):
        make(tmp_path / f"reptile-{seed}", omniglot,
             images(shots_1t=trans, shots_1n=plain), seconds, seed=seed,
             source=f"archives in /disk{seed}", data_dir=f"/disk{seed}",
             num_threads=seed, meta_iters=10_000)
    make(tmp_path / "fomaml", omniglot,
         images(tasks=600, shots_1t=0.98, shots_1n=0.8), 7200, **FOMAML)
    return tmp_path


def test_mean_and_sample_deviation_over_seeds(three, capsys):
    """0.90, 0.92, 0.97: mean 0.93; squares 9 + 1 + 16 = 26 over n - 1 = 2;
    t = 4.303 with 2 degrees of freedom."""
    found, not_counted = records(capsys, three)
    assert not_counted == [] and len(found) == 4
    row = found["reptile", "", "1-shot"]
    assert row["mean"] == pytest.approx(93)
    assert row["std"] == pytest.approx(13 ** 0.5)
    assert row["ci95"] == pytest.approx(4.303 * (13 / 3) ** 0.5)
    assert row["seeds"] == [0, 1, 2] and row["tasks"] == 400
    assert row["values"] == pytest.approx([90, 92, 97])
    assert row["wall_seconds"] == pytest.approx(210)
    assert (row["paper"], row["paper_interval"]) == (95.39, 0.09)
    assert row["difference"] == pytest.approx(93 - 95.39)
    assert (row["meta_iters"], row["paper_meta_iters"]) == (10_000, 100_000)
    assert row["runs"] == [str(three / f"reptile-{i}") for i in range(3)]
    one = found["fomaml", "", "1-shot + transduction"]
    assert (one["std"], one["ci95"]) == (None, pytest.approx(1.23))
    assert one["difference"] == pytest.approx(98 - 98.3)
    # The paper's FOMAML is transductive.
    assert found["fomaml", "", "1-shot"]["paper"] is None


def test_the_same_images_are_one_table_wherever_they_lay(tmp_path, capsys):
    """Run 3 is older than the checksum, run 4 of smaller images."""
    for seed, (place, checksum, size) in enumerate((
            ("/a/mini", "1f", 84), ("../mini", "1f", 84),
            ("/a/mini", "2e", 84), ("../mini", None, 84),
            ("/a/mini", "3d", 42))):
        make(tmp_path / str(seed), mini_imagenet, images(shots_1t=0.5),
             source=f"folders in {place}", seed=seed, data_dir=place,
             image_size=size,
             more={"data_checksum": checksum} if checksum else {})
    compare.show([tmp_path], "json")
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["data"], row["seeds"], row["differs"]) for row in rows] == [
        ("folders in /a/mini", [0, 1, 3], []),
        ("folders in /a/mini", [4], ["image_size=42"]),
        ("folders in /a/mini (2e)", [2], [])]


def test_starts_of_one_name_that_differ_are_not_averaged(tmp_path, capsys):
    for seed, start in enumerate(("1f", "2e", "1f")):
        make(tmp_path / str(seed), omniglot, images(shots_1t=0.5), seed=seed,
             init="runs/a", more={"init": "runs/a", "start_checksum": start})
    found, _ = records(capsys, tmp_path)
    assert sorted((name, row["seeds"]) for (_, name, _), row in (
        found.items())) == [("init=runs/a (1f)", [0, 2]),
                            ("init=runs/a (2e)", [1])]


def test_text(three, capsys):
    compare.show([three])
    assert capsys.readouterr().out.splitlines() == [
        "omniglot, 5-way: all characters; 400 to 600 test tasks", "",
        "accuracy, %     this code         paper   diff   seeds  iterations"
        "   time",
        "1-shot",
        "  reptile    93.00 ± 3.61  95.39 ± 0.09  -2.39*      3      10,000"
        "  4 min",
        "  fomaml     80.00 ± 1.23                            1      60,000"
        "  2.0 h",
        "1-shot + transduction",
        "  reptile    95.20 ± 0.26  97.68 ± 0.04  -2.48*      3      10,000"
        "  4 min",
        "  fomaml     98.00 ± 1.23  98.30 ± 0.50  -0.30       1      60,000"
        "  2.0 h",
        "* reptile is not as published: meta_iters=10000 (paper: 100000); 400 "
        "test tasks", "  (paper: 10,000).", "",
        "± is the standard deviation over seeds; of one seed, the 95 % "
        "interval over",
        "  tasks.",
        "The paper's ±: the standard deviation over 3 runs; of maml and "
        "fomaml, the 95 %",
        "  interval over tasks.",
        "time: of a run, training and evaluation, the mean over seeds."]


def test_validation_alone_is_a_table_of_its_own(tmp_path, capsys):
    """Beside no number of the paper's, and apart from test classes."""
    rows = images(shots_1n=0.9)[:1]
    make(tmp_path / "test", omniglot, rows, val_classes=9)
    make(tmp_path / "both", omniglot, [
        *({**row, "split": "val", "accuracy": 0.1} for row in rows),
        *rows], val_classes=9, seed=1)
    make(tmp_path / "val", omniglot,
         [{**row, "split": "val"} for row in rows], val_classes=9)
    compare.show([tmp_path])
    lines = capsys.readouterr().out.splitlines()
    tables = {line: lines[i + 4] for i, line in enumerate(lines)
              if "omniglot, " in line}
    assert [title.split(";")[0] for title in tables] == [
        "omniglot, 5-way, validation classes: all characters",
        "omniglot, 5-way: all characters"]
    val, test = tables.items()
    assert val[0].endswith(" validation tasks") and "95.39" not in val[1]
    assert test[0].endswith(" test tasks") and "95.39" in test[1]
    assert "90.00" in val[1] and "90.00 ± 0.00" in test[1]


def test_markdown(three, capsys):
    compare.show([three], "markdown")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "**omniglot, 5-way: all characters; 400 to 600 test tasks**", "",
        "| accuracy, % | algorithm | this code | paper | diff | seeds | "
        "iterations | time |", "|---|---|---|---|---|---|---|---|",
        "| 1-shot | reptile | 93.00 ± 3.61 | 95.39 ± 0.09 | -2.39\\* | 3 | "
        "10,000 | 4 min |",
        "| 1-shot | fomaml | 80.00 ± 1.23 |  |  | 1 | 60,000 | 2.0 h |"]
    assert ("- \\* reptile is not as published: meta_iters=10000 (paper: "
            "100000); 400 test tasks (paper: 10,000).") in lines


def test_csv(three, capsys):
    compare.show([three], "csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [r["algorithm"] for r in rows] == ["reptile", "fomaml"] * 2
    assert float(rows[0]["std"]) == pytest.approx(13 ** 0.5)
    assert rows[0]["seeds"] == "0;1;2"
    assert float(rows[0]["ci95"]) == pytest.approx(4.303 * (13 / 3) ** 0.5)
    assert rows[1]["paper"] == "" and rows[3]["paper"] == "98.3"
    assert (rows[2]["shots"], rows[2]["transductive"]) == ("1", "True")


def test_flags_that_matter_are_not_mixed(tmp_path, capsys):
    """Two settings of fomaml: a row each, and what differs is named."""
    for i, (tail, seed, value) in enumerate(
            ((0, 0, 0.5), (0, 1, 0.7), (2, 0, 0.9))):
        make(tmp_path / str(i), omniglot, images(shots_1t=value),
             algorithm="fomaml", network="maml", tail_shots=tail, seed=seed)
    make(tmp_path / "r", omniglot, images(shots_1t=0.6), inner_iters=7)
    found, _ = records(capsys, tmp_path)
    cell = "1-shot + transduction"
    assert {(a, v): r["mean"] for (a, v, _), r in found.items()} == (
        pytest.approx({("fomaml", "tail_shots=0"): 60,
                       ("fomaml", "tail_shots=2"): 90, ("reptile", ""): 60}))
    assert {key[2] for key in found} == {cell}
    compare.show([tmp_path])
    lines = capsys.readouterr().out.splitlines()
    row = lines.index("1-shot + transduction")
    assert lines[row + 1].startswith("  reptile     60.00 ± 1.23")
    assert lines[row + 2].startswith("  fomaml,    60.00 ± 14.14")
    assert lines[row + 3:row + 6:2] == ["    tail_shots=0", "    tail_shots=2"]


def test_a_flag_that_is_not_set_differs_too(tmp_path, capsys):
    """flags.cfg has no line of an unset flag."""
    for name, more in (("0", {}), ("1", {"resize_filter": "area"})):
        make(tmp_path / name, mini_imagenet, images(shots_1t=0.5), **more)
    with open(make(tmp_path / "2", mini_imagenet, images(shots_1t=0.5))
              / "flags.cfg", "a") as file:
        file.write("\n--of_tomorrow")
    found, _ = records(capsys, tmp_path)
    assert {key[1] for key in found} == {
        "", "resize_filter=area", "of_tomorrow"}


def test_what_is_usual_is_not_named(tmp_path, capsys):
    """The published value, by algorithm; without one, the default."""
    for rate in (0.1, 0.4):
        make(tmp_path / f"f{rate}", omniglot, images(shots_1t=rate),
             **{**FOMAML, "learning_rate": rate})
    for name, more in (("few", {"meta_iters": 100}),
                       ("val", {"val_classes": 100})):
        make(tmp_path / name, omniglot, images(shots_1t=0.9), **more)
    for k in (5, 7):
        make(tmp_path / f"joint{k}", omniglot, images(shots_1t=0.2),
             algorithm="joint", inner_iters=k)
    found, _ = records(capsys, tmp_path)
    assert {key[:2] for key in found} == {
        ("fomaml", ""), ("fomaml", "learning_rate=0.1"),
        ("reptile", "meta_iters=100"), ("reptile", "val_classes=100"),
        ("joint", ""), ("joint", "inner_iters=7")}


def test_of_two_published_values_one_is_usual(tmp_path, capsys):
    """Else both rows would have the same name."""
    for name, characters, rate in (
            ("a", 0, 0.4), ("b", 100, 0.4), ("c", 100, 1.4)):
        make(tmp_path / name, omniglot, images(600, shots_1t=0.9),
             **{**FOMAML, "val_classes": characters, "learning_rate": rate})
    found, _ = records(capsys, tmp_path)
    assert sorted(differs for _, differs, _ in found) == [
        "", "learning_rate=1.4, val_classes=100", "val_classes=100"]
    found, _ = records(capsys, tmp_path / "b", tmp_path / "c")
    assert sorted(differs for _, differs, _ in found) == [
        "", "learning_rate=1.4"]


def test_the_default_of_an_algorithm_is_usual(tmp_path, capsys):
    by_algorithm = {"algorithm": "fomaml", **sine.BY_ALGORITHM["fomaml"]}
    for name, more in (("default", {}), ("plain", {
            "outer_optimizer": "sgd", "meta_step": 0.1})):
        make(tmp_path / name, sine, waves(1.0), **{**by_algorithm, **more})
    found, _ = records(capsys, tmp_path)
    assert {differs for _, differs, _ in found} == {
        "", "meta_step=0.1, outer_optimizer=sgd"}


def test_of_a_cell_only_what_matters_to_it_differs(tmp_path, capsys):
    """1-shot and 5-shot runs, each at two rates; 2 comes before 10."""
    for shots in (1, 5):
        for rate in (10.0, 2.0):
            make(tmp_path / f"{shots}-{rate}", omniglot,
                 images(**{f"shots_{shots}t": rate / 100}),
                 shots=(shots,), train_shots=shots + 1, eval_batch=(shots,),
                 inner_batch=2 * shots, learning_rate=rate)
    found, not_counted = records(capsys, tmp_path)
    assert not_counted == []
    assert [(differs, cell) for _, differs, cell in found] == [
        (f"learning_rate={rate}", f"{shots}-shot + transduction")
        for shots in (1, 5) for rate in (2.0, 10.0)]


def test_what_else_a_run_was_evaluated_on_does_not_separate_it(
        tmp_path, capsys):
    """Nor does it make a seed count twice."""
    for name, seed, shots, batch, rows in (
            ("a", 0, (1, 5), (5, 15), images(shots_1t=0.5, shots_5t=0.7)),
            ("b", 1, (1,), (5,), images(shots_1t=0.6, shots_1n=0.4)),
            ("c", 0, (1, 10), (5,), images(shots_1t=0.9, shots_10t=0.8))):
        make(tmp_path / name, omniglot, rows, seed=seed, shots=shots,
             eval_batch=batch, transductive=None if name == "b" else True)
    found, not_counted = records(capsys, tmp_path)
    assert {cell: (r["mean"], r["seeds"]) for (_, _, cell), r in (
        found.items())} == {
            "1-shot": (40, [1]),
            "1-shot + transduction": (pytest.approx(55), [0, 1]),
            "5-shot + transduction": (70, [0]),
            "10-shot + transduction": (80, [0])}
    assert not_counted == [
        f"{tmp_path}/c: the same seed and flags as {tmp_path}/a, which is "
        "counted (1-shot + transduction)"]


def test_a_row_of_another_network_is_named_so(tmp_path, capsys):
    """Alone, too; and 100 characters apart are as published."""
    make(tmp_path / "theirs", omniglot, images(600, shots_1t=0.9),
         **FOMAML, val_classes=100)
    make(tmp_path / "ours", omniglot, images(600, shots_1t=0.3),
         **{**FOMAML, "network": "reptile"})
    both, _ = records(capsys, tmp_path)
    assert {differs for _, differs, _ in both} == {"", "network=reptile"}
    alone, _ = records(capsys, tmp_path / "ours")
    assert {differs for _, differs, _ in alone} == {"network=reptile"}


def unlike(capsys, tmp_path, **flags):
    """What a run that is as published but for these flags is marked with."""
    tasks = flags.pop("tasks", 10_000)
    algorithm = flags.get("algorithm", "reptile")
    base = FOMAML if algorithm == "fomaml" else {}
    run = tmp_path / str(len(list(tmp_path.iterdir())))
    make(run, omniglot, images(tasks, shots_1t=0.5), **{**base, **flags})
    found, _ = records(capsys, run)
    return [*found.values()][0]["unlike_paper"]


@pytest.mark.parametrize("flags, marks", [
    ({}, []), ({"algorithm": "fomaml", "tasks": 600}, []),
    ({"seed": 3, "num_threads": 1, "eval_interval": 0, "export": False,
      "eval_splits": "test", "jit_compile": "on", "data_dir": "x",
      "task_order": "sequential", "recompute_gradients": True}, []),
    ({"val_classes": 100}, ["val_classes=100 (paper: 0)"]),
    ({"algorithm": "fomaml", "val_classes": 100}, []),
    ({"algorithm": "fomaml", "val_classes": 50},
     ["val_classes=50 (paper: 0 or 100)"]),
    ({"tasks": 9_999}, ["9,999 test tasks (paper: 10,000)"]),
    ({"meta_iters": 100_001}, ["meta_iters=100001 (paper: 100000)"]),
    ({"mixed_bfloat16": True, "replacement": True}, [
        "replacement (paper: noreplacement)",
        "mixed_bfloat16 (paper: nomixed_bfloat16)"]),
    ({"shots": (1, 5), "eval_batch": (4, 5)}, ["eval_batch=4 (paper: 5)"]),
    ({"shots": (1, 5), "eval_batch": (5, 4)}, []),
    ({"algorithm": "fomaml", "outer_clip": 10.0},
     ["outer_clip=10.0 (paper: 0.0)"]),
    ({"algorithm": "fomaml", "network": "reptile", "inner_frozen": ""}, [
        "network=reptile (paper: maml)",
        "inner_frozen unset (paper: norm*/beta)"])])
def test_what_is_not_as_published_is_marked(tmp_path, capsys, flags, marks):
    assert unlike(capsys, tmp_path, **flags) == marks


@pytest.mark.parametrize("numbers", [(10_000, 9_999), (9_999, 10_000)])
def test_of_seeds_of_unequal_tasks_the_fewest_count(tmp_path, capsys, numbers):
    for seed, tasks in enumerate(numbers):
        make(tmp_path / str(seed), omniglot, images(tasks, shots_1t=0.5),
             seed=seed)
    [row] = records(capsys, tmp_path)[0].values()
    assert (row["seeds"], row["tasks"]) == ([0, 1], 9_999)
    assert row["unlike_paper"] == ["9,999 test tasks (paper: 10,000)"]


def test_no_flag_escapes_the_comparison_with_the_paper(tmp_path, capsys):
    """One by one: each is marked, or is in a list of those that may differ."""
    known = {
        # Where and how, not what: at most rounding, or the order of tasks.
        "seed", "data_dir", "cache_dir", "device_images", "export",
        "num_threads", "eval_interval", "eval_interval_samples",
        "eval_splits", "compare", "jit_compile", "recompute_gradients",
        "task_order", "deterministic",
        # Which cells there are.
        "shots", "transductive",
        # Another table, or no number of the paper's.
        "classes", "data", "algorithm", "gradient_weights",
        # Not of what was run; the tasks are counted in the results.
        "eval_samples", "run_dir", "pretrained", "resume", "distribution"}
    other = {"inner_optimizer": "sgd", "inner_loss": "mean",
             "network": "maml", "inner_frozen": "*/bias", "init": "runs/a",
             "outer_optimizer": "adam", "eval_batch": (3,)}
    assert finished_runs.IMMATERIAL | paper.ALIKE <= known
    for field in dataclasses.fields(omniglot.CONFIG):
        if field.name not in known:
            value = other.get(field.name, not field.default if isinstance(
                field.default, bool) else field.default + 1
                if not isinstance(field.default, (str, tuple)) else None)
            [mark] = unlike(capsys, tmp_path, **{field.name: value})
            assert field.name in mark


def test_a_flag_that_this_code_does_not_know_is_marked(tmp_path, capsys):
    run = make(tmp_path / "run", omniglot, images(10_000, shots_1t=0.5))
    with open(run / "flags.cfg", "a") as file:
        file.write("\n--of_tomorrow")
    found, _ = records(capsys, run)
    assert [r["unlike_paper"] for r in found.values()] == [
        ["of_tomorrow (paper: unset)"]]


FLAGFILES = sorted((ROOT / "configs").glob("*[0-9]way*.cfg"))


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_the_flagfiles_of_the_tables_are_as_published(tmp_path, capsys, path):
    dataset = mini_imagenet if path.stem.startswith("mini") else omniglot
    config = flags.parse(
        ["", f"--flagfile={path}", "--data_dir=x"], dataset.CONFIG,
        dataset.DEFAULTS)
    rows = images(10_000, **{f"shots_{k}{mode}": 0.5 for k in config.shots
                             for mode in "tn"})
    make(tmp_path / "run", dataset, rows, **dataclasses.asdict(config))
    found, _ = records(capsys, tmp_path)
    assert [r["unlike_paper"] for r in found.values()] == [[]] * len(found)
    with_paper = [r for r in found.values() if r["paper"]]
    assert len(with_paper) == len(config.shots) * (
        2 if config.algorithm == "reptile" else 1)


@pytest.mark.parametrize("given, marks", [
    ("", []), ("nearest", []),
    ("area", ["resize_filter=area (paper: unset or nearest)"])])
def test_the_papers_resize_filter(tmp_path, capsys, given, marks):
    make(tmp_path / "run", mini_imagenet, images(10_000, shots_1n=0.5),
         resize_filter=given)
    found, _ = records(capsys, tmp_path)
    assert [r["unlike_paper"] for r in found.values()] == [marks]


def test_marks_are_told_apart_by_their_cells(tmp_path, capsys):
    """One name, one note for what it shares, else one for each."""
    make(tmp_path / "run", omniglot, images(10_000, shots_1t=0.5, shots_5t=0.5),
         val_classes=100, eval_batch=(5, 15))
    make(tmp_path / "20", omniglot, images(10_000, shots_1t=0.5), classes=20,
         val_classes=1, learning_rate=0.0005, inner_batch=20, inner_iters=10,
         meta_iters=200_000, eval_batch=(10,))
    compare.show([tmp_path], "markdown")
    marks = [line for line in capsys.readouterr().out.splitlines()
             if line.startswith("- \\*")]
    assert marks == [
        "- \\* reptile is not as published: val_classes=1 (paper: 0).",
        "- \\* reptile (1-shot + transduction) is not as published: "
        "val_classes=100 (paper: 0).",
        "- \\* reptile (5-shot + transduction) is not as published: "
        "eval_batch=15 (paper: 5); val_classes=100 (paper: 0)."]


def test_long_names_stay_within_the_terminal(tmp_path, capsys, monkeypatch):
    """Below themselves at 80 columns, and in one line at 120."""
    make(tmp_path / "run", omniglot, images(shots_1t=0.1), **FOMAML)
    make(tmp_path / "slow", omniglot, images(shots_1t=0.1),
         **{**FOMAML, "learning_rate": 0.1})
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for columns, name in ((80, "  fomaml,"), (40, "  fomaml,"), (
            120, "  fomaml, learning_rate=0.1"), (
            200, "  fomaml, learning_rate=0.1")):
        monkeypatch.setenv("COLUMNS", str(columns))
        compare.show([tmp_path])
        lines = capsys.readouterr().out.splitlines()
        assert lines[5].partition(" 10.00 ±")[0].rstrip() == name
        assert max(map(len, lines)) < max(80, min(columns, 120))


@pytest.mark.filterwarnings("error")
def test_diverged_runs_do_not_take_the_table_with_them(tmp_path, capsys):
    for seed, value in enumerate((1.5, math.inf, math.nan)):
        make(tmp_path / str(seed), sine, waves(2.0, value), seed=seed)
    found, _ = records(capsys, tmp_path)
    rows = {cell: r for (_, _, cell), r in found.items()}
    assert rows["10 points, 1 steps"]["mean"] == 2
    assert rows["10 points, 2 steps"]["mean"] is None
    assert rows["10 points, 2 steps"]["std"] is None
    assert rows["10 points, 2 steps"]["values"] == [1.5, None, None]
    compare.show([tmp_path])
    assert "nan ± nan" in capsys.readouterr().out


def test_runs_behind_links_are_found(tmp_path, capsys):
    """Once each; a link back up ends nothing."""
    runs, links = tmp_path / "runs", tmp_path / "links"
    links.mkdir()
    make(runs / "0", omniglot, images(shots_1t=0.5))
    (links / "a").symlink_to(runs / "0")
    (links / "b").symlink_to(runs)
    (runs / "up").symlink_to(tmp_path)
    found, not_counted = records(capsys, links)
    assert [len(r["runs"]) for r in found.values()] == [1]
    assert not_counted == []


def test_a_flag_newer_than_a_run_had_its_default(tmp_path, capsys):
    for seed in (0, 1):
        run = make(tmp_path / str(seed), omniglot, images(shots_1t=0.5),
                   seed=seed)
    lines = (run / "flags.cfg").read_text().splitlines()
    (run / "flags.cfg").write_text(
        "\n".join(x for x in lines if "outer_clip" not in x))
    found, _ = records(capsys, tmp_path)
    assert [r["seeds"] for r in found.values()] == [[0, 1]]


def test_other_data_have_no_paper(tmp_path, capsys):
    """Glyphs, one's own images; each a table of its own."""
    rows = images(shots_1t=0.5)
    make(tmp_path / "real", omniglot, rows)
    make(tmp_path / "glyphs", omniglot, rows, data="synthetic",
         source="built-in glyphs (synthetic)")
    for name, more in (("mini", {}), ("own", {"allow_partial": True}),
                       ("small", {"image_size": 32})):
        make(tmp_path / name, mini_imagenet, rows, source=f"images in {name}",
             data_dir="x", **more)
    make(tmp_path / "3way", mini_imagenet, rows, source="images in mini",
         data_dir="x", classes=3)
    compare.show([tmp_path], "json")
    found = json.loads(capsys.readouterr().out)["rows"]
    assert {(r["dataset"], r["data"], r["ways"]): r["paper"]
            for r in found} == {
        ("omniglot", "all characters", 5): 97.68,
        ("omniglot", "built-in glyphs (synthetic)", 5): None,
        ("miniimagenet", "images in mini", 5): 49.97,
        ("miniimagenet", "images in own", 5): None,
        ("miniimagenet", "images in small", 5): None,
        ("miniimagenet", "images in mini", 3): None}
    compare.show([tmp_path / "glyphs"])
    assert "paper" not in capsys.readouterr().out


def test_regression(tmp_path, capsys):
    """mse 1 and 3: mean 2, squares 1 + 1 over 1."""
    for seed, values in enumerate(((1.0, 0.5), (3.0, 0.5))):
        make(tmp_path / str(seed), sine, waves(*values), seed=seed,
             source="waves")
    found, _ = records(capsys, tmp_path)
    row = found["reptile", "", "10 points, 1 steps"]
    assert (row["mean"], row["std"], row["metric"]) == (
        2, pytest.approx(2 ** 0.5), "mse")
    assert (row["points"], row["steps"], row["paper"]) == (10, 1, None)
    compare.show([tmp_path])
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "sine: waves; 30 test tasks"
    assert output[3:7] == [
        "10 points, 1 steps",
        "  reptile           2.0000 ± 1.4142      2      30,000  2 min",
        "10 points, 2 steps",
        "  reptile           0.5000 ± 0.0000      2      30,000  2 min"]


def test_what_is_not_counted_is_named(tmp_path, capsys):
    """Unfinished, evaluated half-way, broken, doubled, without flags."""
    rows = images(shots_1t=0.5)
    good = make(tmp_path / "good", omniglot, rows)
    make(tmp_path / "again", omniglot, rows)
    stopped = make(tmp_path / "stopped", omniglot, rows, seed=1)
    (stopped / "result.json").unlink()
    (stopped / "checkpoints").mkdir()
    (stopped / "checkpoints" / "checkpoint-000004000.npz").touch()
    half = make(tmp_path / "half", omniglot, rows, seed=2)
    whole = (half / "result.json").read_text()
    (half / "result.json").write_text(whole.replace("100000", "5000"))
    broken = make(tmp_path / "broken", omniglot, rows, seed=3)
    (broken / "result.json").write_text(whole[:77])
    other = make(tmp_path / "other", omniglot, rows, seed=4)
    (other / "result.json").write_text('{"ways": 5}')
    for name, value in (("a", {"tasks": "x"}), ("b", {"accuracy": None}),
                        ("c", {"ci95": "0.1"})):
        make(tmp_path / name, omniglot, [{**rows[0], **value}], seed=8)
    odd = make(tmp_path / "odd", omniglot, rows, seed=6) / "flags.cfg"
    odd.write_text(odd.read_text().replace("=100000", "=1e5"))
    (make(tmp_path / "bare", omniglot, rows, seed=5) / "flags.cfg").unlink()
    closed = make(tmp_path / "closed", omniglot, rows, seed=7) / "result.json"
    closed.unlink()
    closed.mkdir()
    found, not_counted = records(capsys, tmp_path, good)
    assert [r["seeds"] for r in found.values()] == [[0]]
    reasons = dict(line.removeprefix(f"{tmp_path}/").split(": ", 1)
                   for line in not_counted)
    assert reasons.pop("good").startswith("the same seed and flags as")
    assert reasons.pop("stopped") == (
        "not finished, at meta-iteration 4,000 of 100,000")
    assert reasons.pop("half") == (
        "not finished: evaluated at meta-iteration 5,000 of 100,000")
    assert reasons.pop("broken").startswith("result.json is not whole (JSON")
    assert reasons.pop("other").startswith(
        "result.json is not whole (KeyError: 'algorithm')")
    for name, what in (("a", "tasks is 'x'"), ("b", "accuracy is None"),
                       ("c", "ci95 is '0.1'")):
        assert f"not whole (TypeError: {what})" in reasons.pop(name)
    assert reasons.pop("odd").startswith("flags.cfg is not whole (invalid")
    assert reasons.pop("bare").startswith("has no flags.cfg")
    assert reasons.pop("closed").startswith("result.json cannot be read ([Err")
    assert reasons == {}
    compare.show([tmp_path])
    output = " ".join(capsys.readouterr().out.split())  # As if not wrapped.
    assert f"not counted: {stopped}: not finished" in output
    compare.show([tmp_path], "csv")
    captured = capsys.readouterr()
    assert "not counted" not in captured.out
    assert f"not counted: {stopped}: not finished" in captured.err


@pytest.mark.parametrize("arguments, message", [
    (["{}/none"], "error: .*/none is not a folder: name"),
    (["{}/empty"], "error: .*/empty holds no run"),
    (["{}/run", "{}/empty"], "error: .*/empty holds no run"),
    (["{}/broken"], "error: no finished run: .*/broken: result.json is not"),
    (["{}/run", "--figure={}/a.jpg"], "a.jpg must end in .png"),
    (["{}/drawn", "--figure={}/run/flags.cfg/a.png"], "cannot be written"),
    (["{}/run", "--figure={}/a.png"], "no learning curve"),
    (["{}/curve", "--figure={}/a.png"], "metrics.csv is not a run's"),
    (["{}/missing", "--figure={}/a.png"], "metrics.csv is not a run's")])
def test_bad_input(tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    rows = images(shots_1t=0.5)
    run = make(tmp_path / "run", omniglot, rows)
    (run / "metrics.csv").write_text("iteration,split,metric,value\n")
    (make(tmp_path / "broken", omniglot, rows) / "result.json").write_text("")
    (make(tmp_path / "curve", omniglot, rows) / "metrics.csv").write_text(
        "iteration,split,metric,value\n1,test\n")
    (make(tmp_path / "drawn", omniglot, rows) / "metrics.csv").write_text(
        "iteration,split,metric,value\n1,test,accuracy_1shot,0.5\n")
    make(tmp_path / "missing", omniglot, rows)
    assert compare.main(["compare", *(
        a.format(tmp_path) for a in arguments)]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and len(error.splitlines()) == 1
    assert not (tmp_path / "a.png").exists()


def test_the_command(three, capsys):
    """Without TensorFlow's chatter; without a folder: usage, status 2."""
    environment = {k: v for k, v in os.environ.items()
                   if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "reptile_tf.compare", three, "--format=csv"],
        cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 5
    with pytest.raises(SystemExit) as ended:
        compare.main(["compare"])
    assert ended.value.code == 2 and "arguments are required: DIR" in (
        capsys.readouterr().err)


@pytest.mark.parametrize("degrees", range(1, 10))
def test_the_intervals_quantile_is_students(degrees):
    """Its density from 0 to the quantile, summed, is 0.975 - 0.5."""
    # Values of variance 1 whose mean's interval is t / sqrt(n).
    values = np.array([*range(degrees + 1)]) / np.std(
        range(degrees + 1), ddof=1)
    t = over_seeds(values, None).ci95 * math.sqrt(degrees + 1)

    def probability(end, pieces=20_000):
        x = (np.arange(pieces) + 0.5) * end / pieces
        density = math.gamma((degrees + 1) / 2) / (
            math.sqrt(degrees * math.pi) * math.gamma(degrees / 2)) * (
                1 + x**2 / degrees) ** (-(degrees + 1) / 2)
        return density.mean() * end

    assert probability(t - 5.1e-4) < 0.475 < probability(t + 5.1e-4)


def test_more_seeds_have_the_quantile_of_ten():
    """Too wide an interval rather than too narrow a one."""
    values = np.array([0.0, 1.0] * 8)
    assert over_seeds(values, None).ci95 == pytest.approx(
        2.262 * (16 * 0.25 / 15) ** 0.5 / 4)


def test_the_band_is_over_seeds():
    """At 5: 1, 3; mean 2, squares 1 + 1 over 1. 9 is not everyone's."""
    iterations, values = learning_curves.common(
        [{5: 1.0, 7: 2.0}, {5: 3.0, 7: 2.0, 9: 4.0}])
    mean, std = plotting.band(values)
    assert iterations == [5, 7]
    np.testing.assert_allclose(mean, [2, 2])
    np.testing.assert_allclose(std, [2 ** 0.5, 0])
    mean, std = plotting.band(learning_curves.common([{5: 1.0}])[1])
    assert (mean[0], std[0]) == (1, 0)


def test_the_figure(three, capsys, monkeypatch):
    for seed in range(3):
        (three / f"reptile-{seed}" / "metrics.csv").write_text(
            "iteration,split,metric,value\n"
            f"50,val,accuracy_1shot_transductive,0.{seed}\n"
            f"99,val,accuracy_1shot_transductive,0.4\n")
    (three / "fomaml" / "metrics.csv").write_text(
        "iteration,split,metric,value\n"
        "50,val,accuracy_1shot_transductive,0.5\n")
    assert metrics.read(three / "reptile-2" / "metrics.csv") == {
        ("val", "accuracy_1shot_transductive"): {50: 20.0, 99: 40.0}}
    path = three / "new" / "curves.png"
    assert compare.main(["", str(three), f"--figure={path}"]) == 0
    assert f"figure: {path}" in capsys.readouterr().err
    with Image.open(path) as image:
        assert image.size[0] > 500
    svg = path.with_suffix(".svg").read_text()
    for word in ("reptile, 3 seeds", "fomaml, 1 seed", "1shot transductive",
                 "val accuracy, %", "omniglot, 5-way: all characters"):
        assert f"<!-- {word} -->" in svg, word
    monkeypatch.setenv("HOME", str(three.parent))
    compare.show([f"~/{three.name}"], figure="~/curves.png")
    assert (three.parent / "curves.svg").exists()


@pytest.mark.parametrize("called, usage", [
    ("/env/bin/reptile-compare", "reptile-compare [-h]"),
    ("/a/compare/__main__.py", "python -m reptile_tf.compare [-h]")])
def test_the_usage_is_what_was_typed(capsys, called, usage):
    with pytest.raises(SystemExit):
        compare.main([called, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: {usage}")


def test_names_are_no_mathematics_and_no_markup(tmp_path, capsys):
    """A folder may be called anything; as mathematics x_a_b is an error."""
    rows = images(shots_1t=0.5)
    for name in ("x_a_b", "y"):
        folder = make(tmp_path / name, omniglot, rows, source=f"a${name}$",
                      init=f"/a|{name}$_b_c$")
        (folder / "metrics.csv").write_text(
            "iteration,split,metric,value\n"
            "50,val,accuracy_1shot_transductive,0.5\n")
    compare.show([tmp_path], "markdown", tmp_path / "a.png")
    table = [line for line in capsys.readouterr().out.splitlines()
             if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert any(r"init=/a\|x_a_b$_b_c$" in line for line in table)


class Page(HTMLParser):
    """What is in a page; fails where tags do not close in order."""

    VOID = {"meta"}

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.elements
                if name == tag]


def curve(folder, *values):
    (folder / "metrics.csv").write_text("iteration,split,metric,value\n" + (
        "".join(f"{50 * i},val,accuracy_1shot_transductive,{value}\n"
                for i, value in enumerate(values))))


def test_the_page(three, capsys):
    """All of the table, the curves and the flags, and nothing from outside."""
    for seed in range(3):
        curve(three / f"reptile-{seed}", 0.2, 0.3 + 0.1 * seed)
    curve(three / "fomaml", math.nan, 0.25, 0.5)
    make(three / "a&b", omniglot, images(shots_1t=0.5), seed=4,
         data="synthetic", source="<script>alert(1)</script>")
    curve(three / "a&b", 0.5)
    (make(three / "left", omniglot, images(shots_1t=0.5), seed=5)
     / "result.json").unlink()
    compare.show([three], "html")
    output = capsys.readouterr().out
    page = Page(output)
    assert "http" not in output and "url(" not in output
    assert not any(name in attributes for _, attributes in page.elements
                   for name in ("src", "href", "srcset", "onload"))
    assert [*map(len, map(page.all, ("table", "figure", "script")))] == [
        2, 2, 1]
    for text in ("93.00 ± 3.61", "-2.39*", "1-shot + transduction",
                 "reptile, 3 seeds", "1shot transductive",
                 "omniglot, 5-way: <script>alert(1)</script>; 400 test tasks",
                 "* reptile is not as published: meta_iters=10000 (paper: "
                 "100000); 400 test tasks (paper: 10,000).",
                 f"{three}/left: not finished, at meta-iteration 0 of 100,000",
                 str(three / "a&b"), str(three / "reptile-2")):
        assert text in page.texts, text
    flags_of = [t for t in page.texts if t.startswith("--algorithm=")]
    assert [re.search("--seed=.", t)[0] for t in flags_of] == [
        f"--seed={i}" for i in (4, 0, 1, 2, 0)]
    points = page.all("circle")
    # 0.3, 0.4, 0.5: mean 40 and deviation 10; a NaN is no point.
    assert [p["data-value"] for p in points] == [
        "reptile, 0: 50", "reptile, 0: 20 ± 0", "reptile, 50: 40 ± 10",
        "fomaml, 50: 25", "fomaml, 100: 50"]
    assert all(0 < float(p["cx"]) < 340 and 0 < float(p["cy"]) < 230
               for p in points)
    assert float(points[1]["cy"]) > float(points[2]["cy"])
    assert len([p for p in page.all("path") if p["class"] == "band"]) == 1


def test_one_evaluation_has_axes(three, capsys):
    """Of several numbers, not of one many times."""
    for seed in range(3):
        curve(three / f"reptile-{seed}", 0.875)
    curve(three / "fomaml", 0.875)
    compare.show([three], "html")
    page = capsys.readouterr().out
    for side in ("end", "middle"):
        numbers = re.findall(f'text-anchor="{side}">([^<]*)<', page)
        assert len(set(numbers)) == len(numbers) > 2


def test_a_page_without_curves(three, capsys):
    """The table stands, and it is said why."""
    compare.show([three], "html")
    page = Page(capsys.readouterr().out)
    assert len(page.all("table")) == 1 and page.all("figure") == []
    assert any(t.startswith("No learning curves: ") for t in page.texts)
    for seed in range(3):
        curve(three / f"reptile-{seed}", math.inf)
    curve(three / "fomaml")
    compare.show([three], "html")
    assert "no finite value" in Page(capsys.readouterr().out).texts


TABLES = """
omniglot | 1-shot 5-way | 5-shot 5-way | 1-shot 20-way | 5-shot 20-way
maml + transduction | 98.7 0.4 | 99.9 0.1 | 95.8 0.3 | 98.9 0.2
fomaml + transduction | 98.3 0.5 | 99.2 0.2 | 89.4 0.5 | 97.9 0.1
reptile | 95.39 0.09 | 98.90 0.10 | 88.14 0.15 | 96.65 0.33
reptile + transduction | 97.68 0.04 | 99.48 0.06 | 89.43 0.14 | 97.12 0.32
miniimagenet | 1-shot 5-way | 5-shot 5-way
maml + transduction | 48.70 1.84 | 63.11 0.92
fomaml + transduction | 48.07 1.75 | 63.15 0.91
reptile | 47.07 0.26 | 62.74 0.37
reptile + transduction | 49.97 0.32 | 65.99 0.58
"""


def test_the_papers_tables():
    """Tables 1 and 2, typed once more; and nothing else is there."""
    count = 0
    for line in TABLES.strip().splitlines():
        first, *cells = line.split(" | ")
        if cells[0].startswith("1-shot"):
            dataset = first
            columns = [tuple(map(int, re.findall(r"\d+", c))) for c in cells]
            continue
        algorithm, _, mode = first.partition(" + ")
        for (shots, ways), cell in zip(columns, cells, strict=True):
            got = paper.published(dataset, ways, shots, algorithm, mode != "")
            assert (got.accuracy, got.interval) == tuple(
                map(float, cell.split()))
            assert got.meta_iters == (
                60_000 if algorithm != "reptile" else
                200_000 if ways == 20 else 100_000)
            count += 1
    assert count == 24
    everything = [
        (d, w, s, a, t) for d in ("omniglot", "miniimagenet", "sine")
        for w in (1, 5, 10, 20) for s in (1, 5, 10) for a in REGISTRY
        for t in (True, False)]
    assert sum(paper.published(*x) is not None for x in everything) == 24


def test_flags_that_do_not_matter_exist():
    """So that a renamed flag is not forgotten."""
    configs = [m.CONFIG for m in finished_runs.DATASETS.values()]
    names = {f for c in configs for f in c.__dataclass_fields__}
    assert finished_runs.IMMATERIAL | paper.ALIKE <= names
    training = {f for c in (Config, *configs) for f in c.training_flags()}
    assert finished_runs.IMMATERIAL & training == {"seed"}
