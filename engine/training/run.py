"""The output folder of a run: config.json, log.txt, checkpoints, TensorBoard events; and going on after a stop."""
from __future__ import annotations

import argparse
import io
import json
import platform
import shutil
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import torch
from torch.utils.tensorboard import SummaryWriter

from datasets.files import DataError, atomic_write, shorten, write_json
from datasets.registry import DatasetSpec
from engine.command_line.method_flags import method_title
from engine.process.distributed import barrier, from_main, is_main
from engine.process.reproducibility import git_revision
from engine.results.tables import results_table
from engine.training.checkpoint import Progress, load_checkpoint, load_optimizer, load_weights

_FREE_FLAGS = frozenset((
    "output_dir", "config", "resume", "overwrite", "unlabelled_test", "epochs", "device", "num_workers", "feature_root",
    "no_feature_store", "skip_unreadable", "zoom",
    "activation"))
"""Flags that may differ between the parts of one run: they do not change what an epoch computes."""


_RESULT_FILES = ("checkpoint.pth", "best.pth", "log.txt", "config.json", "result.json")

SAVE_SECONDS = 60
"""Time between checkpoints within an epoch: on one CPU core an epoch of COCO takes over 20 minutes."""





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
        # A schedule that ends with the last epoch is another one where the epochs are others.
        free = _FREE_FLAGS if self.args.get("lr_schedule", "constant") == "constant" else _FREE_FLAGS - {"epochs"}
        if self.args.get("labels") == "fused":  # with tiles as a view
            free -= {"zoom"}
        for flag, value in checkpoint["args"].items():
            if flag not in free and self.args.get(flag, value) != value:
                raise DataError(f"{path}: made with --{flag} {value}, not {self.args[flag]}; {advice}")
        for name, value in self.facts.items():
            found = checkpoint.get(name, value)  # younger facts are absent; the digest of the weights never is
            if type(found) is not type(value) or found != value:
                raise DataError(f"{path}: made with {name} {shorten(str(found))}, not "
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
        if not load_optimizer(optimizer, self._checkpoint["optimizer"]):
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
        """The epoch with the highest test mAP; the first of them if several share it. Without test labels the last."""
        return max(self.history, key=lambda record: record.get("mAP", record["epoch"]))

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
        is_best = "mAP" in record and self.best is record
        self._save(("best.pth", "checkpoint.pth")[not is_best:], self.progress, model, optimizer)
        if self.writer:
            self._write_log({**record, **timing})
            for name, value in {**record, **timing}.items():
                self.writer.add_scalar(name, value, record["epoch"])
            self.writer.flush()
        measured = f"mAP {record['mAP']:.2f}  " if "mAP" in record else ""
        print(f"epoch {record['epoch']:2d}  loss {record['loss']:.4f}  {measured}"
              f"{timing['seconds']:.1f} s  {timing['images_per_second']:.0f} images/s", flush=True)

    def finish(self, spec: DatasetSpec, zero_shot: Optional[float], zoomed: Optional[float] = None) -> None:
        """Write result.json, which tables are collected from, and print the run's mAP beside the paper's.

        Args:
            spec: the dataset.
            zero_shot: mAP of CLIP without training, on the same images; None without labels.
            zoomed: mAP of the last epoch with `--zoom`, where it was asked for.
        """
        result = {"dataset": spec.name, "method": self.args["method"],
                  "title": method_title(argparse.Namespace(**self.args)), "weights": Path(self.args["model_path"]).name,
                  "activation": self.facts.get("activation"),
                  "seed": self.args["seed"], "epochs": self.history[-1]["epoch"],
                  "last_mAP": self.history[-1].get("mAP"),
                  "best_mAP": self.best.get("mAP"), "best_epoch": self.best["epoch"], "zero_shot_mAP": zero_shot,
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
