"""Flags that would do nothing: which methods read which flags, and which flags switch others off."""
from __future__ import annotations

import argparse
from typing import AbstractSet, Any, Dict, Mapping, NamedTuple, Optional, Tuple

from datasets.files import DataError

_BAC_GCN = (
    "loss", "lr_schedule", "step_precision", "labels", "adjacency", "edge_threshold", "global_edge", "normalisation",
    "no_class_background_edges", "no_backgrounds", "mask_share", "mask_threshold", "attention_layer", "mask_mode",
    "no_masked_globals", "k", "frozen_kernel", "no_gcn", "gcn_layer", "gcn_depth", "gcn_width", "gcn_activation",
    "no_residual", "logits", "logit_scale", "reso_epoch", "no_reso", "gamma", "epsilon", "positive_threshold",
    "crop_min_side", "crop_labels", "max_crops", "keep_crop_features", "recipe", "val_share",
    "kernel_start", "self_share", "logit_start", "lr_warmup", "tiles", "small_tiles",
    "encoder", "encoder_dim", "encoder_reduction", "encoder_whiten", "encoder_seed")

READ_BY: Dict[str, Tuple[str, ...]] = {
    **dict.fromkeys(_BAC_GCN, ("bac_gcn",)),
    **dict.fromkeys(("backbone", "resnet_weights", "image_size", "psi_sigma", "warmup_epochs", "zeta"), ("cdul",)),
    **dict.fromkeys(("num_context", "cosine_epochs", "image_scale"), ("tai_dpt",)),
    **dict.fromkeys(("prompt_words", "published_behaviour", "max_patches"), ("tagclip",)),
    **dict.fromkeys(("precision", "compile", "patch_dtype"), ("bac_gcn", "tai_dpt", "clip", "sparc")),
    "patch_attention": ("bac_gcn", "tai_dpt"),
    "zoom": ("bac_gcn", "clip"),
    "resolution": ("bac_gcn", "clip", "sparc", "tai_dpt"),
    "prototypes": ("clip",),
    **dict.fromkeys(("raw_cosine", "standardise"), ("clip",)),
    **dict.fromkeys(("compounds", "statistics"), ("sparc",)),
    "words": ("clip", "tagclip"),
}
"""The methods that read a flag, for flags that not all of them read."""

READ_BY_ALL = frozenset((
    "method", "dataset", "threshold", "train_img_root", "train_split_file", "val_img_root", "val_split_file",
    "unlabelled_test", "model_path", "activation", "caption_root", "feature_root", "output_dir", "device",
    "num_workers", "encode_batch_size", "no_feature_store", "skip_unreadable", "prompts", "config", "resume",
    "logger", "min_positives", "overwrite", "quiet", "seed", "seeds", "epochs", "batch_size", "lr", "weight_decay"))
"""Flags of every method. Those that say where data are may be given to all, whether or not a method looks there."""


def _any(value: Any) -> bool:
    return True


def _not_clip(value: Any) -> bool:
    return bool(value != "clip")


_GRAPH = ("edge_threshold", "global_edge", "normalisation", "no_class_background_edges")

SWITCHED_OFF: Tuple[Tuple[str, Any, Tuple[str, ...]], ...] = (
    ("no_reso", True, ("reso_epoch", "gamma", "epsilon", "positive_threshold", "crop_min_side", "crop_labels",
                       "max_crops", "keep_crop_features")),
    ("no_gcn", True, ("gcn_layer", "gcn_depth", "gcn_width", "gcn_activation", "no_residual", "adjacency", *_GRAPH)),
    ("adjacency", "identity", _GRAPH),
    ("gcn_depth", 1, ("gcn_width", "gcn_activation")),
    ("no_backgrounds", True, ("no_class_background_edges",)),
    ("no_masked_globals", True, ("mask_share", "mask_threshold", "attention_layer", "mask_mode")),
    ("self_share", _any, ("normalisation",)),
    ("logits", "global", ("tiles", "small_tiles")),  # before the tiles, which then switch nothing off
    ("tiles", bool, ("zoom",)),
    ("small_tiles", bool, ("zoom",)),
    ("logit_start", "fitted", ("logit_scale",)),
    ("mask_threshold", _any, ("mask_share",)),
    ("encoder", "clip", ("encoder_dim", "encoder_reduction", "encoder_whiten", "encoder_seed")),
    ("encoder", _not_clip, ("activation", "attention_layer", "compile", "mask_mode", "patch_attention", "prompts")),
    ("encoder_reduction", "random", ("encoder_whiten",)),
    ("backbone", "clip", ("resnet_weights", "image_size")),
    ("no_feature_store", True, ("patch_dtype", "keep_crop_features")),
    ("raw_cosine", True, ("standardise",)),
    ("statistics", _any, ("compounds",)),
)
"""(flag, value or a test of it, flags that do nothing beside it)."""


TAKEN_BACK = {"no_reso": "--reso", "no_masked_globals": "--masked_globals", "tiles": "--tiles 0",
              "small_tiles": "--small_tiles 0", "logit_start": "--logit_start prior"}
"""How the user takes back what a recipe or another encoder switches."""


class Unread(NamedTuple):
    """Why a flag does nothing."""

    reason: str
    switch: str
    """The flag that makes it so."""


def unread_flags(values: Mapping[str, Any]) -> Dict[str, Unread]:
    """Each of a run's flags that does nothing there, with the reason.

    Args:
        values: all flags of a run, `method` among them.
    """
    method = values.get("method")
    reasons = {flag: Unread(f"--{flag} does nothing with --method {method}: it is a flag of {' and '.join(readers)}",
                            "method")
               for flag, readers in READ_BY.items() if flag in values and method not in readers}
    for switch, value, switched_off in SWITCHED_OFF:
        actual = values.get(switch)
        if actual is not None and (value(actual) if callable(value) else actual == value) and switch not in reasons:
            for flag in switched_off:
                if flag in values:
                    value_of = "" if actual is True else f" {actual}"
                    reasons.setdefault(flag, Unread(f"--{flag} does nothing with --{switch}{value_of}", switch))
    return reasons


def why_unread(args: argparse.Namespace, flags: AbstractSet[str]) -> Optional[Unread]:
    """Why one of `flags` does nothing with all the flags in `args`; None where each of them does something."""
    reasons = unread_flags(vars(args))
    return next((reasons[flag] for flag in sorted(flags) if flag in reasons), None)


def check_typed(args: argparse.Namespace, typed: AbstractSet[str], set_by: Mapping[str, str]) -> None:
    """Refuse flags that the user typed and that do nothing. Those of a config or a checkpoint may be of another method.

    Args:
        args: all flags.
        typed: the names of those that were typed.
        set_by: what has set others, such as "--recipe plus".

    Raises:
        DataError: with the first of them.
    """
    unread = why_unread(args, typed)
    if unread is None:
        return
    reason, switch = unread
    setter = None if switch in typed else set_by.get(switch)
    if setter is None:
        raise DataError(f"{reason}; leave it out")
    back = f", or take that back by {TAKEN_BACK[switch]}" if switch in TAKEN_BACK and setter.startswith("--") else ""
    raise DataError(f"{reason}, which {setter} sets; leave it out{back}")


def drop_unread_tiles(args: argparse.Namespace) -> bool:
    """Take the tiles that a recipe or a config brings from flags that read none, as they take most of the time.

    Returns:
        whether there were any.
    """
    dropped = bool(args.tiles or args.small_tiles) and "tiles" in unread_flags(vars(args))
    if dropped:
        args.tiles = args.small_tiles = 0
    return dropped
