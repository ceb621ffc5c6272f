"""The sine tasks, run_sine.py and figure 1."""

import json
import logging
import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from reptile_tf import networks as models
from reptile_tf.configuration import flags
from reptile_tf.datasets import omniglot, sine
from reptile_tf.errors import InputError
from reptile_tf.execution.engine import Engine
from reptile_tf.experiments import sine_waves as figure1
from reptile_tf.learning.evaluation import Evaluator
from reptile_tf.learning.measures import mean_squared_error
from reptile_tf.learning.rules import unweighted
from reptile_tf.records import metrics
from reptile_tf.records.run_directory import RunDirectory
from reptile_tf.runs import command_line as experiment
from reptile_tf.runs.experiment import Experiment
from reptile_tf.tasks import EvaluationTasks

SMALL = ["--meta_iters=450", "--eval_interval=300", "--eval_samples=12",
         "--eval_interval_samples=8", "--eval_iters=5", "--noexport"]


def parse(*arguments):
    return flags.parse(["run_sine.py", *arguments], sine.CONFIG,
                       sine.DEFAULTS, sine.BY_ALGORITHM)


def main(*arguments):
    return experiment.main(sine, ["run_sine.py", *arguments], figure1.run)


def test_training_tasks_are_waves_on_the_grid():
    source = sine.load(parse("--train_shots=12", "--inner_batch=4",
                             "--inner_iters=4"))
    batches = source.sampler(np.random.default_rng(1))(3)
    assert batches.inputs.shape == batches.targets.shape == (3, 3, 4, 1)
    assert batches.last_inputs.shape == (3, 4, 1)
    for i in range(3):
        x = np.concatenate([batches.inputs[i].ravel(),
                            batches.last_inputs[i].ravel()])
        y = np.concatenate([batches.targets[i].ravel(),
                            batches.last_targets[i].ravel()])
        # One pass over the 12 points, and 4 of the next.
        np.testing.assert_allclose(np.sort(x[:12]), np.linspace(-5, 5, 12),
                                   rtol=1e-6)
        # y = a sin(x + b) is linear in (sin x, cos x).
        basis = np.stack([np.sin(x), np.cos(x)], 1).astype(float)
        weights, *_ = np.linalg.lstsq(basis, y, rcond=None)
        np.testing.assert_allclose(basis @ weights, y, atol=1e-5)
        assert 0.1 <= np.hypot(*weights) <= 5


def test_a_separate_tail_is_of_random_points():
    source = sine.load(parse("--train_shots=12", "--tail_shots=4",
                             "--inner_batch=4", "--inner_iters=3"))
    batches = source.sampler(np.random.default_rng(1))(6)
    tails = [tuple(sorted(x.ravel())) for x in batches.last_inputs]
    assert len(set(tails)) == 6
    for x, tail in zip(batches.inputs, tails, strict=True):
        assert not set(x.ravel()) & set(tail) and len(set(tail)) == 4


def test_defaults_are_the_demonstrations():
    c = parse()
    assert (c.inner_optimizer, c.learning_rate, c.inner_loss) == (
        "sgd", 0.02, "mean")
    assert (c.train_shots, c.inner_batch, c.inner_iters) == (50, 10, 5)
    assert (c.meta_batch, c.meta_iters, c.meta_step_final) == (1, 30_000, 0)
    assert (c.shots, c.eval_batch, c.eval_iters) == ((10,), (10,), 32)
    assert (c.activation, c.eval_samples) == ("tanh", 1000)


def test_the_parameters_fill_their_ranges():
    source = sine.load(parse())
    rng = np.random.default_rng(2)
    x = np.array([0.0, math.pi / 2])
    waves = np.array([source.wave(rng)(x) for _ in range(4000)])
    amplitude = np.hypot(*waves.T)
    phase = np.arctan2(*waves.T) % (2 * math.pi)
    for values, low, high in ((amplitude, 0.1, 5), (phase, 0, 2 * math.pi)):
        counts, _ = np.histogram(values, 8, (low, high))
        assert counts.sum() == 4000 and counts.min() > 400


def test_tasks_do_not_depend_on_how_many_are_asked_for_at_once():
    source = sine.load(parse())
    whole = source.sampler(np.random.default_rng(3))(5)
    draw = source.sampler(np.random.default_rng(3))
    for a, b, c in zip(whole, draw(2), draw(3), strict=True):
        np.testing.assert_array_equal(a, np.concatenate([b, c]))


def test_evaluation_sees_p_random_points_and_is_scored_on_the_grid():
    source = sine.load(parse("--x_range=-2,3"))
    drawn = source.evaluation_tasks("test", 4, 3, 5,
                                    np.random.default_rng(4))
    assert drawn.support_inputs.shape == (5, 4, 1)
    assert drawn.positions.shape == (5, 32, 3)
    assert drawn.support_inputs.min() >= -2 and drawn.support_inputs.max() <= 3
    assert len(np.unique(drawn.support_inputs)) == 20
    many = source.evaluation_tasks("test", 4, 3, 500,
                                   np.random.default_rng(4)).support_inputs
    counts, _ = np.histogram(many, 5, (-2, 3))
    assert counts.sum() == 2000 and counts.min() > 330
    for i in range(5):
        np.testing.assert_allclose(drawn.query_inputs[i, :, 0],
                                   np.linspace(-2, 3, 50), rtol=1e-5)
        assert set(drawn.positions[i].ravel()) == set(range(4))
        x = np.concatenate([drawn.support_inputs[i].ravel(),
                            drawn.query_inputs[i].ravel()])
        y = np.concatenate([drawn.support_targets[i].ravel(),
                            drawn.query_targets[i].ravel()])
        basis = np.stack([np.sin(x), np.cos(x)], 1).astype(float)
        weights, *_ = np.linalg.lstsq(basis, y, rcond=None)
        np.testing.assert_allclose(basis @ weights, y, atol=1e-5)


def test_the_loss_is_the_mean_over_the_fifty_points():
    outputs = np.zeros((2, 50, 1))
    outputs[1, 7] = 5.0
    np.testing.assert_allclose(
        mean_squared_error(outputs, np.zeros((2, 50, 1))), [0, 0.5])


def test_the_mean_of_f_is_of_its_size_over_the_grid():
    """Of 2 below 0 and -4 above, 25 points each: 3, of a mean of -1."""
    source = sine.load(parse("--x_range=-7,7"))
    assert source.facts(lambda x: np.where(x < 0, 2.0, -4.0)) == {
        "mean_abs_initialization": 3.0}
    asked = []
    source.facts(lambda x: asked.append(x) or x)
    np.testing.assert_allclose(asked[0][:, 0], np.linspace(-7, 7, 50),
                               rtol=1e-5)


@pytest.mark.parametrize("eval_iters, steps", [
    (32, (0, 1, 2, 4, 8, 16, 32)), (5, (0, 1, 2, 4, 5)), (1, (0, 1)),
    (0, (0,))])
def test_steps_that_are_reported(eval_iters, steps):
    assert parse(f"--eval_iters={eval_iters}").eval_steps == steps


def test_the_network_starts_as_the_demonstrations():
    model = models.sine(3)
    shapes = [w.shape for w in model.weights]
    assert shapes == [(1, 64), (64,), (64, 64), (64,), (64, 1), (1,)]
    for w, bound in zip(model.weights, (1, 1, 1 / 8, 1 / 8, 1 / 8, 1 / 8),
                        strict=True):
        assert 0 < np.abs(w).max() <= bound
    assert np.abs(model.weights[0]).max() > 0.8
    assert np.abs(model.weights[2]).max() > 0.12
    for a, b in zip(model.weights, models.sine(3).weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_defaults_by_algorithm_yield_to_the_command_line():
    assert parse().meta_step == 0.1
    assert parse("--algorithm=fomaml").outer_optimizer == "adam"
    assert parse("--algorithm=fomaml", "--meta_step=0.05").meta_step == 0.05


@pytest.mark.parametrize("arguments, message", [
    (["--shots=0"], "shots=0"),
    (["--amplitude=5,0.1"], "amplitude=5.0,0.1 is an empty range"),
    (["--x_range=2,2"], "x_range=2.0,2.0 is an empty range"),
    (["--phase=1"], "phase=1.0 is an empty range"),
    (["--x_range=-inf,2"], "x_range=-inf,2.0 must be finite"),
    (["--amplitude=a,b"], "amplitude='a,b' must be numbers"),
    (["--eval_iters=-1"], "eval_iters=-1 must be 0 or more"),
    (["--algorithm=fomaml", "--tail_shots=5", "--train_shots=5"],
     "tail_shots=5.*train_shots=5"),
    (["--activation=sigmoid"], "sigmoid"),
])
def test_bad_flags(arguments, message):
    with pytest.raises(InputError, match=message):
        parse(*arguments)


@pytest.mark.slow
def test_compare_trains_all_and_draws_one_figure(tmp_path, capsys):
    home = tmp_path / "compare"
    assert main(f"--run_dir={home}", "--compare", *SMALL) == 0
    output = capsys.readouterr().out
    assert {p.name for p in home.iterdir()} == {
        *unweighted(), "figure1.png", "figure1.svg"}
    for name in unweighted():
        result = json.loads((home / name / "result.json").read_text())
        assert result["algorithm"] == name
        assert [r["steps"] for r in result["results"]] == [0, 1, 2, 4, 5]
        assert set(result["results"][0]) == {
            "split", "points", "steps", "tasks", "mse", "ci95"}
        assert result["results"][0]["tasks"] == 12
        assert result["untrained"][0]["points"] == 10
        assert result["mean_abs_initialization"] > 0
    with Image.open(home / "figure1.png") as image:
        assert image.size[0] > 1500
    svg = (home / "figure1.svg").read_text()
    for word in ("random initialization", "reptile", "maml", "maml, 12 tasks",
                 "random initialization, 8 tasks",
                 "10 points seen", "tanh network", "after 5 steps"):
        assert f"<!-- {word}" in svg or word in svg, word
    assert "random initialization         8" in output
    assert "(95 % interval over 8 and 12 tasks)" in output
    assert "--nocompare" in (home / "maml" / "flags.cfg").read_text()
    # The same command again trains nothing.
    before = (home / "maml" / "result.json").read_bytes()
    assert main(f"--run_dir={home}", "--compare", *SMALL) == 0
    assert "already finished" in capsys.readouterr().out
    assert (home / "maml" / "result.json").read_bytes() == before
    # A run directory of other tasks, or of another data set.
    for flag, was in (("--amplitude=0.10001,5.0", "--amplitude=0.1,5.0"),
                      ("--activation=relu", "--activation=tanh")):
        assert main(f"--run_dir={home / 'reptile'}", flag, *SMALL) == 1
        error = capsys.readouterr().err
        assert f"another configuration: {was} there, {flag} asked" in error
    omniglot_flags = ["--data=synthetic", f"--run_dir={home / 'reptile'}"]
    assert experiment.main(omniglot, ["run_omniglot.py", *omniglot_flags]) == 1
    assert "another configuration" in capsys.readouterr().err


def test_one_run_leaves_its_figure_and_export(tmp_path, capsys):
    assert main(f"--run_dir={tmp_path / 'run'}", *SMALL[:-1]) == 0
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names >= {"figure1.png", "figure1.svg", "result.json",
                     "initialization"}
    loaded = tf.saved_model.load(str(tmp_path / "run" / "initialization"))
    x = np.linspace(-4, 4, 7, dtype=np.float32)[:, None]
    adapt = loaded.signatures["adapt_and_predict"]
    fitted = adapt(support_images=x, support_labels=2 * np.sin(x),
                   query_images=x, transductive=True)["logits"]
    before = loaded.signatures["serving_default"](images=x)["logits"]
    assert mean_squared_error(fitted[None], 2 * np.sin(x)[None]) < (
        mean_squared_error(before[None], 2 * np.sin(x)[None]))
    # From it another goes on.
    assert main(
        f"--run_dir={tmp_path / 'next'}", *SMALL[:-1], "--meta_iters=0",
        f"--init={tmp_path / 'run' / 'initialization'}") == 0
    svg = (tmp_path / "next" / "figure1.svg").read_text()
    assert "start, 8 tasks" in svg and "before this training" in svg
    assert "random" not in svg and "not meta-trained" not in svg
    drawn = (tmp_path / "run" / "figure1.png").read_bytes()
    # Without phi no network is drawn in its place, nor an older phi.
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    newest.write_bytes(b"gone")
    assert main(f"--run_dir={tmp_path / 'run'}", *SMALL[:-1]) == 0
    assert "can be read is of meta-iteration 300" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert main(f"--run_dir={tmp_path / 'run'}", *SMALL[:-1]) == 0
    assert "figure 1 is not drawn: " in capsys.readouterr().out
    assert (tmp_path / "run" / "figure1.png").read_bytes() == drawn


def test_the_curve_ends_at_a_final_evaluation_of_as_many_tasks(tmp_path):
    """One meta-iteration draws the same tasks in both."""
    assert experiment.main(sine, [
        "run_sine.py", f"--run_dir={tmp_path / 'run'}", *SMALL,
        "--meta_iters=3", "--shots=9,4", "--eval_samples=8",
        "--jit_compile=off"]) == 0
    rows = json.loads((tmp_path / "run/result.json").read_text())["results"]
    found = {f"mse_{r['points']}points_{r['steps']}steps": r["mse"]
             for r in rows}
    assert len(found) == len(rows) == 2 * 5
    assert {name: curve for (_, name), curve in metrics.read(
        tmp_path / "run/metrics.csv").items()} == {
            name: {3: pytest.approx(mse)} for name, mse in found.items()}


def test_a_table_has_untrained_and_trained_in_their_columns():
    def rows(number, *mse):
        return [{"points": 9, "steps": steps, "tasks": number, "mse": value,
                 "ci95": value / 4} for steps, value in enumerate(mse)]

    lines = sine.table({"untrained": rows(8, 4.0, 2.0),
                        "results": rows(1200, 3.0, 0.5),
                        "mean_abs_initialization": 0.125})
    assert "over 8 and 1,200 tasks" in lines[0]
    assert [line.split() for line in lines[1:4]] == [
        ["points", "steps", "untrained", "meta-trained"],
        ["9", "0", "4.000", "±", "1.000", "3.000", "±", "0.750"],
        ["9", "1", "2.000", "±", "0.500", "0.500", "±", "0.125"]]
    assert lines[4:] == ["  mean |f| of the initialization: 0.125"]


def test_seen_values_are_those_of_the_mini_batches():
    source = sine.load(parse())
    shown = source.evaluation_tasks("test", 6, 10, 2,
                                    np.random.default_rng(5))
    values = figure1.seen_values(shown, 1)
    np.testing.assert_array_equal(values, shown.support_targets[1, :, 0])
    one_step = shown._replace(positions=shown.positions[:, :1, :4])
    seen = np.unique(one_step.positions[1, 0])
    assert 0 < len(seen) < 6
    values = figure1.seen_values(one_step, 1)
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(values)), seen)


@pytest.mark.parametrize("trained", [True, False])
def test_a_column_is_phi_before_and_after_its_steps(tmp_path, trained):
    """By gradient descent on the mean squared error of Keras's model."""
    config = parse("--seed=3", "--shots=4,9", "--eval_batch=3",
                   "--eval_iters=2", "--learning_rate=0.125")
    opened = Experiment(sine, config, RunDirectory(tmp_path),
                        logging.getLogger("sine"))
    for phi in opened.trainer.phi:
        phi.assign(0.5 * phi)
    shown = figure1.shown_tasks(opened)
    rows = {kind: [{"points": points, "mse": mse} for points in (4, 9)]
            for kind, mse in (("results", 1.0), ("untrained", 2.0))}
    column = figure1.column_of(opened, rows, shown, Evaluator(
        opened.trainer.learner.inner_loop, Engine(False, False),
        modes=(True,), steps=(0, 2)), trained)
    assert (column.name, column.settings) == (
        ("reptile", "outer sgd 0.1 to 0") if trained
        else ("random initialization", "not meta-trained"))
    assert column.rows == rows["results" if trained else "untrained"][:1]
    x = np.linspace(-5, 5, 50, dtype=np.float32)[:, None]
    assert column.after.shape == (2, 50)
    for i in range(2):
        model = models.sine(3, "tanh")
        for w in model.weights:
            w.assign((0.5 if trained else 1.0) * w)
        np.testing.assert_allclose(column.before[i], model(x)[:, 0],
                                   atol=1e-6)
        assert column.mean_abs == pytest.approx(
            np.abs(model(x)).mean(), rel=1e-5)
        for batch in shown.positions[i]:
            assert len(batch) == 3
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(
                    model(shown.support_inputs[i][batch])
                    - shown.support_targets[i][batch]))
            for w, g in zip(model.weights, tape.gradient(
                    loss, [w.value for w in model.weights]), strict=True):
                w.assign(w - 0.125 * g)
        np.testing.assert_allclose(column.after[i], model(x)[:, 0],
                                   rtol=1e-4, atol=1e-5)
        assert np.abs(column.after[i] - column.before[i]).max() > 0.01


def test_figure_1_draws_what_its_columns_hold(rng):
    config = parse("--x_range=-2,3", "--eval_iters=2")
    grid = np.linspace(-2, 3, 50)
    shown = EvaluationTasks(
        rng.normal(size=(2, 4, 1)), rng.normal(size=(2, 4, 1)),
        np.array([[[0, 1], [1, 3]], [[2, 0], [3, 2]]]),
        np.stack([grid[:, None]] * 2), rng.normal(size=(2, 50, 1)))
    columns = [figure1.Column(
        name, "in short", rng.normal(size=(2, 50)), rng.normal(size=(2, 50)),
        mean_abs, [{"points": 4, "steps": steps, "tasks": 1200,
                    "mse": mse * steps + 1, "ci95": 0.25 * mse}
                   for steps in (0, 1, 2)])
        for name, mean_abs, mse in (("a", 0.75, 2.0), ("b", 1.5, 3.0))]
    *panels, curves = figure1.draw(columns, shown, config).axes
    places = [(j, i) for j in range(2) for i in range(2)]
    for axes, (j, i) in zip(panels, places, strict=True):
        truth, before, after, seen = axes.lines
        for line, want in ((truth, shown.query_targets[i, :, 0]),
                           (before, columns[j].before[i]),
                           (after, columns[j].after[i])):
            np.testing.assert_allclose(line.get_xdata(), grid)
            np.testing.assert_array_equal(line.get_ydata(), want)
        np.testing.assert_array_equal(seen.get_xdata(),
                                      shown.support_inputs[i, :, 0])
        values = shown.support_targets[i, :, 0].copy()
        values[2 - i] = np.nan  # In no mini-batch of task 0; 1 of task 1.
        np.testing.assert_array_equal(seen.get_ydata(), values)
        assert [line.get_label() for line in axes.lines] == [
            "truth", "before", "after 2 steps, in the column's colour",
            "seen points"]
    assert panels[2].get_title() == "b\nin short\nmean |f| before: 1.50"
    for line, band, column, mse in zip(
            curves.lines, curves.collections, columns, (2, 3), strict=True):
        np.testing.assert_array_equal(
            line.get_data(), [[0, 1, 2], [1, mse + 1, 2 * mse + 1]])
        assert line.get_label() == f"{column.name}, 1,200 tasks"
        edges = {tuple(v) for v in band.get_paths()[0].vertices}
        assert edges >= {(1, 1.25 * mse + 1), (1, 0.75 * mse + 1)}
