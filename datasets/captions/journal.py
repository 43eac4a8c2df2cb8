"""The journal of a captioning run: what is finished is on disk, and a killed run goes on from there.

One JSON object a line. The first line holds the settings of the run, every further one a finished batch. Lines are
only ever appended, each with one write that is synchronised to disk; a line that a kill cut short does not count.
"""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Set, Tuple

from datasets.captions.io import Captions
from datasets.files import DataError, make_folder, shorten

Settings = Dict[str, Any]
"""Whatever decides about the captions, by name; JSON values."""


class Batch(NamedTuple):
    """The outcome of one batch of images."""

    captions: Captions
    re_captions: Captions
    unreadable: Dict[str, str]
    """Image id to the reason why the image could not be read."""


class Journal:
    """The journal at `path`, made if there is none, open for more batches.

    Raises:
        DataError: the journal that is there belongs to a run with other settings, or is damaged.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.captioned: Set[str] = set()
        """Ids of the images whose captions are in the journal."""
        make_folder(path.parent)
        self._file = path.open("ab")
        size = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(size)
        if size == 0:
            self._write(settings)
            return
        before, batches = read_journal(path)
        check_settings(path, before, settings)
        for batch in batches:
            self.captioned.update(batch.captions)

    def append(self, batch: Batch) -> None:
        """Put a finished batch on disk."""
        self._write(batch._asdict())
        self.captioned.update(batch.captions)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, record: Dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            error.filename = str(self.path)  # for the message: the disk is full
            raise


def read_journal(path: Path) -> Tuple[Settings, List[Batch]]:
    """The settings of a run and its finished batches, in the order in which they were finished.

    Raises:
        DataError: there is no journal, or a line is damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such journal; run this shard with `python caption.py --stage caption`, "
                        "or copy its journal here")
    *lines, _unfinished = path.read_bytes().split(b"\n")
    records = [_parse(f"{path}:{number}", line) for number, line in enumerate(lines, 1)]
    if not records:
        raise DataError(f"{path}: the journal is empty; run this shard again")
    settings, *batches = records
    for number, batch in enumerate(batches, 2):
        if batch.keys() != set(Batch._fields) or not all(isinstance(field, dict) for field in batch.values()):
            raise _damaged(f"{path}:{number}")
    return settings, [Batch(**batch) for batch in batches]


def check_settings(path: Path, before: Settings, now: Settings) -> None:
    """Make sure that the journal at `path` was written with the settings that hold now.

    Raises:
        DataError: a setting differs; names it with both values.
    """
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise DataError(f"{path}: made with {name} {shorten(str(before.get(name)))}, not "
                            f"{shorten(str(now.get(name)))}; use the same settings or another --caption_root")


def _parse(where: str, line: bytes) -> Dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        raise _damaged(where) from None
    if not isinstance(record, dict):
        raise _damaged(where)
    return record


def _damaged(where: str) -> DataError:
    return DataError(f"{where}: damaged line in the journal of a captioning run; remove the line, and its images "
                     "are captioned again, or the whole file")
