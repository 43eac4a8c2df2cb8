"""ReSO around the model: small regions are cut out of the training images and join them."""
from __future__ import annotations

import argparse
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import DefaultDict, List, Tuple

import torch
from torch import Tensor

from datasets.files import DataError
from datasets.images import read_image
from datasets.progress import bar, say
from datasets.split_file import ImageList
from engine.features.extraction import extract_features
from engine.features.feature_set import AnySource, FeatureSet
from engine.process.distributed import from_main, gather, world
from engine.process.stopwatch import Stopwatch
from models.bac_gcn import BACGCN
from models.encoder import FrozenEncoder
from models.reso import INDEX_NAME, Crop, crop_targets, read_index, save_crop, small_regions, write_index


def _cut(path: Path, crops: List[Crop], size: int, folder: Path) -> None:
    """Write the crops of one image that are not there yet."""
    missing = [crop for crop in crops if not (folder / f"{crop.file}.jpg").exists()]
    if missing:
        image = read_image(path)
        for crop in missing:
            save_crop(image, crop.box, size, folder / f"{crop.file}.jpg")


@torch.no_grad()
def mine_crops(model: BACGCN, store: AnySource, images: ImageList, targets: Tensor, num_classes: int,
               size: int, args: argparse.Namespace, device: torch.device, folder: Path) -> List[Crop]:
    """ReSO: cut the small pseudo-positive regions out of the training images into `folder`, index last.

    Crops that are there from before a stop are the same and are kept.

    Args:
        model: the model after the plain epochs; its kernel makes the maps.
        store: features of `images`.
        images: training images.
        targets: (n, O) pseudo-labels; a class is positive from `--positive_threshold` on.
        num_classes: C; backgrounds are never cropped.
        size: side of a crop in pixels, the encoder's input size.
    """
    mined: List[Tuple[int, Crop]] = []
    data = FeatureSet([store], targets)
    with ThreadPoolExecutor(max(1, args.num_workers)) as pool:
        for batch in bar("ReSO crops", "batch", data.num_batches(args.batch_size, world()),
                         over=data.batches(args.batch_size, device=device, world=world())):
            maps = model.kernel(batch.features.patch_embeddings).maps
            positive = batch.targets[:, :num_classes] >= args.positive_threshold
            crops_of: DefaultDict[int, List[Crop]] = defaultdict(list)
            for region in small_regions(maps, positive, store.grid, args.gamma, args.epsilon, args.crop_min_side):
                row = int(batch.rows[region.image])
                name = f"{images.image_ids[row].replace('/', '__')}_{region.category:02d}"
                crops_of[row].append(Crop(name, images.image_ids[row], region.category, region.area, list(region.box)))
            list(pool.map(partial(_cut, size=size, folder=folder), map(images.path, crops_of), crops_of.values()))
            mined.extend((row, crop) for row, crops in crops_of.items() for crop in crops)
    crops = [crop for _, crop in sorted(gather(mined))]
    from_main(lambda: write_index(folder, crops))
    return crops


def extend_with_crops(model: BACGCN, data: FeatureSet, images: ImageList, encoder: FrozenEncoder, num_classes: int,
                      folder: Path, args: argparse.Namespace, device: torch.device, watch: Stopwatch) -> FeatureSet:
    """ReSO: the training set with the crops of its small objects behind it; `watch` counts the two parts of the work.

    Crops that `folder` holds already (from before a stop) are used as they are.
    """
    store = data.stores[0]
    with watch.part("mining"):
        crops = read_index(folder) if from_main((folder / INDEX_NAME).exists) else mine_crops(
            model, store, images, data.targets, num_classes, encoder.resolution, args, device, folder)
    say(f"ReSO: {len(crops)} small regions in {len({crop.image_id for crop in crops})} of {len(images)} images, "
        f"crops in {folder}")
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
        crop_store = extract_features(encoder, crop_images, "crops", args)
    return FeatureSet([store, crop_store], torch.cat([data.targets, targets]), images.image_ids + crop_images.image_ids)
