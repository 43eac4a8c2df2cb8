"""Details of the model that a run does not notice: lengths of nodes, edges at the threshold, which part a box is of."""
from __future__ import annotations

import argparse

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.model import CLIP, Architecture
from models.bac_gcn import BACGCN
from models.encoder import PRECISIONS, CLIPEncoder
from models.graph import node_adjacency
from models.masks import complementary_images, high_attention
from models.optimizer import build_optimizer
from models.reso import small_regions


def tiny_clip() -> CLIP:
    return CLIP(Architecture(embed_dim=8, image_resolution=32, patch_size=8, vision_width=64, vision_layers=2,
                             vocab_size=100, text_width=64, text_layers=1)).eval()


class Lengthen(nn.Module):
    """Keeps the nodes that it is given, and hands them on with another length for each."""

    def forward(self, nodes: Tensor) -> Tensor:
        self.given = nodes
        return nodes * torch.arange(2.0, 2 + nodes.shape[1])[:, None]


def test_nodes_have_unit_length_before_and_after_the_gcn():
    torch.manual_seed(0)
    text, patches, globals_ = torch.randn(3, 8), 5 * torch.randn(2, 6, 8), 7 * torch.randn(2, 2, 8)
    gcn = Lengthen()
    logits = BACGCN(text, 2, gcn)(patches, globals_).logits
    torch.testing.assert_close(gcn.given.norm(dim=-1), torch.ones(2, 5))
    torch.testing.assert_close(gcn.given[:, :2], F.normalize(globals_, dim=-1))  # the globals come first
    torch.testing.assert_close(logits, BACGCN(text, 2)(patches, globals_).logits)


def test_an_edge_at_the_threshold_stays():
    graph = torch.tensor([[1.0, 0.5, 0.25], [0.25, 1.0, 0.5], [0.5, 0.25, 1.0]])
    adjacency = node_adjacency(graph, 3, 0, threshold=0.5, normalisation="none")
    assert adjacency.tolist() == [[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.5, 0.0, 1.0]]


def test_a_box_is_that_of_the_part_with_the_peak_and_not_of_the_first():
    heights = torch.zeros(4, 5)
    heights[0, 0] = 0.9
    heights[2:4, 3:5] = 0.8
    heights[3, 3] = 1.0
    region, = small_regions(heights.view(1, 1, 20), torch.tensor([[True]]), (4, 5), gamma=0.7, epsilon=0.5, min_side=0)
    assert region.box == pytest.approx((3 / 5, 2 / 4, 1.0, 1.0))


@pytest.mark.parametrize("mask_mode", ["pixel", "token"])
def test_global_embeddings_are_of_the_image_of_h_and_of_the_rest(mask_mode):
    torch.manual_seed(0)
    clip_model = tiny_clip()
    images = torch.randn(2, 3, 32, 32)
    features = CLIPEncoder(clip_model, mask_share=0.3, mask_mode=mask_mode)(images)
    with torch.no_grad():
        high = high_attention(clip_model.encode_image_dense(images).cls_attention, 0.3)
        if mask_mode == "pixel":
            masked = [clip_model.encode_image(part) for part in complementary_images(images, high, 8)]
        else:
            masked = [torch.cat([clip_model.encode_image(image[None], keep=kept.nonzero().T)
                                 for image, kept in zip(images, part)]) for part in (high, ~high)]
        expected = torch.stack([clip_model.encode_image(images), *masked], dim=1)
    assert high.sum(dim=1).tolist() == [5, 5]
    torch.testing.assert_close(features.global_embeddings, expected, atol=1e-4, rtol=1e-4)


def test_images_with_h_of_different_sizes_are_encoded_each_by_its_own():
    torch.manual_seed(0)
    clip_model = tiny_clip()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        attention = clip_model.encode_image_dense(images).cls_attention
        high = high_attention(attention, 0.3, 0.5)
        expected = torch.stack([torch.cat([clip_model.encode_image(image[None], keep=kept.nonzero().T)
                                           for image, kept in zip(images, part)]) for part in (high, ~high)], dim=1)
    assert len(set(high.sum(dim=1).tolist())) > 1
    features = CLIPEncoder(clip_model, mask_share=0.3, mask_threshold=0.5, mask_mode="token")(images)
    torch.testing.assert_close(features.global_embeddings[:, 1:], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_products_are_of_the_precision_that_is_asked_for(precision):
    torch.manual_seed(0)
    clip_model = tiny_clip()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", PRECISIONS[precision]):
        expected = clip_model.encode_image_dense(images, -1, True)
    assert torch.equal(CLIPEncoder(clip_model, precision=precision)(images).patch_embeddings, expected.patch_embeddings)
    exact = CLIPEncoder(clip_model)(images).patch_embeddings
    assert exact.dtype == torch.float32 and not torch.equal(exact, expected.patch_embeddings.float())


def test_the_optimiser_has_the_rate_and_the_decay_of_the_flags_and_leaves_out_what_is_frozen():
    model = BACGCN(torch.randn(3, 4), 2, learned_kernel=False)
    group, = build_optimizer(model, argparse.Namespace(lr=0.02, weight_decay=0.3)).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.3)
    assert not any(weight is model.kernel.weight for weight in group["params"])
    assert len(group["params"]) == len(list(model.parameters())) - 1
