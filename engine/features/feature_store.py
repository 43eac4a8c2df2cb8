"""Feature stores on disk: memory-mapped arrays that fill in resumable chunks and are read row by row."""
from __future__ import annotations

import mmap
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from filelock import BaseFileLock, FileLock, Timeout
from torch import Tensor

from datasets.files import DataError, PathLike, read_json, write_json
from datasets.progress import say
from engine.process.distributed import barrier, from_main, world
from models.encoder import Features

CHUNK_ROWS = 256
"""Rows between two records of progress: what a killed extraction computes again."""

PATCH_DTYPES = ("fp16", "int8")

PackedFeatures = Dict[str, Tensor]
"""Features as they are stored, by the name of their array."""

_META = "store.json"
_DONE = "done"


def pack(features: Features, patch_dtype: str) -> PackedFeatures:
    """Features to what is stored: fp16, or for the patch embeddings int8 with one fp16 scale a patch."""
    packed = {"global_embeddings": features.global_embeddings.half()}
    if patch_dtype == "fp16":
        return {"patch_embeddings": features.patch_embeddings.half(), **packed}
    patches = features.patch_embeddings.float()
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
    return from_main(lambda: (Path(folder) / _META).exists())


class FeatureStore:
    """Features of a list of images in memory-mapped files; reading touches only the rows asked for.

    A store is a folder with the arrays of `store_arrays` as .npy files, and `store.json`, which is written last and
    says what the features were made of.

    Raises:
        DataError: the folder does not hold a whole store.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        self.meta: Dict[str, Any] = read_json(self.folder / _META)
        try:
            maps = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in self.meta["arrays"]}
            rows, patches, dim = maps["patch_embeddings"].shape
            height, width = self.meta["grid"]
            expected = store_arrays(rows, patches, dim, "int8" if "patch_scales" in maps else "fp16")
            fits = patches == height * width and expected == {
                name: ArraySpec(array.shape, str(array.dtype)) for name, array in maps.items()}
        except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(self.folder, str(error)) from None
        if not fits:
            raise _damaged(self.folder, "its arrays do not fit each other")
        self._mmaps = [array.base for array in maps.values()]
        self._arrays = {name: np.asarray(array) for name, array in maps.items()}

    def __len__(self) -> int:
        return len(self._arrays["global_embeddings"])

    @property
    def grid(self) -> Tuple[int, int]:
        """Rows and columns of the patch grid."""
        return tuple(self.meta["grid"])

    def plain_globals(self) -> Tensor:
        """The [cls] embeddings of the unmasked images, (n, D) in float32."""
        return torch.from_numpy(self._arrays["global_embeddings"][:, 0].astype(np.float32))

    def read(self, rows: Sequence[int]) -> PackedFeatures:
        """The stored values of some rows, in their order."""
        packed = {name: torch.from_numpy(array[rows]) for name, array in self._arrays.items()}
        # Pages that were read stay in the system's cache, but no longer count as memory of this process.
        for mapped in self._mmaps:
            if hasattr(mapped, "madvise"):
                mapped.madvise(mmap.MADV_DONTNEED)
        return packed

    def __getitem__(self, rows: Sequence[int]) -> Features:
        """The features of some rows, in their order, as float32."""
        return unpack(self.read(rows))


class StoreWriter:
    """Fills a store. One thread of its own copies from the device and writes, while the encoder goes on.

    Disk space is reserved before the first row is computed. A chunk counts as done once its rows are on disk, so a
    killed extraction leaves whole chunks, and the finished files are the same bytes as without the stop. The
    processes of a distributed run make, fill and finish one store together.

    Args:
        folder: the store's folder.
        arrays: its arrays.

    Raises:
        DataError: there is no room for the arrays.
    """

    def __init__(self, folder: PathLike, arrays: Dict[str, ArraySpec]) -> None:
        self.folder = Path(folder)
        self.arrays = arrays
        self._rows = next(iter(arrays.values())).shape[0]
        from_main(self._reserve)
        self._files = {name: (self.folder / f"{name}.npy").open("r+b") for name in arrays}
        self._offsets = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r").offset for name in arrays}
        self._thread = ThreadPoolExecutor(1)
        self._pending: List[Future[None]] = []

    def chunks_to_do(self) -> List[range]:
        """The rows of every chunk that is not done and falls to this process."""
        done = from_main(lambda: {int(path.name) for path in (self.folder / _DONE).iterdir()})
        chunks = [range(start, min(start + CHUNK_ROWS, self._rows)) for start in range(0, self._rows, CHUNK_ROWS)
                  if start not in done]
        return chunks[world().rank::world().size]

    def write(self, rows: range, packed: PackedFeatures) -> None:
        """Write consecutive rows, soon. A chunk is done with its last row, so its rows come in order.

        Raises:
            DataError: rows given earlier could not be written, or are not finite numbers.
        """
        self._pending.append(self._thread.submit(self._write, rows, packed))
        if len(self._pending) > 2:
            self._pending.pop(0).result()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Wait until everything is written. Raises as `write`."""
        try:
            for written in self._pending:
                written.result()
        finally:
            self._thread.shutdown()
            for file in self._files.values():
                file.close()

    def finish(self, meta: Dict[str, Any]) -> None:
        """Declare the store complete, once the chunks of all processes are done."""
        barrier()
        from_main(lambda: self._finish(meta))

    def _finish(self, meta: Dict[str, Any]) -> None:
        write_json(self.folder / _META, {**meta, "arrays": self.arrays})
        shutil.rmtree(self.folder / _DONE)

    def _reserve(self) -> None:
        (self.folder / _DONE).mkdir(parents=True, exist_ok=True)
        for part in self.folder.glob("*.part"):
            part.unlink()
        missing = {name: spec for name, spec in self.arrays.items() if not (self.folder / f"{name}.npy").exists()}
        needed, free = sum(spec.nbytes for spec in missing.values()), shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(f"{self.folder}: the features need {format_bytes(needed)}, {format_bytes(free)} are free; "
                            "make room, choose another --feature_root, halve them with --patch_dtype int8, or do "
                            "without them by --no_feature_store")
        for name, spec in missing.items():
            path = self.folder / f"{name}.npy"
            part = path.with_suffix(".part")
            try:
                with part.open("wb") as file:
                    np.lib.format.write_array_header_1_0(
                        file, {"descr": np.dtype(spec.dtype).str, "fortran_order": False, "shape": spec.shape})
                    _allocate(file.fileno(), file.tell() + spec.nbytes)
                part.replace(path)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise _no_room(path, error) from None

    def _write(self, rows: range, packed: PackedFeatures) -> None:
        for name, values in packed.items():
            values = values.cpu().contiguous()
            if values.is_floating_point() and not torch.isfinite(values).all():
                raise DataError(f"{self.folder}: the encoder's {name.replace('_', ' ')} of images {rows.start} to "
                                f"{rows.stop - 1} are not finite; use --precision fp32 or bf16, or check the weights")
            file, spec = self._files[name], self.arrays[name]
            try:
                file.seek(self._offsets[name] + rows.start * (spec.nbytes // spec.shape[0]))
                file.write(values.numpy().data)
            except OSError as error:
                raise _no_room(self.folder / f"{name}.npy", error) from None
        if rows.stop % CHUNK_ROWS == 0 or rows.stop == self._rows:
            self._finish_chunk((rows.stop - 1) // CHUNK_ROWS * CHUNK_ROWS)

    def _finish_chunk(self, start: int) -> None:
        try:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _no_room(self.folder, error) from None
        (self.folder / _DONE / str(start)).touch()


@contextmanager
def owned(folder: PathLike) -> Iterator[None]:
    """Hold the lock of a store that is to be filled; wait while another run has it.

    The system releases the lock when its owner ends, however that happens. Look again whether the store is complete
    once it is held.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(Path(folder) / "lock"))
    from_main(lambda: _acquire(lock, folder))
    try:
        yield
    finally:
        lock.release()  # only the main process holds it


def _acquire(lock: BaseFileLock, folder: PathLike) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{folder}: another run is computing these features; waiting for it")
        lock.acquire()


def _damaged(folder: Path, reason: str) -> DataError:
    return DataError(f"{folder}: a damaged feature store ({reason}); delete the folder, it will be computed again")


def format_bytes(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _allocate(descriptor: int, size: int) -> None:
    """Make an open file `size` bytes long, with room on the disk behind them where the system can promise it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _no_room(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: the features cannot be written ({error.strerror}); make room, choose another "
                     "--feature_root, or do without a store by --no_feature_store")
