"""Flags: help, parsing, flagfiles, and impossible combinations."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from reptile_tf import AdaptConfig, InnerConfig, MetaConfig
from reptile_tf.configuration import checks, flags
from reptile_tf.datasets import mini_imagenet, omniglot, sine
from reptile_tf.errors import InputError
from reptile_tf.tasks import TaskConfig

ROOT = Path(__file__).parent.parent
SPLITS = {name: [np.arange(20)] * count
          for name, count in (("train", 4800), ("test", 423))}


def parse(*arguments):
    return flags.parse(["run_omniglot.py", *arguments], omniglot.CONFIG,
                       omniglot.DEFAULTS)


def test_help_lists_all_flags_and_no_others(capsys):
    assert parse("--help") is None
    text = capsys.readouterr().out
    names = re.findall(r"^  --(\w+)", text, re.M)
    assert names == [f.name for f in dataclasses.fields(omniglot.CONFIG)]
    assert text.count("(default: ") == len(names)
    for symbol in ("alpha", "epsilon", "N, the ways", "K, support", "k, inner",
                   "n, tasks", "{reptile,fomaml,maml,joint,gradient_sum}"):
        assert symbol in text, symbol


def test_defaults_are_the_papers_omniglot_5way_column():
    c = parse()
    assert (c.classes, c.shots, c.train_shots) == (5, (1, 5), 10)
    assert (c.inner_batch, c.inner_iters, c.learning_rate) == (10, 5, 0.001)
    assert (c.meta_step, c.meta_step_final, c.meta_batch) == (1, 0, 5)
    assert (c.meta_iters, c.eval_iters, c.eval_batch) == (100_000, 50, (5,))
    assert (c.eval_samples, c.weight_decay, c.seed) == (10_000, 1, 0)
    assert (c.inner_optimizer, c.inner_loss) == ("adam", "sum")


def test_the_librarys_defaults_are_the_flags():
    c = parse()
    assert (c.inner, c.meta, c.task) == (
        InnerConfig(), MetaConfig(), TaskConfig())
    assert parse("--shots=5").adaptation == AdaptConfig() == AdaptConfig(50, 5)


def test_lines_repeat_the_configuration(tmp_path):
    for more in (["--algorithm=maml", "--inner_beta1=0.5"],
                 ["--algorithm=gradient_sum", "--inner_iters=3",
                  "--gradient_weights=-1,0.5,2"]):
        config = parse("--shots=3", "--notransductive", "--replacement",
                       "--data_dir=/some where", "--seed=4", *more)
        path = tmp_path / "flags.cfg"
        path.write_text("\n".join(config.lines().values()))
        assert parse(f"--flagfile={path}") == config


def test_a_path_may_start_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    c = parse("--data_dir=~/photos", "--run_dir=runs/$HOME~")
    assert c.data_dir == "/home/me/photos" and c.run_dir == "runs/$HOME~"
    for config in (omniglot.CONFIG, mini_imagenet.CONFIG, sine.CONFIG):
        for field in dataclasses.fields(config):
            assert field.metadata["path"] == (
                field.name.endswith("_dir") or field.name == "init")


def test_gradient_weights():
    c = parse("--algorithm=gradient_sum", "--gradient_weights=0,0,0,1,-0.5")
    assert c.meta.gradient_weights == (0, 0, 0, 1, -0.5)
    assert parse().meta.gradient_weights == ()
    assert "gradient_weights" not in parse().lines()


def test_a_later_flag_wins_over_the_flagfile():
    path = ROOT / "configs" / "omniglot_20way.cfg"
    assert parse(f"--flagfile={path}", "--classes=7").classes == 7


@pytest.mark.parametrize("flags, message", [
    (["--algorithm=anil"], "anil.*reptile"),
    (["--no_such_flag=1"], "no_such_flag.*--help"),
    (["--flagfile=/no/such/file"], "/no/such/file"),
    (["--classes=five"], "five"),
    (["--shots=1,x"], "shots='1,x' must be whole numbers"),
    (["stray"], "'stray' is not a flag"),
    (["--classes=1"], "classes=1 must be 2 or more"),
    (["--shots=0"], "shots=0"),
    (["--shots=5,5"], "repeats"),
    (["--eval_batch=5,10,15"], "3 values.*shots=1,5 has 2"),
    (["--train_shots=0"], "train_shots=0.*list.*give --train_shots"),
    (["--tail_shots=10"], "tail_shots=10.*train_shots=10: take"),
    (["--tail_shots=2", "--inner_iters=1"], "inner_iters=1.*separate tail"),
    (["--algorithm=maml", "--inner_iters=1"], "inner_iters=1.*maml"),
    (["--replacement", "--inner_batch=51"], "inner_batch=51.*from 50"),
    (["--replacement", "--inner_batch=41", "--tail_shots=2"],
     "inner_batch=41.*from 40"),
    (["--replacement", "--eval_batch=6"], "eval_batch=6.*from 5 "),
    (["--learning_rate=-1"], "learning_rate=-1.0"),
    (["--learning_rate=inf"], "learning_rate=inf must be positive and finite"),
    (["--meta_step=inf"], "meta_step=inf must be a finite number, 0 or more"),
    (["--weight_decay=0"], "weight_decay=0.0"),
    (["--outer_optimizer=adam"], "meta_step=1.0 with outer_optimizer=adam"),
    (["--outer_optimizer=adam", "--meta_step=0.1"], "meta_step=0.1 with.*less"),
    (["--outer_optimizer=adam", "--meta_step=0.01", "--meta_step_final=1"],
     "meta_step_final=1.0 with outer_optimizer=adam"),
    (["--meta_batch=0"], "meta_batch=0"),
    (["--outer_clip=-1"], "outer_clip=-1.0"),
    (["--seed=-1"], "seed=-1"),
    (["--gradient_weights=1,1,1,1,1"], "gradient_sum.*reptile was given 1.0"),
    (["--algorithm=gradient_sum"], "gradient_sum, which needs them.*none"),
    (["--algorithm=gradient_sum", "--gradient_weights=1,1"],
     "gradient_weights=1,1 are 2 and inner_iters=5"),
    (["--algorithm=gradient_sum", "--gradient_weights=a"],
     "gradient_weights='a' must be numbers"),
    (["--shots="], "shots='' must be whole numbers"),
    (["--inner_beta1=1"], "inner_beta1=1.0"),
    (["--inner_beta1=0.9", "--inner_optimizer=sgd"], "sgd has none"),
    (["--pretrained"], "--pretrained.*--run_dir"),
])
def test_bad_flags(flags, message):
    with pytest.raises(InputError, match=message):
        parse(*flags)


@pytest.mark.parametrize("flags, message", [
    (["--shots=5", "--eval_queries=16"], "train/0 has 20 images, 21 are "
     "needed .--shots=5 and --eval_queries=16 to test on.*use --shots=4 or "
     "fewer, or --eval_queries=15 or fewer"),
    (["--shots=1", "--eval_queries=20"], "eval_queries=20 to test on.*"
     "what is too small, or use --eval_queries=19 or fewer"),
    (["--train_shots=22", "--shots=1,3", "--eval_queries=20"],
     "20 images, 23 are needed.*what is too small$"),
    (["--train_shots=30", "--shots=1", "--eval_queries=20"],
     "--train_shots=30.*; 4,799 more of train have too few: add images, "
     "remove what is too small$"),
    (["--shots=20"], "train/0 has 20 images, 21 are needed .--shots=20.*"
     "; 4,799 more of train have too few.*--shots=19"),
    (["--classes=424"], "classes=424.*test has 423.*--classes=423"),
    (["--train_shots=21"], "20 images, 21 are.*train_shots=21.*=20 or fewer"),
])
def test_data_that_does_not_suffice(flags, message):
    with pytest.raises(InputError, match=message):
        parse(*flags).check_data(SPLITS)


def test_several_queries_are_asked_of_splits_that_are_evaluated():
    few = {"train": [np.arange(12)] * 5, "test": [np.arange(30)] * 5}
    flags = ["--train_shots=9", "--eval_queries=15"]
    parse(*flags, "--eval_splits=test").check_data(few)
    with pytest.raises(InputError, match="train/0 has 12 images, 20 are"):
        parse(*flags).check_data(few)
    # Periodic evaluation is of the validation classes.
    with pytest.raises(InputError, match="val/0 has 12 images, 20 are"):
        parse(*flags, "--eval_splits=test").check_data(
            {**few, "val": few["train"]})
    for no_curve in ("--eval_interval=0", "--meta_iters=0"):
        parse(*flags, "--eval_splits=test", no_curve).check_data(
            {**few, "val": few["train"]})


@pytest.mark.parametrize("flags, want", [
    ([], []),
    (["--classes=9"], ["in training 1 step of 5 examples sees 5 of a support "
                       "set of 9: .*inner_batch"]),
    (["--shots=3", "--eval_iters=2", "--eval_batch=7"],
     ["in evaluation 2 steps of 7 examples see 14 of a support set of 15: "
      ".*eval_batch"]),
    (["--shots=3", "--eval_iters=0"], []),
    # Drawn afresh, they are not meant to.
    (["--classes=9", "--replacement"], []),
    (["--shots=3", "--eval_iters=3"], []),
    (["--tail_shots=0", "--algorithm=reptile", "--inner_iters=1"], [])])
def test_examples_that_no_step_sees_are_told(flags, want):
    """As of a published flagfile at other ways or shots."""
    config = parse("--algorithm=fomaml", "--train_shots=2", "--tail_shots=1",
                   "--inner_batch=5", "--inner_iters=2", "--shots=1",
                   "--eval_batch=5", "--eval_iters=3", *flags)
    got = checks.unseen_examples(config)
    assert len(got) == len(want)
    for line, pattern in zip(got, want, strict=True):
        assert re.match(pattern, line), line


def test_what_is_allowed():
    """A larger batch straddles the reshuffle; zero means --shots."""
    parse("--inner_batch=500").check_data(SPLITS)
    assert parse("--train_shots=0", "--shots=3").task.train_shots == 3
    assert parse("--shots=19", "--eval_batch=4").evaluations() == [(19, 4)]
    assert parse("--eval_batch=5,15").evaluations() == [(1, 5), (5, 15)]
    assert parse().modes == (True, False)
    assert parse("--transductive").modes == (True,)
    assert parse("--notransductive").modes == (False,)
