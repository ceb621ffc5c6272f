"""One progress line on a terminal."""

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

    def left_for_all(self, bar: dict[str, Any]) -> str:
        """The time left of all of which the bar is a part, as text.

        Args:
          bar: tqdm's `format_dict`: n, initial, total, elapsed, ...
        """
        return ""

    @contextmanager
    def bar(self, log: logging.Logger, total: int, done: int, unit: str
            ) -> Iterator[tqdm]:
        """A bar inside a `with`; what is logged there goes above it."""
        left_for_all = self.left_for_all

        class Bar(tqdm):
            @property
            def format_dict(self):
                fields = super().format_dict
                return {**fields, "left_for_all": left_for_all(fields)}

        layout = {"desc": self.label, "bar_format": (
            "{desc}: {percentage:.0f}%|{bar}| {rate_fmt}, {remaining} left"
            "{left_for_all}")} if self.label else {}
        with Bar(total=total, initial=done, unit=unit, leave=False,
                 disable=not sys.stdout.isatty(), file=sys.stdout,
                 ncols=shutil.get_terminal_size().columns, **layout) as bar:
            if bar.disable:
                yield bar
            else:
                with logging_redirect_tqdm([log]):
                    yield bar
