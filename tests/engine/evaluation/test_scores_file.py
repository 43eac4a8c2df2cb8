"""scores.npz comes back as it was written, and holds what was measured."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from datasets.files import DataError
from datasets.registry import get_dataset
from datasets.split_file import read_split_file
from engine.evaluation.metrics import average_precision
from engine.evaluation.scores_file import load_scores, save_scores
from tests.engine.training.test_training import run_script


@pytest.mark.parametrize("labelled", [True, False])
def test_round_trip(tmp_path, labelled):
    scores, targets = torch.randn(3, 2), torch.tensor([[0.0, 1], [1, 1], [0, 0]])
    path = tmp_path / "scores.npz"
    save_scores(path, ["a", "ü/b", "c"], ["dog", "red car"], scores, targets if labelled else None)
    again = load_scores(path)
    assert again.ids == ["a", "ü/b", "c"] and again.classes == ["dog", "red car"]
    assert (again.scores == scores.numpy()).all()
    assert (again.targets == targets.numpy()).all() if labelled else again.targets is None
    assert [file.name for file in tmp_path.iterdir()] == ["scores.npz"]


def test_what_is_no_scores_file_is_named(tmp_path):
    path = tmp_path / "scores.npz"
    with pytest.raises(DataError, match="no such file"):
        load_scores(path)
    save_scores(path, ["a"], ["dog", "cat"], torch.zeros(1, 2), None)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"scores\.npz: not a scores"):
        load_scores(path)
    np.savez(path, ids=["a", "b"], classes=["dog"], scores=np.zeros((1, 1)))
    with pytest.raises(DataError, match="2 ids and 1 class,"):
        load_scores(path)


def test_eval_saves_the_scores_that_it_measured(tiny_world, tmp_path, capsys):
    run_script("eval", *tiny_world.flags, "--method", "clip", "--output_dir", tmp_path)
    measured = float(capsys.readouterr().out.rsplit("mAP ", 1)[1])
    split = read_split_file(tiny_world.path("--val_split_file"), 20)
    saved = load_scores(tmp_path / "scores.npz")
    assert saved.ids == split.image_ids and saved.classes == list(get_dataset("voc2007").classes)
    assert saved.targets is not None and (saved.targets == split.targets(20).numpy()).all()
    ap = average_precision(torch.from_numpy(saved.scores), torch.from_numpy(saved.targets))
    assert np.nanmean(ap) == pytest.approx(measured)
