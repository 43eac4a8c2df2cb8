"""Mining ReSO's crops: how many, where they go, and what the disk has to take."""
from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import List

import pytest
import torch

import clip
from datasets.files import DataError
from datasets.split_file import ImageList, read_image_ids
from engine.training import crops
from engine.training.crops import mine_crops
from models.encoder import CLIPEncoder
from models.reso import Crop
from tests.engine.features.test_features import numbered_store

IMAGES = 20


def one_peak(patches: torch.Tensor) -> SimpleNamespace:
    """Stands for the kernel: a small region of class 0 in every image."""
    maps = torch.zeros(len(patches), 2, patches.shape[1])
    maps[:, 0, 3] = 1
    return SimpleNamespace(maps=maps)


@pytest.fixture
def mine(tiny_world, tmp_path):
    encoder = CLIPEncoder(clip.load(str(tiny_world.path("--model_path")))[0])
    images = ImageList(tiny_world.path("--train_img_root"), read_image_ids(tiny_world.path("--train_split_file")))
    store = numbered_store(tmp_path / "store", list(range(IMAGES)))

    def run(**flags) -> List[Crop]:
        args = argparse.Namespace(**{
            "batch_size": 8, "positive_threshold": 0.5, "gamma": 0.7, "epsilon": 0.4, "crop_min_side": 0.3, "seed": 0,
            "max_crops": None, "no_feature_store": False, "patch_dtype": "fp16", "num_workers": 2, **flags})
        return mine_crops(SimpleNamespace(kernel=one_peak), store, images, torch.ones(IMAGES, 2), 1, encoder, args,
                          torch.device("cpu"), tmp_path / "crops")

    return run


def pictures(folder: Path) -> List[str]:
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.jpg"))


def test_crops_are_projected_and_go_into_folders_of_bounded_size(mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(crops, "FOLDER_CROPS", 8)
    mined = mine()
    assert [crop.image_id for crop in mined] == [f"train_{row:03d}" for row in range(IMAGES)]
    assert mined[0].file == "000/0000_train_000_00" and pictures(tmp_path / "crops") == [crop.file for crop in mined]
    assert [len(list((tmp_path / "crops" / name).iterdir())) for name in ("000", "001", "002")] == [8, 8, 4]
    assert "about 20 crops, 1 an image in a sample of 20: " in capsys.readouterr().out


def test_a_bound_draws_crops_from_all_images(mine, tmp_path):
    mined = mine(max_crops=7)
    rows = [int(crop.image_id[-3:]) for crop in mined]
    assert len(rows) == 7 and rows == sorted(rows) and rows[-1] > 9, "not the first ones"
    assert len(pictures(tmp_path / "crops")) == 7
    shutil.rmtree(tmp_path / "crops")
    assert mine(max_crops=7) == mined


def test_a_disk_without_room_is_refused_before_the_first_crop(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=20_000))
    with pytest.raises(DataError, match=r"crops need about .* kB, 20 kB are free; make room, or .*--max_crops N"):
        mine()
    assert not pictures(tmp_path / "crops")
    assert len(mine(max_crops=3)) == 3


def test_crops_wait_for_the_disk_once_and_cut_ones_are_made_again(mine, tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "sync"):
        monkeypatch.setattr(os, name, lambda *args, name=name: calls.append(name))
    first, second, third = mine()[:3]
    assert calls == ["sync", "fsync"], "of all crops, then of the index"
    paths = [tmp_path / "crops" / f"{crop.file}.jpg" for crop in (first, second, third)]
    whole = paths[1].read_bytes()
    paths[0].write_bytes(b"")
    paths[1].write_bytes(whole[:-100])  # as after a power cut
    before = paths[2].stat().st_mtime_ns
    mine()
    assert paths[0].stat().st_size and paths[1].read_bytes() == whole and paths[2].stat().st_mtime_ns == before
