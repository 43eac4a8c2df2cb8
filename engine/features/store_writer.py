"""Filling feature stores: room is reserved first, chunks are resumable, one run computes and others wait."""
from __future__ import annotations

import argparse
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import torch
from filelock import BaseFileLock, FileLock, Timeout

from datasets.files import DataError, PathLike, make_folder, write_json
from datasets.progress import say
from datasets.split_file import ImageList
from engine.features.feature_store import DONE, LOCK, META, ArraySpec, PackedFeatures, format_bytes
from engine.process.distributed import barrier, from_main, world

CHUNK_ROWS = 256
"""Rows between two records of progress: what a killed extraction computes again."""


def missing_bytes(folder: Path, arrays: Dict[str, ArraySpec]) -> int:
    """Bytes that are still to be reserved for a store: all, or nothing once it was begun."""
    return sum(spec.nbytes for name, spec in arrays.items() if not (folder / f"{name}.npy").exists())


def belongs_to(what: str, images: ImageList, args: argparse.Namespace) -> Dict[str, Any]:
    """What people know a store by; for the list of stores."""
    flags = {flag: value for flag, value in vars(args).items() if flag in ("dataset", "model_path")}
    return {"what": what, "images": len(images), "folder": str(images.folder), **flags}


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
        done = from_main(lambda: {int(path.name) for path in (self.folder / DONE).iterdir()})
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
        write_json(self.folder / META, {**meta, "arrays": self.arrays})
        shutil.rmtree(self.folder / DONE)

    def _reserve(self) -> None:
        make_folder(self.folder / DONE)
        for part in self.folder.glob("*.part"):
            part.unlink()
        needed, free = missing_bytes(self.folder, self.arrays), shutil.disk_usage(self.folder).free
        if needed > free:
            raise DataError(f"{self.folder}: {format_bytes(needed)} are needed, {format_bytes(free)} are free; make "
                            "room (`python -m engine.stores` lists what is there), or choose another "
                            "--feature_root")
        for name, spec in self.arrays.items():
            if (self.folder / f"{name}.npy").exists():
                continue
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
        (self.folder / DONE / str(start)).touch()


@contextmanager
def owned(folder: PathLike) -> Iterator[None]:
    """Hold the lock of a store that is to be filled; wait while another run has it.

    The system releases the lock when its owner ends, however that happens. Look again whether the store is complete
    once it is held.
    """
    make_folder(folder)
    lock = FileLock(str(Path(folder) / LOCK))
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


def _allocate(descriptor: int, size: int) -> None:
    """Make an open file `size` bytes long, with room on the disk behind them where the system can promise it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _no_room(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: the features cannot be written ({error.strerror}); make room, choose another "
                     "--feature_root, or do without a store by --no_feature_store")
