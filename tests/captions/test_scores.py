"""The steps of the scores of captions against plain loops and numbers worked out by hand."""
from __future__ import annotations

import zlib

import numpy as np
import pytest
from scipy import sparse

from datasets.captions import scores
from datasets.captions.labels import ReadCaptions
from datasets.captions.scores import (
    calibrate,
    mix,
    score_images,
    score_single_captions,
    support_of_captions,
    vote_matrix,
    word_matrix,
)
from datasets.filter.words import CaptionWords

FOLDS = np.arange(12) % 4
"""Of the five folds one is empty, as it can be where images are few."""


def random_captions(per_image: np.ndarray, seed: int = 0):
    """Features (captions, 5), which tell something, and what is named, (captions, 3), of captions of each image."""
    generator = np.random.default_rng(seed)
    there = generator.random((len(per_image), 3)) < 0.5
    named = np.repeat(there, per_image, axis=0) & (generator.random((per_image.sum(), 3)) < 0.7)
    features = np.concatenate([named, generator.random((per_image.sum(), 2)) < 0.5], axis=1)
    return features.astype(np.float32), named.astype(np.float32)


def ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.linalg.solve(x.T @ x + scores.RIDGE * np.eye(x.shape[1]), x.T @ y)


def test_support_is_a_cross_fitted_ridge_also_where_numbers_of_captions_differ(monkeypatch):
    monkeypatch.setattr(scores, "RIDGE", 0.5)  # with few captions the real one leaves nothing
    per_image = np.arange(12) % 3 + 1
    features, named = random_captions(per_image)
    image_of = np.repeat(np.arange(12), per_image)
    expected = np.zeros((12, 3))
    for image in range(12):
        taught = [row for row, owner in enumerate(image_of)
                  if FOLDS[owner] != FOLDS[image] and per_image[owner] > 1]
        others = [(named[image_of == image_of[row]].sum(axis=0) - named[row]) / (per_image[image_of[row]] - 1)
                  for row in taught]
        said = np.clip(features[image_of == image] @ ridge(features[taught].astype(float), np.array(others)), 0, 0.95)
        expected[image] = 1 - np.prod(1 - said, axis=0) ** (1 / per_image[image])
    support = support_of_captions(sparse.csr_matrix(features), sparse.csr_matrix(named), FOLDS, per_image)
    assert support.dtype == np.float32 and 0.05 < expected.mean() < 0.9
    np.testing.assert_allclose(support, expected, atol=1e-5)
    monkeypatch.setattr(scores, "_CHUNK", 2)
    np.testing.assert_array_equal(
        support_of_captions(sparse.csr_matrix(features), sparse.csr_matrix(named), FOLDS, per_image), support)


def test_single_captions_have_no_support_and_are_scored_by_their_words(monkeypatch):
    monkeypatch.setattr(scores, "RIDGE", 0.5)
    features, named = random_captions(np.ones(12, dtype=int))
    assert not support_of_captions(sparse.csr_matrix(features), sparse.csr_matrix(named), FOLDS, np.ones(12, int)).any()
    x = np.concatenate([features, np.ones((12, 1))], axis=1)
    expected = np.zeros((12, 3))
    for image in range(12):
        others = FOLDS[image] != FOLDS
        weight = named.sum(axis=0) / (named.sum(axis=0) + 30) / 2
        predicted = np.clip(x[image] @ ridge(x[others], named[others]), 0, 1)
        expected[image] = (1 - weight) * named[image] + weight * predicted
    scored = score_single_captions(sparse.csr_matrix(features), named, FOLDS)
    assert scored.dtype == np.float32
    np.testing.assert_allclose(scored, expected, atol=1e-5)


def test_votes_and_support_are_mixed_by_how_many_images_with_several_captions_name_a_category():
    counts = np.array([[2.0, 0.0], [1.0, 4.0], [1.0, 0.0]])
    per_image, support = np.array([4, 4, 1]), np.array([[0.9, 0.2], [0.8, 0.6], [0.5, 0.5]])
    trust = np.array([2, 1]) / (np.array([2, 1]) + 30)  # the third image has one caption
    votes = np.array([[0.5, 0.0], [0.25, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(mix(counts, support, per_image), (1 - trust) * votes + trust * support)


def test_two_captions_are_several():
    counts, per_image = np.array([[2.0], [1.0]]), np.array([2, 2])
    trust = 2 / (2 + 30)
    np.testing.assert_allclose(mix(counts, np.zeros((2, 1)), per_image), (1 - trust) * np.array([[1.0], [0.5]]))


def test_support_is_bounded_and_an_empty_fold_ends_nothing(monkeypatch):
    monkeypatch.setattr(scores, "RIDGE", 1e-6)  # the first feature says with certainty what the other caption names
    named = np.repeat(np.eye(2)[[0, 1, 0, 1, 0, 1, 0, 1]], 2, axis=0).astype(np.float32)
    for folds in (np.array([0, 0, 1, 1, 3, 3, 4, 4]), np.arange(8) // 2):
        support = support_of_captions(sparse.csr_matrix(named), sparse.csr_matrix(named), folds, np.full(8, 2))
        np.testing.assert_allclose(support, 0.95 * named[::2], atol=1e-4)


def test_a_single_caption_says_no_more_than_that_a_category_is_there(monkeypatch):
    monkeypatch.setattr(scores, "RIDGE", 1e-6)
    words = np.array([[1.0], [1.0], [0.0], [0.0], [3.0]], dtype=np.float32)  # thrice the word: three times as sure
    named = np.array([[1.0], [1.0], [0.0], [0.0], [1.0]], dtype=np.float32)
    weight = 3 / (3 + 30) / 2
    scored = score_single_captions(sparse.csr_matrix(words), named, np.array([0, 1, 2, 3, 4]))
    np.testing.assert_allclose(scored[4], (1 - weight) + weight * 1, atol=1e-5)


def test_calibration_divides_by_the_rate_and_bends_below_one():
    per_image, counts = np.array([4, 4, 2]), np.array([[4.0, 0.0], [2.0, 1.0], [0.0, 0.0]])
    rate = np.array([(4 * 3 + 2 * 1 + 3) / (6 * 3 + 6), (0 + 3) / (1 * 3 + 6)])
    ratio = np.array([[0.5, 0.1]]) / rate
    expected = ratio / (1 + ratio**4) ** 0.25
    np.testing.assert_allclose(calibrate(np.array([[0.5, 0.1]]), counts, per_image), expected, rtol=1e-6)
    seldom = np.concatenate([counts, np.tile([[0.0, 1.0]], (20, 1))])  # 3 / (21 * 3 + 6) is below the least rate
    ratio = 0.1 / 0.25
    np.testing.assert_allclose(calibrate(np.array([[0.5, 0.1]]), seldom, np.append(per_image, [4] * 20))[0, 1],
                               ratio / (1 + ratio**4) ** 0.25, rtol=1e-6)


def words_of(*captions: str) -> CaptionWords:
    words = CaptionWords()
    for text in captions:
        words.add(text.split())
    return words


def test_words_of_two_captions_or_more_are_features_the_most_frequent_first(monkeypatch):
    words = words_of("a dog", "a dog a dog", "a rare cat", "the cat", "a")
    assert word_matrix(words).toarray().tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1], [1, 0, 0]]
    monkeypatch.setattr(scores, "MAX_WORDS", 1)
    assert word_matrix(words).toarray().tolist() == [[1], [1], [1], [0], [1]]


def test_votes_are_rows_of_captions():
    assert vote_matrix([[(0, 2), ()], [(1,)]], 3).toarray().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("per_image", [np.array([2, 3, 2, 1]), np.ones(4, dtype=int)])
def test_scores_are_these_steps_one_after_the_other(per_image):
    ids = ["x", "y", "z", "w"]
    texts = ["a dog runs", "a dog", "a cat", "the cat sits", "a cat sits", "a dog", "runs", "a cat"][:per_image.sum()]
    named = [((0,) if "dog" in text else (1,) if "cat" in text else ()) for text in texts]
    starts = np.cumsum(per_image) - per_image
    names = {image_id: named[start:start + count] for image_id, start, count in zip(ids, starts, per_image)}
    read = ReadCaptions(names, words_of(*texts), False, None, {})
    votes = vote_matrix(names.values(), 2)
    numbers = np.eye(per_image.max())[[number for count in per_image for number in range(count)]]
    folds = np.array([zlib.crc32(image_id.encode()) % 5 for image_id in ids])
    counts = np.stack([votes.toarray()[start:start + count].sum(axis=0) for start, count in zip(starts, per_image)])
    if per_image.max() == 1:
        expected = score_single_captions(word_matrix(read.words), counts, folds)
    else:
        features = np.concatenate([word_matrix(read.words).toarray(), votes.toarray(), numbers], axis=1)
        expected = calibrate(mix(counts, support_of_captions(sparse.csr_matrix(features), votes, folds, per_image),
                                 per_image), counts, per_image)
    scored = score_images(read, 2)
    assert scored.dtype == np.float32
    np.testing.assert_allclose(scored, expected, atol=1e-6)
