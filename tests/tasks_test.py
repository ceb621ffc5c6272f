"""Sampling and mini-batch schedules (protocol of the paper's section 6)."""

import numpy as np
import pytest

from reptile_tf import tasks
from reptile_tf.errors import InputError
from reptile_tf.tasks import TaskConfig, TaskSampler

# 7 classes of unequal sizes; class c's examples are 100 c, 100 c + 1, ...
CLASSES = [100 * c + np.arange(6 + c) for c in range(7)]


def test_schedule_cycles_and_carries_the_partial_batch_over(rng):
    steps = tasks.mini_batches(7, 3, 5, False, rng)
    flat = steps.ravel()
    assert steps.shape == (5, 3)
    assert sorted(flat[:7]) == sorted(flat[7:14]) == list(range(7))
    assert list(flat[:7]) != list(flat[7:14])


def test_a_batch_may_straddle_the_reshuffle_and_repeat_an_example(rng):
    straddling = [tasks.mini_batches(3, 2, 2, False, rng)[1]
                  for _ in range(50)]
    assert any(a == b for a, b in straddling)


def test_a_larger_batch_holds_each_example_several_times(rng):
    batch = tasks.mini_batches(3, 7, 1, False, rng)[0]
    assert sorted(np.bincount(batch)) == [2, 2, 3]


def test_replacement_draws_each_batch_afresh_without_repeats(rng):
    steps = tasks.mini_batches(7, 5, 40, True, rng)
    assert all(len(set(batch)) == 5 for batch in steps)
    assert not all(set(a) | set(b) == set(range(7))
                   for a, b in zip(steps, steps[1:], strict=False))


def test_replacement_refuses_a_batch_larger_than_the_set(rng):
    with pytest.raises(InputError, match="8.*replacement=True.*7"):
        tasks.mini_batches(7, 8, 1, True, rng)


def test_no_steps_make_no_batches(rng):
    for replacement in (False, True):
        assert tasks.mini_batches(4, 3, 0, replacement, rng).shape == (0, 3)


def drawn_afresh(schedules, size):
    """Whether the mini-batches of tasks of this size are each drawn afresh.

    Then none holds an example twice; else they begin with a whole pass.
    """
    afresh = all(len(set(batch)) == len(batch)
                 for steps in schedules for batch in steps)
    cycling = all(len(set(np.ravel(steps)[:size])) == size
                  for steps in schedules)
    assert afresh != cycling
    return afresh


@pytest.mark.parametrize("replacement", [False, True])
def test_every_kind_of_task_draws_with_replacement(rng, replacement):
    for tail, batch, size in ((None, 11, 15), (2, 7, 9)):
        config = TaskConfig(ways=3, train_shots=5, inner_batch=batch,
                            inner_iters=4, replacement=replacement,
                            tail_shots=tail)
        drawn = [tasks.with_tail(config, rng) for _ in range(20)]
        assert drawn_afresh(
            [t.batches if tail else [*t.batches, t.last] for t in drawn],
            size) == replacement
    drawn = tasks.evaluation_tasks(CLASSES, 3, 2, 5, 4, replacement, 20, rng)
    assert drawn_afresh(drawn.positions, 6) == replacement


@pytest.mark.parametrize("tail", [None, 2])
@pytest.mark.parametrize("replacement", [False, True])
def test_training_batches(rng, tail, replacement):
    config = TaskConfig(ways=3, train_shots=5, inner_batch=4, inner_iters=6,
                        replacement=replacement, tail_shots=tail)
    batches = TaskSampler(CLASSES, config, rng)(2)
    last = 3 * 2 if tail else 4
    assert batches.inputs.shape == batches.targets.shape == (2, 5, 4)
    assert batches.last_inputs.shape == batches.last_targets.shape == (2, last)
    for x, y, lx, ly in zip(*batches, strict=True):
        pairs = {*zip(x.ravel(), y.ravel(), strict=True),
                 *zip(lx, ly, strict=True)}
        labels = {label: {int(i) // 100 for i, m in pairs if m == label}
                  for label in range(3)}
        # One class per label, three distinct ones, no example drawn twice.
        assert all(len(c) == 1 for c in labels.values())
        assert len(set.union(*labels.values())) == 3
        assert len(pairs) <= 15
        assert {int(i) for i, _ in pairs} <= set(np.concatenate(CLASSES))


def test_a_separate_tail_takes_random_examples():
    config = TaskConfig(ways=2, train_shots=5, inner_batch=4, inner_iters=2,
                        tail_shots=2)
    rng = np.random.default_rng(3)
    tails = [tuple(np.sort(tasks.with_tail(config, rng).last))
             for _ in range(200)]
    # 10 pairs of each class's 5 examples, so 100 tails.
    assert len(set(tails)) > 70
    assert all(sum(p < 5 for p in tail) == 2 for tail in tails)


def test_separate_tail_is_apart_and_whole(rng):
    config = TaskConfig(ways=3, train_shots=5, inner_batch=100, inner_iters=2,
                        tail_shots=2)
    for x, _, lx, ly in zip(*TaskSampler(CLASSES, config, rng)(20),
                            strict=True):
        assert not set(x.ravel()) & set(lx)
        assert len(set(lx)) == 6 and len(set(x.ravel())) == 9
        assert list(np.bincount(ly)) == [2, 2, 2]


def test_shared_tail_is_the_schedule_going_on(rng):
    config = TaskConfig(ways=3, train_shots=2, inner_batch=2, inner_iters=3)
    x, _, lx, _ = (a[0] for a in TaskSampler(CLASSES, config, rng)(1))
    assert len(set(x.ravel()) | set(lx)) == 6


@pytest.mark.parametrize("classes, settings, message", [
    ([10] * 5, {"train_shots": 11},
     "class 0 has 10 examples, and a task takes 11"),
    ([10, 3, 10], {"ways": 3, "train_shots": 4}, "class 1 has 3.*takes 4"),
    ([10] * 4, {}, "there are 4 classes, and a task takes 5"),
    ([10] * 5, {"tail_shots": 7, "train_shots": 5},
     "tail_shots=7 are taken out of train_shots=5: take 1 or more"),
    ([10] * 5, {"tail_shots": 0}, "tail_shots=0 are taken"),
    ([10] * 5, {"inner_iters": 0}, "inner_iters=0 must be 1 or more"),
    ([10] * 5, {"inner_iters": 1, "tail_shots": 1}, "inner_iters=1 with a sep"),
    ([10] * 5, {"ways": 0}, "ways=0 must be 1 or more")])
def test_tasks_that_cannot_be_drawn(rng, classes, settings, message):
    """Else labels would be of other examples."""
    with pytest.raises(InputError, match=message):
        TaskSampler([*map(np.arange, classes)], TaskConfig(**settings), rng)


@pytest.mark.parametrize("classes, message", [
    (np.zeros([5, 10, 8]), "class 0 is float64 of shape .10, 8.: give the pl"),
    (np.zeros([5, 2, 2, 2], int), "class 0 is int64 of shape .2, 2, 2."),
    (range(100), r"class 0 is int64 of shape \[\]: .*np.flatnonzero"),
    ([[*range(10)]] * 4 + [["a"]], "class 4 is <U1")])
def test_classes_are_places_of_examples(rng, classes, message):
    """Cut to integers, images would be places, all 0."""
    with pytest.raises(InputError, match=message):
        TaskSampler(classes, TaskConfig(), rng)


def test_classes_may_be_lists(rng):
    classes = [[*range(10)], [*range(10, 30)]]
    batches = TaskSampler(classes, TaskConfig(ways=2), rng)(3)
    assert set(batches.inputs.ravel()) <= {*range(30)}
    for x, y in zip(batches.inputs, batches.targets, strict=True):
        assert len({*zip(x.ravel() < 10, y.ravel(), strict=True)}) == 2


def test_evaluation_draws_from_places_too(rng):
    """As training does: images would be cut to places, all 0."""
    def draw(classes):
        return tasks.evaluation_tasks(classes, 2, 1, 2, 1, False, 1, rng)
    assert set(draw([[3, 4], [5, 6]]).support_inputs.ravel()) <= {3, 4, 5, 6}
    with pytest.raises(InputError, match="class . is float64 of shape .4, 8."):
        draw(np.zeros([2, 4, 8]))


def test_labels_are_in_random_order(rng):
    first = {tasks.draw_examples(CLASSES, 7, 1, rng)[0, 0] // 100
             for _ in range(60)}
    assert first == set(range(7))


def test_a_class_of_several_rows_gives_a_task_one_of_them():
    """Each row as often, and distinct classes alone."""
    rng = np.random.default_rng(5)
    classes = [1000 * c + 100 * np.arange(3)[:, None] + np.arange(4)
               for c in range(5)]
    drawn = np.stack([tasks.draw_examples(classes, 4, 2, rng)
                      for _ in range(600)])
    of_class, row = drawn // 1000, drawn // 100 % 10
    assert (of_class[..., 0] == of_class[..., 1]).all()
    assert (row[..., 0] == row[..., 1]).all()
    assert (drawn[..., 0] != drawn[..., 1]).all()
    assert all(len(set(task)) == 4 for task in of_class[..., 0])
    assert np.bincount(row.ravel()).min() > 4800 / 3 * 0.9
    # A task's rows are independent of each other.
    assert len({tuple(r) for r in row[:, :, 0]}) == 3**4


def test_batches_are_not_class_balanced(rng):
    config = TaskConfig(ways=5, train_shots=6, inner_batch=5, inner_iters=1)
    counts = [np.bincount(y, minlength=5)
              for y in TaskSampler(CLASSES, config, rng)(20).last_targets]
    assert any(c.max() > 1 for c in counts)


def test_evaluation_tasks_of_several_queries(rng):
    drawn = tasks.evaluation_tasks(CLASSES, 3, 2, 4, 5, False, 11, rng, 2)
    assert drawn.support_inputs.shape == (11, 6)
    assert drawn.query_inputs.shape == drawn.query_targets.shape == (11, 6)
    home = {int(i): n for n, of_class in enumerate(CLASSES) for i in of_class}
    for support, asked, labels, answers in zip(
            drawn.support_inputs, drawn.query_inputs, drawn.support_targets,
            drawn.query_targets, strict=True):
        assert answers.tolist() == [0, 0, 1, 1, 2, 2] == labels.tolist()
        assert len({*support, *asked}) == 12
        assert [home[i] for i in support] == [home[i] for i in asked]


def test_evaluation_tasks(rng):
    drawn = tasks.evaluation_tasks(CLASSES, 3, 2, 4, 5, False, 11, rng)
    assert drawn.positions.shape == (11, 5, 4)
    assert drawn.support_inputs.shape == (11, 6)
    assert drawn.query_inputs.shape == (11, 3)
    for support, targets, positions, query, label in zip(*drawn, strict=True):
        x, y = support[positions], targets[positions]
        assert len(set(support)) == 6 and not set(support) & set(query)
        assert list(label) == [0, 1, 2]
        of_label = query // 100
        assert list(of_label[np.arange(6) // 2]) == list(support // 100)
        assert np.array_equal(of_label[y], x // 100)


def test_first_drawn_is_the_test_example():
    drawn = tasks.evaluation_tasks(
        CLASSES, 3, 2, 4, 1, False, 1, np.random.default_rng(3))
    again = tasks.draw_examples(CLASSES, 3, 3, np.random.default_rng(3))
    assert np.array_equal(drawn.query_inputs[0], again[:, 0])
    assert np.array_equal(drawn.support_inputs[0], again[:, 1:].ravel())


def test_generators_are_keyed():
    def draw(*key):
        return tasks.evaluation_generator(*key).integers(2**40)

    keys = [(0, "test", 1, 10), (1, "test", 1, 10), (0, "val", 1, 10),
            (0, "test", 5, 10), (0, "test", 1, 20)]
    assert len({draw(*key) for key in keys}) == 5
    assert draw(*keys[0]) == draw(*keys[0])
    assert len({tasks.generator(3, s).integers(2**40) for s in range(4)}) == 4


def test_a_seed_means_the_same_generators_for_ever():
    """Else the published results could not be made again."""
    assert [tasks.generator(5, stream, 7).bit_generator.random_raw()
            for stream in range(4)] == [
        0x4b70f3de27ad7342, 0xc780ec1ddd952082, 0xda0e713775964181,
        0x160c04cb556cb7ca]
    assert (tasks.SPLIT_STREAM, tasks.TRAINING_STREAM,
            tasks.WEIGHTS_STREAM) == (0, 1, 3)
    evaluation = tasks.evaluation_generator(5, "val", 3, 20)
    assert evaluation.bit_generator.random_raw() == 0xb20b168833e9dfc1


def test_a_cut_follows_its_settings_alone(rng):
    """A setting that is not given has its default beside one that is."""
    x, y, q, want = (rng.random((3, n)) for n in (7, 7, 2, 2))

    def positions(**settings):
        return tasks.EvaluationTasks.cut(x, y, q, want, **settings).positions

    assert positions() is None
    afresh = positions(replacement=True)
    assert afresh.shape == (3, 50, 5) and drawn_afresh(afresh, 7)
    for other in (positions(steps=50), positions(batch=5), positions(seed=0)):
        assert other.shape == (3, 50, 5) and not drawn_afresh(other, 7)
    assert positions(steps=0).shape == (3, 0, 5)
    assert positions(steps=0, batch=2).shape == (3, 0, 2)
    for settings in ({"seed": 4}, {"steps": 9}, {"replacement": True}):
        np.testing.assert_array_equal(positions(**settings),
                                      positions(**settings))
    np.testing.assert_array_equal(positions(seed=0), positions(steps=50))


def test_sampler_state_is_the_generators(rng):
    sampler = TaskSampler(CLASSES, TaskConfig(ways=3, train_shots=4), rng)
    sampler(2)
    state = rng.bit_generator.state
    expected = sampler(3)
    rng.bit_generator.state = state
    assert all(np.array_equal(a, b)
               for a, b in zip(expected, sampler(3), strict=True))
