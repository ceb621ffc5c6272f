"""The experiments of section 6, on tiny data: runs, tables, figures."""

import functools
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny

from reptile_tf.configuration import flagfiles, flags
from reptile_tf.experiments import command as section6
from reptile_tf.experiments import (
    gradient_combinations,
    momentum,
    overlap,
    report,
    tables,
)
from reptile_tf.experiments.claims import Claim, combination, difference
from reptile_tf.experiments.outcomes import Estimate, Outcome, Setting
from reptile_tf.records import metrics as learning_curves
from reptile_tf.reporting import plotting

# The flagfiles draw up to 20 examples of a class.
DATASET = types.SimpleNamespace(**{
    **vars(tiny), "load": functools.partial(tiny.load, examples=20)})
SHORT = ["--meta_iters=2", "--eval_interval=1", "--eval_samples=4",
         "--eval_interval_samples=4", "--eval_splits=test", "--noexport"]
CELL = (5, False)


@pytest.fixture
def figures(monkeypatch):
    """What is drawn, by name; still written."""
    drawn, save = {}, plotting.save

    def keep(figure, folder, name):
        drawn[name] = figure
        return save(figure, folder, name)
    monkeypatch.setattr(plotting, "save", keep)
    return drawn


def run(module, home, *flags):
    return module.main(["command", f"--run_dir={home}", *SHORT, *flags],
                       DATASET)


def accuracy(folder, cell=CELL):
    result = json.loads((Path(folder) / "result.json").read_text())
    [row] = [r for r in result["results"]
             if (r["shots"], r["transductive"]) == cell]
    return 100 * row["accuracy"]


def curve(folder, cell=CELL):
    name = "transductive" if cell[1] else "non-transductive"
    return learning_curves.read(Path(folder) / "metrics.csv")[
        "test", f"accuracy_{cell[0]}shot_{name}"]


def files_of(home, name):
    written = {p.name for p in home.iterdir() if p.is_file()}
    assert written >= {f"{name}.{kind}"
                       for kind in ("md", "json", "png", "svg")}
    return ((home / f"{name}.md").read_text(),
            json.loads((home / f"{name}.json").read_text()))


@pytest.mark.slow
def test_figure_3(tmp_path, figures, capsys):
    assert run(gradient_combinations, tmp_path) == 0
    text, data = files_of(tmp_path, "figure3")
    names = [s["name"] for s in data["settings"]]
    assert names[:4] == ["g1", "g1 + g2", "½ (g1 + g2)", "g2"]
    assert len(names) == 10 and data["seeds"] == [0]
    curves, final = figures["figure3"].axes
    assert len(curves.lines) == 10 and len(final.containers) == 10
    for setting, line, dot in zip(data["settings"], curves.lines,
                                  final.containers, strict=True):
        [folder] = setting["runs"]
        want = accuracy(folder)
        assert setting["final"][0]["mean"] == want
        assert setting["final"][0]["accuracies"] == [want]
        assert dot.lines[0].get_xdata()[0] == want
        assert f"| {setting['name']} | {want:.2f} ± " in text
        assert line.get_label() == setting["name"]
        drawn = dict(zip(*line.get_data(), strict=True))
        assert drawn == curve(folder) and [*drawn] == [1, 2]
        assert setting["curves"][0]["accuracies"] == [[*drawn.values()]]
    assert f"- {data['claims'][0]['text']}: " in text
    assert "claims" in data and len(data["claims"]) == 9
    capsys.readouterr()
    assert run(gradient_combinations, tmp_path) == 0
    output = capsys.readouterr().out
    assert output.count("already finished") == 10
    assert output.splitlines()[0].startswith("[1/10] g1, seed 0")


@pytest.mark.slow
def test_figure_4(tmp_path, figures, capsys):
    assert run(overlap, tmp_path, "--values=4,1") == 0
    text, data = files_of(tmp_path, "figure4a")
    assert len(data["settings"]) == 7 and data["claims"] == []
    [line] = data["left_out"]
    assert line.startswith("separate-tail FOMAML, inner_iters 1: inner_iters=1")
    assert line in text
    [axes] = figures["figure4a"].axes
    assert "separate-tail FOMAML, inner_iters 1" in axes.get_title()
    by_name = {s["name"]: s for s in data["settings"]}
    drawn = {}
    for line in axes.lines:
        for value, mean in zip(*line.get_data(), strict=True):
            drawn[f"{line.get_label()}, inner_iters {value:g}"] = mean
    assert drawn == {name: accuracy(*s["runs"])
                     for name, s in by_name.items()}
    capsys.readouterr()
    # 4 steps of 25 are in both sweeps; 101 of 100 cannot be drawn afresh.
    assert run(overlap, tmp_path, "--sweep=inner_batch",
               "--values=25,101") == 0
    assert capsys.readouterr().out.count("already finished") == 4
    text, data = files_of(tmp_path, "figure4b")
    assert len(data["settings"]) == 7
    assert "with replacement, inner_batch 101: inner_batch=101 with" in text


@pytest.mark.slow
def test_figure_4c_has_full_batches(tmp_path, figures):
    assert run(overlap, tmp_path, "--sweep=meta_step", "--values=0.3",
               "--eval_interval=0") == 0
    text, data = files_of(tmp_path, "figure4c")
    assert {tuple(s["flags"]) for s in data["settings"]} == {
        ("--inner_batch=100", "--meta_step=0.3")}
    assert len(data["settings"]) == len(data["claims"]) == 4
    assert data["settings"][0]["curves"][0]["iterations"] == []
    for setting in data["settings"]:
        lines = (Path(setting["runs"][0]) / "flags.cfg").read_text()
        assert "--inner_batch=100\n" in lines and "--sweep" not in lines
    [axes] = figures["figure4c"].axes
    assert axes.get_xscale() == "log"
    # 100 of 75 cannot be drawn afresh.
    assert run(overlap, tmp_path, "--sweep=meta_step", "--values=0.3",
               "--train_shots=15", f"--run_dir={tmp_path / 'few'}") == 0
    text, data = files_of(tmp_path / "few", "figure4c")
    assert (len(data["settings"]), len(data["claims"])) == (3, 2)
    [line] = data["left_out"]
    assert line.startswith("shared-tail FOMAML, with replacement")


@pytest.mark.slow
def test_momentum_with_two_seeds(tmp_path, figures):
    assert run(momentum, tmp_path, "--seed=3,1", "--shots=5",
               "--eval_batch=5", "--meta_batch=2") == 0
    text, data = files_of(tmp_path, "momentum")
    assert data["seeds"] == [3, 1]
    assert [s["flags"] for s in data["settings"]] == [
        ["--inner_beta1=0"], ["--inner_beta1=0.9"]]
    panels = figures["momentum"].axes
    assert len(panels) == 2
    for axes, cell in zip(panels, [(5, True), CELL], strict=True):
        for setting, line, band in zip(
                data["settings"], axes.lines, axes.collections, strict=True):
            seeds = [curve(folder, cell) for folder in setting["runs"]]
            values = np.array([[*c.values()] for c in seeds])
            np.testing.assert_allclose(line.get_ydata(), values.mean(0))
            edges = band.get_paths()[0].vertices[:, 1]
            high = values.mean(0) + values.std(0, ddof=1)
            assert np.isclose(edges.max(), high.max())
            final = [accuracy(folder, cell) for folder in setting["runs"]]
            assert f"{np.mean(final):.2f} ± {np.std(final, ddof=1):.2f}" in (
                axes.get_title())
    with np.load(sorted(Path(data["settings"][1]["runs"][0]).glob(
            "checkpoints/*.npz"))[-1]) as saved:
        assert any(name.startswith("m/") for name in saved.files)
    assert "standard deviation across 2 seeds" in text
    # Another commit went on with the rest.
    [commit] = data["commits"]
    path = Path(data["settings"][1]["runs"][0]) / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "commit": "f" * 40}))
    assert run(momentum, tmp_path, "--seed=3,1", "--shots=5",
               "--eval_batch=5", "--meta_batch=2") == 0
    text, data = files_of(tmp_path, "momentum")
    assert data["commits"] == [commit, "f" * 40]
    assert f"commits {commit}, {'f' * 40}." in text
    assert data["settings"][1]["wall_seconds"][0] == result["wall_seconds"]
    # Validation classes while training; then at the end, too.
    val = ["--val_classes=5", "--shots=5", "--eval_batch=5"]
    for split, home in (("test", "both"), ("val", "alone")):
        assert run(momentum, tmp_path / home, *val,
                   f"--eval_splits={split}") == 0
        text, data = files_of(tmp_path / home, "momentum")
        assert figures["momentum"].axes[0].get_ylabel() == (
            "validation accuracy, %")
        name = {"val": "validation", "test": "test"}[split]
        assert text.startswith(f"| {name} accuracy, % |")
        assert f"4 {name} tasks" in text
        assert (data["split"], data["curve_split"]) == (name, "validation")


def outcome(*accuracies, ci95=0.02, name="a", split="test"):
    return Outcome(Setting(name, name, "x.cfg"), (), tuple(
        {"results": [{"split": split, "shots": 5, "transductive": False,
                      "accuracy": a, "ci95": ci95}]} for a in accuracies))


def test_several_seeds_differ_seed_by_seed():
    """Each seed has tasks of its own, which all settings share."""
    a, b = outcome(0.9, 0.7), outcome(0.8, 0.61)
    got = difference(a, b, CELL)
    # differences 10 and 9
    assert got.mean == pytest.approx(9.5)
    assert got.interval == pytest.approx(12.706 * 0.5)  # 0.5: its error
    assert a.final(CELL).interval == pytest.approx(200**0.5)


def test_intervals_are_students():
    got = combination([(1, outcome(0.1, 0.2, 0.6))], CELL)
    # variance (20^2 + 10^2 + 30^2) / 2 = 700
    assert got.mean == pytest.approx(30)
    assert got.interval == pytest.approx(4.303 * (700 / 3) ** 0.5)
    many = combination([(1, outcome(*[0.1, 0.2] * 10))], CELL)
    assert many.interval == pytest.approx(
        2.262 * 5 * (20 / 19 / 20) ** 0.5)


def test_one_seed_has_the_interval_over_its_tasks():
    a, b = outcome(0.9, ci95=0.03), outcome(0.8, ci95=0.04)
    assert str(a.final(CELL)) == "90.00 ± 3.00"
    got = combination([(1, a), (-0.5, b)], CELL)
    assert got.mean == pytest.approx(50)
    assert got.interval == pytest.approx((3**2 + 2**2) ** 0.5)


def test_validation_evaluated_alone_is_what_is_reported():
    one = outcome(0.9, split="val")
    assert (one.columns, one.split) == ([CELL], "validation")
    assert str(one.final(CELL)) == "90.00 ± 2.00"
    assert report.table([one])[0].startswith("| validation accuracy, % |")


@pytest.mark.parametrize("mean, verdict", [
    (2.1, "shows"), (1.9, "unclear"), (-1.9, "unclear"), (-2.1, "opposite")])
def test_verdicts(mean, verdict):
    assert Claim("x", Estimate(mean, 2.0)).verdict == verdict


def test_the_claims_of_figure_3_by_hand():
    values = dict(zip(gradient_combinations.SETTINGS, (
        0.5, 0.8, 0.7, 0.85, 0.9, 0.75, 0.88, 0.95, 0.8, 0.89), strict=True))
    assert values["sum", 4] == 0.95 and values["last", 3] == 0.88
    claims = gradient_combinations.claims(
        [outcome(v, ci95=0.001) for v in values.values()])
    assert [round(c.estimate.mean, 6) for c in claims] == [
        20, 5, 10, 5, 5, 5, 3, 1, 11]
    assert {c.verdict for c in claims} == {"shows"}


def ran(folder, value, curves):
    """An outcome of a seed for each of `curves`, {iteration: accuracy in %}:
    the first of accuracy `value` in %, each other by 1 more."""
    configs = []
    for i, curve in enumerate(curves):
        home = folder / f"{value}-{i}"
        home.mkdir()
        (home / "metrics.csv").write_text("iteration,split,metric,value\n" + (
            "".join(f"{iteration},test,accuracy_5shot_non-transductive,"
                    f"{accuracy / 100}\n"
                    for iteration, accuracy in curve.items())))
        configs.append(types.SimpleNamespace(
            run_dir=str(home), eval_interval_samples=4,
            task=types.SimpleNamespace(ways=5, train_shots=20, inner_iters=2,
                                       inner_batch=25)))
    made = outcome(*((value + i) / 100 for i in range(len(curves))))
    return Outcome(Setting(f"setting {value}", "", ""), tuple(configs),
                   made.results)


def test_figure_3_draws_its_outcomes(tmp_path):
    outcomes = [ran(tmp_path, 40 + 3 * i, [{5: 10 + i, 7: 60 - 2 * i}])
                for i in range(10)]
    curves, final = gradient_combinations.draw(outcomes, "x").axes
    for i, (line, dot) in enumerate(zip(curves.lines, final.containers,
                                        strict=True)):
        np.testing.assert_allclose(line.get_data(), [[5, 7],
                                                     [10 + i, 60 - 2 * i]])
        assert line.get_label() == f"setting {40 + 3 * i}"
        [[mean], [place]] = dot.lines[0].get_data()
        assert (mean, place) == (pytest.approx(40 + 3 * i), i)
        [bar] = dot.lines[2][0].get_segments()
        np.testing.assert_allclose(bar[:, 0], [38 + 3 * i, 42 + 3 * i])
    assert [t.get_text() for t in final.get_yticklabels()] == [
        o.setting.name for o in outcomes]


def test_figure_4_draws_its_outcomes(tmp_path):
    values = {"shared_tail_cycling": {2: 50, 4: 47}, "reptile": {2: 61, 4: 66}}
    outcomes = {method: {k: ran(tmp_path, v, [{5: 1.0}])
                         for k, v in by_value.items()}
                for method, by_value in values.items()}
    [axes] = overlap.draw("inner_iters", outcomes, "x").axes
    for line, band, (method, by_value) in zip(
            axes.lines, axes.collections, values.items(), strict=True):
        assert line.get_label() == overlap.METHODS[method]
        np.testing.assert_allclose(
            line.get_data(), [[2, 4], [*by_value.values()]])
        edges = band.get_paths()[0].vertices
        for k, v in by_value.items():
            there = edges[edges[:, 0] == k, 1]
            np.testing.assert_allclose([there.min(), there.max()],
                                       [v - 2, v + 2])


def test_momentums_figure_draws_its_outcomes(tmp_path):
    """Means of two seeds, by hand, and bands of their deviation 2^-0.5 d."""
    outcomes = [ran(tmp_path, 80, [{5: 20, 7: 40}, {5: 30, 7: 44}]),
                ran(tmp_path, 70, [{5: 10, 7: 25}, {5: 12, 7: 35}])]
    [axes] = momentum.draw(outcomes, "x").axes
    for line, band, own, means, apart in zip(
            axes.lines, axes.collections, outcomes, ((25, 42), (11, 30)),
            ((10, 4), (2, 10)), strict=True):
        np.testing.assert_allclose(line.get_data(), [[5, 7], means])
        assert line.get_label() == own.setting.name
        edges = band.get_paths()[0].vertices
        for place, mean, d in zip((5, 7), means, apart, strict=True):
            there = edges[edges[:, 0] == place, 1]
            np.testing.assert_allclose([there.min(), there.max()],
                                       [mean - d / 2**0.5, mean + d / 2**0.5])
    assert axes.get_title().splitlines()[1:] == [
        "setting 80: 80.50 ± 0.71 at the end",
        "setting 70: 70.50 ± 0.71 at the end"]


def test_the_settings_of_figure_3_are_what_their_names_say():
    """The mean of k gradients is their sum at epsilon / k."""
    named = {name: (kind, k) for kind, k, name in (
        ("sum", 1, "g1"), ("sum", 2, "g1 + g2"), ("mean", 2, "½ (g1 + g2)"),
        ("last", 2, "g2"), ("sum", 3, "g1 + g2 + g3"),
        ("mean", 3, "⅓ (g1 + g2 + g3)"), ("last", 3, "g3"),
        ("sum", 4, "g1 + g2 + g3 + g4"), ("mean", 4, "¼ (g1 + g2 + g3 + g4)"),
        ("last", 4, "g4"))}
    assert {s.name: key for key, s in gradient_combinations.SETTINGS.items()
            } == named
    for (kind, k), setting in gradient_combinations.SETTINGS.items():
        config = flags.parse(
            ["", f"--flagfile={flagfiles.FOLDER / setting.flagfile}",
             *setting.flags], tiny.CONFIG, tiny.DEFAULTS)
        assert config.algorithm == (
            "fomaml" if kind == "last" else "reptile"), setting
        assert config.inner_iters == k, setting
        assert config.meta_step == pytest.approx(
            0.25 / (k if kind == "mean" else 1), rel=2e-3), setting
        # The mini-batches do not overlap.
        assert config.train_shots * config.classes == k * config.inner_batch


def test_the_claim_of_momentum_by_hand():
    """It hurts where accuracy is higher without it."""
    assert [s.flags for s in momentum.SETTINGS] == [
        ("--inner_beta1=0",), ("--inner_beta1=0.9",)]
    [claim] = momentum.claims([outcome(0.9), outcome(0.8)])
    assert claim.estimate.mean == pytest.approx(10)
    assert claim.verdict == "shows"


def test_the_claims_of_figure_4_by_hand():
    def config(k):
        return types.SimpleNamespace(task=types.SimpleNamespace(
            ways=5, train_shots=20, inner_iters=k, inner_batch=25))

    rows = {"shared_tail_cycling": (0.7, 0.9, 0.6, 0.5),
            "shared_tail_replacement": (0.7, 0.8, 0.75, 0.65),
            "separate_tail": (0.8, 0.9, 0.9, 0.9),
            "reptile": (0.8, 0.85, 0.9, 0.95)}
    outcomes = {
        method: {k: Outcome(Setting("", "", ""), (config(k),),
                            outcome(v, ci95=0.01).results)
                 for k, v in zip((2, 4, 5, 8), values, strict=True)}
        for method, values in rows.items()}
    claims = overlap.claims("inner_iters", outcomes)
    assert [round(c.estimate.mean, 6) for c in claims] == [35, 25, 35, 42.5]
    best = overlap.claims("meta_step", outcomes)
    assert [round(c.estimate.mean, 6) for c in best] == [0, 5, 10, 15]
    fewer = {m: outcomes[m] for m in rows if m != "shared_tail_replacement"}
    assert [c.estimate for c in overlap.claims("meta_step", fewer)] == [
        c.estimate for c in best[:2]]
    del outcomes["reptile"][5], outcomes["reptile"][8]
    assert overlap.claims("inner_iters", outcomes) == []


@pytest.mark.parametrize("module, flags, message", [
    (gradient_combinations, ["--inner_iters=3"],
     "--inner_iters cannot be given: gradient_combinations sets it"),
    (gradient_combinations, ["--algorithm=maml"], "--algorithm cannot"),
    (gradient_combinations, ["--seed=1,1"], "seed.*there twice"),
    (gradient_combinations, ["--tail_shots=5"],
     "tail_shots=5 are taken out of train_shots=5"),
    (overlap, ["--tail_shots=3"], "--tail_shots cannot"),
    (overlap, ["--inner_iters=1"], "--inner_iters cannot be given: overlap"),
    (overlap, ["--sweep=meta_step", "--inner_batch=3"], "--inner_batch cannot"),
    (overlap, ["--values=2,2"], "values=2,2 repeats a value"),
    (overlap, ["--values=2.5"], "2.5"),
    (overlap, ["--values=0,4"], "inner_iters=0 must be 1 or more"),
    (overlap, ["--sweep=width"], "width"),
    (momentum, ["--inner_beta1=0.5"], "--inner_beta1 cannot"),
    (momentum, ["--no_such_flag"], "no_such_flag.*--help"),
])
def test_bad_flags(tmp_path, capsys, module, flags, message):
    assert run(module, tmp_path / "home", *flags) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and re.search(message, error), error
    assert not (tmp_path / "home").exists()


def test_help(capsys):
    assert overlap.main(["-m overlap", "--help"], DATASET) == 0
    text = capsys.readouterr().out
    assert "usage: python -m overlap" in text
    for flag in ("--sweep {inner_iters,inner_batch,meta_step}", "--values",
                 "--data_dir", "--seed"):
        assert f"  {flag}" in text, flag
    assert "2,4,5,8 for inner_iters; 10,25,50,100 for inner_batch" in text


def test_help_has_the_experiments_defaults(capsys):
    """Those of its flagfiles; what these differ in is not the user's."""
    for module, shown, hidden in (
            (overlap, {"inner_optimizer": "sgd", "learning_rate": "0.003",
                       "run_dir": "runs/tiny-overlap"}, ["algorithm"]),
            (gradient_combinations, {"inner_batch": "25", "shots": "5"},
             ["algorithm", "inner_iters", "train_shots"])):
        assert module.main(["command", "--help"], DATASET) == 0
        flags = dict(re.findall(
            r"^  --(\w+).*\n.*\(default: (.*)\)$", capsys.readouterr().out,
            re.MULTILINE))
        assert flags.items() >= shown.items()
        assert not flags.keys() & set(hidden) and "seed" in flags


def test_near_values_of_a_sweep_are_not_made_one():
    found = overlap.settings(overlap.config_of(DATASET)(
        sweep="meta_step", values=(0.1234567, 0.1234568)))
    assert {s.flags for s in found.values()} == {
        ("--inner_batch=100", "--meta_step=0.1234567"),
        ("--inner_batch=100", "--meta_step=0.1234568")}
    assert len({s.folder for s in found.values()}) == 8


def test_of_several_processes_the_chief_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", json.dumps({
        "cluster": {"worker": ["localhost:1", "localhost:2"]},
        "task": {"type": "worker", "index": 1}}))
    command = section6.Command(
        ["command", f"--run_dir={tmp_path}/home", "--meta_batch=2",
         "--distribution=multi_worker"], "momentum", DATASET,
        ["omniglot_5way.cfg"])
    command.report([], [], None)
    assert capsys.readouterr().out == "" and not command.home.exists()


def test_the_package_that_draws_is_asked_for_before_anything_runs(
        monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert momentum.main(["command"], DATASET) == 1
    assert capsys.readouterr().err == (
        "error: momentum, which ends in a figure: matplotlib is not installed,"
        ' which `pip install "reptile_tf[plots]"` brings\n')


def test_every_setting_has_its_flagfile_and_folder():
    for setting in [*gradient_combinations.SETTINGS.values(),
                    *momentum.SETTINGS]:
        assert (flagfiles.FOLDER / setting.flagfile).exists()
    assert len({s.folder for s in gradient_combinations.SETTINGS.values()}
               ) == 10


def test_the_rows_of_a_table_are_all_of_its_flagfiles():
    for number, name in (("1", "miniimagenet"), ("2", "omniglot")):
        dataset, rows = tables.TABLES[number]
        assert dataset.NAME == name and len(set(rows)) == len(rows)
        assert {flagfile for flagfile, _ in rows} == {
            p.stem for p in flagfiles.FOLDER.glob(f"{name}_*.cfg")
            # The same training as miniimagenet_5way's.
            if p.stem != "miniimagenet_5way_1shot"}
        assert {seed for flagfile, seed in rows if "shot" in flagfile} == {0}
        assert all((flagfile, seed) in rows for seed in range(3)
                   for flagfile, _ in rows if "shot" not in flagfile)


def test_every_run_of_both_tables_can_be_planned(monkeypatch, tmp_path):
    planned = []
    monkeypatch.setattr(tables, "run_all", lambda dataset, runs, report: (
        planned.extend(runs)))
    for number, (_, rows) in tables.TABLES.items():
        words = [number, "--data_dir=photos", f"--run_dir={tmp_path}"]
        assert tables.main(["command", *words, "--eval_samples=7"]) == 0
        assert [one.config.run_dir for one in planned] == [
            f"{tmp_path}/{flagfile}-seed{seed}" for flagfile, seed in rows]
        assert {(one.config.data_dir, one.config.eval_samples,
                 one.config.eval_splits) for one in planned} == {
            ("photos", 7, "test")}
        assert {one.config.algorithm for one in planned} == {
            "reptile", "maml", "fomaml"}
        planned.clear()


@pytest.fixture
def table(monkeypatch, tmp_path):
    """The command of a table of two flagfiles, with its words."""
    monkeypatch.setattr(flagfiles, "FOLDER", tmp_path)
    for name, rate in (("slow", 0.001), ("fast", 0.1)):
        (tmp_path / f"{name}.cfg").write_text(
            f"--learning_rate={rate}\n--meta_iters=2\n")
    rows = [("fast", 0), ("slow", 0), ("fast", 1)]
    return lambda *words: tables.main(["command", *words],
                                      {"7": (DATASET, rows)})


def test_a_table_is_one_command_that_goes_on(table, tmp_path, capsys):
    short = ["--eval_samples=4", "--eval_interval=0",
             "--eval_interval_samples=2", "--noexport",
             f"--run_dir={tmp_path}/runs"]
    assert table("7", *short) == 0
    results = {p.parent.name: json.loads(p.read_text())
               for p in tmp_path.glob("runs/*/result.json")}
    assert set(results) == {"fast-seed0", "slow-seed0", "fast-seed1"}
    assert all({r["split"] for r in result["results"]} == {"test"}
               for result in results.values())
    output = capsys.readouterr().out
    assert output.index("fast, seed 0") < output.index("slow, seed 0")
    assert "reptile, learning_rate=0.1" in " ".join(output.split())
    (tmp_path / "runs/slow-seed0/result.json").unlink()
    assert table("7", *short, "--seed=0") == 0
    output = capsys.readouterr().out
    assert output.count("already finished") == 1
    assert "going on from meta-iteration 2" in output


@pytest.mark.parametrize("words, error", [
    ([], "which table? Give 7, and then flags"),
    (["2"], "which table? Give 7"),
    (["7", "--learning_rate=1"], "--learning_rate cannot be given: table7"),
    (["7", "--no_such_flag"], "no_such_flag")])
def test_a_table_says_what_it_cannot_do(table, capsys, words, error):
    assert table(*words) == 1
    assert error in capsys.readouterr().err
