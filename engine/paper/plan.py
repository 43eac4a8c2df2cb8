"""`reproduce.py --plan`: what is there, what is missing, and the disk and the time that it takes."""
from __future__ import annotations

import os
import shlex
import shutil
from typing import NamedTuple, Sequence, Set

from datasets.files import counted
from engine.features.feature_store import format_bytes
from engine.paper.request import PaperRequest
from engine.paper.speed import Speeds, existing_folder, told
from engine.paper.steps import Step, Store, Task
from engine.results.tables import format_table


class Cost(NamedTuple):
    """What a step still takes."""

    nbytes: int = 0
    seconds: float = 0.0
    unmeasured: str = ""

    def __add__(self, other: object) -> Cost:
        assert isinstance(other, Cost)
        return Cost(self.nbytes + other.nbytes, self.seconds + other.seconds, self.unmeasured or other.unmeasured)


def write_plan(request: PaperRequest, steps: Sequence[Step], speeds: Speeds, known_weights: bool) -> str:
    """The plan as text.

    Args:
        request: the flags.
        steps: all steps.
        speeds: what this machine was measured to do.
        known_weights: False where a random encoder was measured in place of the weights.
    """
    filled: Set[str] = set()
    rows, advice, total = [], [], Cost()
    for step in steps:
        missing = step.missing
        for task in step.tasks:
            if task not in missing:
                filled.update(store.name for store in task.stores)
        cost = Cost()
        for task in missing:
            new = [store for store in task.stores if store.name not in filled]
            filled.update(store.name for store in new)
            cost += cost_of(task, new, speeds, request)
        total += cost
        state = "there" if not missing else f"{len(missing)} of {len(step.tasks)} to do"
        rows.append((step.name, step.title, state, format_bytes(cost.nbytes) if cost.nbytes else "",
                     duration(cost.seconds) if not cost.unmeasured else f"+ {cost.unmeasured}"))
        advice += [f"{step.name}: {_what_to_do(task)}" for task in missing if step.name in _INPUTS]
    free = shutil.disk_usage(existing_folder(request.train_args.feature_root)).free
    gpus = f"{request.args.gpus} processes" if request.args.gpus > 1 else "one process"
    rows.append(("", "all that is missing", "", format_bytes(total.nbytes), duration(total.seconds)))
    lines = [f"{request.spec.title}: {counted(len(request.seeds), 'seed')}, {gpus}, in {request.folder}", "",
             format_table(("step", "", "state", "disk", "time"), rows, left=(0, 1, 2)), "", *advice,
             f"free at {request.train_args.feature_root}: {format_bytes(free)}"
             + (", which is too little: --patch_dtype int8 halves the features, or choose another --feature_root"
                if free < total.nbytes else ""),
             f"times are estimates: {told(speeds)}"]
    if not known_weights:
        lines.append(f"{request.train_args.model_path} is missing: a random encoder of the size of ViT-B/16 was "
                     "measured")
    lines.append("not counted: features of ReSO's crops, checking that all images can be read, and what other work "
                 "slows down")
    return "\n".join(lines)


_INPUTS = ("weights", "images", "split_files", "captions", "filter")
"""Steps of which each missing thing is named, with what gets it."""


def _what_to_do(task: Task) -> str:
    if task.command:
        return f"{task.title} missing; to be made by: {shlex.join(('python', *task.command))}"
    return f"{task.title} missing, and to be got by hand. {task.advice}"


def cost_of(task: Task, stores: Sequence[Store], speeds: Speeds, request: PaperRequest) -> Cost:
    """Disk and time of a task that fills these stores."""
    gpus, work = request.args.gpus if task.distributed else 1, task.work
    cores = max(1, min(request.train_args.num_workers, (os.cpu_count() or 1) // gpus))
    seconds = 0.0
    for store in stores:
        encoding, decoding = store.images * store.passes / speeds.passes, store.images / speeds.decoded / cores
        seconds += max(encoding, decoding, store.nbytes / speeds.written) / gpus
    read_an_image = task.stores[0].nbytes / max(task.stores[0].images, 1) / speeds.read if task.stores else 0.0
    seconds += work.train * max(1 / speeds.trained, read_an_image) / gpus
    seconds += work.tagclip / speeds.tagclip / gpus + work.texts / speeds.texts / gpus
    seconds += work.resnet / speeds.resnet / gpus if work.resnet else 0.0
    return Cost(task.disk + sum(store.nbytes for store in stores), seconds, task.unmeasured)


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 72 * 3600 else f"{seconds / 86400:.1f} days"

