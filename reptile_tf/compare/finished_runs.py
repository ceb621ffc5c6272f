"""The runs below a folder: finished ones are read, the others named."""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reptile_tf.configuration.config import INCIDENTAL
from reptile_tf.datasets import mini_imagenet, omniglot, sine
from reptile_tf.datasets.splits import reported_rows, reported_split
from reptile_tf.errors import InputError
from reptile_tf.records.results import check_result
from reptile_tf.records.run_directory import RunDirectory

DATASETS = {m.NAME: m for m in (omniglot, mini_imagenet, sine)}
# Flags that change no number of a cell of the final evaluation, those that say
# which cells there are among them. All others do, a new one too. The seed is
# what is averaged over.
IMMATERIAL = INCIDENTAL | {
    "seed", "eval_interval_samples", "eval_splits", "compare", "shots",
    "transductive"}
# Flags that decide what pixels images have.
PIXELS = ("image_size", "channels", "resize_filter")
# What a run has in its folder, and no run is in.
_INSIDE = ("checkpoints", "tensorboard", "initialization", "start")


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
      directory: where it is.
      result: the content of its result.json.
      flags: the lines of its flags.cfg, by name; a flag that is newer than
        the run has its default.
      data: what it was trained on, for people; the same, the same data.
    """

    directory: RunDirectory
    result: dict[str, Any]
    flags: dict[str, str]
    data: str = ""

    @property
    def algorithm(self) -> str:
        """The rule."""
        return self.result["algorithm"]

    @property
    def seed(self) -> int:
        """The seed."""
        return self.result["seed"]

    def settings(self, shots: int | None = None) -> dict[str, str]:
        """The lines of the flags that its numbers at `shots` depend on."""
        lines = {name: line for name, line in self.flags.items()
                 if name not in IMMATERIAL}
        if "start_checksum" in self.result:  # The folder may have changed.
            lines["init"] += f" ({self.result['start_checksum']})"
        return lines | evaluation_batch(self.flags, shots)

    @property
    def table(self) -> str:
        """What it is compared within: data set, ways, split and data."""
        ways = self.result["ways"]
        ways = f", {ways}-way" if ways > 1 else ""
        split = "" if self.split == "test" else f", {self.split} classes"
        return f"{self.result['dataset']}{ways}{split}: {self.data}"

    @property
    def has_papers_data(self) -> bool:
        """Whether it is the data of the paper's tables: test classes."""
        if self.split != "test":
            return False
        if self.result["dataset"] == omniglot.NAME:
            return self.flags.get("data") != "--data=synthetic"
        return (self.result["dataset"] == mini_imagenet.NAME
                and {"--noallow_partial", "--image_size=84",
                     "--channels=3"} <= set(self.flags.values()))

    @property
    def split(self) -> str:
        """That its rows are of: test, or validation evaluated alone."""
        return reported_split(self.result)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of that split, final initialization."""
        return reported_rows(self.result)


def evaluation_batch(flags: dict[str, str], shots: int | None
                     ) -> dict[str, str]:
    """The line of --eval_batch with the value that goes with one K.

    Args:
      flags: lines by name, --shots and --eval_batch among them.
      shots: K; None leaves the line as it is.
    """
    lists = [flags.get(name, "").partition("=")[2].split(",")
             for name in ("shots", "eval_batch")]
    batches = dict(zip(*lists, strict=False))
    if len(lists[1]) < 2 or str(shots) not in batches:
        return {}
    return {"eval_batch": f"--eval_batch={batches[str(shots)]}"}


def text_of(name: str, line: str | None) -> str:
    """A flag as it is named in a table: learning_rate=0.1."""
    return f"{name} unset" if line is None else line.removeprefix("--")


def find(folders: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """All runs in and below the folders, in the order of their paths.

    Returns:
      The finished runs; for each other one a line that says why not.

    Raises:
      InputError: not a folder, or one with no run, finished or not.
    """
    found, left_out, paths = [], [], {}
    for folder in (Path(name).expanduser() for name in folders):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: name folders that "
                             "hold runs, such as runs")
        inside = _run_folders(folder)
        for path in inside:
            paths.setdefault(path.resolve(), path)
        if not inside:
            raise InputError(
                f"{folder} holds no run: a run's folder has a flags.cfg and, "
                "when it is finished, a result.json")
    for path in paths.values():
        try:
            found.append(_read(RunDirectory(path)))
        except InputError as e:
            left_out.append(f"{path}: {e}")
    return _with_data(found), left_out


def _with_data(runs: list[Run]) -> list[Run]:
    """The runs with their `data`.

    The same images are called alike, wherever they lay, and others in the
    same folder, later ones, differently. A run that has no checksum of them
    is older than those: its folder says what they are.
    """
    titles: dict[tuple, str] = {}  # By data set and checksum.
    seen: dict[tuple, str] = {}  # Checksums, by folder and size.
    at_home: dict[tuple, str] = {}  # Titles, by data set and folder.
    for run in runs:
        name, source = run.result["dataset"], run.result["data_source"]
        checksum = run.result.get("data_checksum")
        if checksum is None:
            continue
        size = tuple(run.flags.get(flag) for flag in PIXELS)
        first = seen.setdefault((name, source, size), checksum)
        title = titles.setdefault((name, checksum), source if (
            first == checksum) else f"{source} ({checksum})")
        at_home.setdefault((name, source), title)
    return [dataclasses.replace(run, data=_data_of(run, titles, at_home))
            for run in runs]


def _data_of(run: Run, titles: dict[tuple, str], at_home: dict[tuple, str]
             ) -> str:
    name, source = run.result["dataset"], run.result["data_source"]
    if name == omniglot.NAME and run.flags.get("data") != "--data=synthetic":
        return "all characters"  # Whole, whatever folder they came from.
    checksum = run.result.get("data_checksum")
    return (at_home.get((name, source), source) if checksum is None
            else titles[name, checksum])


def _run_folders(folder: Path) -> list[Path]:
    """Folders that hold a run or the result of one."""
    paths, seen = [], set()
    for path, inner, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:  # By a link, which may lead back up.
            inner.clear()
            continue
        seen.add(real)
        if {"flags.cfg", "result.json"} & set(files):
            paths.append(Path(path))
            inner[:] = [name for name in inner if name not in _INSIDE]
        inner.sort()
    return paths


def _read(directory: RunDirectory) -> Run:
    """Raise InputError, saying why, unless there is a whole finished run."""
    try:
        flags = directory.flags()
    except OSError as e:
        raise InputError(f"flags.cfg cannot be read ({e})") from e
    if not flags:
        raise InputError("has no flags.cfg beside its result.json: what it "
                         "was trained with is not known")
    try:
        asked = int(flags.get("meta_iters", "=0").partition("=")[2])
    except ValueError as e:
        raise InputError(f"flags.cfg is not whole ({e})") from e
    if not directory.result.exists():
        done = (directory.checkpoints.iterations() or [0])[-1]
        raise InputError(f"not finished, at meta-iteration {done:,} of "
                         f"{asked:,}")
    try:
        result = json.loads(directory.result.read_text())
        check_result(result)
    except OSError as e:
        raise InputError(f"result.json cannot be read ({e})") from e
    except (ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"result.json is not whole ({type(e).__name__}: {e}); the run's "
            "command makes it again") from e
    if result["meta_iters"] < asked:
        raise InputError(
            f"not finished: evaluated at meta-iteration "
            f"{result['meta_iters']:,} of {asked:,}")
    if result["dataset"] in DATASETS:
        flags = {**DATASETS[result["dataset"]].CONFIG().lines(), **flags}
    return Run(directory, result, flags)
