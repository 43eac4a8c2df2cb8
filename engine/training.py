"""Building, training and evaluating BAC-GCN on stored features."""
from __future__ import annotations

import argparse
import signal
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import DefaultDict, List, Tuple

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.files import DataError
from datasets.images import read_image
from datasets.split_file import ImageList
from engine.distributed import any_process, from_main, gather, is_main, sum_gradients, sum_over_processes, world
from engine.features import FeatureSet, FeatureSource, extract_features
from engine.interruption import held_signals
from engine.run import Progress, Run
from models.bac_gcn import BACGCN
from models.encoder import Features, FrozenEncoder
from models.gcn import CLIPGCN
from models.graph import node_adjacency
from models.losses import pseudo_label_loss
from models.reso import INDEX_NAME, Crop, crop_targets, read_index, save_crop, small_regions, write_index


def build_model(args: argparse.Namespace, text_embeddings: Tensor, graph: Tensor, num_classes: int) -> BACGCN:
    """BAC-GCN, or the ablation of it that the flags ask for.

    Args:
        args: the flags of a train script.
        text_embeddings: (O, D).
        graph: (O, O) caption graph.
        num_classes: C.
    """
    gcn = None
    if not args.no_gcn:
        num_globals = 1 if args.no_masked_globals else 2
        adjacency = torch.eye(num_globals + len(graph)) if args.adjacency == "identity" else node_adjacency(
            graph, num_classes, num_globals, args.edge_threshold, not args.no_class_background_edges,
            args.global_edge, args.normalisation)
        dim = text_embeddings.shape[1]
        gcn = CLIPGCN(dim, adjacency, args.gcn_width or dim, args.gcn_depth,
                      learned_adjacency=args.adjacency == "learned", residual=not args.no_residual,
                      activation=args.gcn_activation)
    return BACGCN(text_embeddings, args.k, gcn, not args.frozen_kernel, args.logit_scale, args.logits)


def model_inputs(features: Features, masked_globals: bool, device: torch.device) -> Features:
    """The features that the model reads: g_H and g_Hc, or the plain global embedding alone."""
    picked = features.global_embeddings[:, 1:] if masked_globals else features.global_embeddings[:, :1]
    return Features(features.patch_embeddings.to(device), picked.to(device))


def calibrate(model: BACGCN, data: FeatureSet, args: argparse.Namespace, device: torch.device,
              sample: int = 2048) -> None:
    """Start the biases from the first `sample` training images; see `BACGCN.calibrate`."""
    head = FeatureSet(data.stores[:1], data.targets[:min(sample, len(data.stores[0]))])
    model.calibrate(predict(model, head, args, device).mean(dim=0).to(device), head.targets.mean(dim=0).to(device))


def train_one_epoch(model: BACGCN, data: FeatureSet, optimizer: torch.optim.Optimizer, args: argparse.Namespace,
                    device: torch.device, run: Run) -> float:
    """One pass over the training set, or the rest of it where the run stopped within the epoch; the mean loss.

    The order depends on the seed and the epoch alone. A stop signal waits for the end of its batch; then the run is
    saved and stops. So it is every minute, without the stop.

    Raises:
        DataError: a loss or a weight is not finite; names the images of the batch.
    """
    model.train()
    generator = torch.Generator().manual_seed(args.seed * 100_003 + run.next_epoch)
    done, total = run.progress.batches, run.progress.loss.to(device)
    unchecked: List[Tuple[Tensor, Tensor]] = []
    interval = 1 if device.type == "cpu" else CHECK_BATCHES
    last = -(-len(data) // args.batch_size)
    stopping = False
    with held_signals() as received:
        for batch in data.batches(args.batch_size, generator, done, device, world()):
            inputs = model_inputs(batch.features, not args.no_masked_globals, device)
            loss = batch.share * pseudo_label_loss(model(*inputs).logits, batch.targets, args.loss)
            optimizer.zero_grad()
            loss.backward()
            loss = sum_gradients(model.parameters(), loss)
            optimizer.step()
            done, total = done + 1, total + loss * len(batch.whole)
            unchecked.append((batch.whole, loss))
            stopping = any_process(bool(received))
            if stopping:
                break
            save = run.save_is_due
            if save or done == last or len(unchecked) == interval:
                _check_finite(model, unchecked, data, run.next_epoch)
                unchecked.clear()
            if save:
                run.save_within_epoch(Progress(done, total.cpu()), model, optimizer)
        if stopping:
            if not received:  # the signal went to another process
                received.append(signal.SIGTERM)
            _check_finite(model, unchecked, data, run.next_epoch)
            run.save_within_epoch(Progress(done, total.cpu()), model, optimizer)
    return float(total) / len(data)


CHECK_BATCHES = 16
"""Batches between two looks at the losses on an accelerator, which it has to wait for; on the CPU each is looked at."""


def _check_finite(model: BACGCN, batches: List[Tuple[Tensor, Tensor]], data: FeatureSet, epoch: int) -> None:
    """Raise DataError if a loss of the (rows, loss) `batches`, or a weight after the last of them, is not finite."""
    if not batches:
        return
    losses = torch.stack([loss for _, loss in batches]).cpu()
    bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if not bad and all(torch.isfinite(weight).all() for weight in model.parameters()):
        return
    first = bad[0] if bad else -1
    rows, what = batches[first][0], f"the loss is {float(losses[first])}" if bad else "a weight is no longer finite"
    names = " ".join(data.image_ids[row] if data.image_ids else str(row) for row in rows.tolist())
    raise DataError(f"epoch {epoch}: {what}; nothing of it is saved. Lower --lr, or look at the captions and images of "
                    f"this batch: {names}")


@torch.no_grad()
def predict(model: BACGCN, data: FeatureSet, args: argparse.Namespace, device: torch.device) -> Tensor:
    """Final logits of all images in order, (n, O), on the CPU."""
    model.eval()
    logits = torch.zeros(len(data), len(model.bias), device=device)
    for batch in data.batches(args.batch_size, device=device, world=world()):
        inputs = model_inputs(batch.features, not args.no_masked_globals, device)
        logits[batch.rows[0]:batch.rows[-1] + 1] = model(*inputs).logits
    return sum_over_processes(logits).cpu()


def _cut(path: Path, crops: List[Crop], size: int, folder: Path) -> None:
    """Write the crops of one image that are not there yet."""
    missing = [crop for crop in crops if not (folder / f"{crop.file}.jpg").exists()]
    if missing:
        image = read_image(path)
        for crop in missing:
            save_crop(image, crop.box, size, folder / f"{crop.file}.jpg")


@torch.no_grad()
def mine_crops(model: BACGCN, store: FeatureSource, images: ImageList, targets: Tensor, num_classes: int,
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
        for batch in tqdm(data.batches(args.batch_size, device=device, world=world()), desc="ReSO crops", unit="batch",
                          total=-(-len(data) // args.batch_size // world().size), disable=not is_main()):
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
                      folder: Path, args: argparse.Namespace, device: torch.device) -> FeatureSet:
    """ReSO: the training set with the crops of its small objects behind it.

    Crops that `folder` holds already (from before a stop) are used as they are.
    """
    store = data.stores[0]
    crops = read_index(folder) if from_main((folder / INDEX_NAME).exists) else mine_crops(
        model, store, images, data.targets, num_classes, encoder.clip.visual.input_resolution, args, device, folder)
    print(f"ReSO: {len(crops)} small regions in {len({crop.image_id for crop in crops})} of {len(images)} images, "
          f"crops in {folder}")
    if not crops:
        return data
    row_of = {image_id: row for row, image_id in enumerate(images.image_ids)}
    if not all(crop.image_id in row_of and crop.category < num_classes for crop in crops):
        raise DataError(f"{folder / INDEX_NAME}: crops of other images or classes; delete the folder to mine again")
    targets = crop_targets(data.targets[[row_of[crop.image_id] for crop in crops]],
                           torch.tensor([crop.category for crop in crops]), num_classes, args.crop_labels)
    crop_images = ImageList(folder, [crop.file for crop in crops], images.transform)
    crop_store = extract_features(encoder, crop_images, "crops", args)
    return FeatureSet([store, crop_store], torch.cat([data.targets, targets]), images.image_ids + crop_images.image_ids)
