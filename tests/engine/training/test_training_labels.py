"""Where the targets of training come from: label files, or captions that are filtered first, once."""
from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from datasets.captions.pseudo_labels import LABELS_FILE
from datasets.files import DataError
from datasets.registry import get_dataset
from engine.training import training_labels

SPEC = get_dataset("voc2007")


@pytest.fixture
def filtered(monkeypatch):
    """What the filter was asked for; it writes the file of labels alone."""
    calls = []

    def write(spec, caption_root, folder):
        calls.append((spec, caption_root, folder))
        (folder / spec.name).mkdir(parents=True)
        (folder / spec.name / LABELS_FILE).touch()

    monkeypatch.setattr(training_labels, "filter_captions", write)
    return calls


def test_captions_without_labels_are_filtered_once_into_the_output_folder(tmp_path, monkeypatch, filtered):
    args = argparse.Namespace(caption_root=str(tmp_path / "captions"), output_dir=str(tmp_path / "run"))
    there = {(args.caption_root, SPEC.name): Path("first.json")}
    monkeypatch.setattr(training_labels, "find_captions", lambda root, name: there.get((root, name)))
    made = tmp_path / "run" / "caption"
    for _ in range(2):
        assert training_labels.label_folder(args, SPEC) == made / SPEC.name
    assert filtered == [(SPEC, args.caption_root, made)]


def test_labels_that_are_there_are_read_and_nothing_at_all_is_an_error(tmp_path, filtered):
    args = argparse.Namespace(caption_root=str(tmp_path), output_dir=str(tmp_path / "run"))
    with pytest.raises(DataError, match="neither label files nor captions"):
        training_labels.label_folder(args, SPEC)
    (tmp_path / SPEC.name).mkdir()
    (tmp_path / SPEC.name / LABELS_FILE).touch()
    assert training_labels.label_folder(args, SPEC) == tmp_path / SPEC.name
    assert not filtered


@pytest.mark.parametrize("named", [0, 5])
def test_targets_are_of_the_kind_that_is_asked_for_and_a_class_without_a_caption_is_told(monkeypatch, capsys, named):
    asked, width = [], len(SPEC.categories)
    counts, together = torch.full((width,), 5.0), torch.eye(width) * 5
    counts[3] = together[3, 3] = named

    def load(*arguments):
        asked.append(arguments)
        return torch.arange(float(width))[None]

    monkeypatch.setattr(training_labels, "label_folder", lambda *_: Path("labels"))
    monkeypatch.setattr(training_labels, "load_targets", load)
    monkeypatch.setattr(training_labels, "load_counts", lambda *_: (counts, together))
    made = training_labels.load_pseudo_labels(argparse.Namespace(labels="votes"), SPEC, ["a"], SPEC.classes)
    assert asked == [(Path("labels"), ["a"], SPEC.categories, "votes")]
    assert made.targets.tolist() == [list(range(20))] and made.graph.shape == (20, 20)
    printed = capsys.readouterr().out
    assert (SPEC.classes[3] in printed) if named == 0 else printed == ""
