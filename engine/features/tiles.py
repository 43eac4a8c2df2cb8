"""Half-size tiles of images, which show small things at twice the size: their images, and their global features."""
from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Callable, Optional, Protocol, Sequence, Tuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from datasets.files import FileState
from datasets.images import ImageTransform, read_image
from datasets.split_file import ImageList
from engine.features.feature_store import PackedFeatures, unpack
from engine.features.stored_rows import stored_rows
from models.encoder import Features, FrozenEncoder


def cut_tile(photo: Image.Image, tile: int, zoom: int) -> Image.Image:
    """Tile 0..zoom^2 - 1 of a photo, row by row: half its sides, evenly spaced, and at least a pixel."""
    row, column = divmod(tile, zoom)
    # Tile corners run from 0 to half a side; a single tile is the centre.
    top, left = (0.5 * place / (zoom - 1) if zoom > 1 else 0.25 for place in (row, column))
    width, height = photo.size
    (left, right), (top, bottom) = _pixels(left, width), _pixels(top, height)
    return photo.crop((left, top, right, bottom))


def _pixels(start: float, side: int) -> Tuple[int, int]:
    """From where to where half a side reaches that begins at a share of it."""
    low = min(round(start * side), side - 1)
    return low, max(round((start + 0.5) * side), low + 1)


class TileTransform(ImageTransform):
    """From a photo to its zoom x zoom tiles, (zoom^2, 3, S, S), behind the whole photo where that is asked for.

    Args:
        transform: from a photo to (3, S, S).
        zoom: tiles a side.
        whole: the photo itself comes first.
    """

    def __init__(self, transform: Callable[[Image.Image], Tensor], zoom: int, whole: bool = False) -> None:
        super().__init__([transform])
        self.zoom = zoom
        self.whole = whole

    def __call__(self, photo: Image.Image) -> Tensor:
        tiles = [cut_tile(photo, tile, self.zoom) for tile in range(self.zoom ** 2)]
        return torch.stack([super(TileTransform, self).__call__(view) for view in ([photo] * self.whole + tiles)])


class Tiles(ImageList):
    """Each image as zoom x zoom tiles of half its sides, evenly spaced: item i is tile i % zoom^2 of an image."""

    def __init__(self, images: ImageList, zoom: int) -> None:
        self.images = images
        self.zoom = zoom
        self.folder = images.folder
        self.transform = images.transform
        self.image_ids = [f"{image_id} tile {tile} of {zoom}x{zoom}"
                          for image_id in images.image_ids for tile in range(zoom * zoom)]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Tuple[Any, int]:
        photo = read_image(self.path(index))
        return self.transform(cut_tile(photo, index % self.zoom ** 2, self.zoom)), index

    def files(self) -> Sequence[Optional[FileState]]:
        """The files that the tiles are cut from."""
        return [file for file in self.images.files() for _ in range(self.zoom ** 2)]

    def file(self, index: int) -> FileState:
        """The file that tile `index` is cut from."""
        return self.images.file(index // self.zoom ** 2)


def tile_embeddings(encoder: FrozenEncoder, images: ImageList, zoom: int, args: argparse.Namespace,
                    what: str = "train", root: Optional[Path] = None) -> Tensor:
    """Plain global features of the zoom x zoom tiles of each image, (n, zoom^2, D), computed once and kept.

    They come in fp16 and are read from the disk as they are asked for.

    Args:
        encoder: the frozen encoder.
        images: the images.
        zoom: tiles a side.
        args: `--feature_root`, `--no_feature_store`, `--num_workers` and `--encode_batch_size`.
        what: for the progress bar.
        root: holds them (default: `--feature_root`).
    """
    tiled = images.with_transform(TileTransform(images.transform, zoom))

    @torch.no_grad()
    def compute(rows: range, advance: Callable[[int], object]) -> Tensor:
        loader = DataLoader(Subset(tiled, rows), max(1, args.encode_batch_size // zoom**2),
                            num_workers=min(args.num_workers, os.cpu_count() or 1))
        embeddings = []
        for batch, _ in loader:
            embeddings.append(encoder.encode_whole(batch.flatten(0, 1).to(encoder.device)).cpu())
            advance(len(batch))
        return torch.cat(embeddings).unflatten(0, (-1, zoom**2))

    meta = {"tiles": zoom, **encoder.identity(), "transform": repr(images.transform)}
    return stored_rows(compute, images, (zoom**2, encoder.embed_dim), "float16", f"{zoom}x{zoom} tiles ({what})", meta,
                       args, root, mapped=True)


def with_tiles(features: Features, tiles: Tensor) -> Features:
    """The features of a batch with those of its tiles, (B, T, D), behind the global ones."""
    return features._replace(global_embeddings=torch.cat([features.global_embeddings, tiles], dim=1))


class Source(Protocol):
    """A store, or what stands for one."""

    def __len__(self) -> int: ...

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""

    def plain_globals(self) -> Tensor:
        """The global embeddings of the unmasked images, (n, D) in float32."""

    def read(self, rows: Sequence[int], pinned: bool = False) -> PackedFeatures:
        """The features of some rows, in their order."""


class TiledFeatures:
    """A store, with the features of the tiles behind the global ones of each image: (B, 3 + T, D)."""

    def __init__(self, source: Source, tiles: Tensor) -> None:
        self.source = source
        self.tiles = tiles

    def __len__(self) -> int:
        return len(self.source)

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.source.grid

    def plain_globals(self) -> Tensor:
        """The global embeddings of the unmasked images, (n, D) in float32."""
        return self.source.plain_globals()

    def read(self, rows: Sequence[int], pinned: bool = False) -> PackedFeatures:
        """The features of some rows, in their order."""
        packed = self.source.read(rows, pinned)
        globals_ = packed["global_embeddings"]
        tiles = self.tiles[torch.as_tensor(rows, dtype=torch.long)].to(globals_)
        together = torch.cat([globals_, tiles], dim=1)
        return {**packed, "global_embeddings": together.pin_memory() if pinned and not globals_.is_cuda else together}

    def __getitem__(self, rows: Sequence[int]) -> Features:
        """The features of some rows, in their order, as float32."""
        return unpack(self.read(rows))
