"""What the frozen encoder says of each image: computed once, stored, shared by all runs, and read in batches."""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datasets.files import DataError, counted
from datasets.progress import bar, say
from datasets.split_file import ImageList
from engine.features.feature_store import (
    ArraySpec,
    FeatureStore,
    PackedFeatures,
    format_bytes,
    is_complete,
    mark_used,
    pack,
    store_arrays,
    unpack,
)
from engine.features.store_writer import StoreWriter, belongs_to, missing_bytes, owned
from engine.features.stored_rows import list_digest
from engine.features.tiles import TiledFeatures, count_tiles, tile_embeddings, tile_grids
from engine.process.distributed import from_main, is_main, world
from models.encoder import Features, FrozenEncoder
from models.reso import expected_crops


def extract_features(encoder: FrozenEncoder, images: ImageList, what: str, args: argparse.Namespace,
                     root: Optional[Path] = None) -> FeatureSource:
    """Open the store of `images`, computing what it still lacks.

    The folder's name is a digest of the weights, the preprocessing, the masks, the image list and the files' sizes,
    so a store is never read for anything else. A killed run goes on from the last finished chunk. Of several runs
    that need the same store one computes it and the others wait.

    Args:
        encoder: the frozen encoder.
        images: gives `(image, index)`, squashed to one size.
        what: "train", "test" or "crops", for the progress bar.
        args: `--feature_root`, `--patch_dtype`, `--no_feature_store`, `--num_workers` and `--encode_batch_size`
            (which can change the last bits of the features, not the store's name).
        root: holds the store (default: `--feature_root`).

    Raises:
        DataError: there is no room, or an image cannot be read.
    """
    if args.no_feature_store:
        return _with_tiles(LiveFeatures(encoder, images, args), encoder, images, what, args)
    plan = _plan(encoder, images, what, args, root)
    _check_room([plan], args)
    return _open(encoder, plan, args)


def extract_train_and_test(encoder: FrozenEncoder, train: ImageList, test: ImageList, targets: Tensor,
                           args: argparse.Namespace) -> Tuple[FeatureSource, FeatureSource]:
    """`extract_features` of both; whether the disk has room for both is known before the first image is encoded.

    What ReSO's crops will need is not known before the model is trained: where there may be no room for them, that is
    a warning.

    Args:
        encoder: the frozen encoder.
        train: the training images.
        test: the test images.
        targets: (n, C) pseudo-labels of the training images for the classes, which tell how many crops there may be.
        args: those of `extract_features`, and ReSO's.

    Raises:
        DataError: see `extract_features`.
    """
    if args.no_feature_store:
        return extract_features(encoder, train, "train", args), extract_features(encoder, test, "test", args)
    plans = [_plan(encoder, train, "train", args), _plan(encoder, test, "test", args)]
    _check_room(plans, args)
    positives = int((targets >= args.positive_threshold).sum()) / len(train)
    _warn_of_crops(plans, positives, len(train) * image_bytes(encoder, args), args)
    return _open(encoder, plans[0], args), _open(encoder, plans[1], args)


def image_bytes(encoder: FrozenEncoder, args: argparse.Namespace) -> int:
    """Bytes that an image takes in a store; none with `--no_feature_store`."""
    if args.no_feature_store:
        return 0
    height, width = encoder.grid(encoder.resolution, encoder.resolution)
    return _size(store_arrays(1, height * width, encoder.embed_dim, args.patch_dtype)) + _tile_bytes(1, encoder, args)


class _Plan(NamedTuple):
    """A store that is there or to be made."""

    images: ImageList
    what: str
    folder: Path
    meta: Dict[str, Any]
    grid: Tuple[int, int]
    arrays: Dict[str, ArraySpec]
    tile_bytes: int
    """What `--tiles` takes beside it."""

    @property
    def missing(self) -> int:
        """Bytes to be written. Tiles that lack a place alone say so when they are written."""
        needed = missing_bytes(self.folder, self.arrays)
        return needed + self.tile_bytes if needed else 0


def _plan(encoder: FrozenEncoder, images: ImageList, what: str, args: argparse.Namespace,
          root: Optional[Path] = None) -> _Plan:
    meta = _describe(encoder, images, args.patch_dtype)
    grid = encoder.grid(*images[0][0].shape[-2:])
    arrays = store_arrays(len(images), grid[0] * grid[1], encoder.embed_dim, args.patch_dtype)
    return _Plan(images, what, (root or Path(args.feature_root)) / _name(meta), meta, grid, arrays,
                 _tile_bytes(len(images), encoder, args))


def _describe(encoder: FrozenEncoder, images: ImageList, patch_dtype: str) -> Dict[str, Any]:
    """Everything that the stored features depend on."""
    return {
        **encoder.identity(), **encoder.options(), "transform": repr(images.transform),  # tells the resolution
        "patch_dtype": patch_dtype,
        "images": list_digest(images),
    }


def _name(meta: Dict[str, Any]) -> str:
    """A store's folder."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:16]


def _size(arrays: Dict[str, ArraySpec]) -> int:
    return sum(spec.nbytes for spec in arrays.values())


def _check_room(plans: Sequence[_Plan], args: argparse.Namespace) -> None:
    """Raises DataError where the disk has no room for what is missing of the stores, with what can be done about it
    and keeps what is there."""
    def check() -> None:
        missing = {plan.what: plan.missing for plan in plans}
        root, needed = plans[0].folder.parent, sum(missing.values())
        free = _free(root)
        if needed <= free:
            return
        advice = ["make room (`python -m engine.stores` lists what is there)"]
        if root != Path(args.feature_root):  # of crops that are cut: the run keeps its flags
            advice.append("go on without stores by --no_feature_store")
        elif needed < sum(_size(plan.arrays) for plan in plans):
            advice.append(f"move {root} to a larger disk and name it by --feature_root; what it holds stays valid")
        else:
            advice.append("choose another --feature_root")
            if args.patch_dtype == "fp16" and needed * 0.51 < free:
                advice.append("halve them with --patch_dtype int8")
            advice.append("do without them by --no_feature_store")
        parts = " and ".join(f"{format_bytes(size)} for {what}" for what, size in missing.items() if size)
        raise DataError(f"{root}: the features need {parts}, {format_bytes(free)} are free, "
                        f"{format_bytes(needed - free)} are missing; {', or '.join(advice)}")

    from_main(check)


def _warn_of_crops(plans: Sequence[_Plan], positives: float, bytes_of_all: int, args: argparse.Namespace) -> None:
    """Say so where ReSO's crops may find no room, if there are as many as elsewhere."""
    if args.no_reso or args.epochs < args.reso_epoch or not is_main():
        return
    share, output, root = expected_crops(args.gamma, positives), Path(args.output_dir), plans[0].folder.parent
    count = round(share * len(plans[0].images))
    count = count if args.max_crops is None else min(count, args.max_crops)
    needed = count * bytes_of_all // len(plans[0].images)
    left = _free(output)
    if _existing(output).stat().st_dev == _existing(root).stat().st_dev:
        left -= sum(plan.missing for plan in plans)
    if needed > left:
        say(f"warning: {output}: ReSO's crops may be {count:,} from epoch {args.reso_epoch} on, whose features take "
            f"{format_bytes(needed)}, and {format_bytes(left)} will be left; make room until then, or bound them by "
            "--max_crops N")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _free(folder: Path) -> int:
    """Bytes that are free where the folder is, or will be."""
    return shutil.disk_usage(_existing(folder)).free


def _open(encoder: FrozenEncoder, plan: _Plan, args: argparse.Namespace) -> FeatureSource:
    if not is_complete(plan.folder):
        with owned(plan.folder):
            if not is_complete(plan.folder):
                _fill(encoder, plan, args)
    from_main(lambda: mark_used(plan.folder))
    return _with_tiles(FeatureStore(plan.folder), encoder, plan.images, plan.what, args, plan.folder.parent)


def _with_tiles(source: Union[FeatureStore, LiveFeatures], encoder: FrozenEncoder, images: ImageList, what: str,
                args: argparse.Namespace, root: Optional[Path] = None) -> FeatureSource:
    """With `--tiles` those of each image stand behind its global features."""
    tiles = [tile_embeddings(encoder, images, grid, args, what, root) for grid in tile_grids(args)]
    return TiledFeatures(source, tiles) if tiles else source


def _tile_bytes(count: int, encoder: FrozenEncoder, args: argparse.Namespace) -> int:
    return count * 2 * count_tiles(args) * encoder.embed_dim  # fp16


def _fill(encoder: FrozenEncoder, plan: _Plan, args: argparse.Namespace) -> None:
    images, size, wide = plan.images, _size(plan.arrays), _in_fp16(plan)
    say(f"features ({plan.what}): {counted(len(images), 'image')} x {format_bytes(size / len(images))} = "
        f"{format_bytes(size)} in {plan.folder}" + (f", converted from {wide.folder}" if wide else ""))
    with StoreWriter(plan.folder, plan.arrays) as writer:
        chunks = writer.chunks_to_do()
        batches = [chunk[start:start + args.encode_batch_size]
                   for chunk in chunks for start in range(0, len(chunk), args.encode_batch_size)]
        own = sum(map(len, chunks))
        done = max(len(images) // world().size - own, 0)  # of this process's share, before a stop
        features = map(wide.__getitem__, batches) if wide else _encode(encoder, images, batches, args)
        with bar(f"features ({plan.what})", "image", own + done, done) as shown:
            for rows, batch in zip(batches, features):
                writer.write(rows, pack(batch, args.patch_dtype))
                shown.update(len(rows))
    writer.finish({**plan.meta, "grid": plan.grid, "of": belongs_to(plan.what, images, args)})
    if wide:
        say(f"the features in fp16 can go: python -m engine.stores --below {wide.folder.parent} --remove "
            f"{wide.folder.name}")


def _in_fp16(plan: _Plan) -> Optional[FeatureStore]:
    """The finished store of the same features in fp16, where int8 is asked for: it saves encoding them again."""
    folder = plan.folder.parent / _name({**plan.meta, "patch_dtype": "fp16"})
    return FeatureStore(folder) if folder != plan.folder and is_complete(folder) else None


def _encode(encoder: FrozenEncoder, images: ImageList, batches: Sequence[range],
            args: argparse.Namespace) -> Iterator[Features]:
    loader = DataLoader(images, batch_sampler=list(map(list, batches)), num_workers=_workers(args),
                        pin_memory=encoder.device.type == "cuda")
    for batch, _ in loader:
        yield encoder(batch.to(encoder.device, non_blocking=True))


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


FeatureSource = Union[FeatureStore, LiveFeatures, TiledFeatures]
