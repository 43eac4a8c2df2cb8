"""What is known of photos already: a tagging run that is stopped goes on from there.

One JSON object a line. The first line says what the entries depend on besides the photos; each further one has a photo
and what the files say of it. A line that a kill cut short, or that is damaged, does not count: its photo is scored
again.
"""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from datasets.files import PathLike, make_folder


class TagJournal:
    """The journal at `path`, made if there is none; what depends on other settings is dropped.

    Args:
        path: the file.
        settings: what the entries depend on, as JSON values.
    """

    def __init__(self, path: PathLike, settings: Dict[str, Any]) -> None:
        self.path = Path(path)
        self.dropped = False
        """Whether there were entries of other settings."""
        self._offsets: Dict[str, int] = {}
        make_folder(self.path.parent)
        self._file = self.path.open("a+b")
        self._file.seek(0)
        if _parse(self._file.readline()) == settings:
            self._read()
        else:
            self.dropped = os.path.getsize(self.path) > 0
            self._file.truncate(0)
            self._write(settings)

    def __contains__(self, photo: object) -> bool:
        return photo in self._offsets

    def add(self, photo: str, entries: Sequence[str]) -> None:
        """Put what the files say of a photo on record."""
        offset = self._file.seek(0, os.SEEK_END)
        self._write({"photo": photo, "stamp": stamp(photo), "entries": list(entries)})
        self._offsets[photo] = offset

    def entries(self, photos: Sequence[str], file: int) -> Iterator[str]:
        """What the file of that number says of the photos, in their order; those that are not here are passed over."""
        for photo in photos:
            if photo in self._offsets:
                self._file.seek(self._offsets[photo])
                yield json.loads(self._file.readline())["entries"][file]

    def close(self, remove: bool) -> None:
        """Close the file, and remove it where it has done its duty."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        offset, line = self._file.tell(), b"\n"
        for line in self._file:
            record = _parse(line)
            if set(record) == {"photo", "stamp", "entries"} and record["stamp"] == stamp(record["photo"]):
                self._offsets[record["photo"]] = offset
            offset += len(line)
        if not line.endswith(b"\n"):
            self._file.write(b"\n")

    def _write(self, record: Dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            error.filename = str(self.path)  # for the message: the disk is full
            raise


def stamp(path: PathLike) -> Optional[List[int]]:
    """What changes when a file is edited or another takes its name; None where it is gone."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _parse(line: bytes) -> Dict[str, Any]:
    """A line's object; empty where it is damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
