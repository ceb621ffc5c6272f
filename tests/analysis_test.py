"""Section 5: the expansions of single sequences, and the averages."""

import numpy as np
import pytest
import tensorflow as tf
from forks import ROOT, Fork

from reptile_tf.analysis import expansion as analysis
from reptile_tf.analysis import leading_terms
from reptile_tf.analysis import solution_manifolds as manifolds


@pytest.fixture(scope="module")
def setting():
    model, family = leading_terms.network(3), leading_terms.Family.draw(4)
    return model, family, leading_terms.LeadingTerms(model, family)


def test_gradients_against_finite_differences(setting):
    model, family, terms = setting
    phi = [w.numpy().copy() for w in model.trainable_variables]

    def loss(task, batch, vector):
        start = 0
        for variable, p in zip(model.trainable_variables, phi, strict=True):
            variable.assign(vector[start:start + p.size].reshape(p.shape))
            start += p.size
        return float(tf.reduce_sum(tf.square(
            model(family.inputs[task, batch]) - family.targets[task, batch])))

    flat, h = np.concatenate([p.ravel() for p in phi]), 1e-6
    for task, batch in ((0, 1), (2, 0)):
        want = [(loss(task, batch, flat + h * e)
                 - loss(task, batch, flat - h * e)) / (2 * h)
                for e in np.eye(flat.size)]
        np.testing.assert_allclose(terms.gradients[task, batch], want,
                                   rtol=1e-5, atol=1e-7)
    for variable, p in zip(model.trainable_variables, phi, strict=True):
        variable.assign(p)


def test_equation_32(setting):
    """AvgGradInner is half the derivative of E[gbar_1 . gbar_2]."""
    _, _, terms = setting
    np.testing.assert_allclose(terms.avg_grad_inner,
                               terms.avg_grad_inner_by_eq32, rtol=1e-11)
    # And not the mean over a batch and itself alone.
    alone = terms.products[:, [0, 1], [0, 1]].mean((0, 1))
    assert not np.allclose(alone, terms.avg_grad_inner, rtol=0.05)


def expansion(name, terms, task, order):
    """(constant, coefficient of alpha): eq. 24, 38 and 40."""
    g, hg, k = terms.gradients[task], terms.products[task], len(order)
    last = order[-1]
    if name == "reptile":
        return sum(g[i] for i in order), -sum(
            hg[order[i], order[j]] for i in range(k) for j in range(i))
    linear = -sum(hg[last, j] for j in order[:-1])
    if name == "maml":
        linear = linear - sum(hg[j, last] for j in order[:-1])
    return g[last], linear


@pytest.mark.parametrize("name", analysis.PAPER)
def test_expansions_of_single_sequences(setting, name):
    """The remainder falls fourfold when alpha is halved."""
    model, family, terms = setting
    k = 3
    batches = family.sequences(k)
    orders = [np.unravel_index(i, (2,) * k) for i in range(2**k)]
    remainders = []
    for alpha in (1e-4, 5e-5):
        got = analysis.meta_gradients(model, name, batches, alpha).numpy()
        want = []
        for task in range(3):
            for order in orders:
                constant, linear = expansion(name, terms, task, order)
                want.append(constant + alpha * linear)
        remainders.append(np.linalg.norm(got - want, axis=1))
    ratio = remainders[0] / remainders[1]
    assert ratio.shape == (24,)
    np.testing.assert_allclose(ratio, 4, atol=0.1)


@pytest.mark.parametrize("name", analysis.PAPER)
def test_measured_coefficients_are_the_papers(setting, name):
    m = analysis.measure(*setting, name, 2)
    np.testing.assert_allclose(m.measured, m.paper, rtol=2e-3)
    assert abs(m.slope - 2) < 0.1
    assert m.paper == {"maml": (1, -2), "fomaml": (1, -1),
                       "reptile": (2, -1)}[name]


def test_sequences_are_all_of_them(setting):
    _, family, _ = setting
    batches = family.sequences(3)
    assert batches.inputs.shape == (24, 2, 4, 2)
    assert batches.last_targets.shape == (24, 4, 1)
    whole = np.concatenate([batches.inputs, batches.last_inputs[:, None]], 1)
    assert len({w.tobytes() for w in whole}) == 24


def test_table_and_figure_hold_every_measurement(setting):
    measurements = [analysis.Measurement(
        name, k, (1, 2), (3, 4), (1.0, 1e2, 1e4, 1e6), 2.0)
        for name in analysis.PAPER for k in (2, 3)]
    assert len(analysis.table(measurements)) == 2 + 6
    assert "| maml | 2 | 1 | 3.0000 | 2 | 4.0000 | 2.000 |" in (
        analysis.table(measurements))
    panels = analysis.draw(measurements).axes
    assert [a.get_title() for a in panels] == [*analysis.PAPER]
    assert all(len(a.lines) == 3 for a in panels)


def test_a_step_is_the_projection():
    subspace = manifolds.affine_subspaces()[:1]
    start = np.linspace(-1, 2, manifolds.DIMENSIONS)
    path = [*manifolds.iterates(
        start, subspace, manifolds.half_squared_distance_to_subspace,
        iterations=1)]
    normals, base = subspace[0, :, :-1], subspace[0, :, -1]
    np.testing.assert_allclose(path[1], start - normals @ (start - base),
                               atol=1e-12)


def test_affine_subspaces_give_the_closed_form():
    last, first = manifolds.affine_error()
    assert last < 1e-3 < first
    subspaces = manifolds.affine_subspaces()
    best = manifolds.closed_form(subspaces)

    def cost(phi):
        return np.mean([np.sum((s[:, :-1] @ (phi - s[:, -1])) ** 2)
                        for s in subspaces])
    for e in np.eye(manifolds.DIMENSIONS):
        assert cost(best) < min(cost(best + 1e-4 * e), cost(best - 1e-4 * e))


def mean_squared_distance(phi, curves):
    """Over curves given as points [n, M, d]."""
    return np.square(curves - phi).sum(-1).min(-1).mean()


@pytest.mark.parametrize("name", manifolds.PICTURES)
def test_curves_give_the_least_mean_squared_distance(name):
    curves, start = manifolds.PICTURES[name]
    phi = [*manifolds.iterates(
        start, curves, manifolds.half_squared_distance_to_points)][-1]
    reached = mean_squared_distance(phi, curves)
    for angle in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        near = phi + 0.02 * np.array([np.cos(angle), np.sin(angle)])
        assert reached <= mean_squared_distance(near, curves) + 1e-6


def test_alternating_iterates_take_the_tasks_in_turn():
    curves, start = manifolds.PICTURES["two lines"]
    path = [*manifolds.iterates(
        start, curves, manifolds.half_squared_distance_to_points,
        alternate=True, iterations=4)]
    assert len(path) == 5
    # epsilon is 1 at first: onto the first line; then 3/4 to the second.
    assert mean_squared_distance(path[1], curves[:1]) < 1e-5
    before, after = (mean_squared_distance(p, curves[1:])
                     for p in path[1:3])
    assert after == pytest.approx(before / 16, rel=0.01)


COMMAND = """
import runpy
from reptile_tf import quiet_tensorflow
from reptile_tf.analysis import expansion, solution_manifolds
expansion.STEPS, expansion.ALPHAS = (2,), (3e-6, 3e-5)
solution_manifolds.iterates.__kwdefaults__["iterations"] = 9
runpy.run_module("reptile_tf.analysis", run_name="__main__", alter_sys=True)
"""


def test_the_command_writes_its_table_and_figures(tmp_path):
    command = Fork("-c", COMMAND, "--out=new/folder", folder=tmp_path,
                   PYTHONPATH=str(ROOT))
    assert command.wait() == 0, command.output()
    files = ["section5.png", "section5.svg", "figure2.png", "figure2.svg"]
    assert {p.name for p in (tmp_path / "new/folder").iterdir()} == {
        "analysis.md", *files}
    text = (tmp_path / "new/folder/analysis.md").read_text("utf-8")
    lines = [*text.splitlines(),
             *(f"figure: new/folder/{name}" for name in files)]
    assert command.output().splitlines()[-len(lines):] == lines
    for name, words in (("section5", "What the expansion of section 5.1"),
                        ("figure2", "Reptile moves towards the tasks")):
        assert words in (tmp_path / f"new/folder/{name}.svg").read_text()
    # Eq. 33 to 35 at k = 2.
    for words in ("| maml | 2 | 1 | 1.0000 | -2 | -1.9999 |",
                  "| fomaml | 2 | 1 | 1.0000 | -1 | -0.9999 |",
                  "| reptile | 2 | 2 | 2.0000 | -1 | -0.9999 |"):
        assert words in text, words
