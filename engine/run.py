"""The output folder of a run: config.json, log.txt, checkpoints, TensorBoard events; and going on after a stop."""
from __future__ import annotations

import argparse
import json
import platform
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from datasets.files import DataError, PathLike, atomic_write, write_json
from datasets.registry import DatasetSpec
from engine.tables import results_table

_FREE_FLAGS = ("output_dir", "config", "resume", "overwrite", "epochs", "device", "num_workers", "feature_root", "zoom")
"""Flags that may differ between the parts of one run: they do not change what an epoch computes."""

_CHECKPOINT_KEYS = {"epoch", "model", "optimizer", "history", "args", "categories"}


def get_device(name: Optional[str]) -> torch.device:
    """The device called `name`, or the best one that this machine has."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"--device {name}: {str(error).splitlines()[0]}") from None


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
        DataError: the file is missing, damaged, or not one.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such checkpoint; a train script leaves checkpoint.pth in its --output_dir")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive fails in many ways
        reason = str(error).splitlines()[0][:100]
        raise DataError(f"{path}: not a readable checkpoint ({type(error).__name__}: {reason}); "
                        "it may be truncated, or hold more than tensors") from None
    if not isinstance(checkpoint, dict) or _CHECKPOINT_KEYS - set(checkpoint):
        raise DataError(f"{path}: not a checkpoint of a train script")
    return checkpoint


class Run:
    """One training run and its output folder.

    The checkpoint is the truth: it holds the weights, the optimiser and the history of epochs. `best.pth` is
    written before it and `log.txt` after it, so that a run killed in between repeats the epoch and ends the same.

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
        if args.overwrite and self.folder.exists():
            for name in ("checkpoint.pth", "best.pth", "log.txt", "config.json", "result.json"):
                (self.folder / name).unlink(missing_ok=True)
            for name in ("reso", "tensorboard"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        self._checkpoint = self._find_checkpoint(args.resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "config.json", {
            "args": self.args, "git_revision": git_revision(), "python": platform.python_version(),
            "torch": torch.__version__, "categories": self.categories, **facts}, indent=1)
        self.writer = SummaryWriter(str(self.folder / "tensorboard"),
                                    purge_step=self._checkpoint["epoch"] + 1 if self._checkpoint else None)

    def _find_checkpoint(self, resume: Optional[str]) -> Optional[Dict[str, Any]]:
        path = self.folder / "checkpoint.pth" if resume is None else Path(resume)
        if resume is None and not path.exists():
            return None
        checkpoint = load_checkpoint(path)
        if checkpoint["categories"] != self.categories:
            raise DataError(f"{path}: trained for other categories ({len(checkpoint['categories'])}, "
                            f"here {len(self.categories)}); check --dataset and --no_backgrounds")
        changed = [flag for flag, value in checkpoint["args"].items()
                   if flag not in _FREE_FLAGS and self.args.get(flag, value) != value]
        if changed:
            flag = changed[0]
            raise DataError(f"{path}: made with --{flag} {checkpoint['args'][flag]}, not {self.args[flag]}; choose "
                            "another --output_dir, or --overwrite the run that is there")
        return checkpoint

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Load the checkpoint that the run goes on from, if there is one."""
        if self._checkpoint is None:
            return
        model.load_state_dict(self._checkpoint["model"])
        optimizer.load_state_dict(self._checkpoint["optimizer"])
        self.history = self._checkpoint["history"]
        earlier = Path(self._checkpoint["args"]["output_dir"]) / "reso"
        if earlier.is_dir() and not self.crop_folder.exists() and self.next_epoch > self.args["reso_epoch"]:
            shutil.copytree(earlier, self.crop_folder)  # resumed from another run's folder
        print(f"{self.folder}: going on after epoch {self.history[-1]['epoch']}")

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

    def finish_epoch(self, record: Dict[str, float], timing: Dict[str, float], model: torch.nn.Module,
                     optimizer: torch.optim.Optimizer) -> None:
        """Save the epoch: checkpoints, a line of log.txt, TensorBoard events, a line on the screen."""
        self.history.append(record)
        state = {"epoch": record["epoch"], "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                 "history": self.history, "args": self.args, "categories": self.categories, **self.facts}
        for name in ("best.pth", "checkpoint.pth")[self.best is not record:]:
            with atomic_write(self.folder / name, "wb") as file:
                torch.save(state, file)
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
        result = {"dataset": spec.name, "method": "bac_gcn", "weights": Path(self.args["model_path"]).name,
                  "seed": self.args["seed"], "epochs": self.history[-1]["epoch"], "last_mAP": self.history[-1]["mAP"],
                  "best_mAP": self.best["mAP"], "best_epoch": self.best["epoch"], "zero_shot_mAP": zero_shot,
                  "zoom_mAP": zoomed}
        self.result = result
        write_json(self.folder / "result.json", result, indent=1)
        self.writer.close()
        print(results_table(spec, result))
        print(f"everything is in {self.folder}")

    def _write_log(self, line: Dict[str, float]) -> None:
        """Append a line to those of the epochs before, and drop what a run that was stopped wrote beyond them."""
        path = self.folder / "log.txt"
        earlier: Dict[int, str] = {record["epoch"]: json.dumps(record) for record in self.history[:-1]}
        if path.exists():
            for text in path.read_text().splitlines():
                epoch = json.loads(text)["epoch"]
                if epoch in earlier:
                    earlier[epoch] = text
        with atomic_write(path) as file:
            file.writelines(f"{text}\n" for text in (*earlier.values(), json.dumps(line)))
