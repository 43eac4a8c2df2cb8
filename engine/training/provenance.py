"""Where a run comes from: config.json, with the code of each part of it, and a digest of the data."""
from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import torch
from torch import Tensor

from datasets.files import DataError, read_json, write_json
from datasets.split_file import ImageList
from engine.features.stored_rows import list_digest
from engine.process.reproducibility import git_revision

_CODE = ("git_revision", "python", "torch")


def data_facts(*parts: Union[ImageList, Tensor]) -> Dict[str, str]:
    """What config.json and checkpoints say of the data that a run is made of, wherever they lie.

    Args:
        parts: images, of which ids and file sizes count; labels (as captions gave them) and graph, value by value.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype} {tuple(part.shape)}".encode())
            digest.update(part.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(list_digest(part).encode())
    return {"data_sha256": digest.hexdigest()}


def write_config(folder: Path, content: Dict[str, Any], source: Optional[Path], epoch: int, finished: bool) -> None:
    """Write config.json: the flags and facts of a run, and which code has trained which part of it.

    Args:
        folder: of the run.
        content: "args" and what else is known.
        source: the checkpoint that the run goes on from, with the config.json of its part beside it.
        epoch: whole epochs in that checkpoint.
        finished: nothing is left to train. Then config.json stays as it is, but for `--zoom`, which is for testing.
    """
    path = folder / "config.json"
    if finished and source is not None and source.parent.resolve() == folder.resolve():
        before = _read(path)
        if isinstance(before.get("args"), dict):
            if before["args"].get("zoom") != content["args"]["zoom"]:
                write_json(path, {**before, "args": {**before["args"], "zoom": content["args"]["zoom"]}}, indent=1)
            return
    parts = [] if source is None else _parts(_read(source.parent / "config.json"), epoch)
    if not finished or not parts:
        code = dict(zip(_CODE, (git_revision(), platform.python_version(), torch.__version__)))
        if not parts or any(parts[-1].get(name) != value for name, value in code.items()):
            parts.append({"after_epoch": epoch, **code})
    latest = {name: parts[-1].get(name) for name in _CODE}
    write_json(path, {"args": content["args"], **latest, "parts": parts, **content}, indent=1)


def _read(path: Path) -> Dict[str, Any]:
    """What a config.json holds; nothing where there is none, or it is damaged."""
    try:
        config = read_json(path)
    except DataError:
        return {}
    return config if isinstance(config, dict) else {}


def _parts(config: Dict[str, Any], epoch: int) -> List[Dict[str, Any]]:
    """The parts up to an epoch, the first one as far as an earlier version wrote it down."""
    parts = config.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        parts = [{"after_epoch": 0, **{name: config.get(name) for name in _CODE}}]
    return [part for part in parts if isinstance(part.get("after_epoch"), int) and part["after_epoch"] <= epoch]
