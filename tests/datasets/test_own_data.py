"""A dataset of one's own: the description of it, and making one of a folder of photos."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import pytest
from PIL import Image

from datasets.build import command
from datasets.captions import load_matcher
from datasets.files import DataError
from datasets.names import VOC_COCO_BACKGROUNDS
from datasets.registry import get_dataset
from datasets.split_file import ImageList, read_split_file

GOOD: Dict[str, Any] = {"name": "shop", "classes": ["dog", "theremin"], "backgrounds": ["grass"],
                        "synonyms": {"theremin": ["etherphone"]}, "prompt_words": {"theremin": "theremin instrument"},
                        "train_img_root": "photos", "val_split_file": "lists/test.txt", "unlabelled_test": True}


def describe(folder: Path, **changes: Any) -> Path:
    path = folder / "shop.json"
    path.write_text(json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not None}))
    return path


def test_paths_begin_at_the_description_and_the_rest_has_defaults(tmp_path: Path) -> None:
    spec = get_dataset(str(describe(tmp_path, model_path="../clip.pt")))
    assert spec.train_img_root == spec.val_img_root == str(tmp_path / "photos")
    assert spec.train_split_file == str(tmp_path / "train_cls.txt")
    assert spec.val_split_file == str(tmp_path / "lists/test.txt")
    assert spec.model_path == str(tmp_path.parent / "clip.pt")
    assert spec.categories == ("dog", "theremin", "grass") and spec.title == "shop" and spec.unlabelled_test
    assert spec.prompt_names(("dog", "theremin")) == ["dog", "theremin instrument"]


@pytest.mark.parametrize("changes, message", [
    ({"colour": 1}, "'colour' is no key"), ({"classes": None}, "'classes' is missing"),
    ({"train_img_root": None}, "'train_img_root' is missing"), ({"classes": []}, "'classes' is empty"),
    ({"classes": "dog"}, "no list of names"), ({"classes": ["dog", 3]}, "'3' among 'classes' is no name"),
    ({"classes": ["dog "]}, "no name"), ({"backgrounds": ["Dog"]}, "'dog' is named twice"),
    ({"name": "../up"}, "becomes a folder's"), ({"name": "voc2007"}, "dataset of this repository"),
    ({"title": 3}, "'title' is no text"), ({"unlabelled_test": "yes"}, "write true or false"),
    ({"synonyms": {"cat": ["kitty"]}}, "'cat' in 'synonyms' is none of"),
    ({"synonyms": {"dog": "puppy"}}, "are no list of words"), ({"prompt_words": {"dog": ""}}, "are no text"),
    ({"prompt_words": []}, "'prompt_words' is no object"),
])
def test_a_fault_in_a_description_is_one_line(tmp_path: Path, changes: Dict[str, Any], message: str) -> None:
    path = describe(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        get_dataset(str(path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_what_is_no_description_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    for name, message in ((tmp_path / "no.json", "no such file. Paths begin in"),
                          (tmp_path / "list.json", "no JSON obj"),
                          ("imagenet", "'imagenet' is unknown; choose one of voc2007")):
        with pytest.raises(DataError, match=message):
            get_dataset(str(name))


def test_captions_name_classes_by_shared_concepts_by_their_own_words_and_by_synonyms(tmp_path: Path) -> None:
    matcher = load_matcher(get_dataset(str(describe(tmp_path, classes=["dog", "theremin", "steam engine"]))))
    for caption, named in (("two puppies on the lawn", (0, 3)), ("two theremins", (1,)), ("an etherphone", (1,)),
                           ("steam engines and a steam iron", (2,)), ("a cat", ())):
        assert matcher.name_categories(caption) == named, caption


@pytest.fixture()
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    for name in ("a.jpg", "b.JPG", "c.png", "same.jpg", "same.png", "trip/a.jpg", "trip/d.jpeg", "with space.jpg",
                 ".hidden.jpg", ".thumbnails/x.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (len(name), 90, 30)).save(folder / name, "JPEG" if "jp" in name.lower() else "PNG")
    (folder / "broken.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("not a photo")
    (tmp_path / "words.txt").write_text("dog\ntheremin\nsea\n")
    return folder


IDS = {"a", "b", "c", "same.jpg", "same.png", "trip/a", "trip/d", "with space"}


def build(tmp_path: Path, *flags: object) -> int:
    return command.main(["--photos", str(tmp_path / "my photos"), "--classes", str(tmp_path / "words.txt"), "--name",
                         "shop", "--output_root", str(tmp_path / "out"), *map(str, flags)])


def test_a_folder_becomes_a_dataset_without_labels(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert build(tmp_path, "--test_share", 0.3) == 0
    path = tmp_path / "out/shop/shop.json"
    spec = get_dataset(str(path))
    assert spec.classes == ("dog", "theremin", "sea") and spec.unlabelled_test and path.read_text().endswith("}\n")
    assert spec.backgrounds == tuple(name for name in VOC_COCO_BACKGROUNDS if name != "sea")
    train, test = (read_split_file(path, 3) for path in (spec.train_split_file, spec.val_split_file))
    assert {*train.image_ids, *test.image_ids} == IDS and len(test.image_ids) == 2 and len(train.image_ids) == 6
    images = ImageList(spec.train_img_root, train.image_ids)
    assert all(images.path(row).is_file() for row in range(len(images)))
    printed = capsys.readouterr().out
    assert "with space" not in printed and "broken.jpg" in printed and "1 file other than photos (.txt)" in printed
    assert ".hidden" not in printed and "there will be no mAP" in printed


def test_the_draw_depends_on_the_seed_alone(photos: Path, tmp_path: Path) -> None:
    tests = []
    for seed in (1, 1, 2, 3, 4):
        assert build(tmp_path, "--seed", seed, "--test_share", 0.4) == 0
        tests.append((tmp_path / "out/shop/test_cls.txt").read_text())
        (tmp_path / "out/shop/shop.json").unlink()
    assert tests[0] == tests[1] and len(set(tests)) > 1


def test_test_photos_are_drawn_from_those_with_labels(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('photo;classes\nb.JPG;Dog;sea\nb;theremin\ntrip/a.jpg;"dog"\nc.png\n')
    assert build(tmp_path, "--labels", tmp_path / "labels.csv", "--test_share", 0.7) == 0
    path = tmp_path / "out/shop/shop.json"
    spec = get_dataset(str(path))
    assert not spec.unlabelled_test
    splits = [read_split_file(file, 3) for file in (spec.train_split_file, spec.val_split_file)]
    labels = {image_id: row for split in splits for image_id, row in zip(split.image_ids, split.labels)}
    assert labels == {**{image_id: [] for image_id in IDS}, "b": [0, 1, 2], "trip/a": [0]}
    assert len(splits[1].image_ids) == 2 and set(splits[1].image_ids) < {"b", "c", "trip/a"}
    before = path.read_bytes()
    assert command.main(["--dataset", str(path), "--labels", str(tmp_path / "labels.csv"), "--test_share", "0.99"]) == 0
    assert read_split_file(spec.val_split_file, 3).image_ids == ["b", "c", "trip/a"] and path.read_bytes() == before


@pytest.mark.parametrize("words, message", [
    ("dog\n# animals\n", "words.txt:2: '# animals' is no name"), ("dog\ncat,bird\n", ":2: 'cat,bird' is no name"),
    ("dog\n\nsea\nDog\n", ":4: 'Dog' is there already"), ("\n", "the file is empty"),
    ("dog\tcat\n", "words.txt:1: 'dog\\tcat' is no name; in a file"), ("[\n", ":1: '[' is no name"),
    ('{"classes": ["dog"]}\n', "is no name"), ('"dog"\n', "is no name"),
])
def test_faults_in_a_file_of_names_are_one_line(photos: Path, tmp_path: Path, words: str, message: str,
                                                capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "words.txt").write_text(words)
    assert build(tmp_path) == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_that_captions_cannot_tell_apart_are_noted(photos: Path, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "words.txt").write_text("Dogs\ncat\ndog\n")
    assert build(tmp_path) == 0
    assert "has 'dog' and 'Dogs'; to captions they are one word" in capsys.readouterr().out
    assert get_dataset(str(tmp_path / "out/shop/shop.json")).classes == ("Dogs", "cat", "dog")


def test_a_name_becomes_one_folder(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert build(tmp_path, "--name", "my/2019") == 2
    assert "the name 'my/2019' becomes a folder's" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows, message", [
    ("e.jpg,dog\n", "labels.csv:1: 'e.jpg' is none of the photos"), ("b,cat\n", ":1: 'cat' is none of the 3 classes"),
    ("broken.jpg,dog\n", "broken.jpg: "), ("broken,\n", "or restore it from the original; or remove the row"),
    ("photo,class\n", "labels no photo"), ("b,dog\nd.jpeg,dog\na.jpg,,\nd,4\n", ":4: '4' is none"),
])
def test_faults_in_labels_are_one_line_and_nothing_is_written(photos: Path, tmp_path: Path, rows: str, message: str,
                                                              capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "labels.csv").write_text(rows)
    assert build(tmp_path, "--labels", tmp_path / "labels.csv") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_a_description_is_never_written_over(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert build(tmp_path) == 0 == build(tmp_path) - 2
    assert "make its split files again with --dataset" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--photos", "x"], ["--photos", "x", "--classes", "y", "--download"],
                                   ["--dataset", "voc2007", "--test_share", "0.5"],
                                   ["--dataset", "a.json", "--name", "b"],
                                   ["--dataset", "a.json", "--test_share", "1"]])
def test_flags_that_do_nothing_are_refused(flags: list) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(flags)
    assert caught.value.code == 2
