"""The check of the images before the long work starts."""
from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasets.images import image_transform
from datasets.split_file import ImageList
from engine.features.readable_images import readable
from engine.features.stored_rows import list_digest
from engine.training.provenance import data_facts


def test_the_disk_is_asked_once_for_each_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:03d}" for number in range(40)]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.jpg")
    flags = argparse.Namespace(feature_root=str(tmp_path / "features"), skip_unreadable=False, num_workers=1)
    asked: Counter = Counter()
    stat = os.stat

    def counting(path: Any, *args: Any, **options: Any) -> os.stat_result:
        asked[os.fspath(path)] += 1
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", counting)
    images = readable(names, tmp_path, flags).images.with_transform(image_transform(16))
    data_facts(images)
    part = images.only(names[10:])
    assert part[0][1] == 0 and part.path(0).name == "010.jpg" and len(list_digest(part)) == 64
    assert [asked[str(tmp_path / f"{name}.jpg")] for name in names[1:]] == [1] * 39  # the first tells the layout


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
def test_other_pictures_of_the_same_size_in_bytes_are_other_images(tmp_path: Path, suffix: str) -> None:
    def digest() -> str:
        return list_digest(ImageList(tmp_path, ["a", "b"]))

    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}{suffix}")
    before = digest()
    assert digest() == before
    one, other = (tmp_path / f"{name}{suffix}" for name in "ab")
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)
    assert digest() != before
