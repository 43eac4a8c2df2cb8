"""Scripts in processes of their own that are forked from the tests, which have imported torch and all the rest."""
from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Callable

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from tqdm import tqdm


def start_forked(main: Callable[[], object], output: Path) -> ForkProcess:
    """A process that runs `main` on one thread; what it prints goes to the file `output`, like its errors."""
    def run() -> None:
        # tqdm's own lock is shared with forked processes: one that is killed while it holds it would block the next.
        tqdm.set_lock(threading.RLock())
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell has tests in the background
        torch.set_num_threads(1)
        sys.stdout = sys.stderr = output.open("w")
        try:
            main()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def launch_together(number: int, main: Callable[[], object], folder: Path) -> str:
    """What so many processes print that `torchrun` starts, by its own launcher, but forked."""
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=number, start_method="fork", rdzv_backend="c10d",
                          rdzv_endpoint="localhost:0", run_id="tests")  # as --standalone sets them
    output = folder / "output.txt"
    process = start_forked(lambda: elastic_launch(config, main)(), output)
    process.join()
    assert process.exitcode == 0, output.read_text()
    return output.read_text()


def run_together(number: int, main: Callable[[], object], folder: Path) -> str:
    """What the main process prints where so many run `main`, each told by the environment what `torchrun` would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def ranked(rank: int) -> Callable[[], None]:
        def run() -> None:
            if number > 1:
                os.environ.update(TORCHELASTIC_RUN_ID="tests", RANK=str(rank), LOCAL_RANK=str(rank),
                                  WORLD_SIZE=str(number), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            main()

        return run

    outputs = [folder / f"output_{rank}.txt" for rank in range(number)]
    processes = [start_forked(ranked(rank), output) for rank, output in enumerate(outputs)]
    for process in processes:
        process.join()
    assert all(process.exitcode == 0 for process in processes), "\n".join(output.read_text() for output in outputs)
    return outputs[0].read_text()
