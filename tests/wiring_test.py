"""The flags reach the parts that they are of."""

import dataclasses
import json
import logging
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tiny
from tasks_test import drawn_afresh

from reptile_tf import networks, tasks
from reptile_tf.configuration import flags
from reptile_tf.datasets import few_shot, omniglot, sine
from reptile_tf.learning.adaptation import AdaptConfig, stateless_schedule
from reptile_tf.learning.learner import Learner
from reptile_tf.learning.meta_config import MetaConfig
from reptile_tf.learning.optimizers import InnerConfig, InnerState
from reptile_tf.records.run_directory import RunDirectory
from reptile_tf.runs import building, scoring
from reptile_tf.runs.experiment import Experiment
from reptile_tf.runs.interrupts import Interrupts

# None a default and, within a part, no two equal.
GIVEN = {
    "shots": (3,), "learning_rate": 0.25, "inner_loss": "mean",
    "weight_decay": 0.75, "mixed_bfloat16": True, "inner_frozen": "norm*/*",
    "meta_step": 0.0625, "meta_step_final": 0.03125, "meta_batch": 7,
    "meta_iters": 11, "outer_optimizer": "adam", "outer_clip": 3.0,
    "task_order": "sequential", "recompute_gradients": True, "classes": 4,
    "train_shots": 9, "inner_batch": 6, "inner_iters": 3, "replacement": True,
    "tail_shots": 2}
# What does not go together.
EITHER = {"algorithm": "maml", "inner_beta1": 0.5}
OR = {"algorithm": "gradient_sum", "gradient_weights": (0.5, -2.0, 8.0),
      "inner_optimizer": "sgd"}


def parse(*arguments, dataset=tiny):
    return flags.parse(["script.py", *arguments], dataset.CONFIG,
                       dataset.DEFAULTS, dataset.BY_ALGORITHM)


def flag_of(field):
    return "classes" if field.name == "ways" else field.name


@pytest.mark.parametrize("more", [EITHER, OR])
def test_each_field_of_a_part_is_the_flag_of_its_name(more):
    given = GIVEN | more
    config = parse(*(
        f"--{name}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
        for name, v in given.items()), dataset=omniglot)
    for part in (config.inner, config.meta, config.task):
        for field in dataclasses.fields(part):
            assert getattr(part, field.name) == given.get(
                flag_of(field), field.default), field.name


@pytest.mark.parametrize("part", [InnerConfig, MetaConfig, tasks.TaskConfig])
def test_no_field_of_a_part_is_left_out_above(part):
    for field in dataclasses.fields(part):
        assert (GIVEN | EITHER | OR)[flag_of(field)] != field.default


def test_no_tail_apart_by_default():
    assert parse().task.tail_shots is None


def test_a_support_set_is_adapted_to_as_evaluation_of_its_size_does():
    """In whatever order --shots come."""
    adaptation = parse(
        "--classes=3", "--shots=5,1,3", "--eval_batch=15,2,4",
        "--eval_iters=6", "--replacement").adaptation
    assert adaptation == AdaptConfig(6, 15, True, ((3, 2), (9, 4)))
    for number, batch in ((3, 2), (4, 4), (9, 4), (10, 15), (20, 15)):
        number = tf.constant(number)
        assert int(adaptation.batch_of(number)) == batch
        np.testing.assert_array_equal(
            adaptation.positions(number),
            stateless_schedule(number, tf.constant(batch), 6, True))


def test_a_batch_that_is_told_counts_for_every_support_set():
    adaptation = AdaptConfig(4, 3, smaller=((9, 2),))
    told = adaptation.told(None, 7)
    assert (told.steps, int(told.batch_of(5))) == (4, 7)
    assert adaptation.told(0, None).steps == 0
    for number, batch in ((9, 2), (10, 3)):
        assert int(adaptation.told(6, None).batch_of(number)) == batch


@pytest.mark.parametrize("split, classes", [
    ("train", 8), ("val", 4), ("test", 8)])
def test_evaluation_tasks_are_of_their_split(rng, split, classes):
    source = tiny.load(parse(
        "--classes=3", "--inner_batch=4", "--inner_iters=2",
        "--eval_batch=7", "--eval_iters=5", "--eval_queries=3",
        "--val_classes=4"))
    drawn = source.evaluation_tasks(split, 2, 7, 90, rng)
    assert drawn.positions.shape == (90, 5, 7)
    assert drawn.support_inputs.shape == (90, 6)
    assert drawn.query_inputs.shape == (90, 9)
    there = np.ravel(source.data.splits[split])
    assert len(there) == 6 * classes
    for inputs in (drawn.support_inputs, drawn.query_inputs):
        assert set(np.ravel(inputs)) == set(there)


@pytest.mark.parametrize("replacement", [False, True])
def test_evaluation_draws_with_replacement_where_training_does(
        rng, replacement):
    flag = f"--{'' if replacement else 'no'}replacement"
    shared = ["--eval_iters=4", "--eval_batch=5", flag]
    image = tiny.load(parse("--classes=3", "--shots=2", *shared))
    wave = sine.load(parse("--shots=6", *shared, dataset=sine))
    for source, shots in (image, 2), (wave, 6):
        drawn = source.evaluation_tasks("test", shots, 5, 20, rng)
        assert drawn_afresh(drawn.positions, 6) == replacement
    config = parse("--classes=3", "--train_shots=2", "--inner_batch=5",
                   "--inner_iters=4", "--shots=2", *shared).task
    assert drawn_afresh([[*steps, last] for steps, last in (
        tasks.with_tail(config, rng) for _ in range(20))], 6) == replacement


def test_the_seed_draws_the_network(rng):
    images = rng.random((2, 4, 3, 1)).astype("float32")
    np.testing.assert_array_equal(
        tiny.load(parse("--classes=4", "--seed=6")).network()(images),
        tiny.build_model(4, 6)(images))
    x = np.linspace(-5, 5, 7, dtype="float32")[:, None]
    source = sine.load(parse("--seed=6", "--activation=relu", dataset=sine))
    np.testing.assert_array_equal(source.network()(x),
                                  networks.sine(6, "relu")(x))


@pytest.mark.parametrize("flag, dtype", [
    ("--mixed_bfloat16", "bfloat16"), ("--nomixed_bfloat16", "float32")])
def test_the_type_that_is_asked_for_is_computed_in(flag, dtype):
    config = parse("--classes=4", flag)
    source = tiny.load(config)
    learner = building.learner_of(source, config, source.network())
    assert {layer.compute_dtype for layer in learner.clone.layers} == {dtype}
    assert {v.dtype for v in learner.phi} == {"float32"}


@pytest.mark.parametrize("algorithm", ["maml", "fomaml"])
@pytest.mark.parametrize("flag", ["", "no"])
def test_mamls_inner_steps_are_recomputed_where_that_is_asked(
        monkeypatch, flag, algorithm):
    """Where no gradient goes through them there is nothing to save."""
    made, new = [], Learner.new_inner_loop

    def noted(*arguments):
        made.append(new(*arguments))
        return made[-1]

    monkeypatch.setattr(Learner, "new_inner_loop", noted)
    config = parse(f"--algorithm={algorithm}", f"--{flag}recompute_gradients")
    source = tiny.load(config)
    building.trainer_of(source, config, source.network())
    assert [inner.recompute for inner in made] == [
        False, algorithm == "maml" and not flag]


@pytest.mark.parametrize("on_device", [True, False])
def test_pixels_are_255ths_where_they_are_looked_up_and_where_fetched(
        rng, on_device):
    config = parse("--classes=3")
    data = tiny.load(config).data
    assert len(np.unique(data.images)) > 250
    source = few_shot.FewShotImages(data, config, tiny.build_model, on_device)
    index = rng.integers(0, len(data.images), (2, 5))
    got = source.lookup(tf.constant(source.fetch(index)))
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, data.images[index] / 255, rtol=1e-6)


@pytest.fixture
def run(tmp_path):
    """A run of seed 6 that has not begun."""
    config = parse("--seed=6", "--classes=4", "--val_classes=5",
                   "--shots=2,1", "--eval_batch=7,3", "--eval_iters=3")
    return Experiment(tiny, config, RunDirectory(tmp_path),
                      logging.getLogger("wiring"))


def test_the_seed_draws_the_training_tasks(run):
    want = tasks.TaskSampler(
        run.source.data.splits["train"], run.config.task,
        tasks.generator(6, tasks.TRAINING_STREAM))(3)
    for a, b in zip(run.sampler(3), want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_seed_draws_the_evaluation_tasks(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(run.evaluator, "evaluate", lambda *given: (
        drawn.append(given[2]) or []))
    assert scoring.score(run, run.trainer.learner, "val", 5, 12,
                         Interrupts()) == []
    for got, shots, batch in zip(drawn, (2, 1), (7, 3), strict=True):
        want = tasks.evaluation_tasks(
            run.source.data.splits["val"], 4, shots, batch, 3, False, 5,
            tasks.evaluation_generator(6, "val", shots, 12))
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_final_evaluation_is_of_phi_and_of_the_start(run, monkeypatch):
    """Each with its own (v, t), on the tasks of the last meta-iteration."""
    untrained = [w.numpy() for w in run.trainer.weights]
    run.start = run.start._replace(state=InnerState(
        [tf.ones_like(w) for w in untrained], tf.constant(9, tf.int64)))
    run.trainer.optimizer.iterations.assign(12)
    for phi in run.trainer.phi:
        phi.assign_add(tf.ones_like(phi))
    given = []
    monkeypatch.setattr(run.evaluator, "evaluate", lambda *arguments: (
        given.append(arguments[:3]) or []))
    result, _ = scoring.final(run, Interrupts())
    assert result["meta_iters"] == 12
    # Of 9 tasks phi, of 4 the start.
    wanted = [(split, plus, t, number, shots, batch)
              for split in ("test", "val", "train")
              for plus, t, number in ((1, 0, 9), (0, 9, 4))
              for shots, batch in ((2, 7), (1, 3))]
    for (weights, state, drawn), (
            split, plus, t, number, shots, batch) in zip(
                given, wanted, strict=True):
        for a, b, v in zip(weights, untrained, state.v, strict=True):
            np.testing.assert_array_equal(a, b + plus)
            np.testing.assert_array_equal(v, np.full_like(b, 1 - plus))
        assert int(state.t) == t
        want = tasks.evaluation_tasks(
            run.source.data.splits[split], 4, shots, batch, 3, False, number,
            tasks.evaluation_generator(6, split, shots, 12))
        for a, b in zip(drawn, want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_scored_counts_for_the_same_numbers_alone(
        run, tmp_path, monkeypatch):
    run.trainer.phi[0].assign_add(tf.ones_like(run.trainer.phi[0]))
    monkeypatch.setattr(run.evaluator, "evaluate", lambda *given: [])
    run.fingerprint, run.code = 123, 456
    result, _ = scoring.final(run, Interrupts())

    def checksum(weights):
        return zlib.crc32(b"".join(w.numpy().tobytes() for w in weights))

    assert json.loads((tmp_path / "scored.json").read_text())["key"] == {
        "weights": checksum(run.trainer.phi),
        "start": checksum(run.start.model.trainable_variables),
        "data": 123, "code": 456, "versions": result["versions"],
        "flags": {name: line for name, line in run.config.lines().items()
                  if name not in ("cache_dir", "data_dir", "device_images",
                                  "num_threads", "deterministic", "export",
                                  "eval_interval")}}
    assert set(result["versions"]) == {
        "python", "tensorflow", "keras", "numpy", "reptile_tf"}
