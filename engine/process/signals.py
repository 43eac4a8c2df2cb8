"""Stop signals (SIGTERM, Ctrl-C; SIGHUP and SIGUSR1, which SLURM sends before the end): stop soon, all saved, with an
exit status of its own."""
from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from types import FrameType
from typing import Iterator, List, Optional

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(SystemExit):
    """A stop signal has arrived. The exit status is 128 + its number: 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


def _heeded() -> List[signal.Signals]:
    """The stop signals, less those that the process was started to ignore, as `nohup` does with SIGHUP."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Within the block a stop signal raises `Stopped`, so that what is being written is finished or removed."""
    owner = os.getpid()

    def stop(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() == owner:
            raise Stopped(number)
        if number != signal.SIGINT:  # a forked worker ends as it would have; Ctrl-C it leaves to its parent
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before = {number: signal.signal(number, stop) for number in _heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held_signals() -> Iterator[List[int]]:
    """Keep stop signals back until the block is left; the list names those that came."""
    received: List[int] = []
    before = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in _heeded()}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
