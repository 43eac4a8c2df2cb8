"""What the frozen encoder says of each image: computed once, stored, shared by all runs, and read in batches."""
from __future__ import annotations

import argparse
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datasets.progress import bar, say
from datasets.split_file import ImageList
from engine.features.feature_store import (
    FeatureStore,
    PackedFeatures,
    StoreWriter,
    format_bytes,
    is_complete,
    owned,
    pack,
    store_arrays,
    unpack,
)
from engine.features.frozen_clip import ENCODER_FLAGS, weights_digest
from engine.process.distributed import world
from models.encoder import Features, FrozenEncoder


def extract_features(encoder: FrozenEncoder, images: ImageList, what: str,
                     args: argparse.Namespace) -> FeatureSource:
    """Open the store of `images` under `--feature_root`, computing what it still lacks.

    The folder's name is a digest of the weights, the preprocessing, the masks, the image list and the files' sizes,
    so a store is never read for anything else. A killed run goes on from the last finished chunk. Of several runs
    that need the same store one computes it and the others wait.

    Args:
        encoder: the frozen encoder.
        images: gives `(image, index)`, squashed to one size.
        what: "train", "test" or "crops", for the progress bar.
        args: `--feature_root`, `--patch_dtype`, `--no_feature_store`, `--num_workers` and `--encode_batch_size`
            (which can change the last bits of the features, not the store's name).

    Raises:
        DataError: there is no room, or an image cannot be read.
    """
    if args.no_feature_store:
        return LiveFeatures(encoder, images, args)
    meta = _describe(encoder, images, args.patch_dtype)
    folder = Path(args.feature_root) / hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:16]
    if not is_complete(folder):
        with owned(folder):
            if not is_complete(folder):
                _fill(encoder, images, folder, meta, what, args)
    return FeatureStore(folder)


def _describe(encoder: FrozenEncoder, images: ImageList, patch_dtype: str) -> Dict[str, Any]:
    """Everything that the stored features depend on."""
    listed = "\n".join(f"{image_id} {images.path(row).stat().st_size}" for row, image_id in enumerate(images.image_ids))
    return {
        "weights": weights_digest(encoder.clip.visual), "transform": repr(images.transform),  # tells the resolution
        **{flag: getattr(encoder, flag) for flag in ENCODER_FLAGS if flag != "resolution"}, "patch_dtype": patch_dtype,
        "images": hashlib.sha256(listed.encode()).hexdigest(),
    }


def _fill(encoder: FrozenEncoder, images: ImageList, folder: Path, meta: Dict[str, Any], what: str,
          args: argparse.Namespace) -> None:
    device = next(encoder.clip.parameters()).device
    grid = encoder.clip.visual.grid(*images[0][0].shape[-2:])
    arrays = store_arrays(len(images), grid[0] * grid[1], encoder.clip.embed_dim, args.patch_dtype)
    size = sum(spec.nbytes for spec in arrays.values())
    say(f"features ({what}): {len(images):,} images x {format_bytes(size / len(images))} = {format_bytes(size)} "
        f"in {folder}")
    with StoreWriter(folder, arrays) as writer:
        chunks = writer.chunks_to_do()
        batches = [chunk[start:start + args.encode_batch_size]
                   for chunk in chunks for start in range(0, len(chunk), args.encode_batch_size)]
        loader = DataLoader(images, batch_sampler=list(map(list, batches)), num_workers=_workers(args),
                            pin_memory=device.type == "cuda")
        own = sum(map(len, chunks))
        done = max(len(images) // world().size - own, 0)  # of this process's share, before a stop
        with bar(f"features ({what})", "image", own + done, done) as shown:
            for rows, (batch, _) in zip(batches, loader):
                writer.write(rows, pack(encoder(batch.to(device, non_blocking=True)), args.patch_dtype))
                shown.update(len(rows))
    writer.finish({**meta, "grid": grid})


def _workers(args: argparse.Namespace) -> int:
    return min(args.num_workers, os.cpu_count() or 1)


class LiveFeatures:
    """`--no_feature_store`: the same features, computed again whenever they are asked for.

    Args:
        encoder: the frozen encoder.
        images: gives `(image, index)`, squashed to one size.
        args: `--encode_batch_size` and `--num_workers`, here threads that decode images.
    """

    def __init__(self, encoder: FrozenEncoder, images: ImageList, args: argparse.Namespace) -> None:
        self.encoder = encoder
        self.images = images
        self.batch_size = args.encode_batch_size
        self._decoders = ThreadPoolExecutor(max(1, _workers(args)))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.encoder.clip.visual.grid(*self.images[0][0].shape[-2:])

    def plain_globals(self) -> Tensor:
        """The [cls] embeddings of the unmasked images, (n, D) in float32."""
        batches = torch.arange(len(self)).split(self.batch_size)
        return torch.cat([self[rows.numpy()].global_embeddings[:, 0].cpu() for rows in batches])

    def read(self, rows: Sequence[int]) -> PackedFeatures:
        """The features of some rows, in their order, rounded as a store would."""
        device = next(self.encoder.clip.parameters()).device
        parts = []
        for start in range(0, len(rows), self.batch_size):
            decoded = self._decoders.map(self.images.__getitem__, map(int, rows[start:start + self.batch_size]))
            parts.append(pack(self.encoder(torch.stack([image for image, _ in decoded]).to(device)), "fp16"))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def __getitem__(self, rows: Sequence[int]) -> Features:
        """The features of some rows, in their order, as float32."""
        return unpack(self.read(rows))


FeatureSource = Union[FeatureStore, LiveFeatures]
