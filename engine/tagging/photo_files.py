"""The photos that `--image` names."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

from datasets.files import DataError, PathLike
from engine.command_line.photo_flags import PHOTO_SUFFIXES


def find_photos(places: Sequence[PathLike]) -> List[str]:
    """The photos among `places` and in the folders among them, at any depth; each once.

    Files that are named count whatever their extension. In folders, hidden files and folders are passed over, and
    links to folders are not followed. A folder's photos come in the order of their names.

    Raises:
        DataError: a place is not there, or a folder has no photo.
    """
    found: Dict[str, None] = {}  # a set that keeps the order
    for place in places:
        place = os.fspath(place)
        if os.path.isdir(place):
            inside = sorted(_photos_in(place))
            if not inside:
                raise DataError(f"{place}: no photo in this folder or below it; photos end in "
                                f"{', '.join(PHOTO_SUFFIXES)}")
            found.update(dict.fromkeys(inside))
        elif os.path.exists(place):
            found[os.path.normpath(place)] = None
        else:
            raise DataError(f"{place}: no such image or folder")
    return list(found)


def _photos_in(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in PHOTO_SUFFIXES and not name.startswith("."):
                yield os.path.normpath(os.path.join(parent, name))


def printable(path: str) -> str:
    """A path as text that any file can hold: names that are not UTF-8 get replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")
