"""The output folder of a run: config.json, log.txt, checkpoints, TensorBoard events; and going on after a stop."""
from __future__ import annotations

import argparse
import io
import json
import platform
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from datasets.files import DataError, PathLike, atomic_write, shorten, write_json
from datasets.registry import DatasetSpec
from engine.distributed import barrier, from_main, is_main
from engine.flags import check_flags
from engine.methods import method_title
from engine.options import get_args_parser
from engine.tables import results_table

_FREE_FLAGS = ("output_dir", "config", "resume", "overwrite", "epochs", "device", "num_workers", "feature_root",
               "no_feature_store", "skip_unreadable", "zoom")
"""Flags that may differ between the parts of one run: they do not change what an epoch computes."""

_CHECKPOINT_TYPES = {"epoch": int, "model": dict, "optimizer": dict, "history": list, "progress": dict, "args": dict,
                     "categories": list, "weights_sha256": str}

_RESULT_FILES = ("checkpoint.pth", "best.pth", "log.txt", "config.json", "result.json")

SAVE_SECONDS = 60
"""Time between checkpoints within an epoch: on one CPU core an epoch of COCO takes over 20 minutes."""


class Progress(NamedTuple):
    """How far the epoch that is under way has come."""

    batches: int = 0
    """Batches done."""
    loss: Tensor = torch.zeros(())
    """Sum of the losses of their images."""


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed every generator. On CPU the same seed gives the same weights bit for bit."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)


def git_revision() -> Optional[str]:
    """Commit of the code, with "-dirty" where files differ from it; None outside a checkout."""
    try:
        return subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
                              cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def load_checkpoint(path: PathLike) -> Dict[str, Any]:
    """Read a checkpoint of a train script.

    Raises:
        DataError: the file is missing, damaged, or not one; or its weights are not finite.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such checkpoint; a train script leaves checkpoint.pth in its --output_dir")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive fails in many ways
        reason = (str(error).splitlines() or [""])[0][:100]
        raise DataError(f"{path}: not a readable checkpoint ({type(error).__name__}: {reason}); "
                        "it may be truncated, or hold more than tensors") from None
    fault = _checkpoint_fault(checkpoint)
    if fault:
        raise DataError(f"{path}: not a usable checkpoint of a train script ({fault}); take an earlier one, or train "
                        "anew with --overwrite")
    parser = get_args_parser("voc2007", None)
    defaults = vars(parser.parse_args([]))  # of flags that are younger than the checkpoint
    return {**checkpoint, "args": {**defaults, **check_flags(path, checkpoint["args"], parser)}}


def _checkpoint_fault(checkpoint: Any) -> Optional[str]:
    """What is wrong with the content of a checkpoint, if anything."""
    if not isinstance(checkpoint, dict):
        return f"it holds a {type(checkpoint).__name__}"
    for key, kind in _CHECKPOINT_TYPES.items():
        if not isinstance(checkpoint.get(key), kind):
            return f"{key!r} is no {kind.__name__}" if key in checkpoint else f"{key!r} is missing"
    for name, value in checkpoint["model"].items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            return f"weight {shorten(str(name))} is no tensor"
        if not torch.isfinite(value).all():
            return f"weight {shorten(name)} is not finite"
    for number, record in enumerate(checkpoint["history"], start=1):
        if not isinstance(record, dict) or not all(type(value) in (int, float) for value in record.values()) \
                or record.get("epoch") != number or "mAP" not in record:
            return f"no record of epoch {number}"
    if checkpoint["epoch"] != len(checkpoint["history"]):
        return f"{len(checkpoint['history'])} records of {checkpoint['epoch']} epochs"
    batches, loss = checkpoint["progress"].get("batches"), checkpoint["progress"].get("loss")
    if type(batches) is not int or batches < 0 or not isinstance(loss, Tensor) or loss.dtype != torch.float32 \
            or loss.shape:
        return "'progress' is not that of an epoch"
    return None


def load_weights(model: torch.nn.Module, checkpoint: Dict[str, Any], path: PathLike) -> None:
    """Put the weights of the checkpoint that was read from `path` into the model that its flags describe.

    Raises:
        DataError: they do not fit.
    """
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(f"{path}: the weights do not fit the model of these flags ({reason})") from None


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Dict[str, Any]) -> bool:
    """Put a checkpoint's state into the optimiser; False where it does not fit."""
    kinds = [{key: type(value) for key, value in group.items()} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        values = [(weight, value) for weight, entry in optimizer.state.items() for value in entry.values()]
        return (kinds == [{key: type(value) for key, value in group.items()} for group in optimizer.param_groups]
                and len({frozenset(entry) for entry in optimizer.state.values()}) <= 1
                and all(value is None or value.shape in (torch.Size(), weight.shape) for weight, value in values))
    except Exception:  # a damaged state fails in many ways
        return False


class Run:
    """One training run and its output folder. Of several processes only the main one writes.

    The checkpoint is the truth: it holds the weights, the optimiser, the history of epochs and how far the next epoch
    has come. `best.pth` is written before it and `log.txt` after it, so that a run killed in between repeats what it
    did since the checkpoint and ends the same.

    Args:
        args: the parsed command line.
        categories: names of the classes and backgrounds, to be checked when a checkpoint is read.
        facts: what else belongs into config.json and the checkpoints, such as the digest of the weights.
    """

    def __init__(self, args: argparse.Namespace, categories: List[str], facts: Dict[str, Any]) -> None:
        self.folder = Path(args.output_dir)
        self.args = vars(args)
        self.categories = list(categories)
        self.facts = facts
        self.history: List[Dict[str, float]] = []
        self.result: Dict[str, Any] = {}
        self.progress = Progress()
        self.writer: Optional[SummaryWriter] = None
        if args.overwrite:
            from_main(self._remove_results)
        self._source = self._find_source(args.resume)
        self._checkpoint = self._read_source()
        self._saved_at = time.monotonic()
        barrier()  # what is there was read by all processes
        if is_main():
            self._open()

    def _remove_results(self) -> None:
        for name in _RESULT_FILES:
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)

    def _open(self) -> None:
        if self._source is None or self._source.parent.resolve() != self.folder.resolve():
            shutil.rmtree(self.crop_folder, ignore_errors=True)  # crops that other weights found
        self.folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self.folder.rglob(".*.part"):  # of a process that was killed while it wrote
            unfinished.unlink()
        write_json(self.folder / "config.json", {
            "args": self.args, "git_revision": git_revision(), "python": platform.python_version(),
            "torch": torch.__version__, "categories": self.categories, **self.facts}, indent=1)
        self.writer = SummaryWriter(str(self.folder / "tensorboard"),
                                    purge_step=self._checkpoint["epoch"] + 1 if self._checkpoint else None)

    def _find_source(self, resume: Optional[str]) -> Optional[Path]:
        """The checkpoint to go on from. Once a run that was started by --resume has its own, it goes on from that."""
        own = self.folder / "checkpoint.pth"
        if resume is None:
            return own if own.exists() else None
        resumed_before = own.exists() and load_checkpoint(own)["args"].get("resume") == resume
        return own if resumed_before else Path(resume)

    def _read_source(self) -> Optional[Dict[str, Any]]:
        path = self._source
        if path is None:
            return None
        checkpoint = load_checkpoint(path)
        if list(map(str, checkpoint["categories"])) != self.categories:
            raise DataError(f"{path}: trained for other categories ({len(checkpoint['categories'])}, "
                            f"here {len(self.categories)}); check --dataset and --no_backgrounds")
        advice = "choose another --output_dir, or --overwrite the run that is there"
        for flag, value in checkpoint["args"].items():
            if flag not in _FREE_FLAGS and self.args.get(flag, value) != value:
                raise DataError(f"{path}: made with --{flag} {value}, not {self.args[flag]}; {advice}")
        for name, value in self.facts.items():
            if type(checkpoint.get(name)) is not type(value) or checkpoint[name] != value:
                raise DataError(f"{path}: made with {name} {shorten(str(checkpoint.get(name)))}, not "
                                f"{shorten(str(value))}; {advice}")
        return checkpoint

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Load the checkpoint that the run goes on from, if there is one.

        Raises:
            DataError: it does not fit the model or the optimiser.
        """
        if self._checkpoint is None or self._source is None:
            return
        load_weights(model, self._checkpoint, self._source)
        if not _load_optimizer(optimizer, self._checkpoint["optimizer"]):
            raise DataError(f"{self._source}: the state of the optimiser does not fit the model; take an earlier "
                            "checkpoint, or train anew with --overwrite")
        self.history = self._checkpoint["history"]
        self.progress = Progress(**self._checkpoint["progress"])
        if self.next_epoch + (self.progress.batches > 0) > self.args["reso_epoch"]:
            from_main(self._take_over_crops)
        within = f" and {self.progress.batches} batches" if self.progress.batches else ""
        print(f"{self.folder}: going on after epoch {len(self.history)}{within}")

    def _take_over_crops(self) -> None:
        if self._source is None:
            return
        earlier = self._source.parent / self.crop_folder.name
        if earlier.is_dir() and not self.crop_folder.exists():
            copy = self.folder / "crops.part"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(earlier, copy)
            copy.rename(self.crop_folder)

    @property
    def crop_folder(self) -> Path:
        """Where ReSO's crops and their index are."""
        return self.folder / "reso"

    @property
    def next_epoch(self) -> int:
        """The first epoch that is still to be trained, from 1."""
        return len(self.history) + 1

    @property
    def best(self) -> Dict[str, float]:
        """The epoch with the highest test mAP; the first of them if several share it."""
        return max(self.history, key=lambda record: record["mAP"])

    @property
    def save_is_due(self) -> bool:
        """Whether the last checkpoint is more than `SAVE_SECONDS` old."""
        return time.monotonic() - self._saved_at > SAVE_SECONDS

    def save_within_epoch(self, progress: Progress, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Save the epoch that is under way, so that a run stopped in it goes on behind this batch."""
        self._save(("checkpoint.pth",), progress, model, optimizer)

    def _save(self, names: Sequence[str], progress: Progress, model: torch.nn.Module,
              optimizer: torch.optim.Optimizer) -> None:
        self._saved_at = time.monotonic()
        if not is_main():
            return
        buffer = io.BytesIO()
        torch.save({"epoch": len(self.history), "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "history": self.history, "progress": progress._asdict(), "args": self.args,
                    "categories": self.categories, **self.facts}, buffer)
        for name in names:
            with atomic_write(self.folder / name, "wb") as file:
                file.write(buffer.getbuffer())

    def finish_epoch(self, record: Dict[str, float], timing: Dict[str, float], model: torch.nn.Module,
                     optimizer: torch.optim.Optimizer) -> None:
        """Save the epoch: checkpoints, a line of log.txt, TensorBoard events, a line on the screen."""
        self.history.append(record)
        self.progress = Progress()
        self._save(("best.pth", "checkpoint.pth")[self.best is not record:], self.progress, model, optimizer)
        if self.writer:
            self._write_log({**record, **timing})
            for name, value in {**record, **timing}.items():
                self.writer.add_scalar(name, value, record["epoch"])
            self.writer.flush()
        print(f"epoch {record['epoch']:2d}  loss {record['loss']:.4f}  mAP {record['mAP']:.2f}  "
              f"{timing['seconds']:.1f} s  {timing['images_per_second']:.0f} images/s", flush=True)

    def finish(self, spec: DatasetSpec, zero_shot: float, zoomed: Optional[float] = None) -> None:
        """Write result.json, which tables are collected from, and print the run's mAP beside the paper's.

        Args:
            spec: the dataset.
            zero_shot: mAP of CLIP without training, on the same images.
            zoomed: mAP of the last epoch with `--zoom`, where it was asked for.
        """
        result = {"dataset": spec.name, "method": self.args["method"],
                  "title": method_title(argparse.Namespace(**self.args)), "weights": Path(self.args["model_path"]).name,
                  "seed": self.args["seed"], "epochs": self.history[-1]["epoch"], "last_mAP": self.history[-1]["mAP"],
                  "best_mAP": self.best["mAP"], "best_epoch": self.best["epoch"], "zero_shot_mAP": zero_shot,
                  "zoom_mAP": zoomed}
        self.result = result
        if self.writer:
            write_json(self.folder / "result.json", result, indent=1)
            self.writer.close()
        barrier()  # from here on all processes find the folder finished
        print(results_table(spec, result))
        print(f"everything is in {self.folder}")

    def _write_log(self, line: Dict[str, float]) -> None:
        """Append a line to those of the epochs before, and drop what a run that was stopped wrote beyond them."""
        path = self.folder / "log.txt"
        earlier: Dict[int, str] = {int(record["epoch"]): json.dumps(record) for record in self.history[:-1]}
        if path.exists():
            for text in path.read_text().splitlines():
                try:
                    epoch = int(json.loads(text)["epoch"])
                except (ValueError, TypeError, LookupError):
                    continue  # damaged; the history has the same numbers, less the times
                if epoch in earlier:
                    earlier[epoch] = text
        with atomic_write(path) as file:
            file.writelines(f"{text}\n" for text in (*earlier.values(), json.dumps(line)))
