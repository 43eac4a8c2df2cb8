"""The feature store: what the frozen encoder says of each image, computed once and shared by all runs."""
from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from datasets.files import DataError, PathLike, read_json, write_json
from datasets.split_file import ImageList
from models.encoder import Features, FrozenEncoder

CHUNK_BATCHES = 16
"""Batches between two records of progress: what a killed extraction computes again."""


class FeatureStore:
    """Features of a list of images in memory-mapped fp16 files; reading touches only the rows asked for.

    A store is a folder with `patch_embeddings.npy` (n, N, D), `global_embeddings.npy` (n, 3, D) and `store.json`,
    which says what the features were made of and how many rows are done.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.meta: Dict[str, Any] = read_json(self.folder / "store.json")
        self._arrays = [np.load(self.folder / f"{field}.npy", mmap_mode="r") for field in Features._fields]

    def __len__(self) -> int:
        return len(self._arrays[0])

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""
        return tuple(self.meta["grid"])

    def plain_globals(self) -> Tensor:
        """The [cls] embeddings of the unmasked images, (n, D) in float32."""
        return torch.from_numpy(self._arrays[1][:, 0].astype(np.float32))

    def __getitem__(self, rows: Sequence[int]) -> Features:
        """The features of some rows, in their order, as float32."""
        return Features(*(torch.from_numpy(array[rows].astype(np.float32)) for array in self._arrays))


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over the names and values of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def extract_features(encoder: FrozenEncoder, images: ImageList, what: str, args: argparse.Namespace) -> FeatureStore:
    """Open the store of `images` under `--feature_root`, computing what it still lacks.

    The folder's name is a digest of the weights, the preprocessing, the masks and the image list, so a store is
    never read for anything else. A killed run goes on from the last finished chunk.

    Args:
        encoder: the frozen encoder.
        images: gives `(image, index)`, squashed to one size.
        what: "train", "test" or "crops", for the progress bar.
        args: `--feature_root`, `--encode_batch_size` (which can change the last bits of the features, not the
            store's name) and `--num_workers`.
    """
    meta = {
        "weights": weights_digest(encoder.clip), "transform": repr(images.transform),
        "mask_share": encoder.mask_share, "mask_threshold": encoder.mask_threshold,
        "attention_layer": encoder.attention_layer,
        "images": hashlib.sha256("\n".join(f"{image_id} {images.path(row).stat().st_size}" for row, image_id
                                           in enumerate(images.image_ids)).encode()).hexdigest(),
    }
    key = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(args.feature_root) / key
    progress_file = folder / "store.json"
    done = read_json(progress_file)["done"] if progress_file.exists() else 0
    if done < len(images):
        _fill(encoder, images, folder, meta, done, what, args)
    return FeatureStore(folder)


def _fill(encoder: FrozenEncoder, images: ImageList, folder: Path, meta: Dict[str, Any], done: int, what: str,
          args: argparse.Namespace) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    device = next(encoder.clip.parameters()).device
    loader = DataLoader(Subset(images, range(done, len(images))), args.encode_batch_size,
                        num_workers=min(args.num_workers, os.cpu_count() or 1), pin_memory=device.type == "cuda")
    arrays: Optional[List[np.ndarray]] = None
    with tqdm(total=len(images), initial=done, desc=f"features ({what})", unit="image") as bar:
        for number, (batch, rows) in enumerate(loader, start=1):
            features = encoder(batch.to(device, non_blocking=True))
            if arrays is None:
                arrays = [_open(folder / f"{field}.npy", (len(images), *values.shape[1:]))
                          for field, values in zip(Features._fields, features)]
                side = encoder.clip.visual.patch_size
                meta = {**meta, "grid": [batch.shape[-2] // side, batch.shape[-1] // side]}
            for array, values in zip(arrays, features):
                array[rows[0]:rows[-1] + 1] = values.cpu().numpy()
            done = int(rows[-1]) + 1
            bar.update(len(batch))
            if number % CHUNK_BATCHES == 0 or done == len(images):
                for array in arrays:
                    array.flush()
                write_json(folder / "store.json", {**meta, "done": done})


def _open(path: Path, shape: Tuple[int, ...]) -> np.ndarray:
    """Open the array for writing, making it where it is not there with this shape."""
    if path.exists():
        array = np.load(path, mmap_mode="r+")
        if array.shape == shape:
            return array
    try:
        return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    except OSError as error:
        raise DataError(f"{path}: cannot make room for the features ({error.strerror}); "
                        "free some disk or choose another --feature_root") from None


class Batch(NamedTuple):
    """One training batch."""

    rows: Tensor
    """(B,) rows of the training set."""
    features: Features
    targets: Tensor
    """(B, O) soft targets."""


class FeatureSet:
    """One or more feature stores end to end, with the pseudo-labels of their images.

    Args:
        stores: the training images, then the ReSO crops.
        targets: (n, O) pseudo-labels of all rows.
        image_ids: what to call the rows in an error message.
    """

    def __init__(self, stores: Sequence[FeatureStore], targets: Tensor, image_ids: Sequence[str] = ()) -> None:
        self.stores = list(stores)
        self.targets = targets
        self.image_ids = list(image_ids)
        self._starts = np.cumsum([0] + [len(store) for store in stores])

    def __len__(self) -> int:
        return len(self.targets)

    def features(self, rows: np.ndarray) -> Features:
        """Features of `rows`, in their order."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(owner, kind="stable")
        parts = [store[rows[owner == number] - self._starts[number]]
                 for number, store in enumerate(self.stores) if (owner == number).any()]
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        return Features(*(torch.cat(values)[back] for values in zip(*parts)))

    def batches(self, batch_size: int, generator: Optional[torch.Generator] = None, start: int = 0) -> Iterator[Batch]:
        """All rows once, shuffled by `generator`, or in order without one, from batch `start` on."""
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for rows in order.split(batch_size)[start:]:
            yield Batch(rows, self.features(rows.numpy()), self.targets[rows])
