"""The caption stage's label files: read as they were meant, refused where they cannot be right."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Tuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from datasets.captions import pseudo_labels
from datasets.captions.label_files import write_scores
from datasets.captions.pseudo_labels import (
    CO_OCCURRENCE_FILE,
    COUNTS_FILE,
    LABEL_KINDS,
    LABELS_FILE,
    SCORES_FILE,
    load_counts,
    load_targets,
)
from datasets.files import DataError
from datasets.registry import get_dataset
from datasets.split_file import read_split_file

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CATEGORIES = ("cat", "dog", "sky")
LISTS = {"a": [[0], [0, 0], [1, 0], [], [], [2]], "b": [[1]] * 6, "c": [[], [], [], [], [], []]}
IDS = [f"image {number} å" for number in range(5)]
SCORES = {"a": [0, 0.25, 1], "b": [0.5, 0.5, 0.5], "extra": [1, 1, 1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels")


def put(folder: Path, name: str, content: Any) -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def refused(call: Any, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        call()
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and "caption.py --stage filter" in message
    assert len(message) < 500
    return message


def test_votes_and_hard_targets(tmp_path: Path) -> None:
    put(tmp_path, LABELS_FILE, LISTS)
    votes = load_targets(tmp_path, ["b", "a", "c"], CATEGORIES, "votes")
    assert votes.dtype == torch.float32
    assert torch.equal(votes * 6, torch.tensor([[0., 6, 0], [3, 1, 1], [0, 0, 0]]))
    assert load_targets(tmp_path, ["a", "b"], CATEGORIES, "hard").tolist() == [[1, 1, 1], [0, 1, 0]]


def test_scores_come_in_the_order_of_the_images(tmp_path: Path) -> None:
    put(tmp_path, SCORES_FILE, SCORES)
    assert load_targets(tmp_path, ["b", "a"], CATEGORIES, "scores").tolist() == [[0.5, 0.5, 0.5], [0, 0.25, 1]]
    with pytest.raises(ValueError, match="scores, fused, votes, hard"):
        load_targets(tmp_path, ["a"], CATEGORIES, "soft")


@pytest.fixture
def written(tmp_path: Path) -> Tuple[Path, torch.Tensor]:
    """A folder with a score file and its copy, and what the JSON alone says."""
    scores = np.random.default_rng(0).random((5, 3)).astype(np.float32) * [1, 1e-5, 1]
    write_scores(tmp_path, IDS, scores)
    copy = tmp_path / SCORES_FILE.replace(".json", ".npz")
    hidden = copy.rename(tmp_path / "hidden")
    expected = load_targets(tmp_path, IDS, CATEGORIES)
    hidden.rename(copy)
    return tmp_path, expected


def test_the_copy_of_a_score_file_says_the_same(written: Tuple[Path, torch.Tensor], monkeypatch: Any) -> None:
    folder, expected = written
    monkeypatch.setattr(pseudo_labels, "read_json", pytest.fail)
    assert torch.equal(load_targets(folder, IDS, CATEGORIES), expected)
    assert torch.equal(load_targets(folder, IDS[::-1][:3], CATEGORIES), expected.flip(0)[:3])


def test_a_changed_score_file_is_read_itself(written: Tuple[Path, torch.Tensor]) -> None:
    folder, expected = written
    path, state = folder / SCORES_FILE, (folder / SCORES_FILE).stat()
    before = f"{expected[0, 0]:.4g}"
    after = before[:-1] + str((int(before[-1]) + 1) % 10)
    path.write_text(path.read_text().replace(before, after))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert load_targets(folder, IDS, CATEGORIES)[0, 0] == np.float32(after)
    path.unlink()
    assert "no such file" in refused(lambda: load_targets(folder, IDS, CATEGORIES), path)


def test_a_copy_that_lacks_something_leaves_it_to_the_json(written: Tuple[Path, torch.Tensor]) -> None:
    folder, _ = written
    assert "'z'" in refused(lambda: load_targets(folder, ["z"], CATEGORIES), folder / SCORES_FILE)
    assert "other categories" in refused(lambda: load_targets(folder, IDS, CATEGORIES[:2]), folder / SCORES_FILE)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "pickled", "transposed"])
def test_a_damaged_copy_is_passed_over(written: Tuple[Path, torch.Tensor], damage: str) -> None:
    folder, expected = written
    copy = folder / SCORES_FILE.replace(".json", ".npz")
    content = bytearray(copy.read_bytes())
    place = content.index(expected.numpy().tobytes())
    content[place] ^= 1
    copy.write_bytes({"empty": b"", "cut": content[:-100], "flipped": content}.get(damage, copy.read_bytes()))
    if damage in ("pickled", "transposed"):
        arrays = dict(np.load(copy))
        arrays["scores"] = arrays["scores"].T if damage == "transposed" else arrays["scores"].astype(object)
        np.savez(copy, **arrays)
    assert torch.equal(load_targets(folder, IDS, CATEGORIES), expected)


def test_images_without_an_entry_are_counted_and_named(tmp_path: Path) -> None:
    put(put(tmp_path, LABELS_FILE, LISTS), SCORES_FILE, SCORES)
    for kind, name in (("votes", LABELS_FILE), ("scores", SCORES_FILE)):
        def load(kind: str = kind) -> Any:
            return load_targets(tmp_path, ["a", "x", "y", "b"], CATEGORIES, kind)
        assert "2 of 4 images without an entry, the first is 'x'" in refused(load, tmp_path / name)


@pytest.mark.parametrize(("row", "words"), [
    ([0.1, 0.2], "2 scores, not 3"), ([0.1] * 4, "4 scores"), (None, "no list"),
    ({"cat": 1}, "no list"), ("abc", "no list"),
    ([0, "x", 1], "no number"), ([0, [1], 1], "no number"), ([0, None, 1], "score"), ([0, 10**400, 1], "no number"),
    ([0, 1.01, 0], "score 1.01"), ([0, -0.1, 0], "outside 0..1"), ([0, float("nan"), 0], "score nan for category 1"),
    ([0, float("inf"), 0], "score inf"),
])
def test_impossible_scores_are_refused(tmp_path: Path, row: Any, words: str) -> None:
    put(tmp_path, SCORES_FILE, {"a": [0, 0, 0], "b": row})
    assert words in refused(lambda: load_targets(tmp_path, ["a", "b"], CATEGORIES), tmp_path / SCORES_FILE)


@pytest.mark.parametrize("row", [[[3]], [[-1]], [["0"]], [[0.0]], [[True]], [0], [], None, {"0": []}, [[0], None]])
def test_impossible_labels_are_refused(tmp_path: Path, row: Any) -> None:
    put(tmp_path, LABELS_FILE, {"a": row})
    assert "'a'" in refused(lambda: load_targets(tmp_path, ["a"], CATEGORIES, "votes"), tmp_path / LABELS_FILE)


def test_counts(tmp_path: Path) -> None:
    put(tmp_path, COUNTS_FILE, {"sky": 10, "cat": 4})
    put(tmp_path, CO_OCCURRENCE_FILE, {"sky": {"cat": 3}, "cat": {"sky": 3, "dog": 0}})
    counts, pairs = load_counts(tmp_path, CATEGORIES)
    assert counts.tolist() == [4, 0, 10] and pairs.tolist() == [[0, 0, 3], [0, 0, 0], [3, 0, 0]]


@pytest.mark.parametrize(("counts", "pairs", "name", "words"), [
    ({"zebra": 1}, {}, COUNTS_FILE, "'zebra' is no category"), ([], {}, COUNTS_FILE, "no JSON object"),
    ({"cat": -1}, {}, COUNTS_FILE, "'-1'"), ({"cat": "many"}, {}, COUNTS_FILE, "no count"),
    ({"cat": True}, {}, COUNTS_FILE, "no count"), ({"cat": float("inf")}, {}, COUNTS_FILE, "Infinity"),
    ({"cat": 10**400}, {}, COUNTS_FILE, "no count"),
    ({}, {"cat": {"zebra": 1}}, CO_OCCURRENCE_FILE, "'zebra'"), ({}, {"cat": 3}, CO_OCCURRENCE_FILE, "no object"),
    ({"cat": 2, "dog": 9}, {"cat": {"dog": 3}}, CO_OCCURRENCE_FILE, "'cat' with 'dog' counts 3"),
    ({"cat": 9, "dog": 2}, {"cat": {"dog": 3}}, CO_OCCURRENCE_FILE, "9 and 2"),
])
def test_impossible_counts_are_refused(tmp_path: Path, counts: Any, pairs: Any, name: str, words: str) -> None:
    put(put(tmp_path, COUNTS_FILE, counts), CO_OCCURRENCE_FILE, pairs)
    assert words in refused(lambda: load_counts(tmp_path, CATEGORIES), tmp_path / name)


def test_missing_files_say_what_makes_them(tmp_path: Path) -> None:
    for kind, name in (("scores", SCORES_FILE), ("votes", LABELS_FILE), ("hard", LABELS_FILE)):
        refused(lambda kind=kind: load_targets(tmp_path, ["a"], CATEGORIES, kind), tmp_path / name)
    refused(lambda: load_counts(tmp_path, CATEGORIES), tmp_path / COUNTS_FILE)


KEY = st.sampled_from(["a", "b", *CATEGORIES])
JSON = st.recursive(st.none() | st.booleans() | st.integers(-2, 4) | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEY, inner), max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(JSON | st.dictionaries(st.sampled_from(["a", *CATEGORIES]), JSON, min_size=1))
def test_nothing_but_data_errors_comes_out(folder: Path, content: Any) -> None:
    for name in (LABELS_FILE, SCORES_FILE, COUNTS_FILE, CO_OCCURRENCE_FILE):
        put(folder, name, content)
    for kind in LABEL_KINDS:
        try:
            targets = load_targets(folder, ["a"], CATEGORIES, kind)
            assert targets.shape == (1, 3) and ((targets >= 0) & (targets <= 1)).all()
        except DataError as error:
            assert "\n" not in str(error)
    try:
        counts, pairs = load_counts(folder, CATEGORIES)
        assert torch.isfinite(counts).all() and (pairs <= counts).all()
    except DataError as error:
        assert "\n" not in str(error)


def test_a_large_file_is_read_as_it_is(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((5_000, 104)).round(4)
    put(tmp_path, SCORES_FILE, {f"image{row}": values for row, values in enumerate(scores.tolist())})
    order = generator.permutation(5_000)
    targets = load_targets(tmp_path, [f"image{row}" for row in order], [str(column) for column in range(104)])
    assert np.array_equal(targets.numpy(), scores[order].astype(np.float32))


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")
def test_votes_of_the_published_labels_score_what_was_measured(tmp_path: Path) -> None:
    """method: mAP 73.60 on VOC2007 trainval for what the authors' published filter makes of their captions."""
    put(tmp_path, LABELS_FILE, (SHARED / "caption/voc2007/reference_label_dictionary.json").read_text())
    splits = [read_split_file(SHARED / f"imageset/voc2007/{name}_cls.txt", 20) for name in ("train", "val")]
    image_ids = [image_id for split in splits for image_id in split.image_ids]
    truth = torch.cat([split.targets(20) for split in splits])
    votes = load_targets(tmp_path, image_ids, get_dataset("voc2007").categories, "votes")[:, :20]
    precision = [average_precision_score(truth[:, column], votes[:, column]) for column in range(20)]
    assert round(100 * float(np.mean(precision)), 2) == 73.60
