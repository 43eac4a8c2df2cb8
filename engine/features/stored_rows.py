"""Whatever is computed of each image once and kept: scores of training-free methods, embeddings of snippets."""
from __future__ import annotations

import argparse
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.files import FileState
from datasets.progress import bar
from datasets.split_file import ImageList
from engine.features.feature_store import ArraySpec, damaged, is_complete, mark_used
from engine.features.store_writer import CHUNK_ROWS, StoreWriter, belongs_to, owned
from engine.process.distributed import from_main, gather, world

ARRAY = "rows"

Compute = Callable[[range, Callable[[int], object]], Tensor]
"""Computes consecutive rows, and reports how many more are done as it goes."""


def stored_rows(compute: Compute, images: ImageList, shape: Tuple[int, ...], dtype: str, what: str,
                meta: Dict[str, Any], args: argparse.Namespace, root: Optional[Path] = None,
                mapped: bool = False) -> Tensor:
    """The rows of all images, (n, *shape) in float32; those that `--feature_root` lacks are computed.

    A killed run computes at most `CHUNK_ROWS` images again. Several processes share the chunks.

    Args:
        compute: rows of a chunk of images to a tensor (rows, *shape).
        images: the images.
        shape: of a row.
        dtype: of the stored rows.
        what: for the progress bar.
        meta: everything beside the images that the rows depend on; JSON.
        args: `--feature_root` and `--no_feature_store`.
        root: holds them (default: `--feature_root`).
        mapped: in `dtype` instead of float32, and read from the disk as they are asked for.
    """
    chunks = [range(start, min(start + CHUNK_ROWS, len(images))) for start in range(0, len(images), CHUNK_ROWS)]
    with bar(what, "image", len(images)) as shown:
        if args.no_feature_store:
            own = [(chunk.start, compute(chunk, shown.update).cpu().float())
                   for chunk in chunks[world().rank::world().size]]
            rows = torch.cat([rows for _, rows in sorted(gather(own), key=lambda part: part[0])])
            return rows.to(getattr(torch, dtype)) if mapped else rows
        meta = {**meta, "images": list_digest(images)}
        name = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:16]
        folder = (root or Path(args.feature_root)) / name
        if not is_complete(folder):
            with owned(folder):
                _fill(folder, compute, ArraySpec((len(images), *shape), dtype),
                      {**meta, "of": belongs_to(what, images, args)}, shown)
        from_main(lambda: mark_used(folder))
        shown.update(len(images) - shown.n)
    try:
        array = np.load(folder / f"{ARRAY}.npy", mmap_mode="c")  # copies on write: PyTorch wants to be able to
    except (OSError, ValueError, EOFError) as error:
        raise damaged(folder, f"{ARRAY}.npy: {getattr(error, 'strerror', None) or error}") from None
    if array.shape != (len(images), *shape):
        raise damaged(folder, f"{ARRAY}.npy has other rows")
    return torch.from_numpy(array if mapped else array.astype(np.float32))


def _fill(folder: Path, compute: Compute, spec: ArraySpec, meta: Dict[str, Any], shown: tqdm) -> None:
    if is_complete(folder):  # while this run waited
        return
    with StoreWriter(folder, {ARRAY: spec}) as writer:
        missing = writer.chunks_to_do()
        shown.update(spec.shape[0] - sum(map(len, missing)))
        for chunk in missing:
            writer.write(chunk, {ARRAY: compute(chunk, shown.update).to(getattr(torch, spec.dtype))})
    writer.finish(meta)


UNPACKED = (".bmp", ".ppm", ".pgm", ".tif", ".tiff")
"""Formats in which pictures of equal sides have files of equal size, so that the size says nothing of a change."""


def list_digest(images: ImageList) -> str:
    """SHA-256 over the ids and file sizes of a list of images, and the content of files that are `UNPACKED`."""
    listed = "\n".join(f"{image_id} {_state(file or images.file(row))}"
                       for row, (image_id, file) in enumerate(zip(images.image_ids, images.files())))
    return hashlib.sha256(listed.encode()).hexdigest()


def _state(file: FileState) -> str:
    return f"{file.size} {_content(file)}" if file.path.lower().endswith(UNPACKED) else str(file.size)


@cache
def _content(file: FileState) -> str:
    return hashlib.sha256(Path(file.path).read_bytes()).hexdigest()
