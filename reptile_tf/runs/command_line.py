"""A script: flags parsed, one run or several made, the exit status."""

from collections.abc import Callable, Sequence
from typing import Any

from reptile_tf.configuration import flags
from reptile_tf.configuration.config import Config
from reptile_tf.errors import InputError
from reptile_tf.records.run_log import log_error
from reptile_tf.runs.failures import explained
from reptile_tf.runs.interrupts import Stopped
from reptile_tf.runs.many_runs import run_lists
from reptile_tf.runs.run import run


def main(
    dataset,
    argv: Sequence[str],
    run_instead: Callable[..., Any] | None = None,
) -> int:
    """All that a script does: parse flags, run; returns the exit status.

    Lists of --algorithm or --seed are several runs (`many_runs.run_lists`).

    Args:
      dataset: a module of `datasets`.
      argv: the script's name and its arguments.
      run_instead: what to do instead of a single run, with (dataset, config,
        parse_with), where parse_with(flag, ...) is the Config of argv with
        further flags.

    Returns:
      0, or 1 after an error, or 128 + the number of a signal that stopped it.
    """
    def parse_with(*more: str) -> Config | None:
        return flags.parse([*argv, *more], dataset.CONFIG, dataset.DEFAULTS,
                           dataset.BY_ALGORITHM)

    def start() -> None:
        runs = flags.runs(argv, dataset.CONFIG, dataset.DEFAULTS)
        config = parse_with(*(f"--{name}={value}"
                              for name, value in runs[0].items()))
        if config is not None and len(runs) > 1:
            run_lists(dataset, config, runs, parse_with)
        elif config is not None and run_instead is not None:
            run_instead(dataset, config, parse_with)
        elif config is not None:
            run(dataset, config)

    return status_of(start)


def status_of(command: Callable[[], Any]) -> int:
    """Run a command; returns its exit status.

    Returns:
      0, or 1 after an error, or 128 + the number of a signal that stopped it.
    """
    try:
        command()
        return 0
    except InputError as e:
        log_error(f"error: {e}")
        return 1
    except Stopped as e:
        return e.status
    except KeyboardInterrupt:
        return 130
    except Exception as e:  # Outside a run: a table, a figure.
        text = explained(e)
        if text is None:
            raise
        log_error(f"error: {text}")
        return 1
