"""The index of a crop folder: every fault of an entry is told apart and named. And how many crops to expect."""
from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from datasets.files import DataError
from models.reso import encode_crop, expected_crops, read_index

FAR = r"area and box are not shares in 0\.\.1"
GOOD = {"file": "a_03", "image_id": "a", "category": 3, "area": 0.05, "box": [0.0, 0.1, 0.2, 1]}


@pytest.mark.parametrize("key, value, fault", [
    ("file", 7, "file '7' is no plain name"), ("file", "../a", r"file '\.\./a' is no plain name"),
    ("image_id", 7, "'7' is no image id"), ("category", "dog", "'dog' is no category"),
    ("category", -1, "'-1' is no category"), ("category", 1.0, r"'1\.0' is no category"),
    ("category", True, "'True' is no category"),
    ("box", None, FAR), ("box", [0, 1, 1], FAR),
    ("box", {"0": 1, "1": 2, "2": 3, "3": 4}, FAR), ("box", [0, 0, 1, 1.5], FAR),
    ("box", [0, 0, 1, True], FAR), ("area", -0.1, FAR), ("area", "0.5", FAR),
    ("extra", 1, r"not the entry of a crop \(file, image_id, category, area, box\)")])
def test_a_fault_of_an_entry_is_named(tmp_path, key: str, value: Any, fault: str):
    (tmp_path / "index.json").write_text(json.dumps([GOOD, {**GOOD, key: value}]))
    with pytest.raises(DataError, match=rf"index\.json: crop 1: {fault}; delete the folder to mine the crops again$"):
        read_index(tmp_path)


def test_a_missing_index_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="Delete the folder to mine the crops again"):
        read_index(tmp_path)


def test_values_at_the_bounds_are_good(tmp_path):
    entry = {**GOOD, "category": 0, "area": 0, "box": [0, 0, 1, 1]}
    (tmp_path / "index.json").write_text(json.dumps([entry]))
    assert read_index(tmp_path)[0]._asdict() == entry


def test_crops_are_jpegs_of_quality_95():
    with Image.open(io.BytesIO(encode_crop(Image.new("RGB", (40, 20)), (0, 0, 0.5, 1), 16))) as crop:
        assert crop.format == "JPEG" and crop.size == (16, 16)
        assert crop.quantization[0][0] == 2  # of 16 at quality 50


def test_crops_an_image_are_interpolated_between_measured_thresholds():
    assert [expected_crops(gamma, 1.0) for gamma in (0.7, 0.8, 0.9, 0.75, 0.2)] == pytest.approx(
        [0.05, 0.19, 0.64, 0.12, 0.02])
    assert expected_crops(0.9, 4.7) == pytest.approx(3.0, abs=0.1), "measured on 3,000 images with so many classes"
