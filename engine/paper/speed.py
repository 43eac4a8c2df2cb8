"""How fast this machine is at what a reproduction does: a few seconds of each, for the plan."""
from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Callable, List, NamedTuple, Tuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor

import clip
from clip.model import CLIP, Architecture
from datasets.files import DataError
from datasets.images import image_transform, read_image
from datasets.split_file import ImageList, read_image_ids
from engine.features.feature_store import FeatureStore, format_bytes, pack, store_arrays
from engine.features.frozen_clip import build_encoder, load_clip
from engine.features.store_writer import StoreWriter
from engine.paper.inputs import split_file
from engine.paper.request import PaperRequest
from engine.process.distributed import get_device
from engine.training.build_model import build_model
from models.baselines.tagclip import TagCLIP
from models.encoder import Features
from models.losses import pseudo_label_loss
from models.optimizer import build_optimizer

SECONDS = 1.0
"""Of each measurement, at least one round."""
STORE_ROWS = 256
PHOTO_SIZE = (500, 375)
"""Pixels of a photo where none is there yet: VOC's most frequent size."""


_CPU_BATCH = 8
"""Images or texts a round on a CPU, where larger batches are hardly faster."""


class Speeds(NamedTuple):
    """What one process does in a second."""

    passes: float
    """Images through the image encoder."""
    decoded: float
    """Images read and squashed by one core."""
    written: float
    """Bytes into a feature store."""
    read: float
    """Bytes out of it, from the system's cache."""
    trained: float
    """Images in training steps of BAC-GCN."""
    tagclip: float
    """Images through TagCLIP at their native size."""
    texts: float
    """Texts through the text encoder."""
    resnet: float
    """Images in training steps of a ResNet-101; 0 where it is not needed."""
    notes: List[str]
    """What the numbers were measured on."""


def frozen_clip(request: PaperRequest, device: torch.device) -> Tuple[CLIP, bool]:
    """The CLIP of the weights, and whether they are there; without them random ones of a ViT-B/16."""
    if Path(request.train_args.model_path).exists():
        return load_clip(request.train_args, device), True
    return clip.build_model(CLIP(Architecture()).state_dict()).to(device), False


def measure_speeds(request: PaperRequest, model: CLIP, with_resnet: bool) -> Speeds:
    """Run a little of everything on the device of the request, and leave nothing behind.

    Args:
        request: the flags.
        model: the CLIP to measure with.
        with_resnet: whether a ResNet-101 is to be trained.
    """
    with tempfile.TemporaryDirectory(dir=existing_folder(request.train_args.feature_root)) as folder:
        return _measure(request, model, with_resnet, Path(folder))


def existing_folder(folder: str) -> Path:
    """The folder, or the nearest one above that exists."""
    path = Path(folder).resolve()
    return next(place for place in (path, *path.parents) if place.exists())


def _measure(request: PaperRequest, model: CLIP, with_resnet: bool, scratch: Path) -> Speeds:
    args = request.train_args
    device = get_device(args.device)
    encoder = build_encoder(args, model)
    photos, photo_note = _photos(request, scratch / "photo.jpg")
    batch = args.encode_batch_size if device.type != "cpu" else _CPU_BATCH
    images = torch.randn(batch, 3, encoder.resolution, encoder.resolution, device=device)
    decode = image_transform(encoder.resolution)
    text = F.normalize(torch.randn(len(request.spec.categories), model.embed_dim, device=device), dim=-1)
    tagger = TagCLIP(model, text, len(request.spec.classes))
    native = image_transform(model.visual.patch_size, "native")(read_image(photos[0]))[None].to(device)
    tokens = clip.tokenize(["a photo of a dog on the grass beside a red car"] * batch, model.context_length).to(device)
    written, read = _store_rates(scratch / "store", encoder.resolution, model)
    cores = f"{torch.get_num_threads()} threads of a CPU"
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else cores
    return Speeds(
        passes=rate(lambda: encoder.dense(images), batch, device),
        decoded=rate(lambda: [decode(read_image(path, decode.min_side)) for path in photos], len(photos), device),
        written=written, read=read,
        trained=rate(_training_step(request, model, device), args.batch_size, device),
        tagclip=rate(lambda: tagger(native), 1, device),
        texts=rate(lambda: model.encode_text(tokens), batch, device),
        resnet=rate(_resnet_step(device), _RESNET_BATCH, device) if with_resnet else 0.0,
        notes=[f"measured on {machine}", photo_note])


def rate(run: Callable[[], object], count: int, device: torch.device) -> float:
    """`count` a second in the fastest of the rounds that fit into `SECONDS`, which other work has slowed down least."""
    best, start = float("inf"), time.perf_counter()
    with torch.no_grad():
        while best == float("inf") or time.perf_counter() - start < SECONDS:
            began = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - began)
    return count / best


def _photos(request: PaperRequest, path: Path) -> Tuple[List[Path], str]:
    """A few training images or, where there is none, a photo of noise that is written to `path`."""
    try:
        images = ImageList(request.train_args.train_img_root, read_image_ids(split_file(request, "train"))[:8])
        return [images.path(row) for row in range(len(images))], "decoding: images of the training split"
    except DataError:
        grain = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(grain).resize(PHOTO_SIZE, Image.BICUBIC).save(path, quality=90)
        return [path], f"decoding and TagCLIP: a JPEG of {PHOTO_SIZE[0]} x {PHOTO_SIZE[1]}, as no image is there yet"


def _store_rates(folder: Path, resolution: int, model: CLIP) -> Tuple[float, float]:
    """Bytes a second into and out of a store of `STORE_ROWS` images."""
    patches = (resolution // model.visual.patch_size) ** 2
    arrays = store_arrays(STORE_ROWS, patches, model.embed_dim, "fp16")
    nbytes = sum(array.nbytes for array in arrays.values())
    packed = pack(Features(torch.randn(STORE_ROWS, patches, model.embed_dim),
                           torch.randn(STORE_ROWS, 3, model.embed_dim)), "fp16")
    start = time.perf_counter()
    with StoreWriter(folder, arrays) as writer:
        writer.write(range(STORE_ROWS), packed)
    writer.finish({"grid": (resolution // model.visual.patch_size,) * 2})
    written = nbytes / (time.perf_counter() - start)
    store, rows = FeatureStore(folder), np.random.default_rng(0).permutation(STORE_ROWS).tolist()
    return written, rate(lambda: store.read(rows), nbytes, torch.device("cpu"))


def _training_step(request: PaperRequest, model: CLIP, device: torch.device) -> Callable[[], object]:
    """A step of BAC-GCN on random features."""
    args, spec, dim = request.train_args, request.spec, model.embed_dim
    count, patches = len(spec.categories), (model.visual.input_resolution // model.visual.patch_size) ** 2
    text = F.normalize(torch.randn(count, dim), dim=-1)
    trained = build_model(args, text, torch.rand(count, count), len(spec.classes)).to(device)
    optimizer = build_optimizer(trained, args)
    features: List[Tensor] = [torch.randn(args.batch_size, patches, dim, device=device),
                              torch.randn(args.batch_size, 2, dim, device=device)]
    targets = torch.rand(args.batch_size, count, device=device)

    def step() -> None:
        with torch.enable_grad():
            optimizer.zero_grad()
            pseudo_label_loss(trained(*features).logits, targets).backward()
            optimizer.step()

    return step


_RESNET_BATCH = 2


def _resnet_step(device: torch.device) -> Callable[[], object]:
    """Forward and backward of a ResNet-101 at CDUL's size."""
    network = torchvision.models.resnet101(weights=None).to(device)
    images = torch.randn(_RESNET_BATCH, 3, 448, 448, device=device)

    def step() -> None:
        with torch.enable_grad():
            network.zero_grad()
            network(images).sum().backward()

    return step


def told(speeds: Speeds) -> str:
    """The speeds in a line."""
    resnet = f", {speeds.resnet:.2g} images/s in training a ResNet-101" if speeds.resnet else ""
    return (f"{speeds.passes:.3g} images/s a pass of the encoder, {speeds.decoded:.3g} decoded a core, "
            f"{speeds.trained:.3g} in training BAC-GCN{resnet}, {speeds.tagclip:.2g} by TagCLIP, {speeds.texts:.3g} "
            f"texts/s, store {format_bytes(speeds.written)}/s written and {format_bytes(speeds.read)}/s read; "
            f"{'; '.join(speeds.notes)}")
