"""The stores on a disk: how large each is, what it belongs to, when it was used; and removing those that are named.

    python -m engine.stores                                   list what is below features/ and runs/
    python -m engine.stores --below /disk/features            ... and elsewhere
    python -m engine.stores --remove 0123456789abcdef ...

A store that is removed is computed again when a run needs it. A run that reads it now is not disturbed.
"""
from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence

from filelock import FileLock, Timeout

from datasets.files import DataError, PathLike, read_json
from datasets.flag_parser import FlagParser
from engine.features.feature_store import DONE, LOCK, META, format_bytes
from engine.process.entry_point import run_main
from engine.results.tables import format_table


class Store(NamedTuple):
    """A folder with features, or with whatever else is computed once for each image."""

    folder: Path
    size: int
    """Bytes on the disk."""
    belongs_to: str
    """What was encoded and by what, as far as the store says."""
    state: str
    """"finished", "unfinished", or "being computed"."""
    last_use: float
    """Seconds since 1970."""


def find_stores(roots: Sequence[PathLike]) -> Iterator[Store]:
    """The stores below some folders; folders that are not there have none."""
    for root in roots:
        for folder, below, files in os.walk(root):
            if META in files or DONE in below and LOCK in files:
                below.clear()  # nothing but its own parts lies in a store
                yield _look_at(Path(folder))


def _look_at(folder: Path) -> Store:
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    size = sum(512 * getattr(state, "st_blocks", -(-state.st_size // 512)) for state in files)
    complete = (folder / META).exists()
    state = "finished" if complete else "being computed" if _is_locked(folder) else "unfinished"
    last_use = (folder / META).stat().st_mtime if complete else max(state.st_mtime for state in files)
    return Store(folder, size, _describe(folder) if complete else "", state, last_use)


def _describe(folder: Path) -> str:
    try:
        meta = read_json(folder / META)
        of = meta.get("of", {})
        images = f"{of['what']}, {of['images']:,} of {of['folder']}" if of else "made by an earlier version"
        made_by = [str(value) for value in (of.get("model_path"), meta.get("patch_dtype")) if value]
        return ", ".join([images, *made_by])
    except (DataError, AttributeError, KeyError, TypeError, ValueError):
        return "damaged"


def _is_locked(folder: Path) -> bool:
    """Whether a run is computing the store."""
    try:
        with FileLock(str(folder / LOCK), timeout=0):
            return False
    except Timeout:
        return True


_HEADER = ("store", "size", "last use", "state", "in", "belongs to")


def list_stores(stores: Sequence[Store]) -> str:
    """A table, largest first, and the sum."""
    rows = [(store.folder.name, format_bytes(store.size), time.strftime("%Y-%m-%d %H:%M", time.localtime(
        store.last_use)), store.state, str(store.folder.parent), store.belongs_to)
        for store in sorted(stores, key=lambda store: -store.size)]
    total = format_bytes(sum(store.size for store in stores))
    return f"{format_table(_HEADER, rows, left=(0, 2, 3, 4, 5))}\n{total} in all"


def remove_stores(stores: Sequence[Store], names: Sequence[str]) -> int:
    """Remove the stores of these names; the bytes that are free now.

    Raises:
        DataError: there is no such store, or a run is computing it; then nothing is removed.
    """
    by_name = {store.folder.name: store for store in stores}
    for name in names:
        if name not in by_name:
            raise DataError(f"{name}: no such store; the names are in the first column without --remove")
        if by_name[name].state == "being computed":
            raise DataError(f"{by_name[name].folder}: a run is computing this store; stop it first")
    for name in names:
        (by_name[name].folder / META).unlink(missing_ok=True)  # first, so that a store that is half there is not read
        shutil.rmtree(by_name[name].folder)
    return sum(by_name[name].size for name in set(names))


def main(argv: Optional[List[str]] = None) -> None:
    parser = FlagParser(__doc__, "python -m engine.stores")
    parser.add_argument("--below", nargs="+", default=["features", "runs"],
                        help="where to look: folders given as --feature_root, and those of runs with the features of "
                             "their crops (default: features runs)")
    parser.add_argument("--remove", nargs="+", default=[], metavar="STORE", help="names of stores to remove")
    args = parser.parse_args(argv)
    stores = list(find_stores(args.below))
    if args.remove:
        print(f"{format_bytes(remove_stores(stores, args.remove))} are free again")
    else:
        print(list_stores(stores) if stores else f"no store below {' or '.join(args.below)}")


if __name__ == "__main__":
    run_main(main)
