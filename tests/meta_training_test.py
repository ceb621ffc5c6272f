"""The outer loop: annealing, optimizers, state, library use."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ENGINES, slow_but

from reptile_tf import (
    Batches,
    InnerConfig,
    Learner,
    MetaConfig,
    MetaTrainer,
    meta_train,
    squared_error,
)
from reptile_tf.errors import InputError
from reptile_tf.learning.non_finite import NonFiniteError
from reptile_tf.learning.outer_optimizer import outer_optimizer


def network():
    keras.utils.set_random_seed(4)
    return keras.Sequential([
        keras.Input([2]), keras.layers.Dense(3, activation="tanh"),
        keras.layers.Dense(1)])


def sampler(seed=0, k=3):
    rng = np.random.default_rng(seed)

    def draw(num_tasks):
        x = rng.normal(size=(num_tasks, k, 4, 2)).astype("float32")
        return Batches.from_steps(x, x.sum(-1, keepdims=True))
    return draw


def trainer_of(model=None, inner=None, engine="graph-unrolled", **meta):
    meta = {"meta_batch": 2, "meta_iters": 6, **meta}
    return MetaTrainer(
        Learner(model or network(), inner or InnerConfig(0.05), squared_error,
                engine=ENGINES[engine]), MetaConfig(**meta))


@pytest.mark.parametrize("start", [0.8, 1])
def test_outer_step_is_annealed_sgd_on_the_displacement(start):
    """phi <- phi - epsilon_i mean D, epsilon_i = (1 - i/n) a + i/n b."""
    trainer, draw = trainer_of(meta_step=start, meta_step_final=0.2), sampler()
    for i in range(6):
        batches = draw(2)
        before = trainer.weights
        d = trainer.displacement(batches)
        for a, b in zip(before, trainer.weights, strict=True):
            np.testing.assert_array_equal(a, b)
        trainer.train_step(batches)
        epsilon = (1 - i / 6) * start + i / 6 * 0.2
        for a, b, move in zip(before, trainer.weights, d, strict=True):
            np.testing.assert_allclose(b, a - epsilon * move, atol=1e-6)
    assert trainer.iteration == 6
    assert trainer._outer.steps.experimental_get_tracing_count() == 1


def test_outer_adam_is_given_the_gradient():
    """Adam, epsilon 1e-8, on D / learning_rate, at the annealed rate."""
    trainer = trainer_of(outer_optimizer="adam", meta_step=0.02,
                         meta_step_final=0.01, meta_iters=2)
    variables = [keras.Variable(w) for w in trainer.weights]
    draw = sampler()
    m = [0 * w.numpy() for w in variables]
    v = [0 * w.numpy() for w in variables]
    phi = [w.numpy() for w in variables]
    for i, rate in enumerate((0.02, 0.015), 1):
        batches = draw(2)
        gradient = [d.numpy() / 0.05 for d in trainer.displacement(batches)]
        trainer.train_step(batches)
        m = [0.9 * a + 0.1 * g for a, g in zip(m, gradient, strict=True)]
        v = [0.999 * a + 0.001 * g**2
             for a, g in zip(v, gradient, strict=True)]
        phi = [p - rate * np.sqrt(1 - 0.999**i) / (1 - 0.9**i) * a
               / (np.sqrt(b) + 1e-8)
               for p, a, b in zip(phi, m, v, strict=True)]
        for a, b in zip(phi, trainer.weights, strict=True):
            np.testing.assert_allclose(b, a, atol=2e-6)


def test_outer_adams_epsilon_is_1e_8():
    """Keras's own is 1e-7. The first step of a gradient g is by hand
    -rate g sqrt(0.001) / (g sqrt(0.001) + epsilon)."""
    small = np.array([1e-7, 1e-6, -1e-6])
    phi = keras.Variable(np.zeros(3, np.float32))
    outer_optimizer(MetaConfig(outer_optimizer="adam", meta_step=0.05)).apply(
        [tf.constant(small, tf.float32)], [phi])
    root = small * 0.001**0.5
    np.testing.assert_allclose(phi, -0.05 * root / (np.abs(root) + 1e-8),
                               rtol=1e-4)


def test_outer_clip_bounds_each_element_of_what_the_optimizer_is_given():
    batches = sampler()(2)
    d = [x.numpy() for x in trainer_of().displacement(batches)]
    size = np.sort(np.abs(np.concatenate([x.ravel() for x in d])))
    bound = float(size[len(size) // 2])
    assert size[0] < 0.99 * bound and size[-1] > 1.01 * bound

    plain = trainer_of(outer_clip=bound, meta_step=0.5)
    before = plain.weights
    plain.train_step(batches)
    for a, b, move in zip(before, plain.weights, d, strict=True):
        np.testing.assert_allclose(
            b, a - 0.5 * np.clip(move, -bound, bound), atol=1e-6)

    # Adam is given D / 0.05; its second moments remember what it saw.
    adam = trainer_of(outer_optimizer="adam", outer_clip=bound / 0.05,
                      meta_step=0.05)
    adam.train_step(batches)
    seen = [o.value.numpy() for o in adam.optimizer.variables
            if "velocity" in o.path]
    for velocity, move in zip(seen, d, strict=True):
        np.testing.assert_allclose(
            velocity, 0.001 * (np.clip(move, -bound, bound) / 0.05) ** 2,
            rtol=1e-3)


@pytest.mark.parametrize("order, slots, steps", [
    ("parallel", 2, 3), ("sequential", 1, 6)])
def test_state_goes_on_from_iteration_to_iteration(order, slots, steps):
    trainer, draw = trainer_of(task_order=order), sampler()
    trainer.train_step(draw(2))
    first = trainer.slots.gathered()
    trainer.train_step(draw(2))
    second = trainer.slots.gathered()
    assert int(first.t) == steps and int(second.t) == 2 * steps
    assert all(v.shape[0] == slots for v in second.v)
    for a, b in zip(trainer.learner.state.v, second.v, strict=True):
        np.testing.assert_allclose(a, np.mean(b, 0), rtol=1e-6)
    assert any(np.any(a != b) for a, b in zip(first.v, second.v, strict=True))


def test_momentum_goes_on_as_v_does():
    inner, draw = InnerConfig(0.05, inner_beta1=0.9), sampler()
    trainer = trainer_of(inner=inner)
    trainer.train_step(draw(2))
    first = trainer.slots.gathered()
    trainer.train_step(draw(2))
    second = trainer.slots.gathered()
    for a, b, mean in zip(first.m, second.m, trainer.learner.state.m,
                          strict=True):
        assert b.shape[0] == 2 and np.any(a != b)
        np.testing.assert_allclose(mean, np.mean(b, 0), rtol=1e-5, atol=1e-9)
    names = {name.partition("/")[0] for name in trainer.state_dict()}
    assert names == {"phi", "v", "m", "t", "outer"}


@pytest.mark.parametrize("order", ["parallel", "sequential"])
@pytest.mark.parametrize("engine", slow_but("graph-unrolled"))
def test_a_meta_iteration_goes_on_from_the_moments_of_the_last(order, engine):
    """At a phi that stays, k = 1: of the gradient g twice, by hand,
    v = 0.001 (1 + 0.999) g^2 and m = 0.1 (1 + 0.9) g."""
    trainer = trainer_of(inner=InnerConfig(0.05, inner_beta1=0.9),
                         engine=engine, meta_step=0.0, meta_batch=1,
                         task_order=order)
    batches = sampler(k=1)(1)
    trainer.train_step(batches)
    first = trainer.slots.gathered()
    trainer.train_step(batches)
    second = trainer.slots.gathered()
    for a, b in zip(first.v, second.v, strict=True):
        assert np.all(a > 1e-12)
        np.testing.assert_allclose(b, 1.999 * a, rtol=1e-5)
    for a, b in zip(first.m, second.m, strict=True):
        np.testing.assert_allclose(b, 1.9 * a, rtol=1e-5)


def test_without_momentum_nothing_of_it_is_saved():
    names = {name.partition("/")[0] for name in trainer_of().state_dict()}
    assert names == {"phi", "v", "t", "outer"}


@pytest.mark.gpu
@pytest.mark.parametrize("order, outer, beta1", [
    ("parallel", "sgd", 0.9), ("sequential", "adam", 0.0),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        ("parallel", "sgd", 0.0), ("parallel", "adam", 0.0),
        ("sequential", "sgd", 0.0), ("sequential", "sgd", 0.9)))])
def test_state_dict_continues_bit_for_bit(order, outer, beta1):
    meta = dict(task_order=order, outer_optimizer=outer, meta_step=0.05,
                inner=InnerConfig(0.05, inner_beta1=beta1))
    whole, draw = trainer_of(**meta), sampler()
    steps = [draw(2) for _ in range(6)]
    for batches in steps[:4]:
        whole.train_step(batches)
    saved = whole.state_dict()
    resumed = trainer_of(**meta)
    resumed.load_state_dict(saved)
    for batches in steps[4:]:
        whole.train_step(batches)
        resumed.train_step(batches)
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(value, resumed.state_dict()[name])


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("rule", ["reptile", "maml"])
def test_an_image_network_continues_bit_for_bit_under_xla(rule):
    """By the engine of a GPU, from a trainer of its own."""
    def images():
        keras.utils.set_random_seed(4)
        return keras.Sequential([
            keras.Input([7, 6, 2]), keras.layers.Conv2D(5, 3, padding="same"),
            keras.layers.BatchNormalization(), keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2), keras.layers.Flatten(),
            keras.layers.Dense(1)])

    rng = np.random.default_rng(5)
    steps = [Batches.from_steps(x, x.mean((-3, -2, -1))[..., None])
             for x in rng.normal(size=(4, 2, 3, 4, 7, 6, 2)).astype("float32")]
    whole, resumed = (trainer_of(images(), engine="xla-vectorized",
                                 algorithm=rule) for _ in range(2))
    for batches in steps[:2]:
        whole.train_step(batches)
    resumed.load_state_dict(whole.state_dict())
    for batches in steps[2:]:
        whole.train_step(batches)
        resumed.train_step(batches)
    for name, value in whole.state_dict().items():
        np.testing.assert_array_equal(value, resumed.state_dict()[name])


def test_state_of_another_model_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        trainer_of().load_state_dict(
            trainer_of(task_order="sequential").state_dict())


def test_the_callers_model_is_written_at_the_end_only():
    model = network()
    before = [w.numpy() for w in model.weights]
    trainer, draw = trainer_of(model), sampler()
    for _ in trainer.train(draw):
        for a, b in zip(before, model.weights, strict=True):
            np.testing.assert_array_equal(a, b)
    trainer.learner.assign_to(model)
    for a, b in zip(trainer.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.any(a != b)
               for a, b in zip(before, model.weights, strict=True))


def test_library_use_meta_trains_a_users_model():
    model = network()
    learner = meta_train(
        model, sampler(), InnerConfig(0.02, "sgd"),
        MetaConfig(meta_step=0.5, meta_iters=40, meta_batch=2), squared_error)
    x = np.random.default_rng(9).normal(size=(100, 2)).astype("float32")

    def loss(net):
        return float(tf.reduce_sum(
            squared_error(x.sum(-1, keepdims=True), net(x))))
    # Three inner steps of the last meta-iteration follow 39 * 3.
    assert int(learner.state.t) == 120
    assert loss(model) < loss(network())
    # A learner is trained on, from its phi and (v, t).
    trained = learner.model.get_weights()[0]
    meta = MetaConfig(meta_step=0.0, meta_iters=2, meta_batch=2)
    assert meta_train(learner, sampler(), meta=meta) is learner
    assert int(learner.state.t) == 126
    np.testing.assert_array_equal(learner.weights[0], trained)
    with pytest.raises(InputError, match="has its own inner optimizer"):
        meta_train(learner, sampler(), loss=squared_error)
    with pytest.raises(InputError, match="str '' is no Sequential"):
        meta_train("runs/o5", sampler())


def run_all(pause=0, **arguments):
    trainer = MetaTrainer(
        Learner(network(), InnerConfig(0.05), squared_error,
                engine=ENGINES["xla-vectorized"]),
        MetaConfig(meta_batch=2, meta_iters=11), **arguments)
    return trainer, [*trainer.train(sampler(), pause)]


@pytest.mark.gpu
def test_iterations_per_call_and_pauses_do_not_change_what_is_trained():
    one, stops = run_all()
    assert stops == [*range(1, 12)]
    four, stops = run_all(iterations_per_call=4)
    assert stops == [4, 8, 11]
    paused, stops = run_all(3, iterations_per_call=4)
    assert stops == [3, 6, 9, 11]
    assert paused._outer.steps.experimental_get_tracing_count() == 1
    for name, value in paused.state_dict().items():
        np.testing.assert_array_equal(value, four.state_dict()[name])
        np.testing.assert_allclose(value, one.state_dict()[name], rtol=1e-4,
                                   atol=1e-6)


def test_a_call_stops_at_the_first_iteration_that_is_not_finite():
    draw, calls = sampler(), []

    def spoiled(num_tasks):
        batches = draw(num_tasks)
        calls.append(num_tasks)
        batches.last_inputs[4:] = np.inf  # From the third meta-iteration on.
        return batches
    trainer = MetaTrainer(
        Learner(network(), InnerConfig(0.05), squared_error,
                engine=ENGINES["graph-vectorized"]),
        MetaConfig(meta_batch=2, meta_iters=6), iterations_per_call=6)
    with pytest.raises(NonFiniteError, match="meta-iteration 3"):
        next(trainer.train(spoiled))
    assert calls == [12]


def test_nan_is_an_error():
    def draw(num_tasks):
        x = np.full((num_tasks, 3, 4, 2), np.inf, np.float32)
        return Batches.from_steps(x, x[..., :1])
    trainer = trainer_of()
    with pytest.raises(NonFiniteError, match="inputs already hold it"):
        trainer.train_step(draw(2))


def classes(spoil, at):
    """A sampler of 3 classes, spoilt from a call on, and a model of them."""
    rng, calls = np.random.default_rng(0), []

    def draw(num_tasks):
        calls.append(num_tasks)
        x = rng.normal(size=(num_tasks, 3, 4, 2)).astype("float32")
        y = rng.integers(0, 3, (num_tasks, 3, 4))
        return Batches.from_steps(*spoil(x, y) if len(calls) > at else (x, y))
    keras.utils.set_random_seed(5)
    return draw, keras.Sequential([keras.Input([2]), keras.layers.Dense(3)])


@pytest.mark.parametrize("spoil, message", [
    (lambda x, y: (x, y + 1), "targets go from 1 to 3"),
    (lambda x, y: (x, y / 1), "targets are float32"),
    (lambda x, y: (x[..., :1], y), "inputs have shape"),
    (lambda x, y: (x[:, :, :0], y[:, :, :0]), "inputs are empty")])
def test_later_batches_are_checked_too(spoil, message):
    """An example out of range has a loss of 0: silently it teaches nothing."""
    draw, model = classes(spoil, at=2)
    trainer = MetaTrainer(Learner(model), MetaConfig(meta_batch=2,
                                                     meta_iters=9))
    done = []
    with pytest.raises(InputError, match=message):
        done.extend(trainer.train(draw))
    assert trainer.iteration == 2


def interrupting(draw, at, error):
    calls = []

    def interrupted(num_tasks):
        calls.append(num_tasks)
        if len(calls) > at:
            raise error
        return draw(num_tasks)
    return interrupted


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("gone")])
def test_what_was_learned_before_an_interrupt_is_kept(error):
    """In the model, or in the learner that was trained on, with its v, t."""
    meta = MetaConfig(meta_batch=2, meta_iters=6)
    inner = InnerConfig(0.05)
    want = MetaTrainer(Learner(network(), inner, squared_error), meta)
    draw = sampler()
    for _ in range(4):
        want.train_step(draw(2))
    model, learner = network(), Learner(network(), inner, squared_error)
    for trained, own in ((model, (inner, meta, squared_error)),
                         (learner, (None, meta))):
        with pytest.raises(type(error)):
            meta_train(trained, interrupting(sampler(), 4, error), *own)
    for a, b, c in zip(want.weights, model.weights, learner.weights,
                       strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    assert int(learner.state.t) == 12
    for a, b in zip(want.learner.state.v, learner.state.v, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loop_that_is_left_leaves_the_state_of_its_learner():
    trainer = trainer_of()
    learner = trainer._learner
    for done in trainer.train(sampler()):
        if done == 2:
            break
    assert int(learner.state.t) == 6
    assert all(np.any(v) for v in learner.state.v)


def test_a_loop_that_is_kept_leaves_another_ones_state_alone():
    """A generator ends where its name goes, which may be much later."""
    trainer = trainer_of()
    calls = trainer.train(sampler())
    next(calls)
    learner = trainer.learner
    learner.state = other = learner.inner_loop.initial_state()
    calls.close()
    assert learner.state is other


def test_a_state_of_the_end_is_the_learners_too():
    """Loaded, there is nothing left to train."""
    whole, again = trainer_of(), trainer_of()
    for _ in whole.train(sampler()):
        pass
    again.load_state_dict(whole.state_dict())
    assert list(again.train(sampler())) == []
    assert int(again._learner.state.t) == 18
    for a, b in zip(again._learner.state.v, whole.learner.state.v,
                    strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_leaves_the_learner_as_it_was():
    """Silently NaN would be evaluated, 1 of the classes each time."""
    draw, model = classes(lambda x, y: (x * np.nan, y), at=3)
    meta = MetaConfig(meta_batch=2, meta_iters=3)
    learner = meta_train(model, draw, InnerConfig(0.05), meta)
    weights, state = learner.weights, learner.state
    after = [w.numpy() for w in model.weights]
    with pytest.raises(NonFiniteError, match="inputs already hold it"):
        meta_train(learner, draw, meta=meta)
    for a, b in zip([*weights, *state.v, state.t],
                    [*learner.weights, *learner.state.v, learner.state.t],
                    strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(NonFiniteError):
        meta_train(model, draw, InnerConfig(0.05), meta)
    for a, b in zip(after, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("arguments, message", [
    (lambda draw: [draw, MetaConfig()], "inner is a MetaConfig and meta is"),
    (lambda draw: [draw, None, InnerConfig()], "meta is an InnerConfig: give"),
    (lambda draw: [draw(2)], "the sampler is a Batches: give a function"),
    (lambda draw: [lambda n: tuple(draw(n))], "the sampler gave a tuple: ret"),
    (lambda draw: [lambda n: None], "the sampler gave None: return Batches"),
    (lambda draw: [lambda n: draw(n)._replace(last_inputs=[None])],
     "last_inputs are no array"),
    (lambda draw: [lambda n: draw(n)._replace(last_inputs=[[1.0], [1, 2]])],
     "last_inputs are no array.*of one shape")])
def test_what_meta_train_is_not_given(arguments, message):
    meta = MetaConfig(meta_batch=2)
    model, given = network(), arguments(sampler())
    given += [None] * (2 - len(given)) + [meta] * (len(given) < 3)
    with pytest.raises(InputError, match=message):
        meta_train(model, *given, loss=squared_error)


def test_only_the_algorithm_is_given_by_place():
    """200 would be the meta_step, and meta_iters 100,000."""
    with pytest.raises(TypeError, match="positional"):
        MetaConfig("reptile", 200)


def test_maml_of_one_mini_batch_is_refused():
    with pytest.raises(InputError, match="maml takes 2 mini-batches or more"):
        trainer_of(algorithm="maml").train_step(sampler(k=1)(2))


def test_a_bad_batch_is_refused_again():
    trainer, batches = trainer_of(), sampler()(2)
    for _ in range(2):
        with pytest.raises(InputError, match="targets"):
            trainer.train_step(batches._replace(
                targets=batches.targets[..., 0]))


def test_a_sampler_of_too_few_tasks_is_refused():
    with pytest.raises(InputError, match="3 tasks, meta_batch is 2"):
        trainer_of().train_step(sampler()(3))


def test_gradient_sum_trains_with_its_weights():
    batches = sampler()(2)
    fomaml, weighted = (
        trainer_of(**meta).displacement(batches) for meta in (
            dict(algorithm="fomaml"),
            dict(algorithm="gradient_sum", gradient_weights=(0, 0, 2.0))))
    for a, b in zip(fomaml, weighted, strict=True):
        np.testing.assert_allclose(b, 2 * a, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("meta, message", [
    (dict(algorithm="anil"), "anil.*reptile"),
    (dict(outer_optimizer="x"), "outer_optimizer"),
    (dict(task_order="x"), "parallel"),
    (dict(meta_batch=0), "meta_batch=0"),
    (dict(meta_iters=-1), "meta_iters=-1"),
    (dict(meta_step=float("nan")), "meta_step=nan"),
    (dict(algorithm="gradient_sum"), "gradient_sum, which needs them.*none"),
    (dict(gradient_weights=(1.0, 0.0)), "algorithm=reptile was given 1.0,0.0"),
])
def test_bad_config(meta, message):
    with pytest.raises(InputError, match=message):
        MetaConfig(**meta)
