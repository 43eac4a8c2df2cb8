"""What goes beyond the paper in the model: other starts, unknown labels, what a node keeps of itself, warm-up."""
from __future__ import annotations

import argparse

import pytest
import torch
import torch.nn.functional as F

from models.bac_gcn import BACGCN
from models.gcn import CLIPGCN
from models.graph import node_adjacency
from models.kernel import KERNEL_STARTS
from models.losses import LOSSES, pseudo_label_loss
from models.optimizer import build_optimizer, set_learning_rate
from models.reso import crop_targets


def test_kernel_starts_point_where_text_and_captions_say():
    text = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 5.0]])
    images = torch.tensor([[0.0, 4.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 2.0], [2.0, 0.0, 0.0]])  # length is nothing
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.2, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.0]])
    starts = {name: start(text, images, labels) for name, start in KERNEL_STARTS.items()}
    assert torch.equal(starts["text"], torch.eye(3))
    first = torch.tensor([0.0, 1.0, 0.5]) / 1.5 - torch.tensor([0.25, 0.25, 0.5])
    second = torch.tensor([0.0, 0.0, 1.0]) - torch.tensor([0.25, 0.25, 0.5])
    torch.testing.assert_close(starts["captions"][:2], F.normalize(torch.stack([first, second]), dim=1))
    torch.testing.assert_close(starts["captions"][2], starts["text"][2])  # no caption names it
    torch.testing.assert_close(starts["both"][0], F.normalize(starts["text"][0] + starts["captions"][0], dim=0))


@pytest.mark.parametrize("kind", LOSSES)
def test_unknown_labels_have_no_loss_and_no_gradient(kind):
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    unknown = targets.clone()
    unknown[:, 2] = torch.nan
    loss = pseudo_label_loss(logits, unknown, kind)
    others = [0, 1, 3, 4]
    torch.testing.assert_close(loss, pseudo_label_loss(logits[:, others], targets[:, others], kind))
    loss.backward()
    assert logits.grad[:, 2].eq(0).all() and logits.grad[:, others].ne(0).any() and logits.grad.isfinite().all()


def test_crops_ignore_the_other_positives_of_their_image():
    targets = crop_targets(torch.tensor([[0.9, 0.6, 0.4, 0.7]]), torch.tensor([1]), 3, "ignore", positive=0.5)
    assert targets[0, 0].isnan() and targets[0, 1:].tolist() == pytest.approx([0.6, 0.4, 0.7])


def test_a_node_keeps_its_share_whatever_its_neighbours():
    graph = torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.0], [0.2, 0.0, 1.0]])
    adjacency = node_adjacency(graph, 2, 1, global_edge=1.0, self_share=0.8)
    torch.testing.assert_close(adjacency.diagonal(), torch.full((4,), 0.8))
    torch.testing.assert_close(adjacency.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(adjacency[1], torch.tensor([0.2 * 1 / 1.6, 0.8, 0.0, 0.2 * 0.6 / 1.6]))
    alone = node_adjacency(torch.eye(2), 2, 1, global_edge=0.0, self_share=0.8)
    assert torch.equal(alone, torch.eye(3))


def test_fitted_start_has_the_least_loss_of_any_scale_and_bias():
    generator = torch.Generator().manual_seed(0)
    model = BACGCN(torch.randn(3, 8, generator=generator), k=1)
    patches, globals_ = torch.randn(40, 2, 8, generator=generator), torch.randn(40, 1, 8, generator=generator)
    logits = model(patches, globals_).logits.detach()
    targets = torch.sigmoid(0.3 * logits + torch.tensor([-2.0, 0.0, 1.0]))  # known answer: scale 0.3 * 10, these biases
    model.fit_start(logits, targets)
    assert model.log_scale.exp().item() == pytest.approx(3.0, rel=1e-2)
    torch.testing.assert_close(model.bias.detach(), torch.tensor([-2.0, 0.0, 1.0]), atol=2e-2, rtol=0)
    torch.testing.assert_close(model(patches, globals_).logits.sigmoid(), targets, atol=5e-3, rtol=0)


def test_a_start_is_fitted_where_nobody_names_a_class_and_another_is_told_apart_by_its_cosines():
    generator = torch.Generator().manual_seed(0)
    model = BACGCN(torch.randn(3, 8, generator=generator), k=1)
    patches, globals_ = torch.randn(6, 2, 8, generator=generator), torch.randn(6, 1, 8, generator=generator)
    logits = model(patches, globals_).logits.detach()
    targets = torch.stack([torch.zeros(6), (logits[:, 1] > logits[:, 1].median()).float(), torch.ones(6)], dim=1)
    model.fit_start(logits, targets)
    fitted = model(patches, globals_).logits
    assert fitted.isfinite().all() and 1 <= model.log_scale.exp() <= 1000
    assert fitted[:, 0].max() < -5 and fitted[:, 2].min() > 5
    model.fit_start(logits, 1 - targets)  # cosines that say the opposite: the least scale, from which training starts
    assert model.log_scale.exp().item() == pytest.approx(1)


def test_warm_up_rises_to_the_schedule():
    args = argparse.Namespace(lr=1.0, weight_decay=0.0, lr_schedule="cosine", lr_warmup=2.0, epochs=8)
    optimizer = build_optimizer(torch.nn.Linear(1, 1), args)
    rates = []
    for done in (0, 1, 2, 4, 8):
        set_learning_rate(optimizer, args, done)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == 0 and rates[1] == pytest.approx(0.5 * 0.9619, abs=1e-3)
    assert rates[2:] == pytest.approx([0.8536, 0.5, 0.0], abs=1e-3)


def test_the_tile_that_looks_most_like_a_category_adds_its_cosine():
    generator = torch.Generator().manual_seed(3)
    text = F.normalize(torch.randn(5, 8, generator=generator), dim=-1)
    patches, globals_ = torch.randn(2, 6, 8, generator=generator), torch.randn(2, 1, 8, generator=generator)
    tiles = torch.randn(2, 4, 8, generator=generator)
    without = BACGCN(text, k=2, logit_scale=7.0)
    model = BACGCN(text, k=2, logit_scale=7.0, tiles=4)
    best = (F.normalize(tiles, dim=-1) @ text.T).amax(dim=1)
    torch.testing.assert_close(model(patches, globals_, tiles).logits,
                               without(patches, globals_).logits + 7.0 * best)
    model.tile_kernel.weight.data.mul_(-1)  # it is a kernel of its own, which picks the tile and scores it
    worst = (F.normalize(tiles, dim=-1) @ text.T).amin(dim=1)
    torch.testing.assert_close(model(patches, globals_, tiles).logits,
                               without(patches, globals_).logits - 7.0 * worst)
    with pytest.raises(AssertionError, match="tiles"):
        model(patches, globals_)
    both = BACGCN(text, k=2, logit_scale=7.0, tiles=1, small_tiles=3)
    both.small_tile_kernel.weight.data.mul_(-1)  # a kernel of their own again, which sees the small ones alone
    of_sizes = (F.normalize(tiles, dim=-1) @ text.T).split((1, 3), dim=1)
    torch.testing.assert_close(both(patches, globals_, tiles).logits, without(patches, globals_).logits
                               + 7.0 * (of_sizes[0].amax(dim=1) - of_sizes[1].amin(dim=1)))


def test_local_features_of_tiles_go_through_the_same_gcn():
    torch.manual_seed(0)
    text, tiles = torch.eye(3), F.normalize(torch.randn(1, 3, 3), dim=-1)
    gcn = CLIPGCN(3, node_adjacency(torch.full((3, 3), 0.5), 3, 1), hidden=4)
    torch.nn.init.normal_(gcn.layers[-1].weight)
    model = BACGCN(text, k=1, gcn=gcn, logits="local", tiles=3)
    globals_ = torch.randn(1, 1, 3)
    # The patches are the tiles, so both local parts are one.
    without = BACGCN(text, k=1, gcn=gcn, logits="local")
    torch.testing.assert_close(model(tiles, globals_, tiles).logits, 2 * without(tiles, globals_).logits)
