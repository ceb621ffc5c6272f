"""Every flagfile against the published hyper-parameters, value by value."""

import dataclasses
import re
from pathlib import Path

import pytest

from reptile_tf.configuration import flags
from reptile_tf.datasets import mini_imagenet, omniglot

CONFIGS = Path(__file__).parent.parent / "configs"
SPLITS = {
    omniglot: {"train": [range(20)] * 1100, "test": [range(20)] * 423},
    mini_imagenet: {"train": [range(600)] * 64, "val": [range(600)] * 16,
                    "test": [range(600)] * 20}}

# Tables 1 and 2. Reptile: tables 3 to 5 of the paper. MAML: Finn et al.,
# appendix A.1, and their code; theirs sums the loss over shots, so alpha and,
# on Mini-ImageNet, the bound 10 on the meta-gradient are for our sum over the
# mini-batch: alpha / K and 10 K. --tail_shots are part of --train_shots.
COMMON = {"eval_samples": 10_000, "inner_loss": "sum", "weight_decay": 1.0,
          "replacement": False, "transductive": None, "gradient_weights": ()}
REPTILE = COMMON | {
    "algorithm": "reptile", "inner_optimizer": "adam", "outer_optimizer": "sgd",
    "meta_step": 1.0, "meta_step_final": 0.0, "meta_batch": 5,
    "eval_iters": 50, "tail_shots": 0, "outer_clip": 0.0}
FINN = COMMON | {
    "network": "maml", "inner_frozen": "norm*/beta",
    "inner_optimizer": "sgd", "outer_optimizer": "adam", "meta_step": 0.001,
    "meta_step_final": 0.001, "meta_iters": 60_000}
# classes, shots, learning_rate, inner_batch, inner_iters, train_shots,
# meta_iters, eval_batch
REPTILE_ROWS = {
    "omniglot_5way": (5, (1, 5), 0.001, 10, 5, 10, 100_000, (5,)),
    "omniglot_20way": (20, (1, 5), 0.0005, 20, 10, 10, 200_000, (10,)),
    "miniimagenet_5way": (5, (1, 5), 0.001, 10, 8, 15, 100_000, (5, 15)),
    "miniimagenet_5way_1shot": (5, (1,), 0.001, 10, 8, 15, 100_000, (5,))}
# classes, shots, learning_rate, inner_batch and eval_batch, inner_iters (the
# tail's step is the last), train_shots, tail_shots, meta_batch, eval_iters,
# outer_clip
FINN_ROWS = {
    "omniglot_5way_1shot": (5, 1, 0.4, 5, 2, 2, 1, 32, 3, 0.0),
    "omniglot_5way_5shot": (5, 5, 0.08, 25, 2, 10, 5, 32, 3, 0.0),
    "omniglot_20way_1shot": (20, 1, 0.1, 20, 6, 2, 1, 16, 5, 0.0),
    "omniglot_20way_5shot": (20, 5, 0.02, 100, 6, 10, 5, 16, 5, 0.0),
    "miniimagenet_5way_1shot": (5, 1, 0.01, 5, 6, 16, 15, 4, 10, 10.0),
    "miniimagenet_5way_5shot": (5, 5, 0.002, 25, 6, 20, 15, 2, 10, 50.0)}

# Sections 6.2 and 6.3: inner SGD, 5-way 5-shot, one task a meta-iteration,
# non-transductive.
SGD = COMMON | {
    "classes": 5, "shots": (5,), "inner_optimizer": "sgd",
    "learning_rate": 0.003, "inner_batch": 25, "meta_batch": 1,
    "meta_iters": 40_000, "meta_step_final": 0.0, "outer_optimizer": "sgd",
    "outer_clip": 0.0, "eval_batch": (25,), "eval_iters": 5,
    "transductive": False, "tail_shots": 0}
# algorithm, inner_iters, train_shots (5 per step), meta_step
FIGURE3_ROWS = {
    "g1": ("reptile", 1, 5, 0.25),
    "g1_g2": ("reptile", 2, 10, 0.25),
    "half_g1_g2": ("reptile", 2, 10, 0.125),
    "g2": ("fomaml", 2, 10, 0.25),
    "g1_g2_g3": ("reptile", 3, 15, 0.25),
    "third_g1_g2_g3": ("reptile", 3, 15, 0.08325),
    "g3": ("fomaml", 3, 15, 0.25),
    "g1_g2_g3_g4": ("reptile", 4, 20, 0.25),
    "quarter_g1_g2_g3_g4": ("reptile", 4, 20, 0.0625),
    "g4": ("fomaml", 4, 20, 0.25)}
# algorithm, tail_shots, replacement
FIGURE4_ROWS = {
    "reptile": ("reptile", 0, False),
    "shared_tail_cycling": ("fomaml", 0, False),
    "shared_tail_replacement": ("fomaml", 0, True),
    "separate_tail": ("fomaml", 5, False)}


def published():
    """{flagfile: the values of its flags}."""
    table = {}
    for name, row in REPTILE_ROWS.items():
        names = ("classes", "shots", "learning_rate", "inner_batch",
                 "inner_iters", "train_shots", "meta_iters", "eval_batch")
        table[name] = REPTILE | dict(zip(names, row, strict=True))
    for name, (classes, shots, alpha, batch, iters, train, tail, tasks, steps,
               clip) in FINN_ROWS.items():
        for algorithm in ("maml", "fomaml"):
            table[f"{name}_{algorithm}"] = FINN | {
                "algorithm": algorithm, "classes": classes, "shots": (shots,),
                "learning_rate": alpha, "inner_batch": batch,
                "eval_batch": (batch,), "inner_iters": iters,
                "train_shots": train, "tail_shots": tail, "meta_batch": tasks,
                "eval_iters": steps, "outer_clip": clip}
            if name.startswith("omniglot"):  # Their code's, and its pixels'.
                table[f"{name}_{algorithm}"]["val_classes"] = 100
    for name, row in FIGURE3_ROWS.items():
        table[f"figure3_{name}"] = SGD | dict(zip(
            ("algorithm", "inner_iters", "train_shots", "meta_step"), row,
            strict=True))
    for name, row in FIGURE4_ROWS.items():
        table[f"figure4_{name}"] = SGD | {
            "inner_iters": 4, "train_shots": 20, "meta_step": 1.0} | dict(
                zip(("algorithm", "tail_shots", "replacement"), row,
                    strict=True))
    return table


def parse(name, *more):
    dataset = mini_imagenet if name.startswith("mini") else omniglot
    return dataset, flags.parse(
        ["script", *more, "--data_dir=x"], dataset.CONFIG, dataset.DEFAULTS)


@pytest.mark.parametrize("name", published())
def test_a_flagfile_is_the_published_row(name):
    """And says nothing else: all other flags have their defaults."""
    dataset, config = parse(name, f"--flagfile={CONFIGS / name}.cfg")
    _, default = parse(name)
    assert dataclasses.asdict(config) == (
        dataclasses.asdict(default) | published()[name])
    config.check_data(SPLITS[dataset])


# N, K, Q, their step size a, their steps s.
FINN_THERE = {
    "omniglot_5way_1shot": (5, 1, 1, 0.4, 1),
    "omniglot_5way_5shot": (5, 5, 5, 0.4, 1),
    "omniglot_20way_1shot": (20, 1, 1, 0.1, 5),
    "omniglot_20way_5shot": (20, 5, 5, 0.1, 5),
    "miniimagenet_5way_1shot": (5, 1, 15, 0.01, 5),
    "miniimagenet_5way_5shot": (5, 5, 15, 0.01, 5)}
PAGE = (CONFIGS.parent / "docs/other-code.md").read_text()


@pytest.mark.parametrize("name", FINN_THERE)
def test_the_page_translates_finn_et_als_flags_to_the_flagfiles(name):
    n, k, q, a, s = FINN_THERE[name]
    values = {"K": k, "Q": q, "K+Q": k + q, "NK": n * k, "s+1": s + 1,
              "a/K": a / k, "10K": 10 * k}
    text = PAGE.split("\n## ")[2]
    translated = {flag: values.get(value, value) for flag, value in re.findall(
        r"--(\w+)='?([^\s`']+)", text)}
    assert translated["network"] == "maml" and values.keys() <= {
        *re.findall(r"=([^\s`]+)", text)}
    if name.startswith("mini"):
        del translated["val_classes"]  # It has a split of its own.
    else:
        del translated["outer_clip"]
    # What a flagfile leaves to the reader, and of rules there are two.
    for flag in ("algorithm", "data_dir", "eval_splits", "eval_samples",
                 "eval_queries"):
        del translated[flag]
    flagfile = dict(
        line[2:].split("=") for line in (CONFIGS / f"{name}_maml.cfg")
        .read_text().splitlines() if line.startswith("--"))
    assert {flag: str(value) for flag, value in translated.items()} == {
        flag: flagfile[flag] for flag in translated}


def test_the_page_of_other_code_names_flags_that_there_are():
    there = {"flagfile"} | {field.name for name in ("omniglot", "mini")
                            for field in dataclasses.fields(parse(name)[1])}
    named = {*re.findall(r"--(\w+)(?![-\w])", PAGE)}
    assert len(named) > 30
    assert {flag.removeprefix("no") for flag in named} <= there


def test_every_flagfile_is_published_and_described():
    names = {path.stem for path in CONFIGS.glob("*.cfg")}
    assert names == set(published())
    text = (CONFIGS / "README.md").read_text()
    for name in names:
        assert f"`{name}.cfg`" in text, name


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.cfg")))
def test_flagfiles_hold_hyper_parameters_only(path):
    for line in path.read_text().splitlines():
        name = line.lstrip("-").partition("=")[0]
        assert name not in ("data", "data_dir", "run_dir", "seed")
