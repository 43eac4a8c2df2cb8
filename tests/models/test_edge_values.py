"""The parts of the model at the edges of what they take: values at a threshold, nothing known, sums below one."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from models.bac_gcn import BACGCN, LABEL_STEP
from models.gcn import CLIPGCN
from models.graph import caption_graph, node_adjacency
from models.kernel import SimilarityKernel, from_text
from models.losses import asymmetric_loss, bce_loss, ranking_loss
from models.masks import complementary_images, high_attention
from models.reso import crop_targets, small_regions


def test_an_attention_at_the_threshold_is_not_in_h():
    assert high_attention(torch.tensor([[0.0, 0.5, 1.0]]), threshold=0.5).tolist() == [[False, False, True]]


def test_a_patch_at_gamma_is_not_in_the_region_and_a_target_at_the_threshold_is_a_positive():
    heights = torch.zeros(1, 1, 9)
    heights[..., 4], heights[..., 5] = 1.0, 0.5
    region, = small_regions(heights, torch.tensor([[True]]), (3, 3), gamma=0.5, epsilon=0.5, min_side=0)
    assert region.area == pytest.approx(1 / 9) and region.box == pytest.approx((1 / 3, 1 / 3, 2 / 3, 2 / 3))
    targets = crop_targets(torch.tensor([[0.5, 0.9]]), torch.tensor([1]), 2, "ignore")
    assert targets[0, 0].isnan() and targets[0, 1] == 0.9


def test_a_least_side_beyond_the_image_is_the_image():
    heights = torch.zeros(1, 1, 9)
    heights[..., 4] = 1
    region, = small_regions(heights, torch.tensor([[True]]), (3, 3), gamma=0.5, epsilon=0.5, min_side=1.5)
    assert region.box == (0, 0, 1, 1)


def test_a_category_named_once_has_the_edges_of_one_list():
    assert caption_graph(torch.tensor([1.0, 4.0]), torch.tensor([[1.0, 1], [1, 4]])).tolist() == [[1, 0.25], [1, 1]]


def test_a_node_whose_edges_sum_below_one_keeps_its_share_all_the_same():
    graph = torch.tensor([[1.0, 0.2], [0.0, 1.0]])
    adjacency = node_adjacency(graph, 2, 0, self_share=0.75)
    torch.testing.assert_close(adjacency, torch.tensor([[0.75, 0.25], [0.0, 1.0]]))


def test_a_category_that_is_always_or_never_named_starts_at_a_finite_bias():
    model = BACGCN(torch.eye(3), 1)
    model.calibrate(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.5]))
    least = math.log(0.001 / 0.999)
    assert model.bias.tolist() == pytest.approx([least - 1, -least, 0], abs=1e-4)


def test_a_fitted_start_does_not_depend_on_the_biases_before():
    torch.manual_seed(0)
    text, patches, globals_, fitted = torch.randn(3, 8), torch.randn(30, 2, 8), torch.randn(30, 1, 8), []
    targets = (BACGCN(text, 1)(patches, globals_).logits.detach() / 3).sigmoid()
    for bias in (torch.zeros(3), torch.tensor([1.0, -2.0, 0.5])):
        model = BACGCN(text, 1)
        model.bias.data.copy_(bias)
        model.fit_start(model(patches, globals_).logits.detach(), targets)
        fitted.append(model(patches, globals_).logits.detach())
    torch.testing.assert_close(*fitted, atol=1e-3, rtol=0)


def test_a_category_that_is_always_or_never_named_starts_fitted_at_half_a_step_of_its_labels():
    """At the least cross-entropy the mean probability of a category is the mean of its labels."""
    torch.manual_seed(0)
    model, patches, globals_ = BACGCN(torch.randn(3, 8), 1), torch.randn(30, 2, 8), torch.randn(30, 1, 8)
    targets = torch.cat([torch.zeros(30, 1), torch.ones(30, 1), torch.rand(30, 1)], dim=1)
    model.fit_start(model(patches, globals_).logits.detach(), targets)
    never, always, _ = model(patches, globals_).logits.detach().double().sigmoid().mean(dim=0).tolist()
    assert never == pytest.approx(LABEL_STEP / 2, rel=0.1) and 1 - always == pytest.approx(LABEL_STEP / 2, rel=0.1)


def test_the_kernel_learns_unless_told_otherwise():
    assert SimilarityKernel(torch.eye(2), 1).weight.requires_grad


def test_both_pictures_are_black_where_the_other_is_not_by_their_own_mean_and_deviation():
    images, high = torch.full((1, 3, 2, 4), 7.0), torch.tensor([[True, False]])
    kept, other = complementary_images(images, high, 2, mean=(0.5, 0.2, 0.1), std=(0.5, 0.1, 0.2))
    black = torch.tensor([-1.0, -2.0, -0.5]).view(3, 1, 1).expand(3, 2, 2)
    for picture, left in ((kept, True), (other, False)):
        shown, hidden = picture[0].split(2, dim=2)[::1 if left else -1]
        assert shown.equal(images[0, :, :, :2])
        torch.testing.assert_close(hidden, black)


def test_maps_are_cosines_whatever_became_of_the_lengths_in_training():
    torch.manual_seed(0)
    model, patches = BACGCN(torch.randn(3, 4), 2), torch.randn(2, 5, 4)
    model.kernel.weight.data *= torch.rand(3, 4) + 1
    maps = F.cosine_similarity(model.kernel.weight[None, :, None], patches[:, None], dim=-1)
    torch.testing.assert_close(model.kernel(patches).maps, maps)
    torch.testing.assert_close(model(patches, torch.randn(2, 1, 4)).maps, maps)


def test_a_gcn_adds_what_it_makes_and_keeps_its_adjacency_unless_told_to_learn_it():
    torch.manual_seed(0)
    adjacency, nodes = torch.rand(3, 3), torch.randn(2, 3, 4)
    gcn = CLIPGCN(4, adjacency, hidden=8, depth=1)
    torch.nn.init.normal_(gcn.layers[0].weight)
    torch.testing.assert_close(gcn(nodes), nodes + gcn.layers[0](nodes, adjacency))
    assert "adjacency" not in dict(gcn.named_parameters())
    assert CLIPGCN(4, adjacency, hidden=8, learned_adjacency=True).adjacency.equal(adjacency)


def test_edges_of_a_global_node_weigh_one_unless_told_otherwise():
    assert node_adjacency(torch.eye(1), 1, 1, normalisation="none").equal(torch.ones(2, 2))


def test_the_kernel_starts_at_texts_of_unit_length():
    assert from_text(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), None, None).tolist() == [
        pytest.approx([0.6, 0.8]), [0, 1]]


def test_losses_of_a_single_known_label():
    logits, targets = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.25, torch.nan]])
    assert bce_loss(logits, targets).item() == pytest.approx(math.log(2))
    negative = 0.75 * 0.45**4 * -math.log(0.55)
    assert asymmetric_loss(logits, targets).item() == pytest.approx(0.25 * math.log(2) + negative)
    assert bce_loss(logits, torch.full((1, 2), torch.nan)) == 0  # and none at all


def test_ranking_loss_weighs_pairs_by_how_much_more_the_first_is_a_label():
    logits = torch.tensor([[0.5, 0.25, 3.0]])
    # Pairs in the order of targets: (0, 1) by 0.5, (0, 2) by 1, (1, 2) by 0.5; hinges 1 - first + second.
    hinges = 0.5 * 0.75 + 1 * 3.5 + 0.5 * 3.75
    assert ranking_loss(logits, torch.tensor([[1.0, 0.5, 0.0]])).item() == pytest.approx(hinges / 2)
    # Weights that sum below one: not divided, so that a batch that hardly ranks counts little.
    assert ranking_loss(logits, torch.tensor([[0.25, 0.0, 0.0]])).item() == pytest.approx(0.25 * 0.75 + 0.25 * 3.5)
    assert ranking_loss(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item() == 0  # far enough apart
