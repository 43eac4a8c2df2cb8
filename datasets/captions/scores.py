"""Scores: how probable it is that a category is in an image, by its captions alone.

No true label is read. What stands in for one is agreement between the K captions of an image (twelve in the authors'
layout): what one caption says can be checked against the others.

1. Votes: the share of the captions that name the category.
2. Support: a ridge regression predicts, from one caption's words and the categories it names (backgrounds among
   them), the share of the image's *other* captions that name each category. A word that the others tend to confirm
   speaks for a category ("locomotive", "railway" for train), one that they do not ("table" for dining table) speaks
   less. The regression is cross-fitted: an image is predicted by the model of the other folds.
3. The support of the captions is joined as a noisy-or and mixed with the votes: the more images with several captions
   name a category, the more the support counts, so that a handful of images falls back on votes.
4. Calibration: divided by the rate at which captions confirm each other on the category, a mention probability becomes
   the probability of presence: chairs are passed over by many captions that see one, aeroplanes by few.

Where every image has one caption, nothing confirms it. Then the regression predicts what the caption itself names, from
its words without the image's own fold, and counts up to half: 81.6 mAP on VOC2007's first captions instead of 72.8.
"""
from __future__ import annotations

import zlib
from array import array
from typing import Collection, Sequence

import numpy as np
from scipy import linalg, sparse

from datasets.captions.labels import ReadCaptions
from datasets.filter.words import CaptionWords
from datasets.progress import bar

MAX_WORDS = 1000
"""Words that the regression knows: those of the most captions. Twice as many gain less than 0.1 mAP on VOC2007."""

MIN_CAPTIONS = 2
"""Captions in which a word must occur."""

NUM_FOLDS = 5

RIDGE = 100.0
"""Weight of the penalty. Anything from 10 to 300 is within 0.15 mAP on VOC2007."""

MAX_SUPPORT = 0.95
"""Most that a single caption can support a category."""

TRUST = 30.0
"""Images naming a category at which its support weighs as much as its votes."""

PRIOR_CONFIRMED, PRIOR_PAIRS = 3.0, 6.0
"""Pairs of captions, half of them in agreement, that are added to those of every category."""

MIN_CONFIRMATION = 0.25
"""Least rate of confirmation that calibration divides by: rarer agreement is more likely chance than presence."""

SATURATION = 4.0
"""Sharpness of the bend that keeps probabilities below one."""

_CHUNK = 4096
"""Images whose support is worked out at a time."""


def score_images(read: ReadCaptions, num_categories: int) -> np.ndarray:
    """How probable each category is in each image.

    Args:
        read: what the captions say.
        num_categories: O.

    Returns:
        (images, O) float32 in 0..1.
    """
    names = read.names
    per_image = np.array([len(named) for named in names.values()])
    votes = vote_matrix(names.values(), num_categories)
    features = sparse.hstack([word_matrix(read.words), votes, _number_matrix(per_image)], format="csr",
                             dtype=np.float32)
    folds = np.array([zlib.crc32(image_id.encode()) % NUM_FOLDS for image_id in names])
    counts = _sum_captions(votes, per_image).toarray()
    if per_image.max() == 1:
        return score_single_captions(features[:, :-votes.shape[1] - 1], counts, folds)
    support = support_of_captions(features, votes, folds, per_image)
    return calibrate(mix(counts, support, per_image), counts, per_image)


def vote_matrix(names: Collection[Sequence[Sequence[int]]], num_categories: int) -> sparse.csr_matrix:
    """Which caption names what: (captions, O), rows grouped by image."""
    columns = array("i")
    ends = array("q", [0])
    for per_caption in bar("counting votes", "image", len(names), over=names):
        for named in per_caption:
            columns.extend(named)
            ends.append(len(columns))
    return _indicators(columns, ends, num_categories)


def word_matrix(words: CaptionWords) -> sparse.csr_matrix:
    """Which caption holds which word: (captions, words), rows grouped by image, most frequent words only."""
    matrix = _indicators(words.columns, words.ends, len(words.vocabulary))
    frequency = np.bincount(matrix.indices, minlength=len(words.vocabulary))
    kept = np.argsort(-frequency, kind="stable")[:MAX_WORDS]
    return matrix[:, kept[frequency[kept] >= MIN_CAPTIONS]]


def _indicators(columns: array, ends: array, width: int) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), np.frombuffer(columns, dtype=np.int32),
                              np.frombuffer(ends, dtype=np.int64)), shape=(len(ends) - 1, width))


def _number_matrix(per_image: np.ndarray) -> sparse.csr_matrix:
    """The number of each caption within its image, which tells the question that it answers: (captions, K)."""
    numbers = _ranges(np.zeros_like(per_image), per_image).astype(np.int32)
    return sparse.csr_matrix((np.ones(len(numbers), dtype=np.float32), numbers, np.arange(len(numbers) + 1)),
                             shape=(len(numbers), per_image.max()))


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ... of each range, one range after the other."""
    ends = np.cumsum(lengths)
    return np.arange(lengths.sum()) + np.repeat(starts - ends + lengths, lengths)


def _sum_captions(matrix: sparse.csr_matrix, per_image: np.ndarray) -> sparse.csr_matrix:
    """(captions, D) to (images, D): the sum over the captions of each image."""
    rows = int(per_image.sum())
    ends = np.concatenate(([0], per_image.cumsum()))
    adder = sparse.csr_matrix((np.ones(rows, dtype=np.float32), np.arange(rows), ends), shape=(len(per_image), rows))
    return adder @ matrix


def support_of_captions(features: sparse.csr_matrix, votes: sparse.csr_matrix, folds: np.ndarray,
                        per_image: np.ndarray) -> np.ndarray:
    """What an image's captions say for each category, by the word of other images' captions.

    For every caption, a ridge regression predicts from its features the share of the other K - 1 captions of its image
    that name each category; the K predictions are joined as a noisy-or, per caption so that it stays a mean.

    Args:
        features: (captions, D), grouped by image.
        votes: (captions, O).
        folds: (images,) fold of each image; it is predicted by the regression of the other folds.
        per_image: (images,) K of each image. Those with one caption are predicted, but teach nothing.

    Returns:
        (images, O) float32 in 0..1.
    """
    support = np.zeros((len(folds), votes.shape[1]), dtype=np.float32)
    starts = np.cumsum(per_image) - per_image
    sizes = np.unique(per_image)
    if sizes[-1] == 1:
        return support
    num_features = features.shape[1]
    grams = [np.zeros((num_features, num_features)) for _ in range(NUM_FOLDS)]
    targets = [np.zeros((num_features, votes.shape[1])) for _ in range(NUM_FOLDS)]
    with bar("scoring images", "image", 2 * len(per_image)) as shown:
        for fold in range(NUM_FOLDS):
            shown.update(int((folds == fold).sum()))
            for size in sizes[sizes > 1]:
                members = np.flatnonzero((folds == fold) & (per_image == size))
                rows = _ranges(starts[members], per_image[members])
                x, v = features[rows], votes[rows]
                others = (_sum_captions(x, per_image[members]).T @ _sum_captions(v, per_image[members]) - x.T @ v)
                grams[fold] += (x.T @ x).toarray()
                targets[fold] += others.toarray().astype(np.float64) / (size - 1)
        gram, target = sum(grams), sum(targets)
        for fold in range(NUM_FOLDS):
            if not (folds == fold).any():
                continue
            penalised = gram - grams[fold]
            penalised[np.diag_indices_from(penalised)] += RIDGE
            weights = linalg.solve(penalised, target - targets[fold], assume_a="pos").astype(np.float32)
            for size in sizes:
                members = np.flatnonzero((folds == fold) & (per_image == size))
                for start in range(0, len(members), _CHUNK):
                    chunk = members[start:start + _CHUNK]
                    rows = _ranges(starts[chunk], per_image[chunk])
                    per_caption = np.clip(features[rows] @ weights, 0, MAX_SUPPORT).reshape(len(chunk), size, -1)
                    support[chunk] = 1 - np.exp(np.log1p(-per_caption).mean(axis=1))
                    shown.update(len(chunk))
    return support


def score_single_captions(words: sparse.csr_matrix, named: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Scores where there is one caption an image, and so no other one to ask.

    Args:
        words: (images, words) of the captions.
        named: (images, O) 1 where the caption names the category.
        folds: (images,) fold of each image; it is predicted by the regression of the other folds.

    Returns:
        (images, O) float32 in 0..1; at least 0.5 for what the caption names.
    """
    features = sparse.hstack([words, np.ones((len(folds), 1), dtype=np.float32)], format="csr")
    predicted = np.zeros_like(named)
    for fold in range(NUM_FOLDS):
        x, y = features[folds != fold], named[folds != fold]
        gram = (x.T @ x).toarray().astype(np.float64)
        gram[np.diag_indices_from(gram)] += RIDGE
        predicted[folds == fold] = features[folds == fold] @ linalg.solve(gram, x.T @ y, assume_a="pos")
    naming = named.sum(axis=0)
    weight = naming / (naming + TRUST) / 2
    return ((1 - weight) * named + weight * np.clip(predicted, 0, 1)).astype(np.float32)


def mix(counts: np.ndarray, support: np.ndarray, per_image: np.ndarray) -> np.ndarray:
    """Votes and support, weighed by how many images with several captions name the category: (images, O)."""
    naming = (counts[per_image > 1] > 0).sum(axis=0)
    trust = naming / (naming + TRUST)
    return (1 - trust) * counts / per_image[:, None] + trust * support


def confirmation_rate(counts: np.ndarray, per_image: np.ndarray) -> np.ndarray:
    """Given that one caption names a category, how often another caption of the image does: (O,)."""
    confirmed = (counts * (counts - 1)).sum(axis=0)
    pairs = sum(counts[per_image == size].sum(axis=0) * (size - 1) for size in np.unique(per_image).tolist())
    return (confirmed + PRIOR_CONFIRMED) / (pairs + PRIOR_PAIRS)


def calibrate(mentions: np.ndarray, counts: np.ndarray, per_image: np.ndarray) -> np.ndarray:
    """From the probability that a caption names a category to the probability that the category is there.

    Where it is there, captions name it at about the rate at which they confirm each other; the quotient is bent so
    that it approaches one without ties.
    """
    ratio = mentions / np.maximum(confirmation_rate(counts, per_image), MIN_CONFIRMATION)
    return (ratio / (1 + ratio ** SATURATION) ** (1 / SATURATION)).astype(np.float32)
