"""AP by the size of the objects."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from engine.evaluation.scores_file import save_scores
from mini.by_size import SIZES, main, map_by_size, object_sizes


def test_the_largest_object_within_the_picture_counts():
    thing = {"class": "cat", "box": [0, 0, 10, 10]}
    outside = {"class": "cat", "box": [-50, 0, 30, 20]}  # 30 x 20 of it are seen
    records = {"a": {"width": 100, "height": 50, "objects": [thing, outside]},
               "b": {"width": 100, "height": 50, "objects": [{"class": "dog", "box": [90, 40, 120, 90]}]}}
    np.testing.assert_allclose(object_sizes(records, ["b", "a"], ["dog", "cat"]), [[0.02, 0], [0, 0.12]])


def test_a_group_has_its_size_as_positives_and_images_without_the_class_as_negatives():
    sizes = np.array([0.01] * 3 + [0.2] * 3 + [0.0] * 3)[:, None]
    scores = np.array([9.0, 8, 7, 1, 2, 3, 6, 5, 4])[:, None]  # large ones are no negatives of small ones
    measured = map_by_size(scores, sizes)
    assert measured[0] == pytest.approx(100) and measured[1:3] == [None, None]
    assert measured[3] == pytest.approx(100 * (1 / 4 + 2 / 5 + 3 / 6) / 3)
    assert len(measured) == len(SIZES) - 1


def test_runs_stand_in_one_table(tmp_path, capsys):
    records = {f"i{row}": {"width": 10, "height": 10, "objects": [{"class": "cat", "box": [0, 0, 1, 1]}] * (row < 3)}
               for row in range(6)}
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    scores = torch.arange(6.0)[:, None]
    save_scores(tmp_path / "scores.npz", list(records), ["cat"], -scores, torch.ones(6, 1))
    main([str(tmp_path)], str(tmp_path / "boxes.json"))
    assert capsys.readouterr().out.splitlines()[-1].split() == [str(tmp_path), "100.0", "-", "-", "-"]
