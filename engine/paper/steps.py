"""A reproduction as a list of steps, each of commands whose result files tell that they are done."""
from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Callable, Iterator, List, NamedTuple, Sequence, Tuple

from datasets.files import DataError, make_folder
from datasets.progress import say
from engine.process.signals import Stopped

REPOSITORY = Path(__file__).resolve().parents[2]


class Store(NamedTuple):
    """Something that is computed from images once and kept under `--feature_root`, whatever needs it next."""

    name: str
    """Tells it from others: the split, and what it holds."""
    images: int
    nbytes: int
    """On disk."""
    passes: float
    """Of the image encoder, an image."""


class Work(NamedTuple):
    """What a task does beside filling stores, in units whose speed `--plan` measures."""

    train: float = 0
    """Images in training steps of BAC-GCN."""
    tagclip: float = 0
    """Images through TagCLIP at their native size."""
    texts: float = 0
    """Texts through CLIP's text encoder."""
    resnet: float = 0
    """Images in training steps of a ResNet-101."""


NO_WORK = Work()


@dataclass(frozen=True)
class Task:
    """One command of a step."""

    title: str
    command: Tuple[str, ...]
    """A script, or -m and a module, and its flags. Empty for what has to be done by hand."""
    is_done: Callable[[], bool]
    advice: str = ""
    """How to get by hand what it makes."""
    distributed: bool = False
    """Whether it may be run by torchrun."""
    stores: Tuple[Store, ...] = ()
    work: Work = NO_WORK
    disk: int = 0
    """Bytes that it leaves besides stores."""
    unmeasured: str = ""
    """What of its time cannot be measured here."""


@dataclass(frozen=True)
class Step:
    """Some tasks with one name."""

    name: str
    """As `--skip` and the waypoints call it."""
    title: str
    tasks: Sequence[Task] = field(default_factory=list)

    @property
    def missing(self) -> List[Task]:
        """The tasks that are not done."""
        return [task for task in self.tasks if not task.is_done()]


def run_steps(steps: Sequence[Step], folder: Path, gpus: int, after: Callable[[Step], None]) -> None:
    """Do what is missing, in order. What is done is passed over, so the same call again goes on after a stop.

    Args:
        steps: all of them.
        folder: the output folder; one run at a time works in it.
        gpus: processes of torchrun for what can be distributed.
        after: is called once a step is done, also where it was done before.

    Raises:
        DataError: a command failed, or something has to be done by hand.
    """
    with alone(folder) as lock:
        for number, step in enumerate(steps, start=1):
            missing = step.missing
            say(f"\n[{number}/{len(steps)}] {step.title}{'' if missing else ': done before'}")
            for task in missing:
                if not task.command:
                    raise DataError(f"{task.title} is missing. {task.advice}")
                start = time.monotonic()
                command = with_launcher(task, gpus)
                say(f"  {task.title}: {shlex.join(('python', *command))}")
                status = run_command(command, folder / "logs" / f"{step.name}.log", lock)
                if status != 0:
                    raise DataError(f"{step.title}: {task.title} ended with status {status} (see above); the same "
                                    "command goes on from there")
                if not task.is_done():
                    raise DataError(f"{step.title}: {task.title} is still missing after its command. {task.advice}")
                say(f"  {task.title}: {time.monotonic() - start:.0f} s")
            after(step)


def with_launcher(task: Task, gpus: int) -> Tuple[str, ...]:
    """The command of a task, under torchrun where that is asked for and makes sense."""
    if gpus == 1 or not task.distributed:
        return task.command
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}", *task.command)


def run_command(command: Sequence[str], log: Path, lock: IO[str]) -> int:
    """Run `python COMMAND`; what it prints goes to the screen and to the end of a log.

    Args:
        command: a script of this repository, or -m and a module, and flags.
        log: gets the standard output. Progress bars and errors go to the screen alone.
        lock: stays held as long as the command runs, even where this process is killed.

    Returns:
        Its exit status.
    """
    make_folder(log.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))}
    words = [str(REPOSITORY / word) if word.endswith(".py") and (REPOSITORY / word).exists() else word
             for word in command]
    with log.open("a", encoding="utf-8") as file, subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, text=True, env=environment, encoding="utf-8",
            errors="replace", pass_fds=(lock.fileno(),)) as process:
        assert process.stdout is not None
        file.write(f"$ {shlex.join(('python', *command))}\n")
        try:
            for line in process.stdout:
                print(f"    {line}", end="", flush=True)
                file.write(line)
        except Stopped as stop:  # the command saves what it has, as it would alone
            if stop.signal is not signal.SIGINT:  # a terminal sends Ctrl-C to both
                process.terminate()
            raise
    return process.returncode


@contextmanager
def alone(folder: Path) -> Iterator[IO[str]]:
    """Hold the output folder's lock. A command that outlives a killed run holds it as well, until it ends."""
    make_folder(folder)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{folder}: another run, or a command that a killed run has started, is at work here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
