"""The run directory: what a run leaves behind, a contract for other programs.

flags.cfg, metrics.csv, result.json, run.log, checkpoints/, tensorboard/ and
initialization/; start/, a copy of what --init names; result-1.json, flags-1.cfg
of earlier evaluations; meanwhile in-use, and scored.json.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import tensorflow as tf

from reptile_tf.configuration.config import INCIDENTAL, Config
from reptile_tf.errors import InputError
from reptile_tf.learning.saved_learner import copy, require_replaceable
from reptile_tf.records.checkpoints import Checkpoints
from reptile_tf.records.lock import Lock
from reptile_tf.records.metrics import HEADER
from reptile_tf.records.results import check_result, same_numbers
from reptile_tf.records.scored_cells import ScoredCells
from reptile_tf.whole_files import beside, content_of, replacing


class RunDirectory:
    """The files of one run.

    Args:
      path: the folder.
      writes: whether this process does; of several, one.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = Path(path), writes
        self.checkpoints = Checkpoints(self.path / "checkpoints")
        self.metrics = self.path / "metrics.csv"
        self.result = self.path / "result.json"
        self.initialization = self.path / "initialization"
        self.start = self.path / "start"
        self._flags = self.path / "flags.cfg"
        self._scored = self.path / "scored.json"
        self._writer = None
        self.lock = Lock(self.path / "in-use")

    def open(self, config: Config) -> None:
        """Claim the folder for `config`; make it if needed.

        Raises:
          InputError: it holds another run, or something else, or nothing to
            evaluate where that is asked, or another process works in it.
        """
        self._check(config)  # Before anything is made in it.
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
        except OSError as e:
            raise InputError(f"--run_dir={self.path} cannot be made or written "
                             f"({e}): name another folder") from e
        if not self._check(config):  # It may have changed until then.
            self._write_flags(config)

    def close(self) -> None:
        """Leave it to others."""
        self.lock.release()

    def _check(self, config: Config) -> bool:
        """Whether a run has started in it; InputError as `open`."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"--run_dir={self.path} is a file: name a folder")
        # What a run that ended before its flags were written may leave.
        others = ("run.log", self.lock.path.name, beside(self._flags).name)
        content = ([name for name in content_of(self.path)
                    if name not in others] if self.path.exists() else [])
        # A start that failed, for lack of data, leaves only its flags.
        started = bool(content) and content != [self._flags.name]
        if started and not config.resume:
            raise InputError(
                f"--run_dir={self.path} is not empty ({content[0]}, ...) and "
                "--noresume was given: name a new folder, or drop --noresume "
                "to go on with the run in it")
        if content and not self._flags.exists():
            raise InputError(
                f"--run_dir={self.path} is not empty ({content[0]}, ...) and "
                "holds no run: name a new folder")
        if started:
            self.require_trained_with(config)
        if config.pretrained and not self.checkpoints.paths():
            raise InputError(
                f"--pretrained needs a checkpoint and {self.path} has none: "
                + ("copy those of the run there" if self._whole_result()
                   else "train first, without --pretrained"))
        finished = self.finished(config)
        if self._whole_result() and not (finished or self.checkpoints.paths()):
            raise InputError(
                f"{self.path} holds the result of a run and no checkpoint, "
                "without which nothing can be evaluated: copy its checkpoints "
                "there, use the flags of its flags.cfg, or name another "
                "--run_dir")
        if config.export and not config.pretrained and (
                not finished or self.left_to_do(config)):
            try:
                require_replaceable(self.initialization)
            except InputError as e:
                raise InputError(f"{e}, or give --noexport") from e
        return started

    def _write_flags(self, config: Config) -> None:
        self._replace(self._flags, "\n".join(config.lines().values()) + "\n")

    def finished(self, config: Config) -> dict | None:
        """The result of this run, if its numbers are there already.

        Flags that change none of them may be others than they were.
        """
        if config.pretrained or self._changed(config).keys() - INCIDENTAL:
            return None
        result = self._whole_result()
        return result if result and (
            result["meta_iters"] == config.meta_iters) else None

    def left_to_do(self, config: Config) -> bool:
        """Whether a finished run's checkpoint is still needed: to export it,
        or to see that what lies in another folder is the same data."""
        return bool(self.checkpoints.paths()) and (
            "data_dir" in self._changed(config)
            or config.export and not self.initialization.exists())

    def _changed(self, config: Config) -> dict[str, tuple[str, str]]:
        """(line there, line asked for) of the flags in which they differ."""
        then, now = self._lines_there(config), config.lines()
        pairs = {name: (then.get(name, "unset"), now.get(name, "unset"))
                 for name in then.keys() | now.keys()}
        return {name: pair for name, pair in pairs.items()
                if pair[0] != pair[1]}

    def _whole_result(self) -> dict | None:
        """result.json; None where it is not whole: it is written again."""
        try:
            result = json.loads(self.result.read_text())
            check_result(result)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError,
                TypeError):
            return None
        return result

    def flags(self) -> dict[str, str]:
        """The lines of flags.cfg, by name; none without that file."""
        lines = {}
        if self._flags.exists():
            for line in self._flags.read_text(
                    "utf-8", "surrogateescape").splitlines():
                name = line.lstrip("-").partition("=")[0]
                lines[name.removeprefix("no") if "=" not in line
                      and name.startswith("no") else name] = line
        return lines

    def _lines_there(self, config: Config) -> dict[str, str]:
        """`flags`; a flag that is newer than the run had its default."""
        return {**type(config)().lines(), **self.flags()}

    def require_trained_with(self, config: Config) -> None:
        """Raise InputError if training flags were others."""
        changed = self._changed(config)
        differ = ["{} there, {} asked for".format(*changed[name])
                  for name in config.training_flags() if name in changed]
        if differ:
            raise InputError(
                f"--run_dir={self.path} holds a run of another configuration: "
                f"{'; '.join(differ)}. Use the same flags to go on with it, or "
                "another --run_dir")

    def keep_start(self, folder: Path) -> None:
        """Keep what the run starts from: it may be trained further there."""
        if self.writes:
            copy(folder, self.start)

    def progress(self) -> str:
        """What the same command goes on from, for a message."""
        newest = self.checkpoints.iterations()
        return (f"the checkpoint of meta-iteration {newest[-1]} in "
                f"{self.path}" if newest else "the start")

    def reset_metrics(self, text: str = HEADER) -> None:
        """Put metrics.csv back to what a checkpoint holds, or start it."""
        self._replace(self.metrics, text)

    def metrics_text(self) -> str:
        """metrics.csv, for a checkpoint."""
        return self.metrics.read_text() if self.metrics.exists() else HEADER

    def record(self, iteration: int, split: str,
               values: dict[str, float]) -> None:
        """Append to metrics.csv and to the TensorBoard log."""
        if not self.writes:
            return
        self.lock.require()
        with open(self.metrics, "a") as file:
            for name, value in values.items():
                file.write(f"{iteration},{split},{name},{value!r}\n")
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(
                str(self.path / "tensorboard"))
        with self._writer.as_default():
            for name, value in values.items():
                tf.summary.scalar(f"{split}/{name}", value, step=iteration)
        self._writer.flush()

    def scored_cells(self, config: Config, **more: Any) -> ScoredCells:
        """What is scored of an evaluation that was interrupted, or nothing.

        Args:
          config: as it is evaluated.
          more: that the numbers depend on besides.
        """
        return ScoredCells(self._scored, {**more, "flags": {
            name: line for name, line in config.lines().items()
            if name not in INCIDENTAL}}, self.writes)

    def write_result(self, result: dict, config: Config) -> Path | None:
        """Write result.json, and flags.cfg as it was evaluated.

        Returns:
          where one of other numbers is now that was there.
        """
        if not self.writes:
            return None
        self.lock.require()
        kept, before = None, self._whole_result()
        if before and not same_numbers(before, result):
            number = next(i for i in itertools.count(1)
                          if not self._numbered(self.result, i).exists())
            kept = self._numbered(self.result, number)
            self._replace(self._numbered(self._flags, number),
                          self._flags.read_text("utf-8", "surrogateescape"))
            self._replace(kept, self.result.read_text())
        if before != result:  # Never one beside the flags of another.
            self.result.unlink(missing_ok=True)
        self._write_flags(config)
        self._replace(self.result, json.dumps(result, indent=1) + "\n")
        return kept

    @staticmethod
    def _numbered(path: Path, number: int) -> Path:
        return path.with_stem(f"{path.stem}-{number}")

    def _replace(self, path: Path, text: str) -> None:
        if self.writes:
            with replacing(path) as temporary:
                temporary.write_text(text, "utf-8", "surrogateescape")
