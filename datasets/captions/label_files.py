"""The files of a dataset's pseudo-labels, in `<output_root>/<dataset>/` (layouts of the authors' filter script)."""
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Sequence, Tuple

from datasets.captions.labels import CoOccurrence, LabelDictionary
from datasets.files import PathLike, atomic_write

if TYPE_CHECKING:
    import numpy as np

LABELS_FILE = "train_label_dictionary.json"
SCORES_FILE = "train_label_scores.json"
COUNTS_FILE = "train_count_dict.json"
CO_OCCURRENCE_FILE = "train_co_occurrence_counts.json"


def write_labels(folder: PathLike, labels: LabelDictionary) -> None:
    """Write `{image_id: [[category indices] x6]}`."""
    _write_entries(Path(folder) / LABELS_FILE, ((image_id, json.dumps(lists)) for image_id, lists in labels.items()))


def write_scores(folder: PathLike, image_ids: Iterable[str], scores: np.ndarray) -> None:
    """Write `{image_id: [O scores]}`, with four digits: more would claim more than captions can tell."""
    row_format = "[" + ", ".join(["%.4g"] * scores.shape[1]) + "]"
    _write_entries(Path(folder) / SCORES_FILE,
                   ((image_id, row_format % tuple(row.tolist())) for image_id, row in zip(image_ids, scores)))


def write_counts(folder: PathLike, counted: CoOccurrence, categories: Sequence[str]) -> None:
    """Write `{name: count}` and `{name: {name: count}}` with every category in both, counted or not."""
    _write_entries(Path(folder) / COUNTS_FILE, _rows(zip(categories, counted.counts)))
    _write_entries(Path(folder) / CO_OCCURRENCE_FILE,
                   _rows((name, dict(zip(categories, row))) for name, row in zip(categories, counted.together)))


def _rows(entries: Iterable[Tuple[str, object]]) -> Iterable[Tuple[str, str]]:
    return ((name, json.dumps(value)) for name, value in entries)


def _write_entries(path: Path, entries: Iterable[Tuple[str, str]]) -> None:
    """Write a JSON object with an entry a line, without ever holding its text."""
    with atomic_write(path) as file:
        separator = "{\n"
        for key, value in entries:
            file.write(f"{separator}{json.dumps(key, ensure_ascii=False)}: {value}")
            separator = ",\n"
        file.write("\n}\n")
