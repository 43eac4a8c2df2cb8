"""The output folder of a run: config.json, log.txt, checkpoints, what a logger keeps; and going on after a stop."""
from __future__ import annotations

import argparse
import io
import json
import shutil
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import torch

from datasets.files import DataError, atomic_write, counted, write_json
from datasets.progress import say
from datasets.registry import DatasetSpec
from engine.command_line.method_flags import method_title, untrained_title
from engine.features.frozen_clip import weights_name
from engine.process.distributed import barrier, from_main, is_main
from engine.process.folder_lock import FolderLock, hold_folder
from engine.process.metric_loggers import FOLDERS, LOGGERS, MetricLogger, Nowhere
from engine.process.stopwatch import describe_timing
from engine.results.selection import CRITERION, common_criterion, selection_score
from engine.results.tables import results_table
from engine.training.checkpoint import Progress, load_checkpoint, load_optimizer, load_weights
from engine.training.crops import CROP_FEATURES
from engine.training.provenance import write_config
from engine.training.same_run import CROPS, check_same_run

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
        facts: what else belongs into config.json and the checkpoints: digests of the weights and of the data.
        encoder: tensors that the checkpoints keep of the frozen encoder: `encoder_state`.

    Raises:
        DataError: what is in the folder, or in the checkpoint to go on from, is of another run; or another process
            trains there.
    """

    def __init__(self, args: argparse.Namespace, categories: Sequence[str], facts: Dict[str, Any],
                 encoder: Optional[Dict[str, torch.Tensor]] = None) -> None:
        self.folder = Path(args.output_dir)
        self.args = vars(args)
        self.categories = list(categories)
        self.facts, self._encoder = facts, encoder or {}
        self.history: List[Dict[str, float]] = []
        self.result: Dict[str, Any] = {}
        self.progress = Progress()
        self.logger: MetricLogger = Nowhere()
        self._lock: Optional[FolderLock] = None
        is_there = from_main(self.folder.exists)
        try:
            if is_there:
                self._lock = hold_folder(self.folder)
            self._read()
            if not is_there:  # made now, so that what is refused leaves nothing
                self._lock = hold_folder(self.folder)
                self._read()
            self._saved_at = time.monotonic()
            barrier()  # what is there was read by all processes
            if is_main():
                self._open()
        except BaseException:
            self._release()
            raise

    def _read(self) -> None:
        """Find and read what the run goes on from."""
        self._source = self._find_source(self.args["resume"])
        self._checkpoint = self._read_source()
        self._best_before = self._find_best()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _remove_results(self) -> None:
        for name in _RESULT_FILES:
            (self.folder / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @property
    def _goes_on_here(self) -> bool:
        """Whether the checkpoint to go on from is in the run's own folder."""
        return self._source is not None and self._source.parent.resolve() == self.folder.resolve()

    def _open(self) -> None:
        if not self._goes_on_here:
            self._remove_results()
            shutil.rmtree(self.crop_folder, ignore_errors=True)  # crops that other weights found
        # What a process was writing when it was killed. In other folders below another run may be at work.
        for unfinished in (*self.folder.glob(".*.part"), *self.crop_folder.rglob(".*.part")):
            unfinished.unlink()
        if self._best_before is not None:
            with atomic_write(self.folder / "best.pth", "wb") as file:
                file.write(self._best_before.read_bytes())
        epoch = self._checkpoint["epoch"] if self._checkpoint else 0
        finished = self._checkpoint is not None and epoch >= self.args["epochs"]
        write_config(self.folder, {"args": self.args, "categories": self.categories, **self.facts}, self._source, epoch,
                     finished)
        if not finished:
            self.logger = LOGGERS[self.args["logger"]](self.folder, self.args, epoch)

    def _find_source(self, resume: Optional[str]) -> Optional[Path]:
        """The checkpoint to go on from. Once a run that was started by --resume has its own, it goes on from that."""
        own = self.folder / "checkpoint.pth"
        if self.args["overwrite"]:
            if resume is not None and Path(resume).resolve().parent == self.folder.resolve():
                raise DataError(f"{resume}: --overwrite would remove it; leave --overwrite out to go on from it, or "
                                "choose another --output_dir")
            return None if resume is None else Path(resume)
        if resume is None or not own.exists() or Path(resume).resolve() == own.resolve():
            return Path(resume) if resume is not None else own if own.exists() else None
        if load_checkpoint(own)["args"].get("resume") != resume:
            raise DataError(f"{self.folder}: holds another run, which did not begin with --resume {resume}; choose "
                            "another --output_dir, or --overwrite that run")
        return own

    def _find_best(self) -> Optional[Path]:
        """The file to take over as best.pth where the run goes on from another folder: the best epoch up to there."""
        if self._checkpoint is None or self._source is None or self._goes_on_here or not self._checkpoint["history"]:
            return None
        history = self._checkpoint["history"]
        if "mAP" not in history[-1]:  # without test labels there is no best.pth
            return None
        best = _best_epoch(history)["epoch"]
        if best == len(history) and not self._checkpoint["progress"]["batches"]:
            return self._source
        beside = self._source.parent / "best.pth"
        if beside.exists() and load_checkpoint(beside)["history"] == history[:best]:
            return beside
        raise DataError(f"{self._source}: its best epoch is {best} of {len(history)}, and the best.pth beside it is "
                        "missing or of another epoch; put that one there, or go on in the run's own folder")

    def _read_source(self) -> Optional[Dict[str, Any]]:
        path = self._source
        if path is None:
            return None
        checkpoint = load_checkpoint(path)
        check_same_run(path, checkpoint, self.args, self.categories, self.facts)
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
        within = f" and {counted(self.progress.batches, 'batch')}" if self.progress.batches else ""
        say(f"{self.folder}: going on after epoch {len(self.history)}{within}")

    def _take_over_crops(self) -> None:
        if self._source is None:
            return
        earlier = self._source.parent / self.crop_folder.name
        if earlier.is_dir() and not self.crop_folder.exists():
            copy = self.folder / "crops.part"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(earlier, copy, ignore=shutil.ignore_patterns(CROP_FEATURES))
            copy.rename(self.crop_folder)

    @property
    def crop_folder(self) -> Path:
        """Where ReSO's crops and their index are."""
        return self.folder / CROPS

    @property
    def next_epoch(self) -> int:
        """The first epoch that is still to be trained, from 1."""
        return len(self.history) + 1

    @property
    def best(self) -> Dict[str, float]:
        """The epoch with the highest `selection_score` on held-out images or, without `--val_share`, the highest test
        mAP; the first of them if several share it. Without either the last."""
        return _best_epoch(self.history)

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
                    "categories": self.categories, "encoder": self._encoder, **self.facts}, buffer)
        for name in names:
            with atomic_write(self.folder / name, "wb") as file:
                file.write(buffer.getbuffer())

    def finish_epoch(self, record: Dict[str, float], timing: Dict[str, float], model: torch.nn.Module,
                     optimizer: torch.optim.Optimizer) -> None:
        """Save the epoch: checkpoints, a line of log.txt, what `--logger` keeps, a line on the screen.

        Args:
            record: its number, loss, images and metrics, the same however often the run was stopped.
            timing: of `Stopwatch`.
        """
        self.history.append(record)
        self.progress = Progress()
        is_best = "mAP" in record and self.best is record
        self._save(("best.pth", "checkpoint.pth")[not is_best:], self.progress, model, optimizer)
        if is_main():
            self._write_log({**record, **timing})
            self.logger.log(len(self.history), {**record, **timing})
        measured = "".join(f"{name} {record[name]:.2f}  " for name in ("mAP", *CRITERION) if name in record)
        say(f"epoch {record['epoch']:2d}  loss {record['loss']:.4f}  {measured}{describe_timing(timing)}")

    def finish(self, spec: DatasetSpec, zero_shot: Optional[float], zoomed: Optional[float] = None,
               clip_name: str = "") -> None:
        """Write result.json, which tables are collected from, and print the run's mAP beside the paper's.

        Args:
            spec: the dataset.
            zero_shot: mAP of CLIP without training, on the same images; None without labels.
            zoomed: mAP of the last epoch with `--zoom`, where it was asked for.
            clip_name: of the frozen CLIP, for methods that are named after it.
        """
        last = self.history[-1]
        result = {"dataset": spec.name, "method": self.args["method"],
                  "title": method_title(argparse.Namespace(**self.args), clip_name),
                  "weights": weights_name(self.args["model_path"]), "activation": self.facts.get("activation"),
                  "seed": self.args["seed"], "epochs": last["epoch"], "last_mAP": last.get("mAP"),
                  "last_OF1": last.get("OF1"), "last_CF1": last.get("CF1"), "threshold": last.get("threshold"),
                  "best_mAP": self.best.get("mAP"), "best_epoch": self.best["epoch"],
                  **{name: last.get(name) for name in CRITERION}, "zero_shot_mAP": zero_shot,
                  "zero_shot_title": untrained_title(self.args.get("encoder", "clip")), "zoom_mAP": zoomed,
                  "zoom": self.args.get("zoom")}
        self.result = result
        if is_main():
            write_json(self.folder / "result.json", result, indent=1)
            if not self.args.get("keep_crop_features"):
                shutil.rmtree(self.crop_folder / CROP_FEATURES, ignore_errors=True)
        self.logger.close()
        self._release()
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


def _best_epoch(history: Sequence[Dict[str, float]]) -> Dict[str, Any]:
    if "pseudo_mAP" in history[0]:
        criterion = common_criterion(history)
        return max(history, key=lambda record: selection_score(record, criterion))
    return max(history, key=lambda record: record.get("mAP", record["epoch"]))
