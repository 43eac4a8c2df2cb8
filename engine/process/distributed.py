"""Several processes as one: `torchrun --nproc_per_node=N train_c14.py ...`, on one machine or many.

Everything here also works in a single process, where it does nothing. What the processes exchange on the way is
small: the decisions of the main process, gradients and logits. Files go over a file system that all of them see.
"""
from __future__ import annotations

import datetime
import os
import sys
from contextlib import contextmanager
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from datasets.files import DataError
from datasets.progress import keep_quiet

T = TypeVar("T")

PATIENCE = datetime.timedelta(days=7)
"""How long a process waits for the others, who may wait for another run; `torchrun` notices at once when one dies."""


class World(NamedTuple):
    """The place of this process among all."""

    rank: int
    size: int


ALONE = World(rank=0, size=1)


def get_device(name: Optional[str]) -> torch.device:
    """The device called `name`, or the best one that this machine has."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.partition(":")[0] not in ("cuda", "mps", "cpu"):
        raise DataError(f"--device {name}: take cuda, cuda:1, mps or cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"--device {name}: {str(error).splitlines()[0]}; take cuda, cuda:1, mps or cpu") from None


def setup(name: Optional[str]) -> torch.device:
    """The device of this process, which joins the others where `torchrun` started it.

    With several GPUs each process takes its own. What others than the main process print to the standard output is
    dropped, and so are their bars; errors are not.

    Args:
        name: `--device`.
    """
    if not dist.is_torchelastic_launched():  # RANK and WORLD_SIZE may be left over from something else
        return get_device(name)
    if name in (None, "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = get_device(name)
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Decisions are exchanged over gloo also where gradients go over nccl: they must not wait for the GPU.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        if not is_main():
            keep_quiet()
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
    return device


def world() -> World:
    """The place of this process; alone without `torchrun`."""
    return World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else ALONE


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return world().rank == 0


def leave() -> None:
    """From here on this process is alone: what it does no longer asks for the others, who may have ended."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all processes are here."""
    any_process(False)


def from_main(function: Callable[[], T]) -> T:
    """What `function` returns in the main process, in all of them; only there it is called."""
    result: List[Optional[T]] = [function() if is_main() else None]
    if world().size > 1:
        dist.broadcast_object_list(result, src=0, device=torch.device("cpu"))
    return result[0]  # type: ignore[return-value]


@contextmanager
def main_first() -> Iterator[None]:
    """The main process goes through the block before all others, who find what it has left on disk."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in at least one process."""
    return bool(sum_over_processes(torch.tensor(int(flag))))


def sum_over_processes(values: Tensor) -> Tensor:
    """Sum of the processes' `values`, in place."""
    if world().size > 1:
        dist.all_reduce(values)
    return values


def sum_gradients(parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
    """Sum the gradients of all processes, in place, and the losses that they belong to; the summed loss, detached."""
    if world().size == 1:
        return loss.detach()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = sum_over_processes(torch.cat([loss.detach().flatten(), *(gradient.flatten() for gradient in gradients)]))
    for gradient, summed in zip(gradients, flat[1:].split([gradient.numel() for gradient in gradients])):
        gradient.copy_(summed.view_as(gradient))
    return flat[0]


def gather(items: List[T]) -> List[T]:
    """The items of all processes, in the order of their ranks."""
    if world().size == 1:
        return items
    parts: List[Optional[List[T]]] = [None] * world().size
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part or []]
