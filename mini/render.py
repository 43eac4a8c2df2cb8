"""Writes the mini world as a data set: images, split files, captions, and boxes for analysis.

    python -m mini.render [--num_train 3000] [--num_test 1000] [--seed 0] [--workers 2] [--root .]
"""
from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

from datasets.files import DataError, PathLike, counted, make_folder, read_json, write_json
from datasets.flag_parser import FlagParser
from datasets.progress import bar
from datasets.registry import get_dataset
from datasets.split_file import Split, write_split_file
from engine.command_line.flag_types import count, natural
from engine.process.entry_point import run_main
from mini.worker import Record, Task, write_scene

NUM_TRAIN, NUM_TEST = 3000, 1000
_CHUNK = 16


class MiniPaths(NamedTuple):
    """Where the mini world lies under a root; the first four are the defaults of the dataset `mini`."""

    train_img_root: Path
    train_split_file: Path
    val_img_root: Path
    val_split_file: Path
    caption_root: Path
    boxes: Path
    """`{image_id: {"setting", "backgrounds", "width", "height", "objects": [{"class", "box", "size", "visible"}]}}`
    of both splits, for analysis: boxes in pixels, sizes as shares of the shorter side. Training does not read it."""
    stamp: Path

    @classmethod
    def under(cls, root: PathLike) -> MiniPaths:
        """The places under `root`, the repository's own tree for "."."""
        spec, root = get_dataset("mini"), Path(root)
        data = (root / spec.train_img_root).parent
        return cls(root / spec.train_img_root, root / spec.train_split_file, root / spec.val_img_root,
                   root / spec.val_split_file, root / "caption", data / "boxes.json", data / "world.json")


def build_mini(root: PathLike = ".", seed: int = 0, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST,
               workers: int = 1) -> MiniPaths:
    """Write the mini world under `root`, unless it is there already with the same parameters and the same code.

    The files do not depend on `workers`. Images appear under their folders only once all are rendered; a stamp,
    written last, marks the world as complete, so a build that was killed starts again.

    Args:
        root: gets `data/mini/`, `imageset/mini/` and `caption/mini/`.
        seed: another seed is another world of the same kind; none shares a scene with the mini CLIP's training.
        num_train: images in the train split; these are captioned.
        num_test: images in the test split.
        workers: processes that render.

    Raises:
        DataError: a count below 1, a negative seed, or no room to write.
    """
    if min(num_train, num_test, workers) < 1 or seed < 0:
        raise DataError(f"mini world of {num_train} + {counted(num_test, 'image')} by {workers} workers from seed "
                        f"{seed}: counts must be 1 or more, the seed 0 or more")
    paths = MiniPaths.under(root)
    stamp = {"seed": seed, "num_train": num_train, "num_test": num_test, "code": _code_digest()}
    if paths.stamp.is_file() and read_json(paths.stamp) == stamp:
        return paths
    try:
        make_folder(paths.stamp.parent)
        paths.stamp.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=paths.stamp.parent, prefix=".rendering.") as folder:
            train, test = _render(Path(folder), seed, num_train, num_test, workers)
            for name, target in (("train", paths.train_img_root), ("test", paths.val_img_root)):
                shutil.rmtree(target, ignore_errors=True)
                os.replace(Path(folder) / name, target)
        _write_tables(paths, train, test)
        write_json(paths.stamp, stamp)
    except OSError as error:
        raise DataError(f"{paths.stamp.parent}: the mini world could not be written ({error.strerror or error}); "
                        "make room or choose another --root") from None
    return paths


def _render(folder: Path, seed: int, num_train: int, num_test: int, workers: int) -> List[List[Record]]:
    """Render both splits into folders of their names, and return their records in the order of the scenes."""
    tasks = []
    for split, number in (("train", num_train), ("test", num_test)):
        (folder / split).mkdir()
        tasks += [Task(seed, split, index, folder / split) for index in range(number)]
    records = list(bar("rendering scenes", "image", len(tasks), over=_map(tasks, workers)))
    return [records[:num_train], records[num_train:]]


def _map(tasks: Sequence[Task], workers: int) -> Iterator[Record]:
    if workers == 1:
        yield from map(write_scene, tasks)
        return
    # Forked workers need not import anything again; elsewhere than on Linux, forking is not safe or not there.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with context.Pool(workers) as pool:
        yield from pool.imap(write_scene, tasks, chunksize=_CHUNK)


def _write_tables(paths: MiniPaths, train: List[Record], test: List[Record]) -> None:
    """Split files, captions of the train split, and boxes of both."""
    index_of = {name: index for index, name in enumerate(get_dataset("mini").classes)}
    for path, records in ((paths.train_split_file, train), (paths.val_split_file, test)):
        write_split_file(path, Split([record.image_id for record in records],
                                     [[index_of[name] for name in record.classes] for record in records]))
    folder = paths.caption_root / "mini"
    write_json(folder / "mini_captions.json", {record.image_id: record.captions for record in train}, indent=0)
    write_json(folder / "mini_re_captions.json", {record.image_id: record.re_captions for record in train}, indent=0)
    boxes: Dict[str, Any] = {record.image_id: record.analysis for record in [*train, *test]}
    write_json(paths.boxes, boxes)


def _code_digest() -> str:
    """A digest of the code that draws and describes: another renderer makes another world."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    parser = FlagParser("Write the mini world.", "python -m mini.render")
    parser.add_argument("--root", default=".", help="folder that gets data/mini, imageset/mini and caption/mini")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--num_train", type=count, default=NUM_TRAIN)
    parser.add_argument("--num_test", type=count, default=NUM_TEST)
    parser.add_argument("--workers", type=count, default=os.cpu_count() or 1, help="processes that render")
    options = parser.parse_args(arguments)
    paths = build_mini(options.root, options.seed, options.num_train, options.num_test, options.workers)
    print(f"{options.num_train} train and {options.num_test} test scenes under {paths.stamp.parent}")


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
