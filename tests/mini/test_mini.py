"""The mini world: scenes, simulated captions, and the data tree."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.files import DataError
from datasets.registry import get_dataset
from datasets.split_file import ImageList, read_split_file
from mini import render as build
from mini.backdrops import BACKDROPS
from mini.drawing import Drawing, noise_tile
from mini.objects import OBJECTS, draw_object
from mini.render import MiniPaths, build_mini
from mini.scenes import MAX_SIZE, MIN_SIZE, Scene, SceneObject, render_scene, scene_rng
from mini.simulated_captioner import NOUNS, SCENERY, describe, look_at

SPEC = get_dataset("mini")
SCENES = [render_scene(0, "train", index) for index in range(60)]


def test_the_parts_speak_of_the_same_classes_and_backgrounds() -> None:
    assert tuple(sorted(OBJECTS)) == tuple(sorted(NOUNS)) == SPEC.classes
    assert tuple(sorted(SCENERY)) == SPEC.backgrounds
    assert {name for backdrop in BACKDROPS.values() for name in backdrop.homes} == set(SPEC.classes)


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    again = render_scene(0, "train", 41)  # out of order, after others
    assert np.array_equal(again.pixels, SCENES[41].pixels)
    assert again.objects == SCENES[41].objects
    for other in (render_scene(1, "train", 41), render_scene(0, "test", 41), render_scene(0, "train", 42)):
        assert other.pixels.shape != again.pixels.shape or not np.array_equal(other.pixels, again.pixels)


def test_scenes_hold_one_to_five_objects_of_the_promised_sizes_at_home() -> None:
    for scene in SCENES:
        assert 1 <= len(scene.objects) <= 5
        assert set(scene.backgrounds) <= set(SPEC.backgrounds) and scene.backgrounds
        height, width = scene.pixels.shape[:2]
        for item in scene.objects:
            assert item.size <= MAX_SIZE + 0.01
            assert 0.25 <= item.visible <= 1
            assert item.box[0] < width and item.box[1] < height and item.box[2] > 0 and item.box[3] > 0
            assert item.name in BACKDROPS[scene.setting].homes or item.name == "person"
    sizes = [item.size for scene in SCENES for item in scene.objects]
    assert min(sizes) < 0.12 and max(sizes) > 0.5
    assert min(sizes) > 0.3 * MIN_SIZE  # a rider is smaller than the horse and rider of 8%


def test_the_box_of_an_object_is_where_it_is_painted() -> None:
    drawing = Drawing()
    drawing.part = "square"
    drawing.box(-0.5, 0, 0.5, 1, (255, 0, 0))
    drawing.part = "stroke"
    drawing.line([(-1, 2), (1, 2)], 0.2, (0, 0, 255))
    sprite, (origin_x, origin_y), boxes = drawing.rasterise(20)
    assert boxes["square"] == pytest.approx((10 + 2, 22, 30 + 2, 42), abs=2.1)
    ys, xs = np.nonzero((sprite[..., 0] > 200) & (sprite[..., 3] > 200))
    x0, y0, x1, y1 = boxes["square"]
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == pytest.approx((x0, y0, x1, y1), abs=1.01)
    assert origin_y == pytest.approx(y1) and origin_x == pytest.approx((x0 + x1) / 2)


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_every_class_varies_and_has_a_silhouette_of_its_own(name: str) -> None:
    shapes = set()
    for seed in range(8):
        x0, y0, x1, y1 = draw_object(name, np.random.default_rng(seed)).bounds()
        shapes.add((round(x1 - x0, 3), round(y1 - y0, 3)))
        assert y1 - y0 > 0.3 and -1.5 < y0 < 0.1
    pictures = [draw_object(name, np.random.default_rng(seed)).rasterise(40)[0] for seed in (0, 1)]
    assert len(shapes) > 1 or pictures[0].shape != pictures[1].shape or not np.array_equal(*pictures)


def test_noise_has_no_seams() -> None:
    tile = noise_tile()
    inner = np.abs(np.diff(tile, axis=0)).mean()
    assert np.abs(tile[0] - tile[-1]).mean() < 2 * inner
    assert np.abs(tile[:, 0] - tile[:, -1]).mean() < 2 * inner


def scene_of(*objects: tuple) -> Scene:
    items = tuple(SceneObject(name, (0.0, 0.0, 1.0, 1.0), size, 1.0) for name, size in objects)
    return Scene(np.zeros((1, 1, 3), np.uint8), "park", ("grass", "tree"), items)


def test_the_captioner_sees_prominent_objects_and_misses_small_ones() -> None:
    scene = scene_of(("dog", 0.5), ("kite", 0.09))
    seen = Counter(s.name for i in range(400) for s in look_at(scene, np.random.default_rng(i)))
    assert seen["dog"] > 360
    assert 40 < seen["kite"] < 240
    absent = {name: count for name, count in seen.items() if name not in ("dog", "kite")}
    assert 20 < sum(absent.values()) < 200  # invented, or taken for something else


def test_captions_are_six_and_six_english_texts_from_a_stream_of_their_own() -> None:
    scene = SCENES[3]
    first, second = (describe(scene, scene_rng(0, "train", 3, purpose=1)) for _ in range(2))
    assert first == second
    assert len(first.captions) == len(first.re_captions) == 6
    for text in (*first.captions, *first.re_captions):
        assert text and text == text.lower() and text.isascii()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> MiniPaths:
    return build_mini(tmp_path_factory.mktemp("world"), seed=3, num_train=24, num_test=10, workers=2)


def tree(paths: MiniPaths) -> dict:
    root = paths.caption_root.parent
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_data_tree_does_not_depend_on_the_number_of_workers(world: MiniPaths, tmp_path: Path) -> None:
    assert tree(build_mini(tmp_path, seed=3, num_train=24, num_test=10, workers=1)) == tree(world)


def test_the_data_tree_is_read_by_the_readers_of_the_other_datasets(world: MiniPaths) -> None:
    captions = json.loads((world.caption_root / "mini" / "mini_captions.json").read_text())
    re_captions = json.loads((world.caption_root / "mini" / "mini_re_captions.json").read_text())
    boxes = json.loads(world.boxes.read_text())
    train = read_split_file(world.train_split_file, len(SPEC.classes))
    test = read_split_file(world.val_split_file, len(SPEC.classes))
    assert len(train.image_ids) == 24 and len(test.image_ids) == 10
    assert list(captions) == list(re_captions) == train.image_ids
    for split, img_root in ((train, world.train_img_root), (test, world.val_img_root)):
        images = ImageList(img_root, split.image_ids, np.asarray)
        for index, (image_id, labels) in enumerate(zip(split.image_ids, split.labels)):
            assert sorted({item["class"] for item in boxes[image_id]["objects"]}) == [SPEC.classes[i] for i in labels]
            assert images[index][0].shape == (boxes[image_id]["height"], boxes[image_id]["width"], 3)
    scene = render_scene(3, "train", 0)
    picture = np.asarray(Image.open(world.train_img_root / "train_000000.jpg")).astype(int)
    assert np.abs(picture - scene.pixels).mean() < 4  # JPEG


def test_a_finished_world_is_not_built_again_and_another_one_replaces_it(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    paths = build_mini(tmp_path, seed=0, num_train=3, num_test=2)
    with monkeypatch.context() as patch:
        patch.setattr(build, "write_scene", None)
        build_mini(tmp_path, seed=0, num_train=3, num_test=2)
    build_mini(tmp_path, seed=0, num_train=2, num_test=1)
    assert sorted(path.name for path in paths.train_img_root.iterdir()) == ["train_000000.jpg", "train_000001.jpg"]


def test_a_build_that_was_stopped_is_not_taken_for_a_finished_one(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    finished = build_mini(tmp_path / "whole", seed=0, num_train=3, num_test=2)

    def stop(task: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "write_scene", stop)
        with pytest.raises(KeyboardInterrupt):
            build_mini(tmp_path / "stopped", seed=0, num_train=3, num_test=2)
    stopped = build_mini(tmp_path / "stopped", seed=0, num_train=3, num_test=2)
    assert tree(stopped) == tree(finished)


@pytest.mark.parametrize("arguments", [{"num_train": 0}, {"workers": 0}, {"seed": -1}])
def test_impossible_worlds_are_refused_in_one_line(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(DataError, match="mini world of"):
        build_mini(tmp_path, **arguments)
    assert not any(tmp_path.iterdir())


def test_the_command_line_reports_what_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(DataError, match=f"{tmp_path}/data is a file, not a folder; choose another folder$"):
        build.main(["--root", str(tmp_path), "--num_train", "1", "--num_test", "1"])
