"""SPARC (CVPR 2025): a test set's cosines to single and compound prompts, freed of bias and fused, without training.

The bias of a prompt is estimated on the images that are scored: the method is transductive. `Statistics` keeps what was
estimated, so that single photos can be scored later.
"""
from __future__ import annotations

from typing import List, NamedTuple, Sequence, Set, Tuple

import numpy as np

Compound = Tuple[int, ...]
"""The classes that a compound prompt names."""

_CONSTANT = 1e-8
"""Scores that deviate less tell images apart by rounding alone; they are not divided by their deviation."""


class Cosines(NamedTuple):
    """Cosines of n images to prompts."""

    ensemble: np.ndarray
    """(n, C), E: to the single prompts, by the ensemble of templates."""
    single: np.ndarray
    """(n, C), S: to the single prompts, by the template of the compounds."""
    compound: np.ndarray
    """(n, M), Q: to the compound prompts."""


class Statistics(NamedTuple):
    """What SPARC estimates on a test set."""

    ensemble_mean: np.ndarray
    """(C,) of the columns of E, once it is free of image bias."""
    ensemble_deviation: np.ndarray
    """(C,)"""
    compound_mean: np.ndarray
    """(M,) of the columns of Q, once it is free of image bias."""
    compound_deviation: np.ndarray
    """(M,)"""
    directions: np.ndarray
    """(C, L + 1) weights of a class's sorted compound scores, largest first (and zeros, where it has fewer than L
    compounds), and last of its single prompt."""


def standardise_images(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Scores (n, M) less the mean of their image's reference scores (n, C), over their deviation: no image bias.

    Images differ in their cosines to any text. `reference` is what the image's mean and deviation are taken of.
    """
    return _standardise(scores, reference.mean(axis=1, keepdims=True), reference.std(axis=1, keepdims=True))


def sort_compounds(compound: np.ndarray, compounds: Sequence[Compound], category: int) -> np.ndarray:
    """Scores (n, L) of the compound prompts that name a class, the largest of each image first.

    Which compound comes first differs from image to image. An "and" acts like an "or" in CLIP, so the largest is often
    that of the other class; which rank tells most is for the principal direction to say.
    """
    naming = [index for index, classes in enumerate(compounds) if category in classes]
    return -np.sort(-compound[:, naming], axis=1)


def principal_direction(columns: np.ndarray) -> np.ndarray:
    """First principal direction of columns (n, L), over the sum of its absolute values and with a positive sum: (L,).

    A sum of zero, as of two columns that contradict each other, takes its sign from the last column. Where nothing
    varies it is the mean of the columns.
    """
    centred = columns - columns.mean(axis=0)
    varies = np.abs(centred).max(initial=0) > _CONSTANT
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1] if varies else np.ones(columns.shape[1])
    sign = direction.sum() if abs(direction.sum()) > _CONSTANT else direction[-1]
    return direction / np.abs(direction).sum() * (-1 if sign < 0 else 1)


def estimate(cosines: Cosines, compounds: Sequence[Compound]) -> Statistics:
    """The statistics of a test set.

    Args:
        cosines: of all its images.
        compounds: the classes that each of the M compound prompts names.
    """
    ensemble = standardise_images(cosines.ensemble, cosines.ensemble)
    compound = standardise_images(cosines.compound, cosines.single)
    unweighted = Statistics(ensemble.mean(axis=0), ensemble.std(axis=0), compound.mean(axis=0), compound.std(axis=0),
                            np.zeros((ensemble.shape[1], 0)))
    single, columns = _columns(cosines, compounds, unweighted)
    directions = np.zeros((len(columns), max((part.shape[1] for part in columns), default=0) + 1))
    for category, part in enumerate(columns):
        direction = principal_direction(np.column_stack([part, single[:, category]]))
        directions[category, :part.shape[1]], directions[category, -1] = direction[:-1], direction[-1]
    return unweighted._replace(directions=directions)


def sparc_scores(cosines: Cosines, compounds: Sequence[Compound], statistics: Statistics) -> np.ndarray:
    """Scores (n, C) of images: for a class, half of its single prompt's and half of the fusion with its compounds'.

    Args:
        cosines: of the images: those of the statistics, or any others, be it one.
        compounds: as in `estimate`.
        statistics: what `estimate` returned.
    """
    single, columns = _columns(cosines, compounds, statistics)
    fused = [part @ weights[:part.shape[1]] + single[:, category] * weights[-1]
             for category, (part, weights) in enumerate(zip(columns, statistics.directions))]
    return (single + np.stack(fused, axis=1)) / 2


def _columns(cosines: Cosines, compounds: Sequence[Compound],
             statistics: Statistics) -> Tuple[np.ndarray, List[np.ndarray]]:
    """Scores free of both biases: (n, C) of the single prompts, and of each class's sorted compounds (n, L)."""
    single = _standardise(standardise_images(cosines.ensemble, cosines.ensemble), statistics.ensemble_mean,
                          statistics.ensemble_deviation)
    compound = _standardise(standardise_images(cosines.compound, cosines.single), statistics.compound_mean,
                            statistics.compound_deviation)
    return single, [sort_compounds(compound, compounds, category) for category in range(single.shape[1])]


def _standardise(scores: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return (scores - mean) / np.where(deviation > _CONSTANT, deviation, 1.0)


def graph_compounds(graph: np.ndarray, pairs: int, triples: int, least: float = 0.05) -> List[Compound]:
    """Pairs and triples of classes that captions name together (our choice; the authors let a language model write).

    Args:
        graph: (C, C) caption graph, [i, j] = P(i given j), of the classes alone.
        pairs: most pairs a class, those of the likeliest companions: of the highest P(companion given class).
        triples: most triples a class: with two of these companions, of the highest product of P(first given class) and
            the mean of P(second given class) and P(second given first).
        least: companions are as probable as this, given the class.

    Returns:
        The compounds, sorted, each once, as sorted classes.
    """
    found: Set[Compound] = set()
    for category in range(len(graph)):
        given = graph[:, category]
        companions = [other for other in np.argsort(-given, kind="stable").tolist()
                      if other != category and given[other] >= least][:pairs]
        found.update(tuple(sorted((category, other))) for other in companions)
        scored = [(-given[first] * (given[second] + graph[second, first]) / 2, tuple(sorted((category, first, second))))
                  for first in companions for second in companions if second != first and graph[second, first] >= least]
        best = dict.fromkeys(triple for _, triple in sorted(scored))
        found.update(list(best)[:triples])
    return sorted(found, key=lambda classes: (len(classes), classes))
