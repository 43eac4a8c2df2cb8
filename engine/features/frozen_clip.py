"""The frozen CLIP of a run: loaded, told from others, and set up as the encoder that the flags ask for."""
from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Optional

import torch

import clip
from clip.clip import OPEN_CLIP_FILES, TRANSFORMERS_FILES, download
from clip.model import CLIP
from datasets.files import DataError, PathLike, counted
from datasets.progress import keep_quiet, others_bars
from datasets.registry import get_dataset
from engine.process.distributed import is_main
from models.encoder import CLIPEncoder


def load_clip(args: argparse.Namespace, device: torch.device) -> CLIP:
    """The frozen CLIP of `--model_path` and `--activation`; what is assumed of it is one line on stderr."""
    with others_bars(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", clip.WeightsWarning)
        model, _ = clip.load(args.model_path, device, activation=args.activation)
    for warning in caught:
        if is_main():
            print(f"warning: {warning.message}", file=sys.stderr)
    return model


def fetch_weights(url: str, folder: PathLike, quiet: bool) -> None:
    """Download released weights into a folder."""
    if quiet:
        keep_quiet()
    with others_bars():
        download(url, folder)


def weights_name(model_path: Optional[str]) -> str:
    """What tables call the weights of a path: the file, or its folder where every folder has a file of that name.

    Without a path they are those that come with the network.
    """
    if model_path is None:
        return "its own"
    path = Path(model_path)
    return path.parent.name or path.name if path.name in (*TRANSFORMERS_FILES, *OPEN_CLIP_FILES) else path.name


_SIZES = {768: "B", 1024: "L", 1280: "H", 1408: "g"}
"""Letters of the published vision transformers, by their width."""


def clip_name(args: argparse.Namespace, clip_model: CLIP) -> str:
    """The name of the frozen CLIP by the sizes of its weights, such as ViT-B/16; of other sizes, its file's name."""
    visual = clip_model.visual
    size = _SIZES.get(len(visual.class_embedding))
    if size is None:
        return Path(weights_name(args.model_path)).stem
    resolution = "" if visual.input_resolution == 224 else f"@{visual.input_resolution}px"
    return f"ViT-{size}/{visual.patch_size}{resolution}"


ENCODER_FLAGS = ("mask_share", "mask_threshold", "attention_layer", "mask_mode", "patch_attention", "resolution",
                 "precision")
"""Flags, and attributes of the encoder, that its features depend on."""


def build_encoder(args: argparse.Namespace, clip_model: CLIP) -> CLIPEncoder:
    """CLIP as the frozen encoder that the flags ask for; of what a command has no flags, the defaults.

    Raises:
        DataError: they ask for a resolution, patches or a layer that this CLIP does not have.
    """
    side, patch = getattr(args, "resolution", None) or clip_model.visual.input_resolution, clip_model.visual.patch_size
    if side % patch:
        raise DataError(f"--resolution {side} is no multiple of {patch}, the patch of {args.model_path}; "
                        f"the nearest is {max(1, round(side / patch)) * patch}")
    rows, columns = clip_model.visual.grid(side, side)
    if getattr(args, "k", 1) > rows * columns:
        raise DataError(f"--k {args.k}: {args.model_path} makes {counted(rows * columns, 'patch')} of an image; "
                        "choose at most so many")
    layers = len(clip_model.visual.transformer.resblocks)
    if not -layers <= getattr(args, "attention_layer", -1) < layers:
        raise DataError(f"--attention_layer {args.attention_layer}: {args.model_path} has the layers 0 to "
                        f"{layers - 1}, or -1 to {-layers} from the last")
    defaults = {"mask_mode": get_dataset(args.dataset).mask_mode} if args.dataset else {}
    given = {flag: getattr(args, flag) for flag in ENCODER_FLAGS if hasattr(args, flag)}
    return CLIPEncoder(clip_model, **{**defaults, **given}, compiled=args.compile)
