"""The frozen CLIP of a run: loaded, told from others, and set up as the encoder that the flags ask for."""
from __future__ import annotations

import argparse
import hashlib

import torch

import clip
from clip.model import CLIP
from models.encoder import FrozenEncoder


def load_clip(args: argparse.Namespace, device: torch.device) -> CLIP:
    """The frozen CLIP of `--model_path`."""
    return clip.load(args.model_path, device)[0]


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names and values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


ENCODER_FLAGS = ("mask_share", "mask_threshold", "attention_layer", "mask_mode", "patch_attention", "precision")
"""Flags, and attributes of the encoder, that its features depend on."""


def build_encoder(args: argparse.Namespace, clip_model: CLIP) -> FrozenEncoder:
    """The frozen encoder that the flags ask for; of what a command has no flags, the defaults."""
    given = {flag: getattr(args, flag) for flag in ENCODER_FLAGS if hasattr(args, flag)}
    return FrozenEncoder(clip_model, **given, compiled=args.compile)
