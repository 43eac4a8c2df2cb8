"""One process at a time in a folder; one that is killed, or whose forked workers live on, is in nobody's way."""
from __future__ import annotations

import errno
import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest

from datasets.files import DataError
from engine.process import folder_lock
from engine.process.folder_lock import FolderLock
from tests.engine.forked import start_forked


@pytest.fixture
def holder(tmp_path) -> Iterator[int]:
    """A process that holds the lock of tmp_path / "run", with a forked worker that outlives it."""
    def hold() -> None:
        lock = FolderLock(tmp_path / "run")
        worker = os.fork()
        if worker:
            (tmp_path / "worker").write_text(str(worker))
            (tmp_path / "ready").touch()
        time.sleep(60)
        lock.release()

    process = start_forked(hold, tmp_path / "output.txt")
    while not (tmp_path / "ready").exists():
        assert process.is_alive()
        time.sleep(0.02)
    yield process.pid
    for pid in (process.pid, int((tmp_path / "worker").read_text())):
        os.kill(pid, signal.SIGKILL)
    process.join()


def test_another_process_is_named(holder, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE", 0.2)
    with pytest.raises(DataError, match=f"run: another training is at work here .process {holder} on "):
        FolderLock(tmp_path / "run")


def test_a_killed_process_is_in_nobodys_way_though_its_workers_live(holder, tmp_path):
    threading.Timer(0.3, os.kill, (holder, signal.SIGKILL)).start()  # while the next one waits already
    lock = FolderLock(tmp_path / "run")
    worker = int((tmp_path / "worker").read_text())
    os.kill(worker, 0)
    assert (tmp_path / "run" / folder_lock.LOCK_NAME).read_text().startswith(f"{os.getpid()} on ")
    lock.release()


def test_a_released_folder_is_free(tmp_path):
    lock = FolderLock(tmp_path)
    lock.release()
    lock.release()
    assert (tmp_path / folder_lock.LOCK_NAME).read_text() == ""

    def take() -> None:
        folder_lock.PATIENCE = 0
        FolderLock(tmp_path)
        Path(tmp_path / "taken").touch()

    start_forked(take, tmp_path / "output.txt").join()
    assert (tmp_path / "taken").exists(), (tmp_path / "output.txt").read_text()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    FolderLock(tmp_path).release()
