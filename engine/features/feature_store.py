"""Feature stores on disk: what is in them, and reading them row by row."""
from __future__ import annotations

import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from datasets.files import DataError, PathLike, read_json
from engine.process.distributed import from_main
from models.encoder import Features

PATCH_DTYPES = ("fp16", "int8")

PackedFeatures = Dict[str, Tensor]
"""Features as they are stored, by the name of their array."""

META = "store.json"
"""Written last; its time is that of the last use. An unfinished store has the folder `DONE` in its place."""
DONE = "done"
LOCK = "lock"


def pack(features: Features, patch_dtype: str) -> PackedFeatures:
    """Features to what is stored: fp16, or for the patch embeddings int8 with one fp16 scale a patch.

    int8 is made of what fp16 would keep, so that a store in fp16 can be converted to the bytes of one that is encoded.
    """
    packed = {"global_embeddings": features.global_embeddings.half()}
    if patch_dtype == "fp16":
        return {"patch_embeddings": features.patch_embeddings.half(), **packed}
    patches = features.patch_embeddings.half().float()
    scales = (patches.abs().amax(dim=-1) / 127).clamp_min(torch.finfo(torch.float16).tiny).half()
    codes = (patches / scales[..., None]).round().clamp(-127, 127).to(torch.int8)
    return {"patch_embeddings": codes, "patch_scales": scales, **packed}


def unpack(packed: PackedFeatures) -> Features:
    """What `pack` made, as float32 on the same device."""
    patches = packed["patch_embeddings"].float()
    if "patch_scales" in packed:
        patches *= packed["patch_scales"].float()[..., None]
    return Features(patches, packed["global_embeddings"].float())


class ArraySpec(NamedTuple):
    """Shape and type of one array of a store."""

    shape: Tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """On disk, without the header."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def store_arrays(rows: int, num_patches: int, dim: int, patch_dtype: str) -> Dict[str, ArraySpec]:
    """The arrays of a store of `rows` images with (num_patches, dim) patch embeddings."""
    arrays = {"patch_embeddings": ArraySpec((rows, num_patches, dim), "float16" if patch_dtype == "fp16" else "int8"),
              "global_embeddings": ArraySpec((rows, 3, dim), "float16")}
    if patch_dtype == "int8":
        arrays["patch_scales"] = ArraySpec((rows, num_patches), "float16")
    return arrays


def is_complete(folder: PathLike) -> bool:
    """Whether the store in `folder` has all of its rows, as the main process sees it."""
    return from_main(lambda: (Path(folder) / META).exists())


def mark_used(folder: PathLike) -> None:
    """Remember when a complete store was used last; not where others own it."""
    with suppress(OSError):
        os.utime(Path(folder) / META)


READERS = 8
"""Threads that wait for rows which are not in memory: a disk is the faster the more it is asked at the same time."""


class _RowFile:
    """One array of a store, whose rows are read at their positions, not through a memory map: a map asks for pages one
    after the other, and the system reads megabytes around each of them."""

    def __init__(self, path: Path) -> None:
        array = np.load(path, mmap_mode="r")
        self.path, self.spec = path, ArraySpec(array.shape, str(array.dtype))
        self._offset, self._row_bytes = array.offset, array[:1].nbytes
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        if hasattr(os, "posix_fadvise"):  # rows come in random order: nothing around them is wanted
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def empty(self, rows: int, pinned: bool) -> Tensor:
        """A tensor that takes so many rows."""
        return torch.empty((rows, *self.spec.shape[1:]), dtype=getattr(torch, self.spec.dtype), pin_memory=pinned)

    def read(self, row: int, place: memoryview, wait: bool) -> bool:
        """Read a row to the place for it; whether it is there now. Without `wait` it is only if it was in memory."""
        flags = 0 if wait or _NO_WAIT is None else _NO_WAIT
        try:
            done = os.preadv(self._descriptor, [place], self._offset + row * self._row_bytes, flags)
        except OSError as error:
            if wait:
                raise damaged(self.path.parent, f"{self.path.name}: {error.strerror}") from None
            return False  # not in memory, or the file system cannot tell
        if wait and done < len(place):
            raise damaged(self.path.parent, f"{self.path.name} ends early")
        return done == len(place)

    def column(self, index: int) -> np.ndarray:
        """`array[:, index]`; rows are read in blocks, so that the array is never in memory as a whole."""
        values_a_row, parts = int(np.prod(self.spec.shape[1:])), []
        for start in range(0, self.spec.shape[0], _BLOCK_ROWS):
            block = np.fromfile(self.path, self.spec.dtype, min(_BLOCK_ROWS, self.spec.shape[0] - start) * values_a_row,
                                offset=self._offset + start * self._row_bytes)
            parts.append(block.reshape(-1, *self.spec.shape[1:])[:, index].copy())
        return np.concatenate(parts)


_NO_WAIT = getattr(os, "RWF_NOWAIT", None)
"""Makes a read fail that would have to wait for the disk; Linux has it."""

_BLOCK_ROWS = 4096


class FeatureStore:
    """Features of a list of images in files; reading touches only the rows asked for.

    A store is a folder with the arrays of `store_arrays` as .npy files, and `store.json`, which is written last and
    says what the features were made of.

    Raises:
        DataError: the folder does not hold a whole store.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.meta: Dict[str, Any] = read_json(self.folder / META)
        try:
            self._files = {name: _RowFile(self.folder / f"{name}.npy") for name in self.meta["arrays"]}
            rows, patches, dim = self._files["patch_embeddings"].spec.shape
            height, width = self.meta["grid"]
            expected = store_arrays(rows, patches, dim, "int8" if "patch_scales" in self._files else "fp16")
            fits = patches == height * width and expected == {name: file.spec for name, file in self._files.items()}
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise damaged(self.folder, str(error)) from None
        if not fits:
            raise damaged(self.folder, "its arrays do not fit each other")
        self._readers = ThreadPoolExecutor(READERS)

    def __len__(self) -> int:
        return self._files["global_embeddings"].spec.shape[0]

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""
        return tuple(self.meta["grid"])

    def plain_globals(self) -> Tensor:
        """The [cls] embeddings of the unmasked images, (n, D) in float32."""
        return torch.from_numpy(self._files["global_embeddings"].column(0).astype(np.float32))

    def read(self, rows: Sequence[int], pinned: bool = False) -> PackedFeatures:
        """The stored values of some rows, in their order.

        Rows that the system has in memory are copied by this thread; for the others several threads wait.

        Args:
            rows: their numbers from 0 on.
            pinned: into memory that CUDA can copy from while the program goes on.
        """
        packed = {name: file.empty(len(rows), pinned) for name, file in self._files.items()}
        jobs = [(file, int(row), place) for name, file in self._files.items()
                for row, place in zip(rows, _places(packed[name]))]
        if _NO_WAIT is not None:
            jobs = [job for job in jobs if not _read(job, wait=False)]
        if jobs:
            list(self._readers.map(partial(_read_all, jobs), range(READERS)))
        return packed

    def __getitem__(self, rows: Sequence[int]) -> Features:
        """The features of some rows, in their order, as float32."""
        return unpack(self.read(rows))


_Job = Tuple[_RowFile, int, memoryview]
"""An array, a row of it, and where its values go."""


def _places(values: Tensor) -> Iterator[memoryview]:
    """The bytes of each row of a tensor."""
    whole: memoryview = values.view(-1).view(torch.uint8).numpy().data
    size = len(whole) // max(len(values), 1)
    return (whole[row * size:(row + 1) * size] for row in range(len(values)))


def _read(job: _Job, wait: bool) -> bool:
    file, row, place = job
    return file.read(row, place, wait)


def _read_all(jobs: Sequence[_Job], reader: int) -> None:
    """The share of one of the readers."""
    for job in jobs[reader::READERS]:
        _read(job, wait=True)


def damaged(folder: Path, reason: str) -> DataError:
    """What to say of a store that cannot be read."""
    return DataError(f"{folder}: a damaged feature store ({reason}); delete the folder, it will be computed again")


def format_bytes(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
