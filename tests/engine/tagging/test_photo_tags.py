"""eval.py --image: photos are found, scored as in an evaluation, and written a photo at a time."""
from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import plotting
from datasets.files import DataError
from engine.evaluation.scores_file import load_scores
from engine.process.signals import Stopped
from engine.tagging.photo_files import find_photos
from engine.tagging.scorers import GlobalScorer
from engine.tagging.tagged_photo import tags_of
from engine.tagging.vocabulary import read_words
from tests.conftest import TinyWorld
from tests.engine.training.test_training import log, run_script, train

WORDS = ("dog", "red car", "snow")


@pytest.fixture(scope="module")
def run_folder(tiny_world, tmp_path_factory) -> Path:
    return train(tiny_world, tmp_path_factory.mktemp("runs") / "run", "--epochs", "1", "--no_reso", "--mask_mode",
                 "token")


@pytest.fixture
def album(tmp_path) -> Path:
    """Twelve photos in two folders, and things that are no photos."""
    folder = tmp_path / "album"
    (folder / "deep" / ".hidden").mkdir(parents=True)
    for number in range(12):
        place = folder / "deep" / f"{number}.JPG" if number % 2 else folder / f"{number}.png"
        Image.new("RGB", (40 + 8 * (number % 3), 40), (20 * number, 90, 200)).save(place)
    for name in ("notes.txt", ".7.jpg", "deep/.hidden/8.jpg"):
        shutil.copy(folder / "0.png", folder / name)
    return folder


def tag(world: TinyWorld, *flags) -> None:
    """Tag with the tiny CLIP and no training."""
    run_script("eval", "--model_path", world.path("--model_path"), "--num_workers", "0", "--device", "cpu", *flags)


# ---- photos and words ----------------------------------------------------------------------------------------------

def test_photos_are_found_at_any_depth(album):
    found = find_photos([album / "notes.txt", album, str(album / "deep") + "/"])
    assert found[0] == str(album / "notes.txt"), "a file that is named counts"
    assert sorted(found[1:]) == sorted(str(path) for path in album.rglob("[0-9]*") if ".hidden" not in path.parts)
    (album / "empty").mkdir()
    for place, message in ((album / "empty", "no photo in this folder"), (album / "gone", "no such image or folder")):
        with pytest.raises(DataError, match=message):
            find_photos([place])


def test_words_come_from_the_command_line_or_a_file(tmp_path):
    (tmp_path / "words.txt").write_text("dog\n\nred   car\n")
    assert read_words([str(tmp_path / "words.txt")]) == read_words(["dog", "red car"]) == ["dog", "red car"]
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match="the file is empty"):
        read_words([str(tmp_path / "empty.txt")])
    for content in ("photo,classes\nbeach.jpg,dog\n", "dog\tcat\nsea\n", '[\n"dog",\n"cat"\n]\n', '"dog"\n"cat"\n'):
        (tmp_path / "table.csv").write_text(content)
        with pytest.raises(DataError, match="table.csv:1: .* is no name; in a file stands a name a line"):
            read_words([str(tmp_path / "table.csv")])
    (tmp_path / "one.txt").write_text("dog\n")
    with pytest.raises(DataError, match="one.txt: one word, 'dog', leaves nothing to choose from; give at least two"):
        read_words([str(tmp_path / "one.txt")])
    for words in (["dog"], ["dog", "cat", "dog"], ["dog", " "], ["dog,", "cat"]):
        with pytest.raises(DataError, match="--words"):
            read_words(words)


def test_tags_go_by_the_threshold_or_the_midpoint():
    scores = torch.tensor([0.5, 0.2, 0.75, 0.1])
    assert tags_of(scores, 0.5).tolist() == [True, False, True, False]
    assert tags_of(scores, None).tolist() == [True, False, True, False]
    assert tags_of(torch.tensor([0.1, 0.2, 0.4]), 0.5).tolist() == [False] * 3
    assert tags_of(torch.tensor([0.1, 0.2, 0.4]), None).tolist() == [False, False, True]


# ---- scores --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["bac_gcn", "clip", "tagclip"])
def test_photos_get_the_scores_of_an_evaluation(tiny_world, run_folder, tmp_path, method):
    flags = (["--checkpoint", run_folder / "checkpoint.pth"] if method == "bac_gcn" else
             [*tiny_world.flags, "--method", method, "--output_dir", tmp_path / "out"])
    run_script("eval", *flags)
    measured = load_scores((run_folder if method == "bac_gcn" else tmp_path / "out") / "scores.npz")
    run_script("eval", *flags, "--image", tiny_world.root / "val", "--encode_batch_size", "5",
               "--json", tmp_path / "tags.json")
    photos = json.loads((tmp_path / "tags.json").read_text())["photos"]
    assert [Path(photo["photo"]).stem for photo in photos] == measured.ids
    assert all(list(photo["scores"]) == measured.classes for photo in photos)
    scores = np.array([list(photo["scores"].values()) for photo in photos])
    expected = 1 / (1 + np.exp(-measured.scores)) if method == "bac_gcn" else measured.scores
    assert np.allclose(scores, expected, atol=5e-3), "the feature store is in half precision"
    for photo, row in zip(photos, scores):
        least = log(run_folder)[-1]["threshold"] if method == "bac_gcn" else (row.min() + row.max()) / 2
        clear = np.abs(row - least) > 1e-5
        assert ({name for name, above in zip(measured.classes, (row > least) & clear) if above} <= set(photo["tags"])
                <= {name for name, above in zip(measured.classes, (row > least) | ~clear) if above})


# ---- files ---------------------------------------------------------------------------------------------------------

def test_csv_and_json_say_the_same_of_every_photo(tiny_world, album, tmp_path, capsys):
    odd = [album / 'a "b", c;\nd.png', Path(os.fsdecode(os.fsencode(album) + b"/\xff.png"))]
    for path in odd:
        shutil.copy(album / "0.png", path)
    (album / "broken.jpg").write_bytes(b"no picture")
    (album / "phone.heic").touch()
    tag(tiny_world, "--image", album, "--method", "clip", "--words", *WORDS, "--csv", tmp_path / "new" / "tags.csv",
        "--json", tmp_path / "tags.json")
    out = capsys.readouterr().out
    assert "broken.jpg: not an image" in out and "2 of 16 photos cannot be read" in out
    saved = json.loads((tmp_path / "tags.json").read_text(encoding="utf-8"))
    assert saved["classes"] == list(WORDS) and saved["tags_are"].startswith("above the midpoint")
    assert [Path(entry["photo"]).name for entry in saved["unreadable"]] == ["broken.jpg", "phone.heic"]
    assert "the file is empty" in saved["unreadable"][1]["reason"]
    with (tmp_path / "new" / "tags.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [[row["photo"], row["tags"], *(float(row[word]) for word in WORDS)] for row in rows] == \
        [[photo["photo"], "; ".join(photo["tags"]), *photo["scores"].values()] for photo in saved["photos"]]
    assert len(rows) == 14 and rows[0]["photo"] == str(album / "0.png")
    assert {str(odd[0]), f"{album}/\ufffd.png"} <= {row["photo"] for row in rows}
    assert all(sum(photo["scores"].values()) == pytest.approx(1, abs=1e-5) for photo in saved["photos"])
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("tags_*"))


def test_nothing_is_written_where_no_photo_can_be_read(tiny_world, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as stop:
        tag(tiny_world, "--image", tmp_path / "broken.jpg", "--method", "clip", "--words", *WORDS,
            "--csv", tmp_path / "tags.csv", "--json", tmp_path / "tags.json", "--html", tmp_path / "tags.html")
    assert stop.value.code == 2 and "none of 1 photo can be read" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["broken.jpg"]


def test_a_stopped_run_goes_on_where_it_was(tiny_world, album, tmp_path, monkeypatch, capsys):
    """Photos that are scored are not scored again, unless they or the flags changed; the files are those of one run."""
    seen = []

    def score(scorer, images, stop_after=None):
        if stop_after is not None and len(seen) >= stop_after:
            raise Stopped(signal.SIGTERM)
        seen.extend(images)
        return scored(scorer, images)

    scored = GlobalScorer.__call__

    def tags(name, *flags, stop_after=None):
        seen.clear()
        monkeypatch.setattr(GlobalScorer, "__call__", lambda *args: score(*args, stop_after=stop_after))
        files = [f"--{kind} {tmp_path / name}.{kind}".split(" ", 1) for kind in ("csv", "json", "html")]
        tag(tiny_world, "--image", album, "--method", "clip", "--encode_batch_size", "1", *sum(files, []),
            "--words", *(flags or WORDS))
        return {kind: (tmp_path / f"{name}.{kind}").read_bytes() for kind in ("csv", "json", "html")}

    whole = tags("whole")
    with pytest.raises(SystemExit):
        tags("cut", stop_after=6)
    journal = tmp_path / "cut.csv.journal"
    with journal.open("ab") as file:
        file.write(b'{"photo": "half a li')
    Image.new("RGB", (44, 40), "red").save(album / "0.png")
    expected = tags("whole")
    assert tags("cut") == expected != whole and len(seen) == 7, "five of the first six, and not the one that changed"
    assert not journal.exists()
    with pytest.raises(SystemExit):
        tags("cut", stop_after=6)
    tags("cut", "dog", "cat")
    assert len(seen) == 12 and "starting over" in capsys.readouterr().out


# ---- the screen and pictures ---------------------------------------------------------------------------------------

def test_a_few_photos_are_shown_in_full(tiny_world, album, tmp_path, capsys):
    shutil.copy(album / "0.png", album / "deep" / "0.png")
    tag(tiny_world, "--image", album / "0.png", album / "deep" / "0.png", "--method", "tagclip", "--words", *WORDS,
        "--output_dir", tmp_path / "out")
    out = capsys.readouterr().out
    assert "\nred car " in out and "background" not in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "tags_0.pdf", "tags_0.png", "tags_0_2.pdf", "tags_0_2.png"], "photos of one name do not overwrite each other"


def test_many_photos_take_a_line_each(tiny_world, album, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(plotting.STYLE, "pdf.use14corefonts", True)  # embedding takes most of the time
    flags = ["--image", album, "--method", "clip", "--words", *WORDS, "--output_dir", tmp_path / "out"]
    tag(tiny_world, *flags)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and lines[0].startswith(f"{album / '0.png'}: ") and not (tmp_path / "out").exists()
    tag(tiny_world, *flags, "--maps", "--categories", "red car")
    assert len(list((tmp_path / "out").glob("tags_*.png"))) == 12


@pytest.mark.parametrize("flags, message", [
    (["--words", "dog", "cat", "--method", "clip", "--dataset", "voc2007"], "--words does nothing for an evaluation"),
    (["--figure", "maps", "--image", "ALBUM", "--csv", "x"], "--csv does nothing for --figure maps"),
    (["--image", "ALBUM", "--words", "dog", "cat"], "or --method clip or tagclip with --words"),
    (["--image", "ALBUM", "--words", "dog", "--method", "clip"], "at least two words"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--dataset", "voc2007"], "both name the"),
    (["--image", "ALBUM", "--method", "cdul", "--dataset", "voc2007"], "--checkpoint is missing"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--zoom", "2"], "--zoom does nothing for"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--categories", "dog"], "add --maps"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--link_thumbnails"], "goes with --html"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--csv", "ALBUM"], "a folder; name a file"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--csv", "a", "--json", "./a"], "the same file"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--csv", "b.JPG"], "ends like a photo"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--csv", __file__ + "/a.csv"], "choose another"),
    (["--image", __file__, "--words", "dog", "cat", "--method", "clip", "--csv", __file__], "one of the photos"),
    (["--image", "ALBUM", "--words", "dog", "cat", "--method", "clip", "--threshold", "50"], "probabilities from 0 to"),
    (["--image", "ALBUM", "--method", "clip"], "--words is missing"),
])
def test_flags_that_do_not_go_together_are_refused(tiny_world, album, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        tag(tiny_world, *[album if flag == "ALBUM" else flag for flag in flags])
    assert stop.value.code == 2 and message in capsys.readouterr().err
