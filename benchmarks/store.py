"""The feature store: an epoch from it against one that encodes, its memory, and its growth with the images.

    python -m benchmarks.store [--images 1000 10000 80000] [--rounds 3] [--device cuda]

The large stores are files with holes: they take no room on the disk, and reading them costs as much memory and page
cache as if they were full.
"""
from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path
from typing import List, Optional

import numpy as np
import torch
from PIL import Image

from benchmarks.encode import load_clip
from benchmarks.step import DIM, GRID, Step
from benchmarks.timing import machine, ratio, side_by_side, table
from datasets.files import write_json
from datasets.flag_parser import FlagParser
from datasets.images import image_transform
from datasets.split_file import ImageList
from engine.features.extraction import LiveFeatures
from engine.features.feature_set import FeatureSet
from engine.features.feature_store import FeatureStore, StoreWriter, format_bytes, pack, store_arrays
from engine.process.distributed import get_device
from models.encoder import Features, FrozenEncoder


def hollow_store(folder: Path, images: int) -> FeatureStore:
    """A store whose values are all zero, without blocks on the disk."""
    folder.mkdir(parents=True)
    arrays = store_arrays(images, GRID[0] * GRID[1], DIM, "fp16")
    for name, spec in arrays.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", spec.dtype, spec.shape)
    write_json(folder / "store.json", {"arrays": arrays, "grid": GRID})
    return FeatureStore(folder)


def save_photos(folder: Path, count: int) -> ImageList:
    """JPEGs of the size of COCO's."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        pixels = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((640, 480), Image.BICUBIC).save(folder / f"{number}.jpg", quality=90)
    return ImageList(folder, [str(number) for number in range(count)], image_transform(224))


def compare_with_live(root: Path, args: argparse.Namespace, device: torch.device) -> str:
    """A training step on stored features against one on features that are computed for it."""
    encoder = FrozenEncoder(load_clip(args.model_path, device))
    photos = save_photos(root / "photos", args.live_images)
    live = LiveFeatures(encoder, photos, argparse.Namespace(encode_batch_size=32, num_workers=args.num_workers))
    targets = torch.zeros(1000, 104)
    stored = FeatureSet([hollow_store(root / "compared", 1000)], targets)
    computed = FeatureSet([live], targets[:args.live_images])
    step = Step(104, 64, device)

    def epoch(data: FeatureSet) -> None:
        for batch in data.batches(64, torch.Generator().manual_seed(0), device=device):
            step.features = Features(batch.features.patch_embeddings, batch.features.global_embeddings[:, 1:])
            step.targets = batch.targets
            step.whole()

    times = side_by_side({"stored": lambda: epoch(stored), "computed": lambda: epoch(computed)}, args.rounds, device)
    speedup = ratio(times, "computed", "stored") * len(stored) / len(computed)
    return table(("epoch", "images/s", "times as fast"), [
        ("--no_feature_store", f"{len(computed) / statistics.median(times['computed']):.2f}", "1"),
        ("from the store", f"{len(stored) / statistics.median(times['stored']):.1f}", f"{speedup:.0f}")])


def grow_images(root: Path, args: argparse.Namespace, device: torch.device) -> str:
    """Reading a shuffled epoch, and the memory it takes, by the number of images."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows, first = [], None
    for count in args.images:
        store = hollow_store(root / f"images_{count}", count)
        data = FeatureSet([store], torch.zeros(count, 104))

        def read(data: FeatureSet = data) -> None:
            for _ in data.batches(64, torch.Generator().manual_seed(0), device=device):
                pass

        times = side_by_side({"read": read}, 1, device, waiting=True)
        seconds = statistics.median(times["read"]) / count
        first = first or seconds
        size = sum(path.stat().st_size for path in store.folder.glob("*.npy"))
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        rows.append((f"{count:,}", format_bytes(size), f"{1e6 * seconds:.0f}", f"{seconds / first:.2f}",
                     format_bytes(grown)))
    return table(("images", "store", "read, microseconds an image", "an image / first", "peak memory above the start"),
                 rows)


def grow_writing(root: Path, args: argparse.Namespace, device: torch.device) -> str:
    """Packing and writing features, by the number of images that the store is made for."""
    features = Features(torch.randn(32, GRID[0] * GRID[1], DIM, device=device), torch.randn(32, 3, DIM, device=device))
    rows, first = [], None
    for count in args.images:
        arrays = store_arrays(count, GRID[0] * GRID[1], DIM, "fp16")
        with StoreWriter(root / f"written_{count}", arrays) as writer:
            chunks = writer.chunks_to_do()[:4]

            def write(writer: StoreWriter = writer, chunks: List[range] = chunks) -> None:
                for chunk in chunks:
                    for start in range(0, len(chunk) - 31, 32):
                        writer.write(chunk[start:start + 32], pack(features, "fp16"))

            times = side_by_side({"write": write}, args.rounds, device, waiting=True)
        seconds = statistics.median(times["write"]) / sum(map(len, chunks))
        first = first or seconds
        rows.append((f"{count:,}", f"{1e6 * seconds:.0f}", f"{seconds / first:.2f}"))
    return table(("store made for", "write, microseconds an image", "an image / first"), rows)


def main(argv: Optional[List[str]] = None) -> str:
    parser = FlagParser(__doc__)
    parser.add_argument("--images", nargs="+", type=int, default=[1000, 10_000, 80_000])
    parser.add_argument("--live_images", type=int, default=64, help="images that are encoded a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num_workers", type=int, default=4)
    parser.add_argument("--model_path", help="default: random weights of a ViT-B/16")
    parser.add_argument("--folder", help="where the stores go for the time being (default: the system's)")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    device = get_device(args.device)
    with tempfile.TemporaryDirectory(dir=args.folder) as root:
        return f"""### Feature store

{machine(device)}

{grow_images(Path(root), args, device)}
{grow_writing(Path(root), args, device)}
{compare_with_live(Path(root), args, device)}"""


if __name__ == "__main__":
    print(main())
