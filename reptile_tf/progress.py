"""One progress line on a terminal, and durations for people."""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


class Progress:
    """The only maker of progress bars: one line, none where output is piped.

    A subclass says what the bar belongs to.

    Attributes:
      label: before the bar.
    """

    label = ""

    def whole(self, bar: dict[str, Any]) -> str:
        """What is left of the whole, of which the bar is a part.

        Args:
          bar: tqdm's `format_dict`: n, initial, total, elapsed, ...
        """
        return ""

    @contextmanager
    def bar(self, log: logging.Logger, total: int, done: int, unit: str
            ) -> Iterator[tqdm]:
        """A bar inside a `with`; what is logged there goes above it."""
        whole = self.whole

        class Bar(tqdm):
            @property
            def format_dict(self):
                fields = super().format_dict
                return {**fields, "whole": whole(fields)}

        layout = {"desc": self.label, "bar_format": (
            "{desc}: {percentage:.0f}%|{bar}| {rate_fmt}, {remaining} left"
            "{whole}")} if self.label else {}
        with Bar(total=total, initial=done, unit=unit, leave=False,
                 disable=not sys.stdout.isatty(), file=sys.stdout,
                 ncols=shutil.get_terminal_size().columns, **layout) as bar:
            if bar.disable:
                yield bar
            else:
                with logging_redirect_tqdm([log]):
                    yield bar


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
