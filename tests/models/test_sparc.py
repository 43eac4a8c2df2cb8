"""SPARC on small arrays, against an implementation in plain loops that shares nothing with ours."""
from __future__ import annotations

import math
from statistics import fmean, pstdev

import numpy as np
import pytest

from models.baselines.sparc import (
    Cosines,
    estimate,
    graph_compounds,
    principal_direction,
    sparc_scores,
    standardise_images,
)

COMPOUNDS = [(0, 1), (1, 2), (0, 1, 2), (0, 3)]


def random_cosines(images: int = 40, classes: int = 5, seed: int = 0) -> Cosines:
    """Images with one or two classes each, a bias of their own, and prompts with one of theirs."""
    generator = np.random.default_rng(seed)
    present = generator.random((images, classes)) < 0.3
    image_bias = generator.normal(0.2, 0.03, (images, 1))

    def cosines(signal):
        return image_bias + generator.normal(0, 0.02, signal.shape[1]) + 0.03 * signal \
            + generator.normal(0, 0.01, signal.shape)

    compound = np.stack([present[:, list(named)].any(axis=1) for named in COMPOUNDS], axis=1)
    return Cosines(cosines(present), cosines(present), cosines(compound))


def naive_sparc(cosines: Cosines, compounds) -> list[list[float]]:
    """The three steps as they are told, one number at a time, the principal direction by power iteration."""
    ensemble, single, compound = (array.tolist() for array in cosines)
    for e_row, s_row, q_row in zip(ensemble, single, compound):
        mean, deviation = fmean(e_row), pstdev(e_row)
        e_row[:] = [(value - mean) / deviation for value in e_row]
        mean, deviation = fmean(s_row), pstdev(s_row)
        q_row[:] = [(value - mean) / deviation for value in q_row]
    for table in (ensemble, compound):
        for column in range(len(table[0])):
            values = [row[column] for row in table]
            mean, deviation = fmean(values), pstdev(values)
            for row in table:
                row[column] = (row[column] - mean) / deviation
    result = [[0.0] * len(ensemble[0]) for _ in ensemble]
    for category in range(len(ensemble[0])):
        rows = []
        for e_row, q_row in zip(ensemble, compound):
            scores = [q_row[index] for index, named in enumerate(compounds) if category in named]
            rows.append([*sorted(scores, reverse=True), e_row[category]])
        width = len(rows[0])
        means = [fmean(row[column] for row in rows) for column in range(width)]
        direction = [1.0] * width
        for _ in range(3000):
            projections = [sum((row[i] - means[i]) * direction[i] for i in range(width)) for row in rows]
            direction = [sum(projection * (row[i] - means[i]) for projection, row in zip(projections, rows))
                         for i in range(width)]
            length = math.sqrt(sum(value**2 for value in direction))
            direction = [value / length for value in direction]
        sign = sum(direction) if abs(sum(direction)) > 1e-6 else direction[-1]
        norm = math.copysign(sum(map(abs, direction)), sign)
        for image, row in enumerate(rows):
            fused = sum(value * weight / norm for value, weight in zip(row, direction))
            result[image][category] = fused / 2 + ensemble[image][category] / 2
    return result


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_are_those_of_plain_loops(seed):
    cosines = random_cosines(seed=seed)
    scores = sparc_scores(cosines, COMPOUNDS, estimate(cosines, COMPOUNDS))
    np.testing.assert_allclose(scores, naive_sparc(cosines, COMPOUNDS), atol=1e-8)


def test_image_bias_worked_out_by_hand():
    reference = np.array([[1.0, 3.0], [10.0, 30.0]])  # means 2 and 20, deviations 1 and 10
    np.testing.assert_allclose(standardise_images(np.array([[3.0, 5.0, 2.0], [50.0, 20.0, 0.0]]), reference),
                               [[1, 3, 0], [3, 0, -2]])


def test_principal_direction_worked_out_by_hand():
    columns = np.array([[3.0, 4.0], [-3.0, -4.0], [0.0, 0.0]]) + 7
    np.testing.assert_allclose(principal_direction(columns), [3 / 7, 4 / 7])
    np.testing.assert_allclose(principal_direction(columns * [-1, -1]), [3 / 7, 4 / 7])
    np.testing.assert_allclose(principal_direction(np.ones((4, 2))), [0.5, 0.5])


def test_a_class_without_compounds_keeps_its_single_prompt():
    cosines = random_cosines()
    statistics = estimate(cosines, COMPOUNDS)
    single = standardise_images(cosines.ensemble, cosines.ensemble)[:, 4]
    expected = (single - single.mean()) / single.std()
    np.testing.assert_allclose(sparc_scores(cosines, COMPOUNDS, statistics)[:, 4], expected)


def test_brightness_of_images_and_prompts_do_not_matter():
    cosines = random_cosines()
    scores = sparc_scores(cosines, COMPOUNDS, estimate(cosines, COMPOUNDS))
    generator = np.random.default_rng(5)
    scale, shift = generator.uniform(0.5, 2, (40, 1)), generator.normal(size=(40, 1))
    brighter = Cosines(*(scale * array + shift for array in cosines))
    np.testing.assert_allclose(sparc_scores(brighter, COMPOUNDS, estimate(brighter, COMPOUNDS)), scores, atol=1e-8)


def test_kept_statistics_score_single_photos_as_in_their_test_set():
    cosines = random_cosines()
    statistics = estimate(cosines, COMPOUNDS)
    together = sparc_scores(cosines, COMPOUNDS, statistics)
    for row in range(3):
        photo = Cosines(*(array[row:row + 1] for array in cosines))
        np.testing.assert_allclose(sparc_scores(photo, COMPOUNDS, statistics)[0], together[row])


@pytest.mark.parametrize("images, classes", [(1, 5), (3, 4), (5, 1)])
def test_constant_and_tiny_inputs_stay_finite(images, classes):
    compounds = [] if classes == 1 else [(0, 1)]
    for value in (0.0, 0.25):
        cosines = Cosines(np.full((images, classes), value), np.full((images, classes), value),
                          np.full((images, len(compounds)), value))
        assert np.isfinite(sparc_scores(cosines, compounds, estimate(cosines, compounds))).all()


def test_compounds_are_those_that_the_graph_names_together():
    graph = np.eye(4)  # [i, j] = P(i given j)
    graph[1, 0], graph[0, 1] = 0.6, 0.3
    graph[2, 0], graph[0, 2] = 0.4, 0.5
    graph[2, 1], graph[1, 2] = 0.2, 0.2
    graph[3, 0] = 0.01
    assert graph_compounds(graph, pairs=2, triples=1) == [(0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert graph_compounds(graph, pairs=1, triples=0) == [(0, 1), (0, 2)]
    assert graph_compounds(np.eye(3), pairs=2, triples=2) == []
