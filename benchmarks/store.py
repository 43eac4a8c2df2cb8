"""The feature store: reads from the disk and from memory, an epoch from it against one that encodes, and its growth.

    python -m benchmarks.store [--images 1000 10000 80000] [--cold_images 10000] [--rounds 3] [--device cuda]

The large stores are files with holes: they take no room on the disk, and reading them costs as much memory and page
cache as if they were full. That of the cold reads is real (200 kB an image); its pages are dropped from the system's
cache before each cold read, which takes no rights. Read-aheads other than the disk's own are measured where this
process may set them, as root, and are set back.
"""
from __future__ import annotations

import argparse
import mmap
import os
import resource
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import numpy as np
import torch
from PIL import Image

from benchmarks.encode import load_clip
from benchmarks.step import DIM, GRID, Step
from benchmarks.timing import Times, machine, ratio, side_by_side, table
from datasets.files import write_json
from datasets.flag_parser import FlagParser
from datasets.images import image_transform
from datasets.split_file import ImageList
from engine.features.extraction import LiveFeatures
from engine.features.feature_set import FeatureSet
from engine.features.feature_store import FeatureStore, format_bytes, pack, store_arrays
from engine.features.store_writer import StoreWriter
from engine.process.distributed import get_device
from models.encoder import CLIPEncoder, Features


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
    encoder = CLIPEncoder(load_clip(args.model_path, device))
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


BATCHES = 12
"""Of 64 random rows each, in a cold read: few enough that hardly a page is asked for twice."""


def full_store(folder: Path, images: int) -> FeatureStore:
    """A store of random values, on the disk."""
    generator = np.random.default_rng(0)
    arrays = store_arrays(images, GRID[0] * GRID[1], DIM, "fp16")
    with StoreWriter(folder, arrays) as writer:
        for chunk in writer.chunks_to_do():
            parts = {name: generator.integers(0, 15_000, (len(chunk), *spec.shape[1:]), np.int16).view(np.float16)
                     for name, spec in arrays.items()}
            writer.write(chunk, {name: torch.from_numpy(values) for name, values in parts.items()})
    writer.finish({"grid": GRID})
    return FeatureStore(folder)


def by_memory_map(folder: Path) -> Callable[[np.ndarray], object]:
    """What the store is measured against: indexing memory maps with the rows of a batch."""
    maps = [np.load(path, mmap_mode="r") for path in folder.glob("*.npy")]
    arrays = [np.asarray(mapped) for mapped in maps]

    def read(rows: np.ndarray) -> object:
        values = [torch.from_numpy(array[rows]) for array in arrays]
        for mapped in maps:
            mapped.base.madvise(mmap.MADV_DONTNEED)  # or the maps count as memory of the process
        return values

    return read


def drop_from_memory(folder: Path) -> None:
    """Make the system forget the pages of a folder's files."""
    for path in folder.glob("*.npy"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_ahead_setting(folder: Path) -> Optional[Path]:
    """The file with the read-ahead, in kB, of the disk that a folder is on; None where there is none."""
    device = folder.stat().st_dev
    disk = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    return next((place / "queue/read_ahead_kb" for place in (disk, disk.parent)
                 if (place / "queue/read_ahead_kb").exists()), None)


@contextmanager
def read_ahead_of(setting: Optional[Path], value: str) -> Iterator[None]:
    """Another read-ahead within the block, where there is a setting."""
    before = setting.read_text() if setting else ""
    if setting:
        setting.write_text(value)
    try:
        yield
    finally:
        if setting:
            setting.write_text(before)


def bytes_from_disk() -> int:
    """What this process has had read from disks so far."""
    return int(Path("/proc/self/io").read_text().partition("\nread_bytes:")[2].split()[0])


def compare_cold_and_warm(root: Path, args: argparse.Namespace) -> str:
    """Random batches from a disk and from memory, by the disk's read-ahead; on Linux alone."""
    folder = full_store(root / "full", args.cold_images).folder
    setting = read_ahead_setting(root)
    before = setting.read_text().strip() if setting else "unknown"
    settable = setting is not None and os.access(setting, os.W_OK)
    rows = []
    for read_ahead in ("128", "8192") if settable else (before,):
        with read_ahead_of(setting if settable else None, read_ahead):  # files keep that of the time they are opened
            store = FeatureStore(folder)
            ways: Dict[str, Callable[..., object]] = {"memory map": by_memory_map(folder), "store": store.read}
            cold: Times = {name: [] for name in ways}
            warm: Times = {name: [] for name in ways}
            processor: Times = {name: [] for name in ways}  # of warm reads, whatever else the machine does
            read_bytes = dict.fromkeys(ways, 0)
            for round_ in range(args.rounds):
                picks = np.random.default_rng(round_).integers(0, len(store), (BATCHES, 64))
                for name, read in ways.items():
                    drop_from_memory(folder)
                    already = bytes_from_disk()
                    for times in (cold, warm):
                        start, worked = time.perf_counter(), time.process_time()
                        for batch in picks:
                            read(batch)
                        times[name].append(time.perf_counter() - start)
                    processor[name].append(time.process_time() - worked)
                    read_bytes[name] += bytes_from_disk() - already
        asked = BATCHES * 64 * args.rounds * sum(spec.nbytes for spec in store_arrays(
            1, GRID[0] * GRID[1], DIM, "fp16").values())
        rows += [(read_ahead, name, f"{BATCHES * 64 / statistics.median(cold[name]):,.0f}",
                  f"{ratio(cold, 'memory map', name):.2f}", f"{read_bytes[name] / asked:.1f}",
                  f"{BATCHES * 64 / statistics.median(warm[name]):,.0f}", f"{ratio(warm, 'memory map', name):.2f}",
                  f"{ratio(processor, name, 'memory map'):.2f}")
                 for name in ways]
    note = "" if settable else "\n(The read-ahead cannot be set here.)\n"
    return table(("read-ahead, kB", "random reads by", "cold, images/s", "of the map's speed", "bytes read / asked for",
                  "warm, images/s", "of the map's speed", "of its processor time"), rows) + note


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
    parser.add_argument("--cold_images", type=int, default=10_000, help="in the store that is read from the disk")
    parser.add_argument("--live_images", type=int, default=64, help="images that are encoded a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only_cold", action="store_true", help="measure reads from the disk and from memory alone")
    parser.add_argument("--num_workers", type=int, default=4)
    parser.add_argument("--model_path", help="default: random weights of a ViT-B/16")
    parser.add_argument("--folder", help="where the stores go for the time being (default: the system's)")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    device = get_device(args.device)
    with tempfile.TemporaryDirectory(dir=args.folder) as root:
        if args.only_cold:
            return compare_cold_and_warm(Path(root), args)
        return f"""### Feature store

{machine(device)}

{grow_images(Path(root), args, device)}
{compare_cold_and_warm(Path(root), args)}
{grow_writing(Path(root), args, device)}
{compare_with_live(Path(root), args, device)}"""


if __name__ == "__main__":
    print(main())
