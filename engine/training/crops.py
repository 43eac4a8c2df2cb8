"""ReSO around the model: small regions are cut out of the training images and join them."""
from __future__ import annotations

import argparse
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from datasets.files import DataError, counted, make_folder
from datasets.images import read_image
from datasets.progress import bar, say
from datasets.split_file import ImageList
from engine.features.extraction import extract_features, image_bytes
from engine.features.feature_set import AnySource, FeatureSet, spread_rows
from engine.features.feature_store import format_bytes
from engine.process.distributed import barrier, from_main, gather, world
from engine.process.stopwatch import Stopwatch
from models.bac_gcn import BACGCN
from models.encoder import FrozenEncoder
from models.reso import (
    FOLDER_CROPS,
    INDEX_NAME,
    Crop,
    Region,
    crop_targets,
    encode_crop,
    is_whole_crop,
    read_index,
    save_crop,
    small_regions,
    write_index,
)

CROP_FEATURES = "features"
"""Folder of the crops' features in the folder of the crops. No other run has these crops, so they go with the run."""

SAMPLE_IMAGES, SAMPLE_CROPS = 512, 32
"""What the projection looks at: images for the number of crops, crops for the size of a picture."""


def find_regions(model: BACGCN, store: AnySource, images: Tensor, targets: Tensor, num_classes: int,
                 args: argparse.Namespace, device: torch.device, what: str) -> List[Region]:
    """The small pseudo-positive regions of some images, ascending by image; all processes get all of them.

    Args:
        model: its kernel makes the maps.
        store: features of all training images.
        images: (m,) rows of those to look at; `Region.image` is such a row.
        targets: (n, O) pseudo-labels; a class is positive from `--positive_threshold` on.
        num_classes: C; backgrounds are never cropped.
        what: for the progress bar.
    """
    found: List[Region] = []
    data = FeatureSet([store], targets).select(images)
    for batch in bar(what, "batch", data.num_batches(args.batch_size, world()),
                     over=data.batches(args.batch_size, device=device, world=world())):
        maps = model.kernel(batch.features.patch_embeddings).maps
        positive = batch.targets[:, :num_classes] >= args.positive_threshold
        rows = images[batch.rows].tolist()
        found.extend(region._replace(image=rows[region.image]) for region in small_regions(
            maps, positive, store.grid, args.gamma, args.epsilon, args.crop_min_side))
    return sorted(gather(found))


def check_room(regions: Sequence[Region], looked_at: int, images: ImageList, encoder: FrozenEncoder, folder: Path,
               args: argparse.Namespace) -> None:
    """Project the number and size of the crops from the regions of a sample, say it, and compare it with the disk.

    Args:
        regions: of the sample.
        looked_at: images in the sample.
        images: all training images.
        encoder: makes the crops' features.
        folder: of the crops.
        args: `--max_crops`, and flags of the features.

    Raises:
        DataError: there is no room for them.
    """
    count = round(len(regions) / max(looked_at, 1) * len(images))
    count = count if args.max_crops is None else min(count, args.max_crops)
    sizes = [len(encode_crop(read_image(images.path(region.image)), region.box, encoder.resolution))
             for region in regions[::-(-len(regions) // SAMPLE_CROPS) or 1]]
    pictures = count * sum(sizes) // max(len(sizes), 1)
    features = count * image_bytes(encoder, args)
    say(f"ReSO: about {counted(count, 'crop')}, {len(regions) / max(looked_at, 1):.2g} an image in a sample of "
        f"{looked_at:,}: {format_bytes(pictures)} of pictures and {format_bytes(features)} of features in {folder}")
    make_folder(folder)
    free = shutil.disk_usage(folder).free
    if pictures + features > free:
        raise DataError(f"{folder}: the crops need about {format_bytes(pictures + features)}, {format_bytes(free)} are "
                        "free; make room, or bound them by --max_crops N. The same command goes on from here")


def draw(regions: List[Region], most: Optional[int], seed: int) -> List[Region]:
    """At most `most` of the regions, drawn by `seed`, in their order: classes and sizes keep their shares."""
    if most is None or len(regions) <= most:
        return regions
    picked = torch.randperm(len(regions), generator=torch.Generator().manual_seed(seed))[:most]
    return [regions[number] for number in sorted(picked.tolist())]


def _cut(job: Tuple[Path, List[Tuple[Region, Path]]], size: int) -> None:
    """Write the crops of one image that are not there yet."""
    image_path, crops = job
    missing = [(region, path) for region, path in crops if not is_whole_crop(path)]
    if missing:
        image = read_image(image_path)
        for region, path in missing:
            save_crop(image, region.box, size, path)


@torch.no_grad()
def mine_crops(model: BACGCN, store: AnySource, images: ImageList, targets: Tensor, num_classes: int,
               encoder: FrozenEncoder, args: argparse.Namespace, device: torch.device, folder: Path) -> List[Crop]:
    """ReSO: cut the small pseudo-positive regions out of the training images into `folder`, index last.

    Crops that are there from before a stop are the same and are kept.

    Args:
        model: the model after the plain epochs; its kernel makes the maps.
        store: features of `images`.
        images: training images.
        targets: (n, O) pseudo-labels.
        num_classes: C; backgrounds are never cropped.
        encoder: the crops have the size of its input.

    Raises:
        DataError: there is no room for the crops.
    """
    sample = spread_rows(len(images), SAMPLE_IMAGES)
    regions = find_regions(model, store, sample, targets, num_classes, args, device, "ReSO regions (sample)")
    from_main(lambda: check_room(regions, len(sample), images, encoder, folder, args))
    regions = draw(find_regions(model, store, torch.arange(len(images)), targets, num_classes, args, device,
                                "ReSO regions"), args.max_crops, args.seed)
    crops = [_describe(number, region, images.image_ids[region.image]) for number, region in enumerate(regions)]
    paths = [folder / f"{crop.file}.jpg" for crop in crops]
    of_images = [(images.path(row), list(pairs)) for row, pairs in
                 groupby(zip(regions, paths), key=lambda pair: pair[0].image)][world().rank::world().size]
    with ThreadPoolExecutor(max(1, args.num_workers)) as pool:
        cuts = pool.map(partial(_cut, size=encoder.resolution), of_images)
        for _ in bar("ReSO crops", "image", len(of_images), over=cuts):
            pass
    os.sync()  # the crops are on disk before the index says so, at one wait for all
    barrier()
    from_main(lambda: write_index(folder, crops))
    return crops


def _describe(number: int, region: Region, image_id: str) -> Crop:
    """Crop `number`, under a name of its own: images of several folders may share theirs."""
    folder, place = divmod(number, FOLDER_CROPS)
    name = f"{folder:03d}/{place:04d}_{image_id.rpartition('/')[-1]}_{region.category:02d}"
    return Crop(name, image_id, region.category, region.area, list(region.box))


def extend_with_crops(model: BACGCN, data: FeatureSet, images: ImageList, encoder: FrozenEncoder, num_classes: int,
                      folder: Path, args: argparse.Namespace, device: torch.device, watch: Stopwatch) -> FeatureSet:
    """ReSO: the training set with the crops of its small objects behind it; `watch` counts the two parts of the work.

    Crops that `folder` holds already (from before a stop) are used as they are. Their features are there, too.
    """
    store = data.stores[0]
    with watch.part("mining"):
        crops = read_index(folder) if from_main((folder / INDEX_NAME).exists) else mine_crops(
            model, store, images, data.targets, num_classes, encoder, args, device, folder)
    say(f"ReSO: {counted(len(crops), 'small region')} in {len({crop.image_id for crop in crops})} of "
        f"{counted(len(images), 'image')}, crops in {folder}")
    if not crops:
        return data
    row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}
    if not all(crop.image_id in row_of and crop.category < num_classes for crop in crops):
        raise DataError(f"{folder / INDEX_NAME}: crops of other images or classes; delete the folder to mine again")
    targets = crop_targets(data.targets[[row_of[crop.image_id] for crop in crops]],
                           torch.tensor([crop.category for crop in crops]), num_classes, args.crop_labels,
                           args.positive_threshold)
    crop_images = ImageList(folder, [crop.file for crop in crops], images.transform)
    with watch.part("encoding"):
        crop_store = extract_features(encoder, crop_images, "crops", args, folder / CROP_FEATURES)
    return FeatureSet([store, crop_store], torch.cat([data.targets, targets]), images.image_ids + crop_images.image_ids)
