"""Features that are computed again whenever they are asked for, for want of disk."""
from __future__ import annotations

import argparse
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Sequence, Tuple

import torch
from torch import Tensor

from datasets.split_file import ImageList
from engine.features.feature_store import PackedFeatures, pack, unpack
from models.encoder import Features, FrozenEncoder


def workers(args: argparse.Namespace) -> int:
    """Processes, or threads, that decode images: `--num_workers`, at most one a core."""
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
        self._decoders = ThreadPoolExecutor(max(1, workers(args)))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.encoder.grid(*self.images[0][0].shape[-2:])

    def plain_globals(self) -> Tensor:
        """The [cls] embeddings of the unmasked images, (n, D) in float32."""
        batches = torch.arange(len(self)).split(self.batch_size)
        return torch.cat([self[rows.numpy()].global_embeddings[:, 0].cpu() for rows in batches])

    def read(self, rows: Sequence[int], pinned: bool = False) -> PackedFeatures:
        """The features of some rows, in their order, rounded as a store would; on the encoder's device."""
        device = self.encoder.device
        parts = []
        for start in range(0, len(rows), self.batch_size):
            decoded = self._decoders.map(self.images.__getitem__, map(int, rows[start:start + self.batch_size]))
            parts.append(pack(self.encoder(torch.stack([image for image, _ in decoded]).to(device)), "fp16"))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def __getitem__(self, rows: Sequence[int]) -> Features:
        """The features of some rows, in their order, as float32."""
        return unpack(self.read(rows))
