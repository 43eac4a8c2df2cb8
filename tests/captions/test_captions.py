"""Caption files, label lists, counts, scores, report, and `caption.py` from the shell."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge

import caption
from datasets import progress
from datasets.captions import filter_captions, load_matcher
from datasets.captions.io import CaptionSet, caption_paths, load_captions
from datasets.captions.label_files import CO_OCCURRENCE_FILE, COUNTS_FILE, LABELS_FILE, SCORES_FILE
from datasets.captions.label_report import adjacency, content_words, measure, strongest_edges
from datasets.captions.labels import CoOccurrence, count_co_occurrence, merge_prompts, read_captions
from datasets.captions.pseudo_labels import load_counts, load_targets
from datasets.captions.scores import (
    NUM_FOLDS,
    RIDGE,
    calibrate,
    confirmation_rate,
    mix,
    score_images,
    support_of_captions,
    vote_matrix,
)
from datasets.files import DataError
from datasets.filter.lexicon import load_lexicon
from datasets.filter.matcher import CategoryMatcher
from datasets.registry import get_dataset
from engine.command_line.captioning_flags import READ_IN_STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
VOC = get_dataset("voc2007")
DOG, PERSON, SOFA, ROOM = (VOC.categories.index(name) for name in ("dog", "person", "sofa", "room"))

CAPTIONS = {
    "000001.": ["a dog", "a puppy on a couch", "a dog", "a dog, a sofa, a room", "a dog", "a room"],
    "000002.": ["a man", "a person", "a man with a dog", "a man", "a man", "a street"],
}
RE_CAPTIONS = {
    "000001.": ["a man"] + ["sofa dog room"] * 5,
    "000002.": ["a dog", "", "no dog", "a dog? Answer: a man", "a man", "excluding man"],
}


def twelve(captions) -> CaptionSet:
    """Six first captions and six re-captions an image."""
    return CaptionSet({image_id: texts[:6] for image_id, texts in captions.items()},
                      {image_id: texts[6:] for image_id, texts in captions.items()})


def write_captions(root: Path, first=CAPTIONS, re_captions=RE_CAPTIONS) -> Path:
    paths = caption_paths(root, "voc2007")
    paths.first.parent.mkdir(parents=True, exist_ok=True)
    paths.first.write_text(first if isinstance(first, str) else json.dumps(first))
    paths.re.write_text(json.dumps(re_captions))
    return root


def test_label_files_have_the_published_layouts_and_known_content(tmp_path):
    assert filter_captions(VOC, write_captions(tmp_path), tmp_path / "out") == 2
    folder = tmp_path / "out" / "voc2007"
    labels = json.loads((folder / LABELS_FILE).read_text())
    assert labels == {
        "000001": [[DOG, PERSON], [DOG, SOFA], [DOG], [DOG, SOFA, ROOM], [DOG], [ROOM]],
        "000002": [[DOG, PERSON], [PERSON], [DOG, PERSON], [PERSON], [PERSON], [VOC.categories.index("street")]],
    }
    counts = json.loads((folder / COUNTS_FILE).read_text())
    assert (counts["dog"], counts["person"], counts["sofa"], counts["cat"]) == (7, 6, 2, 0)
    pairs = json.loads((folder / CO_OCCURRENCE_FILE).read_text())
    assert (pairs["dog"]["sofa"], pairs["sofa"]["dog"], pairs["dog"]["person"], pairs["dog"]["dog"]) == (2, 2, 3, 7)
    scores = json.loads((folder / SCORES_FILE).read_text())
    assert list(scores) == ["000001", "000002"] and {len(row) for row in scores.values()} == {len(VOC.categories)}
    assert scores["000001"][DOG] > scores["000001"][PERSON] > scores["000001"][0] == 0


def test_training_reads_what_the_filter_writes(tmp_path):
    filter_captions(VOC, write_captions(tmp_path), tmp_path)
    for kind in ("scores", "votes", "hard"):
        assert load_targets(tmp_path / "voc2007", ["000002", "000001"], VOC.categories, kind).shape == (2, 44)
    counts, together = load_counts(tmp_path / "voc2007", VOC.categories)
    assert counts[DOG] == 7 and together[DOG, SOFA] == 2


def test_excluded_backgrounds_that_no_first_caption_names_are_echoes():
    matcher = load_matcher(VOC)
    captions = {"1": ["a living room"] * 6 + ["sofa valley person", "a house in the valley"] + [""] * 4,
                "2": ["a valley"] * 6 + ["sofa valley person", "a house in the valley"] + [""] * 4}
    valley = VOC.categories.index("valley")
    read = read_captions(twelve(captions), matcher)
    named = read.names
    assert [valley in names for names in named["1"][6:8]] == [False, False]
    assert [valley in names for names in named["2"][6:8]] == [False, True]
    assert valley in merge_prompts(read)["2"][1]


@pytest.mark.parametrize(("first", "re_captions", "message"), [
    ("{", RE_CAPTIONS, "line 1 is not valid JSON"),
    (3, RE_CAPTIONS, "expected an object"),
    ([], RE_CAPTIONS, "holds no image"),
    ({}, RE_CAPTIONS, "holds no image"),
    ({"a": 3}, RE_CAPTIONS, "image 'a' has a number"),
    ({"a": []}, RE_CAPTIONS, "1 image without a caption, the first is 'a'"),
    ({**CAPTIONS, "000001.": ["a dog"]}, RE_CAPTIONS, "'000001' has 6 re-captions, but 1 caption"),
    ({"a": ["a dog"] * 5 + [None]}, RE_CAPTIONS, "caption 6 of image 'a' is null"),
    ({"a": ["x"] * 6, "a.": ["x"] * 6}, RE_CAPTIONS, "listed twice"),
    ({**CAPTIONS, "000003": ["x"] * 6}, RE_CAPTIONS, "re_captions.json: 1 of 3 images missing from.*'000003'"),
    (CAPTIONS, {**RE_CAPTIONS, "000003": ["x"] * 6}, "voc2007_captions.json: 1 of 3 images missing from"),
])
def test_faults_in_caption_files_name_file_and_image(tmp_path, first, re_captions, message):
    with pytest.raises(DataError, match=message) as error:
        load_captions(write_captions(tmp_path, first if isinstance(first, str) else json.dumps(first), re_captions),
                      "voc2007")
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_missing_captions_say_what_makes_them(tmp_path):
    with pytest.raises(DataError, match="voc2007_captions.json: no such file.*--stage caption"):
        load_captions(tmp_path, "voc2007")


def random_names(images: int, categories: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    present = generator.random((images, categories)) < 0.3
    named = present[:, None, :] & (generator.random((images, 12, categories)) < 0.6)
    return {str(image): [tuple(np.flatnonzero(row)) for row in rows] for image, rows in enumerate(named)}


def test_support_is_a_cross_fitted_ridge_on_the_other_captions():
    names = random_names(40, 3)
    votes = vote_matrix(names.values(), 3)
    generator = np.random.default_rng(1)
    features = sparse.csr_matrix((generator.random((480, 7)) < 0.3).astype(np.float32))
    folds = np.arange(40) % NUM_FOLDS
    support = support_of_captions(features, votes, folds, np.full(40, 12))
    dense_votes = votes.toarray().reshape(40, 12, 3)
    targets = ((dense_votes.sum(1, keepdims=True) - dense_votes) / 11).reshape(480, 3)
    inside = np.repeat(folds == 2, 12)
    ridge = Ridge(alpha=RIDGE, fit_intercept=False).fit(features.toarray()[~inside], targets[~inside])
    per_caption = np.clip(ridge.predict(features.toarray()[inside]), 0, 0.95).reshape(-1, 12, 3)
    expected = 1 - np.prod(1 - per_caption, axis=1) ** (1 / 12)
    assert np.allclose(support[folds == 2], expected, atol=1e-5)


def test_confirmation_and_calibration_have_known_values():
    counts = np.array([[12.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert np.allclose(confirmation_rate(counts, np.full(3, 12)), [(12 * 11 + 3) / (12 * 11 + 6), 3 / (11 + 6)])
    probabilities = calibrate(counts / 12, counts, np.full(3, 12))
    assert ((probabilities >= 0) & (probabilities <= 1)).all() and probabilities[2].max() == 0
    rising = calibrate(np.linspace(0, 1, 50)[:, None], np.full((50, 1), 6.0), np.full(50, 12)).ravel()
    assert (np.diff(rising) > 0).all() and rising[-1] < 1


def test_few_images_fall_back_on_votes_and_many_on_support():
    counts = np.zeros((1000, 2))
    counts[:900, 0], counts[:1, 1] = 6, 6
    mixed = mix(counts, np.ones((1000, 2)), np.full(1000, 12))
    assert mixed[0, 0] > 0.98 and mixed[0, 1] < 0.52


@pytest.mark.parametrize("images", [1, 2, 83])
def test_scores_of_small_sets_are_finite_deterministic_and_follow_the_votes(images):
    matcher = load_matcher(VOC)
    captions = {f"{image:06d}": ["a dog on a sofa", "a man", "a room", "", "a dog", "a cat"] * 2
                for image in range(images)}
    scores = score_images(read_captions(twelve(captions), matcher), len(VOC.categories))
    assert np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1
    assert scores[0, DOG] > scores[0, PERSON] > scores[0, 0]
    assert (scores == score_images(read_captions(twelve(captions), matcher), len(VOC.categories))).all()


def test_words_that_travel_with_a_category_speak_for_it():
    matcher = load_matcher(VOC)
    captions = {}
    for image in range(200):
        text = "a dog with a leash" if image % 2 else "a man with a pen"
        captions[f"{image:06d}"] = [text] * 12
    captions["999999"] = ["a long leash"] * 12
    scores = score_images(read_captions(twelve(captions), matcher), len(VOC.categories))
    assert scores[-1, DOG] > 0.1 > scores[-1, PERSON]


def test_adjacency_and_edges_have_known_values():
    counted = count_co_occurrence({"a": [[0, 1]] * 12 + [[0]] * 4}, 3)
    assert counted == CoOccurrence([16, 12, 0], [[16, 12, 0], [12, 12, 0], [0, 0, 0]])
    assert np.allclose(adjacency(counted), [[1, 1, 0], [0.75, 1, 0], [0, 0, 1]])
    assert [(edge.category, edge.other, edge.probability) for edge in strongest_edges(counted, 2)] == [
        (0, 1, 1.0), (1, 0, 0.75)]


def test_report_measures_like_average_precision_and_lists_unclaimed_words():
    quality = measure(np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.3]]),
                      np.array([[True, False], [False, False], [True, False]]))
    assert quality.mean_ap == pytest.approx(100 * (1 + 2 / 3) / 2) and np.isnan(quality.average_precision[1])
    matcher = CategoryMatcher(load_lexicon(VOC), find_unclaimed=True)
    read = read_captions(twelve({"1": ["a dog and a gizmo near the gizmo"] * 12}), matcher)
    assert content_words(read.unclaimed) == {"gizmo": 12}


def test_shell_filter_report_and_errors(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)  # every bar shows
    flags = ["--dataset", "voc2007", "--caption_root", str(write_captions(tmp_path)), "--output_root",
             str(tmp_path / "out")]
    caption.main([*flags, "--stage", "filter", "--no_scores"])
    assert not (tmp_path / "out" / "voc2007" / SCORES_FILE).exists()
    truth = tmp_path / "truth.txt"
    truth.write_text(f"000001 {DOG} {SOFA}\n000002 {PERSON}\n")
    caption.main([*flags, "--stage", "report", "--truth", str(truth)])
    printed = capsys.readouterr()
    assert "label quality on 2 images" in printed.out and "strongest edges" in printed.out
    assert all(f"{work}: 100%" in printed.err for work in (
        "reading captions", "counting votes", "scoring images", "measuring scores", "measuring votes"))
    assert (tmp_path / "out" / "voc2007" / "adjacency.png").stat().st_size > 1000
    truth.write_text("000009 1\n")
    with pytest.raises(DataError, match="names none of the 2 captioned images"):
        caption.main([*flags, "--stage", "report", "--truth", str(truth)])
    run = subprocess.run([sys.executable, "caption.py", "--dataset", "voc2007", "--caption_root", str(tmp_path / "no")],
                         cwd=REPOSITORY, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith("error: ") and run.stderr.count("\n") == 1


@pytest.mark.parametrize("command, message", [
    ("--stage filter --truth x.txt", "--truth does nothing with --stage filter: it is a flag of report"),
    ("--stage report --device cpu", "--device does nothing with --stage report: it is a flag of caption and merge"),
    ("--stage fetch --output_root x", "--output_root does nothing with --stage fetch"),
    ("--stage caption --no_scores", "--no_scores does nothing with --stage caption"),
    ("--precision fp32", "--precision does nothing with --stage filter"),
])
def test_a_flag_that_the_stage_does_not_read_is_refused(command, message):
    with pytest.raises(DataError, match=message):
        caption.main(["--dataset", "voc2007", "--caption_root", "nowhere", *command.split()])


def test_every_flag_but_those_of_all_stages_says_which_stages_read_it():
    parser = caption.get_args_parser()
    flags = {action.dest for action in parser._actions} - {"help", "quiet"}
    assert flags - {"dataset", "stage", "caption_root"} == set(READ_IN_STAGES)
    assert {stage for stages in READ_IN_STAGES.values() for stage in stages} <= set(caption.STAGES)


def test_labels_and_counts_need_no_heavy_library():
    script = ("import sys, caption; heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules); "
              "assert not heavy, heavy")
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


def quality_of(scores: np.ndarray, ids, truth_files, num_classes: int):
    truth = {}
    for path in truth_files:
        for line in path.read_text().splitlines():
            image_id, *labels = line.split()
            truth[image_id] = [int(label) for label in labels]
    return measure(scores, np.array([np.isin(np.arange(num_classes), truth[image_id]) for image_id in ids]))


@pytest.mark.parametrize(("dataset", "captions", "truth", "votes_map", "scores_map", "scores_f1"), [
    ("voc2007", "caption", ("imageset/voc2007/train_cls.txt", "imageset/voc2007/val_cls.txt"), 85.0, 89.5, 84.0),
    ("coco2014", "coco2014_mini/caption", ("coco2014_mini/train_cls.txt",), 85.0, 88.0, 84.0),
])
def test_quality_on_real_captions(shared_data, dataset, captions, truth, votes_map, scores_map, scores_f1):
    spec = get_dataset(dataset)
    matcher = load_matcher(spec)
    texts = load_captions(shared_data / captions, dataset)
    read = read_captions(texts, matcher)
    votes = np.zeros((len(texts), len(spec.categories)))
    for row, lists in enumerate(merge_prompts(read).values()):
        for named in lists:
            votes[row, named] += 1 / 6
    files = [shared_data / path for path in truth]
    classes = len(spec.classes)
    assert quality_of(votes, texts, files, classes).mean_ap >= votes_map
    scored = quality_of(score_images(read, len(spec.categories)), texts, files, classes)
    assert scored.mean_ap >= scores_map and scored.f1 >= scores_f1
