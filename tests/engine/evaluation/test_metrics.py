"""Precision, recall, F1 and mAP against scikit-learn's, and against numbers worked out by hand."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_score, recall_score

from engine.evaluation.metrics import above_midpoint, average_precision, mean_ap, summarise


def test_summary_of_four_images_by_hand():
    scores = torch.tensor([[2.0, 1.0, -1.0], [1.0, -1.0, -2.0], [-1.0, 3.0, -3.0], [-2.0, -3.0, -4.0]])
    truth = torch.tensor([[1.0, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
    # Labels above 0: class 0 in images 0 and 1, class 1 in images 0 and 2; of each one is right, and one is missed.
    expected = {"OP": 50.0, "OR": 50.0, "OF1": 50.0, "CP": 50.0, "CR": 50.0, "CF1": 50.0,
                "mAP": 100 * ((1 + 2 / 3) / 2 + (1 + 2 / 4) / 2) / 2}
    assert summarise(scores, truth) == pytest.approx(expected)
    # With class 2 predicted once, which no image has, and class 1 only where it is right:
    predicted = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    summary = summarise(scores, truth, predicted)
    assert summary["OP"] == pytest.approx(100 * 2 / 3) and summary["OR"] == pytest.approx(50)
    assert summary["CP"] == pytest.approx(75) and summary["CR"] == pytest.approx(50)
    assert summary["CF1"] == pytest.approx(60) and summary["OF1"] == pytest.approx(100 * 4 / 7)


@pytest.mark.parametrize("seed", range(5))
def test_summary_equals_scikit_learns(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(30, 6, generator=generator) < torch.tensor([0.05, 0.1, 0.3, 0.5, 0.9, 0.2])
    truth[0] = True  # every class has a positive: scikit-learn counts the others, too
    scores = torch.randn(30, 6, generator=generator) + truth
    predicted = scores > 0.7
    predicted[:, 5] = False  # never predicted: precision 0
    pairs = truth.numpy(), predicted.numpy()
    expected = {"mAP": average_precision_score(truth.numpy(), scores.numpy(), average="macro")}
    for letter, average in (("O", "micro"), ("C", "macro")):
        precision, recall = (measure(*pairs, average=average, zero_division=0)
                             for measure in (precision_score, recall_score))
        expected.update({f"{letter}P": precision, f"{letter}R": recall,
                         f"{letter}F1": 2 * precision * recall / (precision + recall)})
    assert summarise(scores, truth.float(), predicted) == pytest.approx({k: 100 * v for k, v in expected.items()})


def test_nothing_predicted_is_zero_and_no_division():
    summary = summarise(torch.zeros(2, 2), torch.eye(2))  # a logit of 0 is no label
    assert {summary[name] for name in ("OP", "OR", "OF1", "CP", "CR", "CF1")} == {0.0}


def test_average_precision_shares_ties_and_leaves_absent_classes_out():
    scores, truth = torch.tensor([[1.0, 5.0], [1.0, 4.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0, 0], [1, 0]])
    per_class = average_precision(scores, truth)
    assert per_class[0] == pytest.approx(100 * (0.5 / 2 + (2 / 3) / 2)) and np.isnan(per_class[1])
    assert mean_ap(per_class) == per_class[0] and mean_ap(per_class[1:]) is None


def test_classes_with_fewer_positives_than_asked_for_are_left_out():
    scores = torch.tensor([[1.0, 2.0], [0.5, -1.0], [-1.0, 3.0]])
    truth = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert np.isnan(average_precision(scores, truth, min_positives=2)).tolist() == [False, True]
    assert summarise(scores, truth, min_positives=2) == summarise(scores[:, :1], truth[:, :1])
    assert summarise(scores, truth, min_positives=3) == {} != summarise(scores, truth, min_positives=0)


def test_scores_closer_than_single_precision_apart_are_ranked():
    """float32 would tie them, and a tie is worth half."""
    scores = torch.tensor([[0.5 + 1e-12], [0.5]], dtype=torch.float64)
    assert average_precision(scores, torch.tensor([[1.0], [0.0]])) == [100.0]


def test_above_the_midpoint_of_its_image():
    assert above_midpoint(torch.tensor([[0.0, 1.0, 0.5, 0.6], [-4.0, -3.0, -3.4, -3.6]])).tolist() == [
        [False, True, False, True], [False, True, True, False]]
