"""Measuring side by side, and saying on which machine."""
from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path
from typing import Callable, Dict, List, Sequence

import torch

Times = Dict[str, List[float]]
"""Seconds of each contestant, one number a round."""


def machine(device: torch.device) -> str:
    """Processor or card, and what it was used with."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        fields = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        described = {key.strip(): value.strip() for key, value in fields.items()}
        name = (f"{described.get('model name', name)}, family {described.get('cpu family')} "
                f"model {described.get('model')}")
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def side_by_side(contestants: Dict[str, Callable[[], object]], rounds: int, device: torch.device,
                 waiting: bool = False) -> Times:
    """Time all contestants in every round, so that whatever else the machine does meets all of them alike.

    On a CPU with one thread the time is the processor's own, which others do not lengthen by taking turns with us;
    else, or where `waiting` for a disk is to be counted, it is the clock's. A first round is not counted.
    """
    own = device.type == "cpu" and torch.get_num_threads() == 1 and not waiting
    clock = time.process_time if own else time.perf_counter
    times: Times = {name: [] for name in contestants}
    with torch.inference_mode():
        for round_ in range(rounds + 1):
            for name, run in contestants.items():
                start = clock()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if round_ > 0:
                    times[name].append(clock() - start)
    return times


def ratio(times: Times, one: str, other: str) -> float:
    """Median over the rounds of how many times as long `one` took as `other`."""
    return statistics.median(a / b for a, b in zip(times[one], times[other]))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)) + "\n"
