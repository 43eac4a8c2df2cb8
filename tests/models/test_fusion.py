"""Labels from captions and CLIP: known answers, invariances, degenerate inputs, and real captions with real CLIP."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from sklearn.metrics import average_precision_score

from datasets.captions import load_matcher
from datasets.captions.io import load_captions
from datasets.captions.labels import read_captions
from datasets.captions.scores import score_images
from datasets.registry import get_dataset
from datasets.split_file import read_split_file
from models.fusion import INVERSE_PENALTY, PROBE_PENALTY, clip_log_odds, fuse_labels, probe_captions


def simulate(count: int = 400, seed: int = 0):
    """Captions that miss a third and CLIP scores that overlap, independent of each other given the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.random((count, 3)) < (0.1, 0.3, 0.5)
    named = truth & (generator.random(truth.shape) < 2 / 3)
    captions = np.where(named, 0.9, 0.05 + 0.1 * generator.random(truth.shape))
    return truth, captions, generator.normal(2.0 * truth)


def mean_ap(truth, scores) -> float:
    return 100 * float(np.mean([average_precision_score(truth[:, c], scores[:, c]) for c in range(truth.shape[1])]))


def negative_log_likelihood(truth, scores) -> float:
    p = np.clip(scores, 1e-3, 1 - 1e-3)
    return float(-np.log(np.where(truth, p, 1 - p)).mean())


def test_two_sources_beat_each_and_three_views_beat_one():
    truth, captions, clip = simulate()
    fused = mean_ap(truth, fuse_labels(captions, clip))
    assert fused > mean_ap(truth, captions) + 3 and fused > mean_ap(truth, clip) + 3
    views = clip[..., None] + np.random.default_rng(1).normal(size=(*clip.shape, 3))
    assert mean_ap(truth, fuse_labels(captions, views)) > mean_ap(truth, fuse_labels(captions, views[..., 0])) + 1


def test_clip_without_an_opinion_leaves_the_captions_drawn_to_their_mean():
    captions = np.array([[0.0], [0.2], [0.9], [0.5]])
    np.testing.assert_allclose(fuse_labels(captions, np.zeros((4, 1))), 0.85 * captions + 0.15 * 0.4, atol=1e-4)


def test_a_view_that_contradicts_the_captions_is_left_out():
    _, captions, clip = simulate()
    without = fuse_labels(captions, np.zeros_like(clip))
    np.testing.assert_allclose(fuse_labels(captions, -clip), without, atol=1e-4)


def test_agreement_is_worth_more_than_either_source():
    _, captions, clip = simulate()
    fused = fuse_labels(captions, clip)
    assert fused[(captions > 0.5) & (clip > 3)].min() > 0.9 == captions.max()
    assert fused[(captions < 0.5) & (clip < 0)].max() < 0.15 == pytest.approx(captions[captions < 0.5].max(), abs=0.01)


@pytest.mark.parametrize("transform", [np.exp, lambda s: 5 * s - 100, lambda s: s**3, lambda s: 1 / (1 + np.exp(-s))])
def test_only_the_order_of_the_images_counts(transform):
    _, captions, clip = simulate()
    views = np.stack([clip, clip[::-1]], axis=-1)
    other = np.stack([transform(views[..., 0]), views[..., 1]], axis=-1)  # another scale for each view
    np.testing.assert_array_equal(fuse_labels(captions, other), fuse_labels(captions, views))


def test_order_of_images_classes_and_views_does_not_matter():
    _, captions, clip = simulate(100)
    views = np.stack([clip, clip + np.random.default_rng(1).normal(size=clip.shape)], axis=-1)
    fused = fuse_labels(captions, views)
    images, classes = np.random.default_rng(2).permutation(100), [2, 0, 1]
    np.testing.assert_allclose(fuse_labels(captions[images], views[images]), fused[images], atol=1e-3)
    np.testing.assert_allclose(fuse_labels(captions[:, classes], views[:, classes]), fused[:, classes], atol=1e-3)
    np.testing.assert_allclose(fuse_labels(captions, views[..., ::-1]), fused, atol=1e-3)


def test_backgrounds_and_inputs_are_untouched_and_tensors_stay_tensors():
    _, captions, clip = simulate(50)
    before = torch.from_numpy(captions).float()
    fused = fuse_labels(before, torch.from_numpy(clip[:, :2]).float())
    assert isinstance(fused, torch.Tensor) and fused.dtype == before.dtype
    assert torch.equal(fused[:, 2], before[:, 2]) and not torch.equal(fused[:, :2], before[:, :2])
    assert torch.equal(before, torch.from_numpy(captions).float())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_scores_give_probabilities(data):
    count, classes, backgrounds, views = (data.draw(st.integers(low, 4)) for low in (0, 0, 0, 1))
    captions = data.draw(arrays(np.float32, (count, classes + backgrounds), elements=st.floats(0, 1, width=32)))
    clip = data.draw(arrays(np.float64, (count, classes, views),
                            elements=st.sampled_from([0.0, 1.0, -1e300, 1e300, 5e-324, 0.25])))
    fused = fuse_labels(captions, clip)
    assert fused.shape == captions.shape and ((fused >= 0) & (fused <= 1)).all()
    assert np.array_equal(fused[:, classes:], captions[:, classes:])


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_class_that_all_or_no_captions_name(level):
    _, captions, clip = simulate(60)
    captions[:, 1] = level
    fused = fuse_labels(captions, clip)
    assert abs(fused[:, 1] - level).max() < 0.02
    assert np.ptp(fused[:, 1]) < 1e-6, "CLIP cannot be calibrated on it"


def test_probe_learns_from_other_images_alone():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 8)).astype(np.float32)
    captions = (features[:, :2] > 0).astype(np.float32)
    probed = probe_captions(features, captions)
    assert mean_ap(captions, probed) > 95
    changed = captions.copy()
    changed[7] = 1 - changed[7]
    np.testing.assert_array_equal(probe_captions(features, changed)[:40], probed[:40])  # the fold of image 7
    assert not np.array_equal(probe_captions(features, changed)[40:], probed[40:])


def test_clip_log_odds_are_a_penalised_logistic_regression_on_the_log_rank():
    score, views = np.array([0.9, 0.1, 0.6, 0.2]), np.array([[4.0], [1.0], [3.0], [2.0]])
    share = (np.array([4, 1, 3, 2]) - 0.5) / 4
    evidence = -np.log1p(-share)
    evidence -= evidence.mean()

    def loss(line):
        log_odds = line[0] * evidence + line[1]
        return line[0]**2 / 2 + INVERSE_PENALTY * (np.logaddexp(0, log_odds) - score * log_odds).sum()

    slope, offset = minimize(loss, [0.0, 0.0], tol=1e-10).x
    np.testing.assert_allclose(clip_log_odds(score, views), slope * evidence + offset, atol=1e-2)


def test_a_view_that_agrees_a_little_stays_where_another_contradicts():
    score, agrees = np.array([0.9, 0.1, 0.6, 0.2]), np.array([4.0, 1.0, 3.0, 2.0])
    alone = clip_log_odds(score, agrees[:, None])
    assert np.ptp(alone) > 0.1
    np.testing.assert_allclose(clip_log_odds(score, np.stack([agrees, -score], axis=1)), alone)


def test_clip_counts_for_a_class_that_captions_hardly_name():
    score = np.array([0.5, 0.1, 0.05, 0.05])  # less than one image
    assert np.ptp(clip_log_odds(score, score[:, None])) > 0.1


def test_the_probe_is_a_ridge_on_centred_features_of_unit_deviation():
    generator = np.random.default_rng(1)
    features, captions = 3 + generator.normal(size=(10, 3)) * (1, 5, 2), generator.random((10, 2))
    scaled = (features - features.mean(axis=0))
    scaled /= scaled.std()
    expected = np.zeros((10, 2))
    for fold in np.split(np.arange(10), 5):
        rest = np.setdiff1d(np.arange(10), fold)
        middle, mean = scaled[rest].mean(axis=0), captions[rest].mean(axis=0)
        x = scaled[rest] - middle
        weights = np.linalg.solve(x.T @ x + PROBE_PENALTY * 10 * np.eye(3), x.T @ (captions[rest] - mean))
        expected[fold] = (scaled[fold] - middle) @ weights + mean
    np.testing.assert_allclose(probe_captions(features, captions), expected, atol=1e-8)


def test_two_images_are_probed_by_each_other():
    probed = probe_captions(np.array([[0.0], [1.0]]), np.array([[0.2], [0.7]]))
    np.testing.assert_allclose(probed, [[0.7], [0.2]])


def test_captions_of_double_precision_or_whole_numbers_are_fused_in_floats():
    _, captions, clip = simulate(60)
    assert fuse_labels(captions, clip).dtype == np.float64
    assert fuse_labels(captions.astype(np.float32), clip).dtype == np.float32
    whole = fuse_labels((captions > 0.5).astype(np.int64), clip)
    assert whole.dtype == np.float32 and ((whole > 0.01) & (whole < 0.99)).any()
    assert isinstance(whole, np.ndarray)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_probe_of_few_or_equal_images_is_finite(count):
    probed = probe_captions(np.ones((count, 4), dtype=np.float32), np.full((count, 1), 0.3, dtype=np.float32))
    assert probed.shape == (count, 1) and np.isfinite(probed).all()


@pytest.mark.parametrize("captions, clip, message", [
    (np.zeros((3, 2)), np.zeros((4, 2)), "do not fit"),
    (np.zeros((3, 2)), np.zeros((3, 3)), "do not fit"),
    (np.zeros(3), np.zeros((3, 1)), "do not fit"),
    (np.zeros((3, 2)), np.zeros(3), "do not fit"),
    (np.full((3, 2), 1.5), np.zeros((3, 2)), "no probability"),
    (np.full((3, 2), np.nan), np.zeros((3, 2)), "no probability"),
    (np.zeros((3, 2)), np.full((3, 2), np.nan), "not finite"),
])
def test_faulty_scores_are_refused(captions, clip, message):
    with pytest.raises(ValueError, match=message):
        fuse_labels(captions, clip)


@pytest.fixture(scope="module")
def voc2012_half(shared_data):
    """Caption scores (n, O), CLIP scores (n, C, 2) and true labels (n, C) of 586 real images."""
    folder, spec = shared_data / "voc2012_half", get_dataset("voc2012")
    matcher, captions = load_matcher(spec), load_captions(folder / "caption", spec.name)
    scores = score_images(read_captions(captions, matcher), len(spec.categories))
    with np.load(folder / "clip_rn50x64_scores.npz") as clip:
        ids, views = clip["ids"].tolist(), np.stack([clip["whole"], clip["tiles_max"]], axis=-1)
    split = read_split_file(folder / "train_cls.txt", len(spec.classes)).only(ids)
    assert split.image_ids == ids
    row_of = {image_id: row for row, image_id in enumerate(captions)}
    return scores[[row_of[image_id] for image_id in ids]], views, split.targets(len(spec.classes)).numpy() > 0


def test_real_captions_and_real_clip(voc2012_half):
    captions, views, truth = voc2012_half
    fused = fuse_labels(captions, views)[:, :20]
    assert mean_ap(truth, fused) >= 94.0
    assert negative_log_likelihood(truth, fused) <= 0.058
    sources = captions[:, :20], views.sum(axis=-1)
    for category in range(20):
        alone = max(mean_ap(truth[:, [category]], source[:, [category]]) for source in sources)
        assert mean_ap(truth[:, [category]], fused[:, [category]]) >= alone - 1, category
