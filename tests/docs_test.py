"""The pages in docs/ and the other documents: commands, links, flags."""

import importlib
import re
from pathlib import Path

import pytest
from readme_test import PYTHON, ROOT, commands

from reptile_tf import AdaptConfig, InnerConfig, Learner, networks
from reptile_tf.configuration import flags
from reptile_tf.datasets import mini_imagenet, omniglot, sine

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(
    path for folder in ("benchmarks", "configs", "docs", "results")
    for path in (ROOT / folder).rglob("*.md"))])
PAGES = [ROOT / "README.md", *(p for p in DOCUMENTS
                               if p.parent == ROOT / "docs")]
TEXTS = {p.relative_to(ROOT): p.read_text() for p in PAGES}
SCRIPTS = {"run_omniglot.py": omniglot, "run_miniimagenet.py": mini_imagenet,
           "run_sine.py": sine}
COMMANDS = [words[1:] for text in TEXTS.values() for words in commands(text)
            if words[0] == PYTHON]


def anchors(path: Path) -> set[str]:
    """The names of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)", text, re.M)}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_understood(words, monkeypatch, capsys):
    """Those of README.md are run, by readme_test."""
    monkeypatch.chdir(ROOT)
    program, *arguments = words
    if program in SCRIPTS:
        data = SCRIPTS[program]
        for run in flags.runs(words, data.CONFIG, data.DEFAULTS):
            assert flags.parse(
                [*words, *(f"--{name}={value}" for name, value in
                           run.items())], data.CONFIG, data.DEFAULTS
            ) or "--help" in arguments
    elif program != "-m":
        assert (ROOT / program).exists()
    elif arguments[0].startswith("reptile_tf.experiments"):
        module = importlib.import_module(arguments[0])
        assert module.main([*arguments, "--help"]) == 0
        assert "--eval_samples" in capsys.readouterr().out
    else:
        assert importlib.util.find_spec(arguments[0])


def test_every_page_names_the_interpreter():
    for page, text in TEXTS.items():
        assert not re.search(r"^(\$ )?python ", text, re.M), page
        for words in commands(text):
            assert words[0] != "python", (page, words)


def test_no_two_commands_train_different_runs_in_one_folder():
    """Typed one after the other, none finds another's run in its folder."""
    runs = {}
    for program, *arguments in COMMANDS:
        if program == "-m":
            program, *arguments = arguments
        if program not in SCRIPTS and ".experiments." not in program:
            continue
        rest = " ".join(arguments)
        # The sweeps of figure 4 share what they have in common.
        arguments = {a for a in arguments if not a.startswith("--sweep=")}
        files = [ROOT / name for name in re.findall(r"--flagfile=(\S+)", rest)]
        given = " ".join([*(file.read_text() for file in files), rest])
        folder = (re.findall(r"--run_dir=(\S+)", rest)
                  or [program, *re.findall(r"--algorithm=(\S+)", given)[-1:],
                      *re.findall("--compare", rest)])
        if not {"--help", "--pretrained"} & arguments:
            runs.setdefault(tuple(folder), set()).add(
                frozenset({program, *arguments}))
    assert len(runs) > 20
    assert {f: r for f, r in runs.items() if len(r) > 1} == {}


@pytest.mark.parametrize("path", DOCUMENTS,
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_hits(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        file, _, anchor = target.partition("#")
        hit = (path.parent / file).resolve() if file else path
        assert hit.exists(), target
        assert not anchor or anchor in anchors(hit), target


def test_the_files_and_sections_that_are_named_exist():
    text = "\n".join(TEXTS.values())
    names = set(re.findall(r"(?:configs|tests|benchmarks|docs)/\w+\.\w+",
                           text))
    assert len(names) > 10 and all((ROOT / name).exists() for name in names)
    file, section = re.search(r"(\S+\.md), '([^']+)'",
                              (ROOT / "Makefile").read_text()).groups()
    assert f"\n## {section}\n" in (ROOT / file).read_text()


def test_the_patterns_of_anil_and_boil_adapt_the_last_layer_or_the_others(rng):
    last = {"logits/kernel", "logits/bias"}
    patterns = re.findall(r"--inner_frozen='([^\s`]+)'",
                          TEXTS[Path("docs/questions.md")])
    assert len(patterns) == 2
    for frozen, moving in zip(patterns, (
            last.__contains__, lambda name: name not in last), strict=True):
        learner = Learner(
            networks.maml_mini_imagenet(3, 0, 16, 1),
            InnerConfig(0.1, "sgd", inner_frozen=frozen),
            adaptation=AdaptConfig(1, 3))
        adapted = learner.adapt(rng.random([3, 16, 16, 1]), [0, 1, 2])
        names = ["/".join(v.path.split("/")[-2:])
                 for v in learner.architecture.trainable_variables]
        moved = {name for name, old, new in zip(
            names, learner.weights, adapted.weights, strict=True)
            if (old.numpy() != new.numpy()).any()}
        # Biases before a normalization have no gradient but rounding.
        assert {n for n in names if moving(n)} - moved <= {
            f"conv{i}/bias" for i in (1, 2, 3, 4)}
        assert moved <= {n for n in names if moving(n)}


def test_the_page_of_flags_is_that_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs/tooling")
    flags_page = importlib.import_module("flags_page")
    assert TEXTS[Path("docs/flags.md")] == flags_page.page(), (
        "make flags writes it")
    for group, module in (("", omniglot), *flags_page.OF_ONE_SCRIPT.items()):
        own = flags_page.GROUPS.get(group, ())
        shared = [name for title, names in flags_page.GROUPS.items()
                  if title not in flags_page.OF_ONE_SCRIPT for name in names]
        assert len(set(shared)) == len(shared)
        if group:
            assert set(flags_page.flags_of(module)) <= {*own, *shared}
            assert set(own) <= set(flags_page.flags_of(module))
