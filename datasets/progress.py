"""What a program says while it works, in lines and bars: the one place that decides whether and how.

`--quiet` leaves all of it out, and of several processes the main one alone speaks. Results and errors are printed as
they are, not from here.
"""
from __future__ import annotations

import io
import logging
import sys
from contextlib import contextmanager, redirect_stderr
from threading import Timer
from typing import Any, Iterable, Iterator, Optional

from tqdm import tqdm

_LOGGER = "bac_gcn"
"""Whether this process speaks is kept where Python keeps such things: in the logger of this name."""

DELAY = 1.0
"""Seconds of work before a bar shows."""

FILE_SECONDS = 8.0
"""Between two states of a bar that goes to a file or a pipe, which keeps all of them."""


def keep_quiet() -> None:
    """From here on this process says nothing of its progress."""
    logging.getLogger(_LOGGER).disabled = True


def is_quiet() -> bool:
    """Whether `keep_quiet` was called."""
    return logging.getLogger(_LOGGER).disabled


def say(line: str) -> None:
    """Print a line of progress."""
    if not is_quiet():
        print(line, flush=True)


class _Bar(tqdm):
    """A bar that shows once `DELAY` is over, not with the first step after it: a step may take as long as it likes, and
    in a file the first state would come as late as the second. What it shows is counted step by step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._first = Timer(DELAY, self._show)
        if not self.disable:
            self._first.daemon = True
            self._first.start()

    def __iter__(self) -> Iterator[Any]:
        try:
            for thing in self.iterable:
                yield thing
                self.update()
        finally:
            self.close()

    def _show(self) -> None:
        with self.get_lock():
            if not self.disable:  # it is, once closed
                self.delay = 0  # closing takes away, or finishes, what was shown
                self.refresh(nolock=True)

    def close(self) -> None:
        """See `tqdm`."""
        if not self.disable:
            self._first.cancel()
        super().close()


def bar(what: str, unit: str, total: int, done: int = 0, over: Optional[Iterable[Any]] = None,
        keep: bool = True) -> tqdm:
    """A bar with the time that is left, on the standard error; a context that is told of steps by `update`.

    Args:
        what: the work, as a few words.
        unit: of what is counted.
        total: how many there are.
        done: how many of them were done before, by a run that was stopped. The rate and the time left are without them.
        over: what to step through, where the bar is to count by itself.
        keep: leave the bar there when all is done. Those that come again in every epoch go.
    """
    terminal = sys.stderr.isatty()
    return _Bar(over, what, total, keep, unit=unit, initial=done, delay=DELAY, dynamic_ncols=terminal,
                mininterval=0.1 if terminal else FILE_SECONDS, miniters=1, disable=is_quiet())


def say_beside_bar(line: str) -> None:
    """Print a line of results while a bar may be on the screen; a bar that goes to a file is left alone."""
    if sys.stderr.isatty():
        tqdm.write(line)
    else:
        print(line, flush=True)


@contextmanager
def others_bars() -> Iterator[None]:
    """Around what shows a bar of its own, as downloads do; those write to the standard error. Errors are raised, so
    `--quiet` takes the bar alone."""
    if is_quiet():
        with redirect_stderr(io.StringIO()):
            yield
    else:
        yield
