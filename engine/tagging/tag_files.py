"""Tags as CSV and JSON, a photo at a time: however many there are, they are never all in memory."""
from __future__ import annotations

import csv
import json
from contextlib import contextmanager
from typing import Callable, Iterator, List

from datasets.files import PathLike, atomic_write
from engine.tagging.photo_files import printable
from engine.tagging.tagged_photo import TaggedPhoto, TagRun

AddPhoto = Callable[[TaggedPhoto], object]
"""Writes one more photo."""

DIGITS = 6
"""Of scores in files."""


def _scores(photo: TaggedPhoto, run: TagRun) -> List[float]:
    return [round(score, DIGITS) for score in photo.result.scores[:run.num_classes].tolist()]


@contextmanager
def csv_file(path: PathLike, run: TagRun) -> Iterator[AddPhoto]:
    """A table with the columns photo, tags (joined by "; ", highest score first), and the score of each class."""
    with atomic_write(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["photo", "tags", *run.classes])

        def add(photo: TaggedPhoto) -> None:
            tags = "; ".join(run.classes[tag] for tag in photo.tags)
            rows.writerow([printable(photo.path), tags, *_scores(photo, run)])

        yield add


@contextmanager
def json_file(path: PathLike, run: TagRun) -> Iterator[AddPhoto]:
    """An object with the run's `method`, `tags_are` and `classes`, its `photos`, one a line, and its `unreadable` ones.

    A photo has `photo`, `tags` (highest score first) and `scores` (class to score).
    """
    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    with atomic_write(path) as file:
        file.write(f'{{"method": {text(run.title)},\n "tags_are": {text(run.rule)},\n "classes": '
                   f'{text(run.classes)},\n "photos": [')
        between = "\n  "

        def add(photo: TaggedPhoto) -> None:
            nonlocal between
            file.write(between + text({"photo": printable(photo.path), "tags": [run.classes[tag] for tag in photo.tags],
                                       "scores": dict(zip(run.classes, _scores(photo, run)))}))
            between = ",\n  "

        yield add
        unreadable = [{"photo": printable(path), "reason": reason} for path, reason in run.unreadable]
        file.write(f'],\n "unreadable": {text(unreadable)}}}\n')
