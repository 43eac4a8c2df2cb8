"""Where the targets of training come from: label files, or captions that are filtered first, once."""
from __future__ import annotations

import argparse
from pathlib import Path

import pytest

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
