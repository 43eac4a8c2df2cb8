"""ReSO around the model, on three images whose small objects are known: what is cut out, and what it is trained for."""
from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import List

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from datasets.files import DataError
from datasets.images import read_image
from datasets.split_file import ImageList
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.features.feature_set import FeatureSet
from engine.process.stopwatch import Stopwatch
from engine.training import crops
from engine.training.crops import extend_with_crops, mine_crops
from models.bac_gcn import BACGCN
from models.reso import Region, encode_crop, read_index

CPU = torch.device("cpu")
TARGETS = torch.tensor([[0.5, 0.4, 0.3], [0.9, 0.6, 0.1], [0.0, 0.2, 0.7]])
"""Of images a, b/c and d for two classes and a background."""


class Store:
    """Patches on a 4 x 4 grid. Most point at nothing; of a one points at class 0 and one half-way; of b/c four point at
    class 0 and two at class 1; of d one points at the background."""

    grid = (4, 4)

    def __init__(self) -> None:
        patches = torch.zeros(3, 4, 4, 4)
        patches[..., 3] = 1
        for image, rows, columns, category in ((0, slice(1, 2), slice(1, 2), 0), (1, slice(0, 2), slice(0, 2), 0),
                                               (1, slice(3, 4), slice(1, 3), 1), (2, slice(0, 1), slice(0, 1), 2)):
            patches[image, rows, columns] = F.one_hot(torch.tensor(category), 4).float()
        patches[0, 1, 2] = torch.tensor([0.6, 0.0, 0.0, 0.8])
        self.packed = {"patch_embeddings": patches.flatten(1, 2), "global_embeddings": torch.zeros(3, 3, 4)}

    def __len__(self) -> int:
        return 3

    def read(self, rows, pinned=False):
        return {name: values[torch.as_tensor(rows)] for name, values in self.packed.items()}


@pytest.fixture
def images(tmp_path) -> ImageList:
    """Images of 80 x 40 pixels, black but for a red patch (3, 1) to (3, 2) in b/c."""
    (tmp_path / "b").mkdir()
    for image_id in ("a", "b/c", "d"):
        image = Image.new("RGB", (80, 40))
        if image_id == "b/c":
            image.paste((255, 0, 0), (20, 30, 60, 40))
        image.save(tmp_path / f"{image_id}.png")
    return ImageList(tmp_path, ["a", "b/c", "d"], lambda image: image)


def flags(*given: object) -> argparse.Namespace:
    return parse_args(get_args_parser("voc2007", None), [
        "--gamma", "0.7", "--epsilon", "0.2", "--crop_min_side", "0", "--num_workers", "0", "--batch_size", "2",
        "--no_feature_store", *map(str, given)])


class Encoder:
    """In place of the frozen encoder, of which the side of its input is asked."""

    resolution = 32


def mine(images: ImageList, folder: Path, *given: object) -> List[crops.Crop]:
    return mine_crops(BACGCN(torch.eye(3, 4), 1), Store(), images, TARGETS, 2, Encoder(), flags(*given), CPU, folder)


@pytest.mark.parametrize("given, names", [
    ([], ["a_00", "c_01"]),  # b/c's class 0 is large, and d's background is no class
    (["--epsilon", 0.3], ["a_00", "c_00", "c_01"]),
    (["--epsilon", 0.1], ["a_00"]),
    (["--positive_threshold", 0.55], ["c_01"]),
    (["--positive_threshold", 0.4, "--epsilon", 1], ["a_00", "c_00", "c_01"]),  # a has no patch of class 1
])
def test_small_positive_classes_are_cut_out(images, tmp_path, given, names):
    folder = tmp_path / "crops"
    folder.mkdir()
    found = mine(images, folder, *given)
    assert [crop.file for crop in found] == [f"000/{number:04d}_{name}" for number, name in enumerate(names)]
    assert read_index(folder) == found
    assert {path.relative_to(folder) for path in folder.rglob("*.jpg")} == {Path(f"{crop.file}.jpg") for crop in found}


def test_boxes_follow_gamma_and_the_least_side(images, tmp_path):
    (tmp_path / "crops").mkdir()
    first = mine(images, tmp_path / "crops")
    assert first[0] == crops.Crop("000/0000_a_00", "a", 0, 1 / 16, [0.25, 0.25, 0.5, 0.5])
    assert first[1] == crops.Crop("000/0001_c_01", "b/c", 1, 2 / 16, [0.25, 0.75, 0.75, 1.0])
    assert mine(images, tmp_path / "crops", "--gamma", 0.5)[0].box == [0.25, 0.25, 0.75, 0.5]
    assert mine(images, tmp_path / "crops", "--crop_min_side", 0.5)[0].box == [0.125, 0.125, 0.625, 0.625]
    with Image.open(tmp_path / "crops" / "000" / "0001_c_01.jpg") as crop:
        assert crop.size == (32, 32) and crop.getpixel((16, 16))[0] > 240
    with Image.open(tmp_path / "crops" / "000" / "0000_a_00.jpg") as crop:
        assert crop.getpixel((16, 16))[0] < 15


@pytest.mark.parametrize("labels, first, second", [
    ("category", [0.5, 0.0, 0.3], [0.0, 0.6, 0.1]), ("image", [0.5, 0.4, 0.3], [0.9, 0.6, 0.1]),
    ("ignore", [0.5, 0.4, 0.3], [math.nan, 0.6, 0.1])])
def test_crops_join_the_training_set_with_the_targets_of_their_own_image(images, tmp_path, monkeypatch, capsys, labels,
                                                                         first, second):
    stored = {}

    def extract(encoder, crop_images, what, args, root):
        assert root == tmp_path / "crops" / "features"
        stored[what] = crop_images
        return list(crop_images.image_ids)

    mined = []
    monkeypatch.setattr(crops, "extract_features", extract)
    monkeypatch.setattr(crops, "mine_crops", lambda *given: mined.append(given) or mine_crops(*given))
    (tmp_path / "crops").mkdir()
    data = FeatureSet([Store()], TARGETS, images.image_ids)
    for _ in range(2):  # the second time the crops are there
        watch = Stopwatch()
        extended = extend_with_crops(BACGCN(torch.eye(3, 4), 1), data, images, Encoder(), 2, tmp_path / "crops",
                                     flags("--crop_labels", labels), CPU, watch)
        assert extended.image_ids == ["a", "b/c", "d", "000/0000_a_00", "000/0001_c_01"]
        assert extended.stores == [data.stores[0], ["000/0000_a_00", "000/0001_c_01"]]
        assert stored["crops"].path(0) == tmp_path / "crops" / "000" / "0000_a_00.jpg"
        assert stored["crops"].transform is images.transform
        with watch.part("training"):
            assert torch.equal(extended.targets[:3], TARGETS)
        assert {"mining_seconds", "encoding_seconds"} < set(watch.timing(1))
        torch.testing.assert_close(extended.targets[3:], torch.tensor([first, second]), equal_nan=True)
        assert "ReSO: 2 small regions in 2 of 3 images" in capsys.readouterr().out
    assert len(mined) == 1


def test_crops_are_bounded_by_a_draw_of_the_seed_in_their_order():
    regions = [Region(image, 0, 0.1, (0.0, 0.0, 0.5, 0.5)) for image in range(10)]
    for seed in (0, 3):
        picked = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:4].sort().values.tolist()
        assert [region.image for region in crops.draw(regions, 4, seed)] == picked
    assert crops.draw(regions, None, 0) == crops.draw(regions, 10, 0) == crops.draw(regions, 11, 0) == regions


@pytest.mark.parametrize("given, looked_at, count", [([], 2, 3), ([], 3, 2), (["--max_crops", 1], 2, 1)])
def test_room_is_for_the_crops_of_all_images_their_pictures_and_features(images, tmp_path, monkeypatch, capsys, given,
                                                                         looked_at, count):
    """Two regions in a sample of two images are three crops of three images."""
    regions = [Region(0, 0, 0.1, (0.0, 0.0, 0.5, 0.5)), Region(1, 1, 0.1, (0.0, 0.0, 1.0, 1.0))]
    sizes = [len(encode_crop(read_image(images.path(region.image)), region.box, 32)) for region in regions]
    monkeypatch.setattr(crops, "image_bytes", lambda encoder, args: 1000 + encoder.resolution)
    needed = count * sum(sizes) // 2 + count * 1032
    folder = tmp_path / "not" / "yet"
    for free in (needed, needed - 1):
        monkeypatch.setattr(crops.shutil, "disk_usage", lambda path, free=free: argparse.Namespace(free=free))
        if free == needed:
            crops.check_room(regions, looked_at, images, Encoder(), folder, flags(*given))
            assert f"about {count} crop" in capsys.readouterr().out
        else:
            with pytest.raises(DataError, match="--max_crops"):
                crops.check_room(regions, looked_at, images, Encoder(), folder, flags(*given))
    crops.check_room([], 3, images, Encoder(), folder, flags())  # without any no picture is needed


@pytest.mark.parametrize("crop", [
    crops.Crop("000/0000_z_00", "z", 0, 0.1, [0.0, 0.0, 0.5, 0.5]),
    crops.Crop("000/0000_a_02", "a", 2, 0.1, [0.0, 0.0, 0.5, 0.5])])
def test_crops_of_other_images_or_of_backgrounds_are_refused(images, tmp_path, monkeypatch, crop):
    monkeypatch.setattr(crops, "mine_crops", lambda *_: [crop])
    with pytest.raises(DataError, match="crops of other images or classes"):
        extend_with_crops(BACGCN(torch.eye(3, 4), 1), FeatureSet([Store()], TARGETS, images.image_ids), images,
                          Encoder(), 2, tmp_path, flags(), CPU, Stopwatch())


def test_other_labels_of_a_crop_are_unknown_from_the_threshold_of_positives_on(images, tmp_path, monkeypatch):
    asked, encoder, args = [], Encoder(), flags("--crop_labels", "ignore", "--positive_threshold", 0.4)
    crop = crops.Crop("000/0000_a_00", "a", 0, 0.1, [0.0, 0.0, 0.5, 0.5])
    (tmp_path / "000").mkdir()
    (tmp_path / "000" / "0000_a_00.jpg").touch()
    monkeypatch.setattr(crops, "mine_crops", lambda *_: [crop])
    monkeypatch.setattr(crops, "extract_features", lambda *given: asked.append(given) or ["a crop"])
    extended = extend_with_crops(BACGCN(torch.eye(3, 4), 1), FeatureSet([Store()], TARGETS, images.image_ids), images,
                                 encoder, 2, tmp_path, args, CPU, Stopwatch())
    torch.testing.assert_close(extended.targets[3:], torch.tensor([[0.5, math.nan, 0.3]]), equal_nan=True)
    assert asked[0][0] is encoder and asked[0][3] is args


def test_without_small_regions_the_set_stays_as_it_is(images, tmp_path):
    (tmp_path / "crops").mkdir()
    data = FeatureSet([Store()], TARGETS, images.image_ids)
    assert extend_with_crops(BACGCN(torch.eye(3, 4), 1), data, images, Encoder(), 2, tmp_path / "crops",
                             flags("--epsilon", 0.01), CPU, Stopwatch()) is data
