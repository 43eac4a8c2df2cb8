"""The frozen encoder of `--encoder`: CLIP, or another network whose features are reduced to a common width."""
from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence, Tuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from clip.model import CLIP
from datasets.files import DataError, atomic_write, counted
from datasets.progress import say
from datasets.split_file import ImageList
from engine.features.frozen_clip import build_encoder, load_clip
from engine.features.stored_rows import list_digest
from engine.features.text_embeddings import encode_words
from engine.process.distributed import from_main
from models.backbones.reduction import Reduction, fit_reduction
from models.backbones.timm_encoder import TimmEncoder
from models.backbones.timm_weights import load_timm
from models.encoder import FrozenEncoder

FIT_IMAGES, FIT_PATCHES = 500, 64
"""Training images that a reduction is fitted to, and patches of each."""


def load_encoder(args: argparse.Namespace, device: torch.device,
                 state: Optional[Dict[str, Tensor]] = None) -> FrozenEncoder:
    """The frozen encoder that the flags ask for; CLIP where a command has no `--encoder`.

    Args:
        args: the flags.
        device: gets the network.
        state: `encoder_state` of a checkpoint. Without one the encoder waits for `fit_encoder`.

    Raises:
        DataError: the weights are missing or do not fit, or the network does not do what is asked.
    """
    kind, _, name = encoder_of(args).partition(":")
    encoder = ENCODERS[kind](args, name, device)
    if state and isinstance(encoder, TimmEncoder):
        encoder.reduce_by(Reduction(*(state[part] for part in Reduction._fields)))
    return encoder


def encoder_of(args: argparse.Namespace) -> str:
    """`--encoder`, which `eval.py` has from a checkpoint alone."""
    return getattr(args, "encoder", "clip")


def _load_clip_encoder(args: argparse.Namespace, name: str, device: torch.device) -> FrozenEncoder:
    return build_encoder(args, load_clip(args, device))


def _load_timm_encoder(args: argparse.Namespace, name: str, device: torch.device) -> FrozenEncoder:
    """A network of timm with the weights of `--model_path`, or with those that timm downloads."""
    model = load_timm(name, args.model_path)
    size = int(model.pretrained_cfg["input_size"][-1])
    try:
        if args.resolution not in (None, size) and hasattr(model, "set_input_size"):
            model.set_input_size(img_size=args.resolution)
        encoder = TimmEncoder(model.to(device), name, args.resolution or size, not args.no_masked_globals,
                              args.mask_share, args.mask_threshold, args.precision)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise DataError(f"--encoder timm:{name}: {str(error).splitlines()[0]}; change --resolution or leave "
                        "--masked_globals out") from None
    rows, columns = encoder.grid(encoder.resolution, encoder.resolution)
    if args.k > rows * columns:
        raise DataError(f"--k {args.k}: {name} makes {counted(rows * columns, 'patch')} of an image; choose at most "
                        "so many")
    return encoder


ENCODERS: Dict[str, Callable[[argparse.Namespace, str, torch.device], FrozenEncoder]] = {
    "clip": _load_clip_encoder, "timm": _load_timm_encoder}
"""The kinds of `--encoder`, before the colon; what follows it is the network's name."""


def fit_encoder(encoder: FrozenEncoder, images: ImageList, args: argparse.Namespace) -> None:
    """Fit what brings the features of a network other than CLIP to `--encoder_dim`, to patches of training images.

    The outcome is kept under `--feature_root`, so that a repeated run has the same to the last bit.

    Args:
        encoder: of `load_encoder`; CLIP needs nothing.
        images: the training images.
        args: `--encoder_dim`, `--encoder_reduction`, `--encoder_whiten`, `--encoder_seed` and `--feature_root`.
    """
    if not isinstance(encoder, TimmEncoder):
        return
    options = {"dim": args.encoder_dim, "kind": args.encoder_reduction, "whiten": args.encoder_whiten,
               "seed": args.encoder_seed}
    key = {**encoder.fitting_key(), **options, "transform": repr(images.transform), "images": list_digest(images),
           "sample": [FIT_IMAGES, FIT_PATCHES]}
    path = Path(args.feature_root) / f"reduction_{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz"
    if not from_main(path.exists):
        from_main(lambda: _write(path, fit_reduction(*_sample(encoder, images, args), **options)))
    try:
        with np.load(path) as arrays:
            encoder.reduce_by(Reduction(*(torch.from_numpy(arrays[name]) for name in Reduction._fields)))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: a damaged reduction ({error}); delete it, it will be fitted again") from None


def _write(path: Path, reduction: Reduction) -> None:
    with atomic_write(path, "wb") as file:
        np.savez(file, **{name: value.numpy() for name, value in reduction._asdict().items()})


def _sample(encoder: TimmEncoder, images: ImageList, args: argparse.Namespace) -> Tuple[Tensor, Tensor]:
    """Features of some training images at the network's own width: patches (n, W) and globals (m, W)."""
    generator = torch.Generator().manual_seed(args.encoder_seed)
    rows = torch.randperm(len(images), generator=generator)[:FIT_IMAGES].sort().values.tolist()
    say(f"--encoder {args.encoder}: fitting {args.encoder_reduction} to {counted(len(rows), 'training image')}")
    patches, globals_ = [], []
    for batch, _ in DataLoader(Subset(images, rows), args.encode_batch_size, num_workers=args.num_workers):
        wide = encoder.wide(batch.to(encoder.device))
        picked = torch.rand(wide.patches.shape[:2], generator=generator).topk(
            min(FIT_PATCHES, wide.patches.shape[1]), dim=1).indices.to(encoder.device)
        patches.append(wide.patches.take_along_dim(picked[..., None], dim=1).flatten(0, 1).cpu())
        globals_.append(wide.whole.cpu())
    return torch.cat(patches), torch.cat(globals_)


def embed_categories(encoder: FrozenEncoder, words: Sequence[str], prompts: str) -> Optional[Tensor]:
    """`encode_words` of what stands for each category in a prompt, (O, D); None without a text tower."""
    return None if encoder.text_tower is None else encode_words(encoder.text_tower, words, prompts)


def need_text_tower(encoder: FrozenEncoder, args: argparse.Namespace) -> CLIP:
    """The CLIP of an encoder.

    Raises:
        DataError: it is none.
    """
    if encoder.text_tower is None:
        raise DataError(f"--method {args.method} compares images with words, and {args.encoder} embeds none; give the "
                        "checkpoint of a run on CLIP")
    return encoder.text_tower


def encoder_state(encoder: FrozenEncoder, start_at: Tensor) -> Dict[str, Tensor]:
    """What a checkpoint keeps of an encoder besides its digests: nothing of CLIP, or else what was fitted, and where
    w_o started, which stands for the text embeddings."""
    state = encoder.state()
    return {**state, "start": start_at.cpu()} if state else {}
