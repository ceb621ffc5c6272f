"""The floors: imports go down; folders say what they are; files are short."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "reptile_tf").rglob("*.py"))
MOST_LINES = 250


def test_an_import_goes_down():
    """The contract is in pyproject.toml."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name == "__init__.py"
             and p.parent.name != "reptile_tf"],
    ids=lambda p: p.parent.name)
def test_a_folder_says_in_one_sentence_what_it_is(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text and text.endswith(".") and "\n\n" not in text
    assert not re.search(r"[.!?] +[A-Z]", text)


@pytest.mark.parametrize("path", FILES,
                         ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES
