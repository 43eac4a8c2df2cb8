"""Whether a checkpoint is of the run that would go on from it."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, List

from datasets.files import DataError, check_folder, shorten
from engine.training.checkpoint import Checkpoint, load_checkpoint
from models.reso import INDEX_NAME

_FREE_FLAGS = frozenset((
    "output_dir", "config", "resume", "overwrite", "unlabelled_test", "epochs", "device", "num_workers", "feature_root",
    "no_feature_store", "skip_unreadable", "zoom", "logger", "keep_crop_features", "activation"))
"""Flags that may differ between the parts of one run: they do not change what an epoch computes."""

DATA_FLAGS = frozenset((
    "train_img_root", "train_split_file", "val_img_root", "val_split_file", "model_path", "caption_root",
    "resnet_weights"))
"""Flags that say where data lie; free as well where a digest tells that the data are the same."""


CROPS = "reso"
"""Name of the folder of crops beside a checkpoint."""

_ADVICE = "choose another --output_dir, or --overwrite the run that is there"


def check_output_dir(args: argparse.Namespace) -> None:
    """Look at the flags of the run that the output folder holds before anything is encoded; `Run` looks at all of it.

    Raises:
        DataError: nothing can be written there, it was made with other flags, or its checkpoint is damaged.
    """
    check_folder(args.output_dir)
    own = Path(args.output_dir) / "checkpoint.pth"
    if own.exists() and not args.overwrite and args.resume is None:
        check_same_flags(own, load_checkpoint(own), vars(args))


def check_same_run(path: Path, checkpoint: Checkpoint, args: Dict[str, Any], categories: List[str],
                   facts: Dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint with other flags or data than those that it was made with.

    Args:
        path: of the checkpoint.
        checkpoint: what it holds.
        args: the flags of the run that is to go on.
        categories: names of its classes and backgrounds.
        facts: digests of its weights and its data.

    Raises:
        DataError: it is of another run.
    """
    if list(map(str, checkpoint["categories"])) != categories:
        raise DataError(f"{path}: trained for other categories ({len(checkpoint['categories'])}, "
                        f"here {len(categories)}); check --dataset and --no_backgrounds")
    check_same_flags(path, checkpoint, args)
    # What is left out also changes the digest of the data, which tells less: so that comes last.
    for name, value in sorted(facts.items(), key=lambda fact: fact[0] == "data_sha256"):
        found = checkpoint.get(name, value)  # younger facts are absent; the digest of the weights never is
        if type(found) is not type(value) or found != value:
            if name == "data_sha256":
                raise DataError(f"{path}: made with other images, test labels or captions than --train_split_file, "
                                f"--val_split_file and --caption_root name; {_ADVICE}")
            raise DataError(f"{path}: made with {name} {shorten(str(found))}, not "
                            f"{shorten(str(value))}; {_ADVICE}")


def check_same_flags(path: Path, checkpoint: Checkpoint, args: Dict[str, Any]) -> None:
    """As far as the flags tell: `check_same_run` before the data are known.

    Raises:
        DataError: it is of another run.
    """
    # A schedule that ends with the last epoch is another one where the epochs are others.
    free = _FREE_FLAGS if args.get("lr_schedule", "constant") == "constant" else _FREE_FLAGS - {"epochs"}
    if args.get("labels") == "fused":  # with tiles as a view
        free -= {"zoom"}
    if not (path.parent / CROPS / INDEX_NAME).exists():  # there are no crops yet
        free |= {"max_crops"}
    if "data_sha256" in checkpoint:  # an earlier version kept no digest
        free |= DATA_FLAGS
    for flag, value in checkpoint["args"].items():
        if flag not in free and args.get(flag, value) != value:
            raise DataError(f"{path}: made with --{flag} {value}, not {args[flag]}; {_ADVICE}")
