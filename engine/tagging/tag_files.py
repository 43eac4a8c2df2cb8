"""Tags as CSV and JSON. A file is a head, an entry a photo, and a foot: the photos are never all in memory."""
from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Callable, Iterable, List

from datasets.files import PathLike, atomic_write
from engine.tagging.photo_files import printable
from engine.tagging.tagged_photo import TaggedPhoto, TagRun

DIGITS = 6
"""Of scores in files."""


@dataclass(frozen=True)
class TagFile:
    """A file of tags that is to be written."""

    path: str
    head: str
    entry: Callable[[TaggedPhoto], str]
    """What the file says of a photo."""
    foot: Callable[[], str]
    """The end, once all photos are known."""
    between: str = ""
    """Stands between two entries."""

    def write(self, entries: Iterable[str]) -> None:
        """Write the file at once: a reader sees all of it or nothing."""
        with atomic_write(self.path) as file:
            file.write(self.head)
            for number, entry in enumerate(entries):
                file.write(self.between * bool(number) + entry)
            file.write(self.foot())


def _scores(photo: TaggedPhoto, run: TagRun) -> List[float]:
    return [round(score, DIGITS) for score in photo.result.scores[:run.num_classes].tolist()]


def _csv_row(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def csv_file(path: PathLike, run: TagRun) -> TagFile:
    """A table with the columns photo, tags (joined by "; ", highest score first), and the score of each class."""
    def entry(photo: TaggedPhoto) -> str:
        tags = "; ".join(run.classes[tag] for tag in photo.tags)
        return _csv_row([printable(photo.path), tags, *_scores(photo, run)])

    return TagFile(str(path), _csv_row(["photo", "tags", *run.classes]), entry, foot=str)


def json_file(path: PathLike, run: TagRun) -> TagFile:
    """An object with the run's `method`, `tags_are` and `classes`, its `photos`, one a line, and its `unreadable` ones.

    A photo has `photo`, `tags` (highest score first) and `scores` (class to score).
    """
    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    def entry(photo: TaggedPhoto) -> str:
        return "\n  " + text({"photo": printable(photo.path), "tags": [run.classes[tag] for tag in photo.tags],
                              "scores": dict(zip(run.classes, _scores(photo, run)))})

    def foot() -> str:
        unreadable = [{"photo": printable(path), "reason": reason} for path, reason in run.unreadable]
        return f'],\n "unreadable": {text(unreadable)}}}\n'

    head = (f'{{"method": {text(run.title)},\n "tags_are": {text(run.rule)},\n "classes": '
            f'{text(run.classes)},\n "photos": [')
    return TagFile(str(path), head, entry, foot, between=",")
