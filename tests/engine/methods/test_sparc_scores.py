"""SPARC through eval.py on the tiny world: compounds, kept statistics, and what is refused."""
from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from datasets.files import DataError
from datasets.registry import get_dataset
from engine.evaluation.scores_file import load_scores
from engine.methods import sparc_scores
from engine.methods.sparc_scores import join_names, read_compounds
from tests.engine.training.test_training import run_script

CLASSES = get_dataset("voc2007").classes


@pytest.fixture(scope="module")
def evaluated(tiny_world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sparc")
    run_script("eval", "--method", "sparc", *tiny_world.flags, "--output_dir", folder)
    return folder


def test_row_is_named_transductive_and_counts_its_test_images(evaluated):
    assert json.loads((evaluated / "result.json").read_text())["title"] == "SPARC (transductive)"
    scores = load_scores(evaluated / "scores.npz").scores
    assert scores.shape == (12, 20) and np.isfinite(scores).all()
    with np.load(evaluated / "sparc_statistics.npz") as kept:
        assert kept["classes"].tolist() == list(CLASSES) and 0 < len(kept["compounds"]) == len(kept["compound_mean"])


def test_kept_statistics_give_the_same_scores_and_those_of_one_photo(tiny_world, evaluated, tmp_path, capsys):
    kept = evaluated / "sparc_statistics.npz"
    run_script("eval", "--method", "sparc", *tiny_world.flags, "--output_dir", tmp_path, "--statistics", kept)
    scores = load_scores(evaluated / "scores.npz")
    np.testing.assert_allclose(load_scores(tmp_path / "scores.npz").scores, scores.scores, atol=1e-6)
    assert "statistics of other images" in json.loads((tmp_path / "result.json").read_text())["title"]
    capsys.readouterr()
    photo = next(tiny_world.path("--val_img_root").glob(f"{scores.ids[3]}.*"))
    run_script("eval", "--method", "sparc", *tiny_world.flags, "--image", photo, "--statistics", kept,
               "--output_dir", tmp_path)
    printed = dict(re.findall(r"^(\S.*?) +(-?\d\.\d{3})$", capsys.readouterr().out, re.MULTILINE))
    assert len(printed) == 10
    for name, score in printed.items():  # the store rounds to half precision
        assert float(score) == pytest.approx(scores.scores[3, CLASSES.index(name)], abs=0.1)


def test_compounds_of_a_file_and_standardised_zero_shot(tiny_world, evaluated, tmp_path):
    (tmp_path / "compounds.txt").write_text("cat, sofa\n\ndog, person, sofa\nsofa,cat\n")
    assert read_compounds(tmp_path / "compounds.txt", CLASSES) == [(7, 17), (11, 14, 17)]
    run_script("eval", "--method", "sparc", *tiny_world.flags, "--output_dir", tmp_path / "sparc", "--compounds",
               tmp_path / "compounds.txt")
    ours, theirs = (load_scores(folder / "scores.npz").scores for folder in (tmp_path / "sparc", evaluated))
    assert not np.allclose(ours, theirs)
    run_script("eval", "--method", "clip", *tiny_world.flags, "--output_dir", tmp_path / "clip", "--standardise")
    standardised = load_scores(tmp_path / "clip" / "scores.npz").scores
    np.testing.assert_allclose(standardised.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(axis=1), 1, atol=1e-3)


def test_prompts_take_the_words_of_a_description(monkeypatch):
    asked = []
    monkeypatch.setattr(sparc_scores, "weights_digest", lambda model: "")
    monkeypatch.setattr(sparc_scores, "encode_words", lambda model, words, prompts="single": asked.append(words))
    spec = dataclasses.replace(get_dataset("voc2007"), prompt_words={"sofa": "red couch"})
    sparc_scores.Sparc(None, spec, [(7, 17)], "ensemble")
    assert asked == [spec.prompt_names(CLASSES)] * 2 + [["cat and red couch"]]


def test_names_of_compounds():
    assert join_names(["cat", "sofa"]) == "cat and sofa"
    assert join_names(["cat", "dog", "sofa"]) == "cat, dog and sofa"


@pytest.mark.parametrize("line, message", [("cat, unicorn", "unicorn"), ("cat", "names one class")])
def test_faulty_compounds_are_refused(tmp_path, line, message):
    (tmp_path / "compounds.txt").write_text(f"cat, dog\n{line}\n")
    with pytest.raises(DataError, match=f"compounds.txt:2.*{message}"):
        read_compounds(tmp_path / "compounds.txt", CLASSES)


@pytest.mark.parametrize("flags, message", [
    (["--method", "clip", "--compounds", "x"], "a flag of sparc"),
    (["--method", "clip", "--standardise", "--raw_cosine"], "--standardise"),
    (["--method", "sparc", "--compounds", "x", "--statistics", "y"], "--compounds does nothing with --statistics y"),
    (["--method", "sparc", "--statistics", "nowhere.npz"], "no such file"),
    (["--method", "sparc", "--caption_root", "nowhere"], "caption.py --dataset voc2007"),
    (["--method", "sparc", "--zoom", "2"], "--zoom"),
    (["--method", "sparc", "--image", "photo.jpg"], "--statistics is missing"),
])
def test_flags_that_do_nothing_or_cannot_work_are_refused(tiny_world, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        run_script("eval", *tiny_world.flags, "--output_dir", tmp_path / "out", *flags)
    assert stop.value.code == 2 and message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [
    lambda arrays: {**arrays, "directions": arrays["directions"][:, :1]},
    lambda arrays: {**arrays, "ensemble_mean": np.full(20, np.nan)},
    lambda arrays: {**arrays, "compounds": np.array(["99 1"] * len(arrays["compounds"]))},
    lambda arrays: {name: array for name, array in arrays.items() if name != "weights"},
    lambda arrays: {**arrays, "weights": np.array("0" * 64)},
    lambda arrays: {**arrays, "classes": arrays["classes"][::-1]},
])
def test_damaged_or_foreign_statistics_are_refused(tiny_world, evaluated, tmp_path, capsys, damage):
    with np.load(evaluated / "sparc_statistics.npz") as kept:
        np.savez(tmp_path / "bad.npz", **damage({name: kept[name] for name in kept.files}))
    with pytest.raises(SystemExit) as stop:
        run_script("eval", "--method", "sparc", *tiny_world.flags, "--output_dir", tmp_path / "out", "--statistics",
                   tmp_path / "bad.npz")
    assert stop.value.code == 2 and "bad.npz" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_compounds_is_refused(tmp_path, content):
    (tmp_path / "compounds.txt").write_text(content)
    with pytest.raises(DataError, match=r"compounds\.txt: names no compound\. It takes a line"):
        read_compounds(tmp_path / "compounds.txt", CLASSES)
