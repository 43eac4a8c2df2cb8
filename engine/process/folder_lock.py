"""One training at a time in an output folder."""
from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Optional

from datasets.files import DataError, make_folder
from engine.process.distributed import from_main

LOCK_NAME = ".lock"
"""In the folder; it says which process is at work there, and is empty where none is."""

PATIENCE = 5.0
"""Seconds: a process that was killed holds its lock until the system has taken back its memory."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems answer that have no locks."""


class FolderLock:
    """The right to write into a folder, held until `release` or the end of the process, however it ends.

    It is a POSIX record lock: the system frees it with the process, and forked DataLoader workers, which may outlive a
    killed process for a moment, do not inherit it. Where the file system has no locks, nothing is held.

    Args:
        folder: is made where it is missing.

    Raises:
        DataError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._descriptor: Optional[int] = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        deadline = time.monotonic() + PATIENCE
        while not self._try(folder, time.monotonic() > deadline):
            time.sleep(0.1)

    def _try(self, folder: Path, is_last: bool) -> bool:
        """Take the lock; False where another process holds it."""
        assert self._descriptor is not None
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return True
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            if is_last:
                holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip() or "unknown"
                os.close(self._descriptor)
                raise DataError(f"{folder}: another training is at work here (process {holder}); wait for it, or "
                                "choose another --output_dir") from None
            return False
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return True

    def release(self) -> None:
        """Let others in."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def hold_folder(folder: Path) -> Optional[FolderLock]:
    """The lock, held by the main process for all that `torchrun` has started; None in the others.

    Raises:
        DataError: in all of them, where another process holds it.
    """
    lock: Optional[FolderLock] = None

    def hold() -> str:
        nonlocal lock
        try:
            lock = FolderLock(folder)
        except DataError as error:
            return str(error)
        return ""

    refused = from_main(hold)
    if refused:
        raise DataError(refused)
    return lock
