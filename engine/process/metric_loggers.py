"""`--logger`: where the numbers of every epoch go beside log.txt, which always has them."""
from __future__ import annotations

import importlib
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Protocol

from datasets.files import DataError, make_folder
from datasets.progress import say

FOLDERS = ("tensorboard", "wandb")
"""What loggers leave in the folder of a run."""


class MetricLogger(Protocol):
    """Takes the numbers of a run, epoch by epoch."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """Note the numbers of an epoch, counted from 1."""

    def close(self) -> None:
        """The run is finished."""


class Nowhere:
    """Keeps nothing."""

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `MetricLogger`."""

    def close(self) -> None:
        """See `MetricLogger`."""


class TensorBoard:
    """Event files in FOLDER/tensorboard; those of epochs that are trained again are dropped."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epochs_done + 1 if epochs_done else None)

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `MetricLogger`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """See `MetricLogger`."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project "bac-gcn" with the flags as its configuration; the same one where a stopped run goes on.

    wandb's own environment variables say who one is and whether it works offline.
    """

    def __init__(self, folder: Path, flags: Mapping[str, Any]) -> None:
        name = folder / "wandb" / "run_id"
        if not name.exists():
            make_folder(name.parent)
            name.write_text(uuid.uuid4().hex)
        wandb = import_wandb()
        self._run = wandb.init(project="bac-gcn", name=folder.name, id=name.read_text(), resume="allow",
                               dir=str(folder), config=dict(flags))

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        """See `MetricLogger`."""
        self._run.log(dict(values), step=epoch)

    def close(self) -> None:
        """See `MetricLogger`."""
        self._run.finish()


def import_wandb() -> Any:
    """The module wandb.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module("wandb")
    except ImportError:
        raise DataError("--logger wandb: wandb is not installed; `pip install wandb`, or leave --logger out") from None


def _tensorboard(folder: Path, flags: Mapping[str, Any], epochs_done: int) -> MetricLogger:
    try:
        return TensorBoard(folder, epochs_done)
    except ImportError:
        say("TensorBoard is not installed, so the numbers are in log.txt alone; `pip install tensorboard`")
        return Nowhere()


LOGGERS: Dict[str, Callable[[Path, Mapping[str, Any], int], MetricLogger]] = {
    "tensorboard": _tensorboard,
    "wandb": lambda folder, flags, epochs_done: WeightsAndBiases(folder, flags),
    "none": lambda folder, flags, epochs_done: Nowhere(),
}
"""`--logger`: from (the run's folder, its flags, epochs that are done) to what takes its numbers."""
