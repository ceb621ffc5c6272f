"""The commit of the code, as git tells it where the code lies."""

import os
import subprocess
import types
from pathlib import Path

import pytest

import reptile_tf
from reptile_tf.records import provenance

# Nobody's configuration, and none above the test's own folder.
GIT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
       **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER")
          for what in ("NAME", "EMAIL")}}


def git(folder, *words):
    return subprocess.run(["git", "-C", folder, *words], check=True, text=True,
                          capture_output=True).stdout.strip()


def repository(folder, content):
    """A repository of one commit and one file: (the file, the commit)."""
    file = folder / "package" / "provenance.py"
    file.parent.mkdir(parents=True)
    (folder / "notes").write_text(content)
    file.write_text(content)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", content)
    return file, git(folder, "rev-parse", "HEAD")


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Git as on a new machine; the folder of the test, in no repository."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in {**GIT, "GIT_CEILING_DIRECTORIES": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def test_the_commit_is_that_of_the_code_and_not_of_the_current_folder(
        alone, monkeypatch):
    file, commit = repository(alone / "code", "ours")
    other, others = repository(alone / "elsewhere", "theirs")
    other.write_text("changed")
    monkeypatch.chdir(other.parent)
    monkeypatch.setattr(provenance, "__file__", str(file))
    assert commit != others and provenance.commit() == commit
    file.with_name("new.py").touch()  # A file of one's own is no change.
    assert provenance.commit() == commit
    # All of the repository counts, the rest of the package for one.
    for changed in (alone / "code" / "notes", file):
        changed.write_text("edited")
        assert provenance.commit() == f"{commit}-dirty"
        changed.write_text("ours")
        assert provenance.commit() == commit


def test_the_checksum_is_of_every_module(tmp_path, monkeypatch):
    for name in ("__init__.py", "inner/__init__.py", "inner/deep/rule.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(reptile_tf, "__file__", str(tmp_path / "__init__.py"))
    seen = {provenance.code()}
    for name in ("__init__.py", "inner/__init__.py", "inner/deep/rule.py"):
        (tmp_path / name).write_text("changed")
        seen.add(provenance.code())
    assert len(seen) == 4
    (tmp_path / "inner" / "notes.txt").write_text("no code")
    assert provenance.code() in seen


def test_another_users_checkout_is_read(alone, monkeypatch):
    file, commit = repository(alone / "code", "ours")
    monkeypatch.setattr(provenance, "__file__", str(file))
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert provenance.commit() == commit


def test_a_checkout_that_another_user_updated_is_ones_own(alone, monkeypatch):
    """As root does, in a container; the repository's folder stays mine."""
    file, commit = repository(alone / "code", "ours")
    monkeypatch.setattr(provenance, "__file__", str(file))
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: (
        types.SimpleNamespace(st_uid=stat(file).st_uid + 1)
        if path in (file, file.parent) else stat(path, **how)))
    assert provenance.commit() == commit


def test_settings_of_somebody_elses_repository_are_not_followed(
        alone, monkeypatch):
    """One above an installed package: git would run what it says."""
    file, _ = repository(alone / "code", "ours")
    script = alone / "run.sh"
    script.write_text(f"#!/bin/sh\ntouch {alone / 'ran'}\n")
    script.chmod(0o755)
    git(alone / "code", "config", "core.fsmonitor", str(script))
    monkeypatch.setattr(provenance, "__file__", str(file))
    stat, root = Path.stat, alone / "code" / ".git"
    monkeypatch.setattr(Path, "stat", lambda path, **how: (
        types.SimpleNamespace(st_uid=stat(file).st_uid + 1)
        if path == root else stat(path, **how)))
    assert provenance.commit() == reptile_tf.__version__
    assert not (alone / "ran").exists()


def test_without_a_commit_the_version_is_told(alone, monkeypatch):
    file, _ = repository(alone / "code", "ours")
    monkeypatch.chdir(file.parent)
    # In a virtual environment inside somebody's repository.
    installed = file.parent / "site-packages" / file.name
    outside = alone / file.name
    for path in (installed, outside):
        path.parent.mkdir(exist_ok=True)
        path.touch()
        monkeypatch.setattr(provenance, "__file__", str(path))
        assert provenance.commit() == reptile_tf.__version__
    monkeypatch.setattr(provenance, "__file__", str(file))
    assert provenance.commit() != reptile_tf.__version__
    monkeypatch.setenv("PATH", str(alone))  # No git.
    assert provenance.commit() == reptile_tf.__version__
