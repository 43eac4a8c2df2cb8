"""The files of a dataset's pseudo-labels, in `<output_root>/<dataset>/` (layouts of the authors' filter script)."""
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from datasets.captions.labels import CoOccurrence, LabelDictionary
from datasets.files import PathLike, atomic_write

if TYPE_CHECKING:
    import numpy as np

LABELS_FILE = "train_label_dictionary.json"
SCORES_FILE = "train_label_scores.json"
COUNTS_FILE = "train_count_dict.json"
CO_OCCURRENCE_FILE = "train_co_occurrence_counts.json"


class StoredScores(NamedTuple):
    """The content of a score file."""

    image_ids: List[str]
    scores: np.ndarray
    """(n, O) float32, to the last bit what the JSON says."""


def write_labels(folder: PathLike, labels: LabelDictionary) -> None:
    """Write `{image_id: [[category indices] x6]}`."""
    _write_entries(Path(folder) / LABELS_FILE, ((image_id, json.dumps(lists)) for image_id, lists in labels.items()))


def write_scores(folder: PathLike, image_ids: Iterable[str], scores: np.ndarray) -> None:
    """Write `{image_id: [O scores]}`, with four digits: more would claim more than captions can tell; and a copy of it
    for `read_copy`, from which a training of NUS-WIDE starts in a tenth of the time and memory."""
    import numpy as np

    path, ids = Path(folder) / SCORES_FILE, list(image_ids)
    row_format = "[" + ", ".join(["%.4g"] * scores.shape[1]) + "]"
    written = np.empty_like(scores, dtype=np.float32)

    def entries() -> Iterator[Tuple[str, str]]:
        for number, (image_id, row) in enumerate(zip(ids, scores)):
            text = row_format % tuple(row.tolist())
            written[number] = json.loads(text)
            yield image_id, text

    _write_entries(path, entries())
    with atomic_write(_copy_of(path), "wb") as file:
        np.savez(file, image_ids=np.array(ids), scores=written, json_sha256=np.array(_digest(path)))


def read_copy(path: Path) -> Optional[StoredScores]:
    """The copy that was written beside the score file `path`; None where there is none that can be read, or where the
    JSON is another one by now, by its SHA-256. A copy holds plain arrays, nothing that is executed."""
    import numpy as np

    try:
        with np.load(_copy_of(path), allow_pickle=False) as copy:
            if str(copy["json_sha256"]) != _digest(path):
                return None
            image_ids, scores = copy["image_ids"], copy["scores"]
    except Exception:  # a damaged archive fails in many ways, and the JSON has it all
        return None
    if scores.ndim != 2 or scores.dtype != np.float32 or image_ids.shape != scores.shape[:1]:
        return None
    return StoredScores(list(map(str, image_ids.tolist())), scores)


def _copy_of(path: Path) -> Path:
    return path.with_suffix(".npz")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


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
