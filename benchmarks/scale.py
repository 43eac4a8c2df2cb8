"""Every stage of the pipeline at a share of NUS-WIDE's size, each as the command that a user gives.

    python -m benchmarks.scale --share 0.1 [--folder FOLDER] [--code OTHER_CHECKOUT] [--processes 2]

161,789 training and 107,859 test images times the share: hard links to a few hundred rendered photos, captions drawn
from theirs, NUS-WIDE's 89 categories and the mini CLIP. The numbers of such a run mean nothing, its times and sizes do.
With `--code` the scripts of another checkout run on the same world, to compare before and after.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import numpy as np
import torch

from benchmarks.timing import machine, table
from datasets.captions.io import caption_paths
from datasets.files import read_json, write_json
from datasets.flag_parser import FlagParser
from datasets.split_file import Split, read_split_file, write_split_file
from engine.features.feature_store import format_bytes
from mini.render import build_mini

TRAIN, TEST = 161_789, 107_859
FOLDER_IMAGES = 400
"""Images a folder, as in NUS-WIDE's 704."""


def link_images(photos: Path, known: Split, folder: Path, count: int) -> Split:
    """`count` hard links to the photos in turn, in folders, with the photos' labels."""
    image_ids = [f"{number // FOLDER_IMAGES:03d}/{number:06d}" for number in range(count)]
    for number, image_id in enumerate(image_ids):
        if number % FOLDER_IMAGES == 0:
            (folder / image_id).parent.mkdir(parents=True)
        os.link(photos / f"{known.image_ids[number % len(known.image_ids)]}.jpg", folder / f"{image_id}.jpg")
    return Split(image_ids, [known.labels[number % len(known.labels)] for number in range(count)])


def draw_captions(root: Path, image_ids: List[str]) -> None:
    """Caption files of NUS-WIDE: each caption drawn from all of the mini world's at its place."""
    generator = np.random.default_rng(0)
    for source, target in zip(caption_paths(root / "caption", "mini"), caption_paths(root / "caption", "nuswide")):
        places = [list(texts) for texts in zip(*read_json(source).values())]
        picks = generator.integers(0, len(places[0]), (len(image_ids), len(places)))
        write_json(target, {image_id: [texts[pick] for texts, pick in zip(places, row)]
                            for image_id, row in zip(image_ids, picks.tolist())})


def build_world(root: Path, share: float, photos: int) -> List[str]:
    """Make the dry run's data; the flags of a train script that name them."""
    mini = build_mini(root, num_train=photos, num_test=photos, workers=os.cpu_count() or 1)
    flags = ["--dataset", "nuswide", "--caption_root", str(root / "caption")]
    for kind, count, images, listed in (("train", TRAIN, mini.train_img_root, mini.train_split_file),
                                        ("val", TEST, mini.val_img_root, mini.val_split_file)):
        split = link_images(Path(images), read_split_file(listed, 81), root / kind, round(share * count))
        write_split_file(root / f"{kind}_cls.txt", split)
        flags += [f"--{kind}_img_root", str(root / kind), f"--{kind}_split_file", str(root / f"{kind}_cls.txt")]
        if kind == "train":
            draw_captions(root, split.image_ids)
    return flags


class Measured(NamedTuple):
    """What a command took."""

    seconds: float
    processor: float
    """Seconds of processor time, which other work on the machine does not lengthen."""
    peak: int
    """Bytes, of the largest of its processes."""
    silence: float
    """The longest time without a word, in seconds."""
    useful_after: Optional[float]
    """Seconds until a run says that it goes on."""


COUNT = """import json, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
json.dump([status, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss], open(sys.argv[1], "w"))"""
"""Runs a command from a process of its own, a small one: a child's peak begins with the memory of what started it."""


def measure(command: List[str], code: Path) -> Measured:
    """Run a command in a checkout and watch it."""
    with tempfile.NamedTemporaryFile() as counts:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-IS", "-c", COUNT, counts.name, *command], cwd=code,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(code)})
        assert process.stdout is not None
        heard, silence, useful_after, output = start, 0.0, None, b""
        while chunk := os.read(process.stdout.fileno(), 1 << 16):
            now = time.perf_counter()
            silence, heard, output = max(silence, now - heard), now, output + chunk
            if useful_after is None and b"going on after" in output:
                useful_after = now - start
        process.wait()
        status, processor, peak = json.load(counts)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}:\n{output.decode(errors='replace')[-2000:]}")
    return Measured(time.perf_counter() - start, processor, peak, silence, useful_after)


class PeakDisk(threading.Thread):
    """Looks at the folders that stages write to, ten times a minute."""

    def __init__(self, *folders: Path) -> None:
        super().__init__(daemon=True)
        self.folders = folders
        self.peak = 0
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(6):
            self.peak = max(self.peak, sum(map(disk_of, self.folders)))

    def end(self) -> int:
        """The most that was seen, in bytes."""
        self._ended.set()
        self.join()
        return max(self.peak, sum(map(disk_of, self.folders)))


def disk_of(folder: Path) -> int:
    """Bytes that a folder takes."""
    try:
        return sum(512 * path.lstat().st_blocks for path in folder.rglob("*"))
    except FileNotFoundError:  # a file that went meanwhile: look again
        return disk_of(folder)


def stages(args: argparse.Namespace, root: Path, data: List[str]) -> Dict[str, List[str]]:
    """Each stage as the arguments of Python."""
    launcher = (["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={args.processes}"]
                if args.processes > 1 else [])
    features = ["--feature_root", str(root / "features"), "--num_workers", str(args.num_workers), "--device",
                args.device]
    train = [*launcher, "train_nus.py", *data, *features, "--model_path", "mini/weights/mini_clip.safetensors",
             "--mask_mode", "token", "--output_dir", str(root / "run"), "--reso_epoch", "3", "--gamma",
             str(args.gamma)]
    captions = ["caption.py", "--dataset", "nuswide", "--caption_root", str(root / "caption")]
    return {
        "filter the captions": captions,
        "report on the labels": [*captions, "--stage", "report", "--truth", str(root / "train_cls.txt")],
        "check, encode, first epoch": [*train, "--epochs", "1"],
        "start, one more epoch": [*train, "--epochs", "2"],
        "start, ReSO, one more epoch": [*train, "--epochs", "3"],
        "evaluate": [*launcher, "eval.py", "--checkpoint", str(root / "run" / "checkpoint.pth"), *features],
    }


def main(argv: Optional[List[str]] = None) -> None:
    parser = FlagParser(__doc__)
    parser.add_argument("--share", type=float, default=1 / 30, help="of NUS-WIDE's images")
    parser.add_argument("--photos", type=int, default=300, help="different photos in each split")
    parser.add_argument("--folder", help="where the dry run goes and stays (default: a temporary folder)")
    parser.add_argument("--code", default=".", help="the checkout whose scripts are measured")
    parser.add_argument("--processes", type=int, default=1, help="of torchrun")
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--gamma", type=float, default=0.7)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    root = Path(args.folder or tempfile.mkdtemp(prefix="scale_")).absolute()
    data_file = root / "flags.json"
    if not data_file.exists():
        write_json(data_file, build_world(root, args.share, args.photos))
    for name in ("features", "run"):
        shutil.rmtree(root / name, ignore_errors=True)
    images = {"train": round(args.share * TRAIN), "test": round(args.share * TEST)}
    print(f"### Scale\n\n{machine(torch.device(args.device))}; {images['train']:,} training and {images['test']:,} "
          f"test images, {args.processes} processes\n", flush=True)
    print(table(("stage", "seconds", "processor, s", "images/s", "start, s", "longest silence, s", "peak memory",
                 "most disk", "disk after"), []), end="", flush=True)
    for name, command in stages(args, root, read_json(data_file)).items():
        disk = PeakDisk(root / "features", root / "run")
        measured = measure([sys.executable, *command], Path(args.code).absolute())
        count = images["test"] if name == "evaluate" else images["train"]
        useful = "" if measured.useful_after is None else f"{measured.useful_after:.1f}"
        row = (name, f"{measured.seconds:.1f}", f"{measured.processor:.1f}", f"{count / measured.seconds:.0f}", useful,
               f"{measured.silence:.1f}", format_bytes(measured.peak), format_bytes(disk.end()),
               format_bytes(sum(map(disk_of, disk.folders))))
        print(f"| {' | '.join(row)} |", flush=True)  # at once: a stage may take an hour
    print()
    print((root / "run" / "log.txt").read_text())
    if not args.folder:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
