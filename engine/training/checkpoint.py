"""Checkpoints: what they must hold, and putting them into a model and an optimiser."""
from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

import torch
from torch import Tensor

from datasets.files import DataError, PathLike, counted, shorten
from engine.command_line.older_runs import complete_flags
from engine.command_line.saved_flags import check_flags
from engine.command_line.train_flags import get_args_parser
from models.backbones.reduction import Reduction

_CHECKPOINT_TYPES = {"epoch": int, "model": dict, "optimizer": dict, "history": list, "progress": dict, "args": dict,
                     "categories": list, "weights_sha256": str}


Checkpoint = Dict[str, Any]
"""What `load_checkpoint` returns."""


class Progress(NamedTuple):
    """How far the epoch that is under way has come."""

    batches: int = 0
    """Batches done."""
    loss: Tensor = torch.zeros(())
    """Sum of the losses of their images."""


def load_checkpoint(path: PathLike) -> Dict[str, Any]:
    """Read a checkpoint of a train script.

    Raises:
        DataError: the file is missing, damaged, or not one; or its weights are not finite.
    """
    if Path(path).is_dir():
        raise DataError(f"{path}: a folder; give the checkpoint.pth in it")
    if not Path(path).is_file():
        raise DataError(f"{path}: no such checkpoint; a train script leaves checkpoint.pth in its --output_dir")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged archive fails in many ways
        if isinstance(error, pickle.UnpicklingError) and Path(path).suffix == ".json":
            raise DataError(f"{path}: no checkpoint; give the checkpoint.pth beside it") from None
        if "weights_only" in str(error):
            raise DataError(f"{path}: not a checkpoint of a train script, or it holds more than tensors") from None
        plain = re.sub(r"\x1b\[[0-9;]*m|[^\x20-\x7e]", "", (str(error).splitlines() or [""])[0])
        reason = plain[:100]
        raise DataError(f"{path}: not a readable checkpoint ({type(error).__name__}: {reason}); "
                        "it may be truncated, or hold more than tensors") from None
    fault = _checkpoint_fault(checkpoint)
    if fault:
        raise DataError(f"{path}: not a usable checkpoint of a train script ({fault}); take an earlier one, or train "
                        "anew with --overwrite")
    parser = get_args_parser("voc2007", None)
    return {**checkpoint, "args": complete_flags(check_flags(path, checkpoint["args"], parser))}


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
    fault = _encoder_fault(checkpoint)
    if fault:
        return fault
    for number, record in enumerate(checkpoint["history"], start=1):
        if not isinstance(record, dict) or not all(type(value) in (int, float) for value in record.values()) \
                or record.get("epoch") != number or ("mAP" in record) != ("mAP" in checkpoint["history"][0]):
            return f"no record of epoch {number}"
    if checkpoint["epoch"] != len(checkpoint["history"]):
        return f"{counted(len(checkpoint['history']), 'record')} of {counted(checkpoint['epoch'], 'epoch')}"
    batches, loss = checkpoint["progress"].get("batches"), checkpoint["progress"].get("loss")
    if type(batches) is not int or batches < 0 or not isinstance(loss, Tensor) or loss.dtype != torch.float32 \
            or loss.shape:
        return "'progress' is not that of an epoch"
    return None


def _encoder_fault(checkpoint: Dict[str, Any]) -> Optional[str]:
    """What is wrong with what is kept of a frozen encoder other than CLIP, if anything."""
    if checkpoint["args"].get("encoder", "clip") == "clip":
        return None
    kept = checkpoint.get("encoder")
    for name in (*Reduction._fields, "start"):
        value = kept.get(name) if isinstance(kept, dict) else None
        if not isinstance(value, Tensor) or not value.is_floating_point() or not torch.isfinite(value).all():
            return f"{name!r} of the encoder is no tensor of finite numbers"
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


_STATE_NAMES = {torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.SGD: {"momentum_buffer"}}
"""What the optimisers in use keep of each weight; a damaged name would only be missed at the next step."""


def load_optimizer(optimizer: torch.optim.Optimizer, state: Dict[str, Any]) -> bool:
    """Put a checkpoint's state into the optimiser; False where it does not fit."""
    kinds = [{key: type(value) for key, value in group.items()} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        values = [(weight, value) for weight, entry in optimizer.state.items() for value in entry.values()]
        return (kinds == [{key: type(value) for key, value in group.items()} for group in optimizer.param_groups]
                and all(set(entry) == _STATE_NAMES[type(optimizer)] for entry in optimizer.state.values())
                and all(value is None or value.shape in (torch.Size(), weight.shape) for weight, value in values))
    except Exception:  # a damaged state fails in many ways
        return False
