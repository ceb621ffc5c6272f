"""Ctrl-C and SIGTERM, taken at a moment when the run can be saved."""

import signal
import threading
from collections.abc import Callable


class Stopped(BaseException):
    """A signal asked the run to stop.

    As KeyboardInterrupt no Exception: Keras makes another of each that leaves
    a layer, and a signal may come while the network is built.

    Attributes:
      status: the exit status, 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Interrupts:
    """Notes SIGINT and SIGTERM inside a `with`; `check` raises.

    A second Ctrl-C does not wait: KeyboardInterrupt, at once. One inside
    another, as a run of several, takes a signal from it and hands it on.

    Args:
      maximum: of some numbers the maximum over the processes of the run,
        which all must ask; the numbers themselves where there is but one.

    Attributes:
      at_once: raise where the program is, while there is nothing to save.
    """

    at_once = False

    def __init__(
        self,
        maximum: Callable[..., list[int]] = lambda *numbers: [*numbers],
    ) -> None:
        self._maximum, self._number = maximum, 0

    def __enter__(self) -> "Interrupts":
        self._number = 0
        # Signals come to the main thread alone.
        main = threading.current_thread() is threading.main_thread()
        self._before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM) if main}
        if self._outer:
            self._number = self._number or self._outer._number
        return self

    @property
    def _outer(self) -> "Interrupts | None":
        before = getattr(self._before.get(signal.SIGINT), "__self__", None)
        return before if isinstance(before, Interrupts) else None

    def __exit__(self, kind, error, traceback) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._outer:
            self._outer._number = self._outer._number or self._number
        if self.at_once and self._number and isinstance(error, Exception):
            # TensorFlow's own stacks may fail over a Stopped in their midst.
            raise Stopped(self._number) from error

    def _note(self, number, frame) -> None:
        if self._number == signal.SIGINT == number:
            raise KeyboardInterrupt
        self._number = number
        if self.at_once:
            raise Stopped(number)

    def check(self, wish: bool = False) -> bool:
        """Raise Stopped if a signal came to any process.

        Returns:
          whether any process has the wish.
        """
        number, wished = self._maximum(self._number, wish)
        if number:
            raise Stopped(number)
        return bool(wished)
