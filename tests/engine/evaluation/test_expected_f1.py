"""The threshold with the highest expected F1: known answers."""
from __future__ import annotations

import argparse

import pytest
import torch

from engine.evaluation import threshold
from engine.evaluation.metrics import summarise
from engine.evaluation.threshold import NUM_IMAGES, best_threshold, measure, spread
from engine.features.feature_set import FeatureSet


def expected_f1(scores: torch.Tensor, labels: torch.Tensor, threshold: float) -> float:
    tags = scores >= threshold
    return float(2 * labels[tags].sum() / (tags.sum() + labels.sum()))


def test_threshold_of_certain_labels_parts_them():
    scores = torch.tensor([[0.9, 0.2], [0.1, 0.6]])
    assert best_threshold(scores, torch.tensor([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.4)
    assert best_threshold(scores, torch.ones(2, 2)) == float(scores[1, 0])


def test_threshold_has_the_highest_expected_f1_of_all():
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(40, 5, generator=generator) ** 3
    scores = ((labels + 0.3 * torch.randn(40, 5, generator=generator)) * 10).round() / 10  # many share a score
    best = expected_f1(scores, labels, best_threshold(scores, labels))
    assert best == pytest.approx(max(expected_f1(scores, labels, float(value)) for value in scores.unique()))
    assert best > expected_f1(scores, labels, 0.0)


def test_images_are_spread_evenly():
    assert spread(3).tolist() == [0, 1, 2] and spread(0).tolist() == []
    rows = spread(10 * NUM_IMAGES + 7)
    assert len(rows) == NUM_IMAGES and rows.diff().unique().tolist() == [10, 11] and rows[-1] < 10 * NUM_IMAGES + 7


def test_threshold_lies_half_way_to_the_next_score_and_at_the_last_one_itself():
    scores, labels = torch.tensor([[0.8, 0.8, 0.6, 0.2]]), torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    assert best_threshold(scores, labels) == pytest.approx(0.7)  # of two equal scores both are tags
    assert best_threshold(torch.tensor([[0.3]]), torch.ones(1, 1)) == pytest.approx(0.3)
    assert best_threshold(torch.tensor([[0.9, 0.5]]), torch.zeros(1, 2)) == pytest.approx(0.7)  # all are 0: the first


def test_what_shares_a_score_is_a_tag_together_or_not_at_all():
    assert best_threshold(torch.tensor([[0.8, 0.8, 0.6]]), torch.tensor([[1.0, 0.0, 0.0]])) == pytest.approx(0.7)
    scores = torch.tensor([[0.9, 0.6, 0.6, 0.2]])
    assert best_threshold(scores, torch.tensor([[1.0, 1.0, 0.0, 0.0]])) == pytest.approx(0.4)


def test_threshold_of_labels_that_are_probabilities():
    # Tags:  1: 1.8 / 2.8    2: 2.6 / 3.8    3: 3.4 / 4.8, the highest    4: 3.6 / 5.8
    assert best_threshold(torch.tensor([[0.9, 0.7, 0.5, 0.3]]), torch.tensor([[0.9, 0.4, 0.4, 0.1]])) == \
        pytest.approx(0.4)


def test_a_score_at_the_threshold_is_a_tag_and_classes_with_few_positives_are_not_measured(monkeypatch):
    logits, labels = torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    monkeypatch.setattr(threshold, "predict", lambda *_: logits)
    data = FeatureSet([], labels)
    both, first = (measure(None, data, data, argparse.Namespace(min_positives=least), torch.device("cpu"))
                   for least in (1, 2))
    assert both["threshold"] == first["threshold"] == float(logits[0, 0].sigmoid())
    assert (both["OP"], both["OR"], first["OP"], first["OR"]) == (75, 100, 100, 100)


def test_test_images_are_tagged_by_the_threshold_of_training_images_for_classes_alone(monkeypatch):
    logits = {"train": torch.tensor([[3.0, -2.0, 9.0], [-2.5, -1.0, 9.0]]),
              "test": torch.tensor([[-1.2, -4.0, 9.0], [2.0, -1.6, 9.0]])}
    known, test = FeatureSet([], torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])), FeatureSet([], torch.eye(2))
    monkeypatch.setattr(threshold, "predict", lambda model, data, *_: logits["train" if data is known else "test"])
    measured = measure(None, test, known, argparse.Namespace(min_positives=1), torch.device("cpu"))
    assert measured["threshold"] == pytest.approx(float(torch.tensor([-1.0, -2.0]).sigmoid().mean()))
    tags = torch.tensor([[True, False], [True, False]])
    assert measured == {"threshold": measured["threshold"], **summarise(logits["test"][:, :2], torch.eye(2), tags)}
