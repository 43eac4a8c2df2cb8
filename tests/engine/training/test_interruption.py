"""Real processes, killed or told to stop at random points of a run, and disks that fill up."""
from __future__ import annotations

import itertools
import json
import os
import random
import resource
import signal
import socket
import sys
import time
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import pytest
import torch

import train_voc07  # noqa: F401  (imported once here, not in every process)
from datasets.captions.journal import Batch, Journal, read_journal
from datasets.files import atomic_write, read_json, write_json
from engine.features import extraction, store_writer
from engine.process import folder_lock
from engine.training import crops, epoch, run
from engine.training.run import Run
from tests.conftest import TinyWorld
from tests.engine.forked import start_forked
from tests.engine.training.test_training import run_script

Place = Tuple[Any, str]
"""A module or class, and the name of a function of it."""

STAGES: Dict[str, List[Place]] = {
    "feature extraction": [(extraction, "extract_features"), (crops, "extract_features")],
    "training": [(epoch, "train_one_epoch")],
    "ReSO mining": [(crops, "mine_crops")],
    "checkpointing": [(Run, "finish_epoch"), (Run, "save_within_epoch")],
}
KILLS = 5
"""Per stage."""
BATCHES, EPOCHS = 3, 3
"""Of an epoch before ReSO; of a run."""


class Strike(NamedTuple):
    """Acts at one event within the functions of some stages: a call or return, of Python or C."""

    stages: Sequence[str]
    at: int
    """Which event, from 1; 0 for none of them."""
    act: Callable[[], object]

    def arm(self) -> None:
        """Put the functions under watch; how many events each stage has had is always in the file `events`."""
        events = dict.fromkeys(self.stages, 0)
        for stage in self.stages:
            for owner, name in STAGES[stage]:
                setattr(owner, name, self._watched(getattr(owner, name), stage, events))

    def _watched(self, function: Callable[..., Any], stage: str, events: Dict[str, int]) -> Callable[..., Any]:
        def watch(*_: Any) -> None:
            events[stage] += 1
            if sum(events.values()) == self.at:
                self.act()

        def watched(*args: Any, **flags: Any) -> Any:
            outer = sys.getprofile()
            sys.setprofile(watch)
            try:
                return function(*args, **flags)
            finally:
                sys.setprofile(outer)
                Path("events").write_text(json.dumps(events))

        return watched


def run_in_process(world: TinyWorld, folder: Path, *flags: str, before: Callable[[], object] = lambda: None) -> int:
    """`start_run`; the exit status, negative for a signal."""
    process = start_run(world, folder, *flags, before=before)
    process.join()
    return process.exitcode


def start_run(world: TinyWorld, folder: Path, *flags: str, before: Callable[[], object] = lambda: None) -> ForkProcess:
    """Train in a forked process whose working folder is `folder`; `before` is called in it, to patch what it likes."""
    def main() -> None:
        os.chdir(folder)
        store_writer.CHUNK_ROWS = 4
        run.SAVE_SECONDS = 0  # save after every batch
        before()
        run_script("train_voc07", *world.flags, "--feature_root", "features", "--output_dir", "run", "--epochs", EPOCHS,
                   "--reso_epoch", 2, "--batch_size", 8, "--encode_batch_size", 3, "--epsilon", "0.15", *flags)

    folder.mkdir(exist_ok=True)
    return start_forked(main, folder / "output.txt")


def content(value: Any) -> Any:
    """Of a checkpoint, so that == compares tensors bit by bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: content(item) for key, item in value.items()}
    return [content(item) for item in value] if isinstance(value, (list, tuple)) else value


def outcome(folder: Path) -> Dict[str, Any]:
    """Everything that a run leaves, less the times."""
    files: Dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "config.json":  # it holds the revision of the code, which others may edit
            continue
        if path.suffix == ".pth":
            files[name] = content(torch.load(path, weights_only=True))
        elif path.name == "log.txt":
            files[name] = [{key: value for key, value in json.loads(line).items() if "second" not in key}
                           for line in path.read_text().splitlines()]
        elif path.is_file() and "tensorboard" not in name and path.suffix not in (".lock", ".txt") \
                and path.name not in ("lock", "events"):
            files[name] = path.read_bytes()
    return files


class Unbroken(NamedTuple):
    """A run that nothing interrupts."""

    files: Dict[str, Any]
    events: Dict[str, int]
    """Of each stage."""


@pytest.fixture(scope="module")
def unbroken(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    folder = tmp_path_factory.mktemp("unbroken")
    assert run_in_process(tiny_world, folder, before=Strike(list(STAGES), 0, pytest.fail).arm) == 0
    files = outcome(folder)
    assert {"run/checkpoint.pth", "run/best.pth", "run/log.txt", "run/result.json", "run/reso/index.json"} <= set(files)
    assert sum(name.endswith("patch_embeddings.npy") for name in files) == 2, "train and test, no longer the crops"
    return Unbroken(files, json.loads((folder / "events").read_text()))


def interrupt(world: TinyWorld, root: Path, unbroken: Unbroken, stages: Sequence[str],
              signals: Sequence[signal.Signals]) -> None:
    """Stop a run by each of the signals in turn, at random points of the stages, and let it go on and finish.

    Should it get to its end before, the rest of the signals meet another run.
    """
    chance = random.Random(0)
    step = 2 * sum(unbroken.events[stage] for stage in stages) // len(signals)  # so the points are spread over all
    folder, left = root / "0", list(signals)
    while left:
        strike = Strike(stages, chance.randint(1, step), partial(signal.raise_signal, left[0]))
        status = run_in_process(world, folder, before=strike.arm)
        if status == 0:
            assert outcome(folder) == unbroken.files
            folder = root / str(int(folder.name) + 1)
        else:
            expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}[left.pop(0)]
            assert status == expected, (folder / "output.txt").read_text()
    assert run_in_process(world, folder) == 0
    assert outcome(folder) == unbroken.files


@pytest.mark.parametrize("stage", STAGES)
def test_killed_runs_end_in_the_same_bytes(tiny_world, unbroken, tmp_path, stage):
    interrupt(tiny_world, tmp_path, unbroken, [stage], [signal.SIGKILL] * KILLS)


def test_stopped_runs_say_so_and_end_in_the_same_bytes(tiny_world, unbroken, tmp_path):
    interrupt(tiny_world, tmp_path, unbroken, list(STAGES), [signal.SIGTERM, signal.SIGINT] * 2)


def in_batch(batch: int, number: int, save_seconds: float = 0) -> Callable[[], None]:
    """Patches a process so that it gets a signal while it calculates the loss of a batch, counted from its start."""
    def patch() -> None:
        run.SAVE_SECONDS = save_seconds
        batches, calculate = itertools.count(1), epoch.pseudo_label_loss

        def loss(*args: Any) -> torch.Tensor:
            if next(batches) == batch:
                signal.raise_signal(number)
            return calculate(*args)

        epoch.pseudo_label_loss = loss

    return patch


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_loses_no_batch(tiny_world, unbroken, tmp_path, number, status):
    stop = in_batch(BATCHES + 2, number, save_seconds=1000)
    assert run_in_process(tiny_world, tmp_path / "run", before=stop) == status
    assert "the same command goes on" in (tmp_path / "run" / "output.txt").read_text().splitlines()[-1]
    stopped = torch.load(tmp_path / "run" / "run" / "checkpoint.pth", weights_only=True)
    assert (stopped["epoch"], stopped["progress"]["batches"]) == (1, 2)
    assert run_in_process(tiny_world, tmp_path / "run") == 0
    assert outcome(tmp_path / "run") == unbroken.files


def test_a_run_resumed_from_another_folder_goes_on_after_a_kill(tiny_world, unbroken, tmp_path):
    assert run_in_process(tiny_world, tmp_path / "first", "--epochs", "2") == 0
    resume = ("--resume", str(tmp_path / "first" / "run" / "checkpoint.pth"))
    kill = in_batch(2, signal.SIGKILL)
    assert run_in_process(tiny_world, tmp_path / "second", *resume, before=kill) == -signal.SIGKILL
    assert torch.load(tmp_path / "second/run/checkpoint.pth", weights_only=True)["progress"]["batches"] == 1
    assert run_in_process(tiny_world, tmp_path / "second", *resume) == 0
    files = outcome(tmp_path / "second")
    for name in ("run/checkpoint.pth", "run/best.pth"):
        assert files[name]["model"] == unbroken.files[name]["model"]
    for name in ("run/log.txt", "run/reso/index.json"):
        assert files[name] == unbroken.files[name]
    assert "after epoch 2 and 1 batch" in (tmp_path / "second" / "output.txt").read_text()


def hang() -> None:
    """Patches a process so that it waits in its second batch."""
    batches, calculate = itertools.count(1), epoch.pseudo_label_loss

    def loss(*args: Any) -> torch.Tensor:
        if next(batches) == 2:
            Path("waiting").touch()
            time.sleep(600)
        return calculate(*args)

    epoch.pseudo_label_loss = loss


def test_two_trainings_are_not_in_one_folder_and_a_killed_one_is_in_nobodys_way(tiny_world, unbroken, tmp_path):
    folder = tmp_path / "run"
    first = start_run(tiny_world, folder, before=hang)
    try:
        while not (folder / "waiting").exists():
            assert first.is_alive(), (folder / "output.txt").read_text()
            time.sleep(0.05)
        files = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
        for flags in ((), ("--overwrite",)):
            assert run_in_process(tiny_world, folder, *flags, before=partial(setattr, folder_lock, "PATIENCE", 0)) == 2
            said = (folder / "output.txt").read_text()  # with the bars of the first one, which writes there, too
            assert (f"error: run: another training is at work here (process {first.pid} on {socket.gethostname()}); "
                    "wait for it, or choose another --output_dir\n") in said
        assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == files
    finally:
        os.kill(first.pid, signal.SIGKILL)
    assert run_in_process(tiny_world, folder) == 0
    (folder / "waiting").unlink()
    assert outcome(folder) == unbroken.files


def limit_file_size(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def small_files():
    """Writing beyond 10 kB fails, as on a full disk; inside a test only, since pytest itself writes between tests."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit_file_size(10_000)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_spares_the_last_checkpoint(tiny_world, unbroken, tmp_path):
    folder = tmp_path / "run"
    assert run_in_process(tiny_world, folder, "--epochs", "1") == 0
    checkpoint = folder / "run" / "checkpoint.pth"
    before = checkpoint.read_bytes()
    assert run_in_process(tiny_world, folder, before=lambda: limit_file_size(len(before) // 2)) == 2
    last_line = (folder / "output.txt").read_text().splitlines()[-1]
    assert last_line.startswith("error: run/") and ".pth: cannot be written (File too large); make room" in last_line
    assert checkpoint.read_bytes() == before and not list(folder.rglob("*.part"))
    assert run_in_process(tiny_world, folder) == 0
    assert outcome(folder) == unbroken.files


def test_a_full_disk_spares_files_that_are_replaced(tmp_path):
    write_json(tmp_path / "captions.json", {"000012": ["a dog"]})
    with small_files():
        with pytest.raises(OSError, match="captions.json"):
            write_json(tmp_path / "captions.json", {"000012": ["a dog"] * 5000})
        with pytest.raises(OSError, match="weights.pth"), atomic_write(tmp_path / "weights.pth", "wb") as file:
            file.write(bytes(20_000))
    assert read_json(tmp_path / "captions.json") == {"000012": ["a dog"]}
    assert [path.name for path in tmp_path.iterdir()] == ["captions.json"]


def test_a_full_disk_spares_the_captions_before(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, {"dataset": "voc2007"})
    first, second = (Batch({image_id: ["a dog"] * 700}, {}, {}) for image_id in "ab")
    journal.append(first)
    with small_files(), pytest.raises(OSError, match="journal.jsonl"):
        journal.append(second)
    assert read_journal(path) == ({"dataset": "voc2007"}, [first])
    assert Journal(path, {"dataset": "voc2007"}).captioned == {"a"}
