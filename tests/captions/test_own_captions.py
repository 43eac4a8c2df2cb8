"""Captions from any captioner, classes of the user's own, and one caption an image."""
from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from datasets.captions import filter_captions, load_matcher
from datasets.captions.io import CaptionSet, find_captions, load_captions, load_dataset_captions
from datasets.captions.label_files import COUNTS_FILE, LABELS_FILE, SCORES_FILE
from datasets.captions.label_report import content_words, telling_words
from datasets.captions.labels import merge_prompts, read_captions, unnamed_classes
from datasets.captions.own_files import image_id_of, read_any_captions
from datasets.captions.pseudo_labels import load_counts, load_targets
from datasets.captions.scores import score_images
from datasets.files import DataError
from datasets.filter.lexicon import load_lexicon
from datasets.filter.matcher import CategoryMatcher
from datasets.registry import get_dataset
from datasets.split_file import read_split_file
from engine.training.training_labels import load_pseudo_labels

OWN = replace(get_dataset("voc2007"), name="own", backgrounds=("sky",),
              classes=("Quokka", "fire pit", "lamp", "Motorbike", "cars", "narwhal"),
              synonyms={"Quokka": ["setonix"], "lamp": ["@clock"]})

WANTED = {"beach/a": ["a quokka", "two quokkas"], "b": ["a lamp"]}


def own_folder(root: Path, content: str, suffix: str, kind: str = "captions") -> Path:
    path = root / "own" / f"own_{kind}{suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(("suffix", "content"), [
    (".json", '{"beach/a": ["a quokka", "two quokkas"], "b.": "a lamp"}'),
    (".json", '[{"file_name": "beach/a.jpg", "captions": ["a quokka", "two quokkas"]}, '
              '{"image": "b", "text": "a lamp"}]'),
    (".jsonl", '{"image": "beach/a.JPEG", "caption": "a quokka"}\n\n{"image": "b.png", "caption": ["a lamp"]}\n'
               '{"image": "beach/a.JPEG", "caption": "two quokkas"}\n'),
    (".csv", "image,caption\nbeach\\a.jpg,a quokka\nbeach\\a.jpg,two quokkas\nb,a lamp\n"),
    (".csv", '\ufeffFile_Name;Caption1;caption_2\r\nbeach/a.jpg;"a quokka";two quokkas\r\n./b.jpg;a lamp;\r\n'),
])
def test_all_layouts_read_the_same(tmp_path, suffix, content):
    own_folder(tmp_path, content, suffix)
    assert dict(load_captions(tmp_path, "own")) == WANTED
    assert find_captions(tmp_path, "own").suffix == suffix


@pytest.mark.parametrize(("suffix", "content", "message"), [
    (".json", "{}", "holds no image"),
    (".json", '{"a": []}', "1 image without a caption, the first is 'a'"),
    (".json", '{"a": ["x", 3]}', "caption 2 of image 'a' is a number"),
    (".json", '{"a": "x", "a.jpg": "y"}', "listed twice, as 'a' and as 'a.jpg'"),
    (".jsonl", '{"image": "a", "caption": "x"}\n{"image"', ":2: not valid JSON"),
    (".jsonl", "[1]", ":1: expected an object"),
    (".jsonl", '{"picture": "a", "caption": "x"}', ":1: has none of image_id, image,"),
    (".jsonl", '{"image": ["a"], "caption": "x"}', "the image is a list"),
    (".csv", "image,comment\na,x\n", "has none of captions, caption, text"),
    (".csv", "image,caption\n,x\n", ":2: names no image"),
    (".csv", "image,caption\na,x, y\n", ":2: has more cells than the header"),
    (".csv", "image,caption\nb,x\na,\n", ":3: 1 image without a caption"),
    (".csv", 'image,caption\na,"x\n', "cannot be read as CSV"),
])
def test_faults_are_one_line_that_names_the_place(tmp_path, suffix, content, message):
    path = own_folder(tmp_path, content, suffix)
    with pytest.raises(DataError, match=message) as error:
        read_any_captions(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_two_formats_and_uneven_re_captions_are_refused(tmp_path):
    own_folder(tmp_path, '{"a": "x"}', ".json")
    own_folder(tmp_path, '{"a": ["y", "z"]}', ".json", "re_captions")
    with pytest.raises(DataError, match="'a' has 2 re-captions, but 1 caption"):
        load_captions(tmp_path, "own")
    own_folder(tmp_path, "image,caption\na,x\n", ".csv")
    with pytest.raises(DataError, match="own_captions.csv is there as well"):
        load_captions(tmp_path, "own")


def test_six_captions_of_the_code_s_own_layout_need_their_re_captions(tmp_path):
    six = json.dumps({"a": ["x"] * 6})
    own_folder(tmp_path, six, ".json")
    assert not load_captions(tmp_path, "own").has_re_captions
    own_folder(tmp_path, "", ".shard0of1.jsonl")
    with pytest.raises(DataError, match="own_re_captions.json: no such file"):
        load_captions(tmp_path, "own")
    (tmp_path / "coco2014").mkdir()
    (tmp_path / "coco2014" / "coco2014_captions.json").write_text(six)
    with pytest.raises(DataError, match="coco2014_re_captions.json: no such file"):
        load_captions(tmp_path, "coco2014")
    (tmp_path / "coco2014" / "coco2014_captions.json").write_text('{"a": ["x"]}')
    assert load_captions(tmp_path, "coco2014").num_first("a") == 1


def test_image_ids():
    assert [image_id_of(name) for name in ("000012.", "x/y.JPG", ".\\x\\y.tiff", "photo.v2", "42")] == [
        "000012", "x/y", "x/y", "photo.v2", "42"]


def test_photos_that_differ_in_the_suffix_alone_are_two(tmp_path, monkeypatch, capsys):
    """Where the split files have ids with a suffix, captions have them too; the filter tells what does not fit."""
    (tmp_path / "own.json").write_text(json.dumps({"classes": ["quokka", "lamp"], "train_img_root": "photos"}))
    (tmp_path / "train_cls.txt").write_text("a.jpg\na.png\n\"the b\"\nc\n")
    (tmp_path / "test_cls.txt").write_text("d\n")
    own_folder(tmp_path, "photo,caption\n" + "".join(
        f"{photo},a lamp\n" for photo in ("a.jpg", "a.png", "the b.jpg", "e.jpg", "d")), ".csv")
    spec = get_dataset(str(tmp_path / "own.json"))
    assert list(load_dataset_captions(tmp_path, spec)) == ["a.jpg", "a.png", "the b", "e", "d"]
    assert filter_captions(spec, tmp_path, tmp_path) == 5
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("warning"))
    assert "1 of 4 training images without a caption, the first is 'c'" in first
    assert "1 captioned images are in neither split file, the first is 'e'" in second


def test_images_with_empty_captions_are_told(tmp_path, capsys):
    (tmp_path / "own.json").write_text(json.dumps({"classes": ["quokka", "lamp"], "train_img_root": "photos"}))
    (tmp_path / "train_cls.txt").write_text("a\nb\nc\n")
    (tmp_path / "test_cls.txt").write_text("d\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "own_captions.json").write_text(json.dumps(
        {"a": ["a lamp", ""], "b": ["", " "], "c": ["a quokka"], "d": [""]}))
    assert filter_captions(get_dataset(str(tmp_path / "own.json")), tmp_path, tmp_path) == 4
    warning, = (line for line in capsys.readouterr().out.splitlines() if line.startswith("warning"))
    assert "the captions of 1 of 3 training images are empty, the first is 'b'" in warning


def test_any_number_of_captions_becomes_lists_counts_and_scores(tmp_path):
    captions = {"a": ["a quokka by a lamp", "a quokka"], "b": ["the sky"], "c": ["a setonix"] * 3}
    own_folder(tmp_path, json.dumps(captions), ".json")
    assert filter_captions(OWN, tmp_path, tmp_path) == 3
    assert json.loads((tmp_path / "own" / LABELS_FILE).read_text()) == {"a": [[0, 2], [0]], "b": [[6]], "c": [[0]] * 3}
    assert json.loads((tmp_path / "own" / COUNTS_FILE).read_text())["Quokka"] == 5
    counts, together = load_counts(tmp_path / "own", OWN.categories)
    assert together[2, 0] / counts[0] == 0.2
    assert load_targets(tmp_path / "own", ["a"], OWN.categories, "votes")[0].tolist() == [1, 0, 0.5, 0, 0, 0, 0]
    scores = json.loads((tmp_path / "own" / SCORES_FILE).read_text())
    assert scores["a"][0] > scores["a"][2] > scores["a"][1] == 0 and scores["b"][6] > 0.5


@pytest.mark.parametrize(("caption", "expected"), [
    ("two quokkas and a setonix", {"Quokka"}),
    ("fire-pits in a firepit shop", {"fire pit"}),
    ("a table lamp and a lamp", {"lamp"}),
    ("a grandfather clock", {"lamp"}),
    ("motorcycles", {"Motorbike"}),
    ("an automobile under the clouds", {"cars"}),
    ("a toy quokka", set()),
    ("no quokka", set()),
    ("a quokka statue", set()),
])
def test_own_classes_work_by_their_names_plurals_and_compounds(caption, expected):
    named = load_matcher(OWN).name_categories(caption)
    assert {OWN.categories[index] for index in named} == expected


def test_a_class_that_no_caption_names_is_said(tmp_path, capsys):
    own_folder(tmp_path, '{"a": "a quokka", "b": "a lamp, a fire pit, a car and a motorcycle"}', ".json")
    filter_captions(OWN, tmp_path, tmp_path, scores=False)
    assert "no caption names narwhal: nothing can be learned about it" in capsys.readouterr().out
    assert unnamed_classes(("a", "b"), [1, 2, 0]) == ""


def test_single_captions_score_what_they_name_at_least_half_and_learn_from_words():
    captions = {f"{image:04d}": ["a quokka with a gizmo" if image % 2 else "a car on a plain"] for image in range(200)}
    captions["gizmo"] = ["a gizmo"]
    read = read_captions(CaptionSet(captions), load_matcher(OWN))
    scores = score_images(read, len(OWN.categories))
    assert (scores[1:200:2, 0] >= 0.5).all() and scores[1:200:2, 4].max() < 0.1
    assert 0.1 < scores[-1, 0] < 0.5 and scores[-1, 4] < 0.1
    assert merge_prompts(read)["gizmo"] == [()]


def test_scores_are_calibrated_by_how_often_captions_confirm_each_other():
    texts = ["a quokka"] * 4 + ["nothing"] * 8
    captions = {f"{image:04d}": texts if image % 2 else ["a car"] * 12 for image in range(200)}
    scores = score_images(read_captions(CaptionSet(captions), load_matcher(OWN)), len(OWN.categories))
    assert scores[1, 0] > 0.8 and scores[0, 4] > 0.8 and scores[0, 0] < 0.1  # four of twelve, but always four


def test_the_graph_keeps_its_direction_from_captions_to_training(tmp_path):
    own_folder(tmp_path, json.dumps({"a": ["a quokka by a lamp", "a quokka", "a quokka", "a quokka"]}), ".json")
    filter_captions(OWN, tmp_path, tmp_path)
    args = argparse.Namespace(caption_root=tmp_path, output_dir=tmp_path, labels="votes")
    graph = load_pseudo_labels(args, OWN, ["a"], OWN.categories).graph
    quokka, lamp = 0, 2
    assert graph[lamp, quokka] == 0.25 and graph[quokka, lamp] == 1  # P(lamp given quokka), P(quokka given lamp)


def test_the_report_finds_words_to_add():
    captions = {str(image): ["a quokka, also called a furball, on a plain", "a car on a plain"] for image in range(30)}
    matcher = CategoryMatcher(load_lexicon(OWN), find_unclaimed=True)
    read = read_captions(CaptionSet(captions), matcher)
    assert "furball" in telling_words(read.companions[0], content_words(read.unclaimed), 2)
    assert "furball" not in read.companions[4]


@pytest.mark.parametrize(("count", "least"), [(1, 81.0), (2, 85.0)])
def test_few_captions_still_rank_real_images(shared_data, count, least):
    """Votes alone: 72.8 and 77.1 mAP on VOC2007."""
    spec = get_dataset("voc2007")
    texts = load_captions(shared_data / "caption", "voc2007")
    read = read_captions(CaptionSet({image_id: answers[:count] for image_id, answers in texts.items()}),
                         load_matcher(spec))
    scores = score_images(read, len(spec.categories))
    truth = {image_id: labels for part in ("train", "val") for image_id, labels in zip(
        *read_split_file(shared_data / f"imageset/voc2007/{part}_cls.txt", 20)[:2])}
    positive = np.array([np.isin(np.arange(20), truth[image_id]) for image_id in texts])
    precision = [average_precision_score(positive[:, index], scores[:, index]) for index in range(20)]
    assert 100 * np.mean(precision) >= least
