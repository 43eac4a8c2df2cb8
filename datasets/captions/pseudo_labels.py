"""The caption stage's label files as tensors: training targets and the counts of the caption graph."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch

from datasets.captions.label_files import CO_OCCURRENCE_FILE, COUNTS_FILE, LABELS_FILE, SCORES_FILE, read_copy
from datasets.files import DataError, PathLike, counted, read_json, shorten


def load_targets(label_dir: PathLike, image_ids: Sequence[str], categories: Sequence[str],
                 kind: str = "scores") -> torch.Tensor:
    """Pseudo-labels of the images, in their order.

    Args:
        label_dir: what `caption.py --stage filter` wrote for the dataset.
        image_ids: the training images; entries of other images are passed over.
        categories: the O category names.
        kind: one of `LABEL_KINDS`.

    Returns:
        Float tensor (n, O) in 0..1.

    Raises:
        DataError: a file is missing or not of this layout; images have no entry; an entry is not of O scores, has a
            score outside 0..1 or a category index that is none of the O.
    """
    if kind not in LABEL_KINDS:
        raise ValueError(f"kind {kind!r} is unknown; choose one of {', '.join(LABEL_KINDS)}")
    return torch.from_numpy(LABEL_KINDS[kind](Path(label_dir), image_ids, len(categories)).astype(np.float32))


def load_prompt_labels(label_dir: PathLike, image_ids: Sequence[str],
                       categories: Sequence[str]) -> List[List[List[int]]]:
    """The categories that each caption of the images names: six lists of category indices an image, one a prompt.

    Args:
        label_dir: what `caption.py --stage filter` wrote for the dataset.
        image_ids: the images; entries of other images are passed over.
        categories: the O category names.

    Raises:
        DataError: the file is missing or not of this layout, or images have no entry.
    """
    return _load_lists(Path(label_dir) / LABELS_FILE, image_ids, len(categories))


def load_counts(label_dir: PathLike, categories: Sequence[str]) -> Tuple[torch.Tensor, torch.Tensor]:
    """How often the captions name each category and each pair, over (image, prompt) lists.

    Args:
        label_dir: what `caption.py --stage filter` wrote for the dataset.
        categories: the O category names. A name without an entry counts zero.

    Returns:
        Float tensors: counts (O,) and co-occurrence counts (O, O); `co_occurrence[i, j]` is how often i and j are
        named together.

    Raises:
        DataError: a file is missing or not of this layout, names an unknown category, or holds an impossible count;
            or the two files do not belong together.
    """
    counts_path, pairs_path = Path(label_dir) / COUNTS_FILE, Path(label_dir) / CO_OCCURRENCE_FILE
    index = {name: position for position, name in enumerate(categories)}
    counts = torch.zeros(len(categories))
    for name, count in _read_entries(counts_path).items():
        counts[_category(counts_path, index, name)] = _count(counts_path, name, count)
    co_occurrence = torch.zeros(len(categories), len(categories))
    for name, row in _read_entries(pairs_path).items():
        i = _category(pairs_path, index, name)
        if not isinstance(row, dict):
            raise DataError(f"{pairs_path}: the entry of {shorten(name)} is no object of counts; {_again()}")
        for other, count in row.items():
            co_occurrence[i, _category(pairs_path, index, other)] = _count(pairs_path, f"{name} and {other}", count)
    _check_pairs(pairs_path, categories, counts, co_occurrence)
    return counts, co_occurrence


def _check_pairs(path: Path, categories: Sequence[str], counts: torch.Tensor, co_occurrence: torch.Tensor) -> None:
    """No pair is named more often than either of its two, else P(i given j) would exceed 1."""
    too_many = (co_occurrence > counts) | (co_occurrence > counts[:, None])
    if too_many.any():
        i, j = too_many.nonzero()[0].tolist()
        raise DataError(f"{path}: {categories[i]!r} with {categories[j]!r} counts {co_occurrence[i, j]:.0f}, but in "
                        f"{COUNTS_FILE} they count {counts[i]:.0f} and {counts[j]:.0f}; {_again()}")


def _load_scores(path: Path, image_ids: Sequence[str], num_categories: int) -> np.ndarray:
    scores = _copied_scores(path, image_ids, num_categories)
    if scores is None:
        scores = _parsed_scores(path, image_ids, num_categories)
    in_range = (scores >= 0) & (scores <= 1)  # false for NaN
    if not in_range.all():
        position, category = np.argwhere(~in_range)[0]
        score = f"{scores[position, category]:.4g} for category {category}"
        raise DataError(f"{path}: image {shorten(image_ids[position])} has score {score}, outside 0..1; {_again()}")
    return scores


def _copied_scores(path: Path, image_ids: Sequence[str], num_categories: int) -> Optional[np.ndarray]:
    """From the copy beside the JSON; None where it does not hold them all: the JSON tells what is wrong."""
    copy = read_copy(path)
    if copy is None or copy.scores.shape[1] != num_categories:
        return None
    row_of = {image_id: row for row, image_id in enumerate(copy.image_ids)}
    rows = [row_of.get(image_id, -1) for image_id in image_ids]
    return None if -1 in rows else copy.scores[rows]


def _parsed_scores(path: Path, image_ids: Sequence[str], num_categories: int) -> np.ndarray:
    rows = _select(path, _read_entries(path), image_ids)
    scores = np.empty((len(rows), num_categories), dtype=np.float32)
    for position, (image_id, row) in enumerate(zip(image_ids, rows)):
        if not isinstance(row, list) or len(row) != num_categories:
            found = f"{len(row)} scores" if isinstance(row, list) else "no list of scores"
            raise DataError(f"{path}: image {shorten(image_id)} has {found}, not {num_categories}; the file belongs "
                            f"to other categories, {_again()}")
        try:
            scores[position] = np.array(row, dtype=np.float32)
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{path}: image {shorten(image_id)} has a score that is no number; {_again()}") from None
    return scores


def _load_votes(path: Path, image_ids: Sequence[str], num_categories: int) -> Tuple[np.ndarray, np.ndarray]:
    """How many prompts name each category (n, O), and how many prompts there are (n,)."""
    rows = _load_lists(path, image_ids, num_categories)
    votes = np.zeros((len(rows), num_categories), dtype=np.int32)
    for position, row in enumerate(rows):
        for labels in row:
            votes[position, labels] += 1  # a label that a list names twice counts once
    return votes, np.array([len(row) for row in rows], dtype=np.int32)


def _load_lists(path: Path, image_ids: Sequence[str], num_categories: int) -> List[List[List[int]]]:
    rows = _select(path, _read_entries(path), image_ids)
    for image_id, row in zip(image_ids, rows):
        if not isinstance(row, list) or not row or not all(isinstance(labels, list) for labels in row):
            raise DataError(f"{path}: image {shorten(image_id)} has no list of label lists, one a prompt; {_again()}")
        for labels in row:
            if not all(type(label) is int and 0 <= label < num_categories for label in labels):
                raise DataError(f"{path}: image {shorten(image_id)} has a label that is no category index of 0 to "
                                f"{num_categories - 1}; the file belongs to other categories, {_again()}")
    return rows


def _read_entries(path: Path) -> Dict[str, Any]:
    entries = read_json(path, missing=f"{_again().capitalize()}.")
    if not isinstance(entries, dict):
        raise DataError(f"{path}: no JSON object at the top; {_again()}")
    return entries


def _select(path: Path, entries: Dict[str, Any], image_ids: Sequence[str]) -> List[Any]:
    missing = [image_id for image_id in image_ids if image_id not in entries]
    if missing:
        raise DataError(f"{path}: {len(missing):,} of {counted(len(image_ids), 'image')} without an entry, the first "
                        f"is {shorten(missing[0])}; caption them and {_again()}, or take them out of the split file")
    return [entries[image_id] for image_id in image_ids]


def _category(path: Path, index: Dict[str, int], name: str) -> int:
    if name not in index:
        raise DataError(f"{path}: {shorten(name)} is no category of this dataset; {_again()}")
    return index[name]


def _count(path: Path, what: str, count: Any) -> float:
    if isinstance(count, bool) or not isinstance(count, (int, float)) or not 0 <= count < 2**31:
        raise DataError(f"{path}: the count of {shorten(what)} is {shorten(json.dumps(count))}, no count; {_again()}")
    return count


def _again() -> str:
    return "run `caption.py --stage filter` for the dataset"


def _score_targets(label_dir: Path, image_ids: Sequence[str], num_categories: int) -> np.ndarray:
    """Caption scores, calibrated probabilities."""
    return _load_scores(label_dir / SCORES_FILE, image_ids, num_categories)


def _vote_targets(label_dir: Path, image_ids: Sequence[str], num_categories: int) -> np.ndarray:
    """The share of the prompts whose answers name the category."""
    votes, prompts = _load_votes(label_dir / LABELS_FILE, image_ids, num_categories)
    return votes / prompts[:, None]


def _hard_targets(label_dir: Path, image_ids: Sequence[str], num_categories: int) -> np.ndarray:
    """1 where any prompt's answer names the category, else 0."""
    return _load_votes(label_dir / LABELS_FILE, image_ids, num_categories)[0] > 0


def _captions_of_fused_targets(label_dir: Path, image_ids: Sequence[str], num_categories: int) -> np.ndarray:
    """Caption scores and CLIP together."""
    return _load_scores(label_dir / SCORES_FILE, image_ids, num_categories)  # CLIP joins once the features are there


LABEL_KINDS: Dict[str, Callable[[Path, Sequence[str], int], np.ndarray]] = {
    "scores": _score_targets, "fused": _captions_of_fused_targets, "votes": _vote_targets, "hard": _hard_targets}
"""`--labels`: from (label folder, n image ids, O) to (n, O) targets in 0..1."""
