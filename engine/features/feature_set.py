"""A training or test set: the features of its images, read in batches with their targets."""
from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Deque, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor

from engine.features.extraction import FeatureSource
from engine.features.feature_store import PackedFeatures, unpack
from engine.process.distributed import ALONE, World
from models.encoder import Features


def spread_rows(count: int, most: int) -> Tensor:
    """At most `most` of `count` rows, evenly spread: a sample of all, since split files may go by class."""
    picked = min(count, most)
    return torch.arange(picked) * count // max(picked, 1)


class Batch(NamedTuple):
    """One batch, or what falls to one process of it."""

    rows: Tensor
    """(B,) rows of the set, on the CPU."""
    features: Features
    targets: Tensor
    """(B, O) soft targets."""
    whole: Tensor
    """Rows of the whole batch, over all processes."""
    share: float
    """What the mean loss of these rows counts in the mean loss of the whole batch."""


class Selection:
    """Some rows of a feature store, as if they were a store of their own."""

    def __init__(self, source: AnySource, rows: Tensor) -> None:
        self.source = source
        self.rows = rows.numpy()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.source.grid

    def plain_globals(self) -> Tensor:
        """The global embeddings of the unmasked images, (n, D) in float32."""
        return self.source.plain_globals()[self.rows]

    def read(self, rows: Sequence[int], pinned: bool = False) -> PackedFeatures:
        """The features of some rows, in their order."""
        return self.source.read(self.rows[rows].tolist(), pinned)


AnySource = Union[FeatureSource, Selection]
"""What a set reads features from."""


class FeatureSet:
    """One or more feature stores end to end, with the pseudo-labels of their images.

    Args:
        stores: the training images, then the ReSO crops.
        targets: (n, O) pseudo-labels of all rows.
        image_ids: names of the rows, for messages.
    """

    def __init__(self, stores: Sequence[AnySource], targets: Tensor,
                 image_ids: Sequence[str] = ()) -> None:
        self.stores = list(stores)
        self.targets = targets
        self.image_ids = list(image_ids)
        self._starts = np.cumsum([0] + [len(store) for store in stores])

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, rows: Tensor) -> FeatureSet:
        """Some of the rows of the first store."""
        image_ids = [self.image_ids[row] for row in rows.tolist()] if self.image_ids else ()
        return FeatureSet([Selection(self.stores[0], rows)], self.targets[rows], image_ids)

    def features(self, rows: np.ndarray, device: Optional[torch.device] = None) -> Features:
        """Features of `rows`, in their order, on `device` (default: the CPU)."""
        pinned = device is not None and device.type == "cuda"
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        places = [np.flatnonzero(owner == number) for number in range(len(self.stores))]
        parts = [(place, store.read(rows[place] - start, pinned))
                 for place, store, start in zip(places, self.stores, self._starts) if len(place)]
        if len(parts) == 1:
            packed = parts[0][1]
        else:  # back into the order asked for
            order = torch.from_numpy(np.argsort(np.concatenate([place for place, _ in parts])))
            packed = {name: torch.cat([part[name] for _, part in parts])[order] for name in parts[0][1]}
        return unpack({name: _upload(values, device) for name, values in packed.items()})

    def num_batches(self, batch_size: int, world: World = ALONE) -> int:
        """How many batches the main process gets of `batches` in order."""
        return -(-len(self) // batch_size // world.size)

    def batches(self, batch_size: int, generator: Optional[torch.Generator] = None, start: int = 0,
                device: Optional[torch.device] = None, world: World = ALONE) -> Iterator[Batch]:
        """All rows once, shuffled by `generator`, or in order without one, from batch `start` on.

        The next batches are read, and copied to `device`, meanwhile. Of several processes each gets a share of every
        shuffled batch, so that together they train on it, and whole batches in turn without a generator, so that
        predictions do not depend on their number.
        """
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        batches = order.split(batch_size)[start:]
        if generator is None:
            shares = [(whole, whole) for whole in batches[world.rank::world.size]]
        else:  # a batch smaller than the number of processes leaves some with a row that does not count
            shares = [(whole, whole[min(world.rank, len(whole) - 1)::world.size]) for whole in batches]
        with ThreadPoolExecutor(1) as reader:
            ahead: Deque[Future[Batch]] = deque()
            for whole, rows in shares:
                ahead.append(reader.submit(self._read, whole, rows, device, world))
                if len(ahead) > 2:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _read(self, whole: Tensor, rows: Tensor, device: Optional[torch.device], world: World) -> Batch:
        share = len(rows) / len(whole) if world.rank < len(whole) else 0.0
        return Batch(rows, self.features(rows.numpy(), device), _upload(self.targets[rows], device), whole, share)


def _upload(values: Tensor, device: Optional[torch.device]) -> Tensor:
    """Copy to a device without making the program wait for it."""
    if device is None or device.type != "cuda" or values.is_cuda:
        return values if device is None else values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
