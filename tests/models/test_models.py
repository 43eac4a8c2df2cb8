"""Masks, kernel, graph, GCN, losses and ReSO against answers worked out by hand."""
from __future__ import annotations

import argparse
import math

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import clip
from clip.model import CLIP, Architecture
from datasets.files import DataError
from models.bac_gcn import BACGCN
from models.baselines.zero_shot import zero_shot_scores
from models.encoder import CLIPEncoder
from models.gcn import CLIPGCN, GCN_LAYERS, GraphSAGE
from models.graph import caption_graph, node_adjacency
from models.kernel import SimilarityKernel, mean_by_product, mean_of_rows
from models.losses import LOSSES, asymmetric_loss, pseudo_label_loss, ranking_loss
from models.masks import black_out, complementary_images, high_attention, min_max
from models.optimizer import build_optimizer, set_learning_rate
from models.reso import Crop, crop_targets, read_index, save_crop, small_regions, write_index


def test_min_max_and_constant_rows():
    values = torch.tensor([[2.0, 4.0, 3.0], [5.0, 5.0, 5.0]])
    assert min_max(values).tolist() == [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]


def test_high_attention_share_is_the_authors_thirty_of_196():
    attention = torch.rand(3, 196)
    high = high_attention(attention)
    assert high.sum(dim=1).tolist() == [30, 30, 30]
    weakest_inside = torch.where(high, attention, torch.tensor(2.0)).amin(dim=1)
    strongest_outside = torch.where(high, torch.tensor(-1.0), attention).amax(dim=1)
    assert (weakest_inside >= strongest_outside).all()


def test_high_attention_threshold():
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.5]])
    assert high_attention(attention, threshold=0.4).tolist() == [[False, False, True, True]]


def test_masked_images_are_black_where_removed_and_complementary():
    pixels = torch.rand(1, 3, 4, 6)
    mean, std = torch.tensor(clip.MEAN).view(3, 1, 1), torch.tensor(clip.STD).view(3, 1, 1)
    keep = torch.tensor([[True, False, False, False, False, True]])  # a 2 x 3 grid of 2-pixel patches
    kept, others = complementary_images((pixels - mean) / std, keep, patch_size=2)
    expected = torch.zeros_like(pixels)
    expected[..., 0:2, 0:2] = pixels[..., 0:2, 0:2]
    expected[..., 2:4, 4:6] = pixels[..., 2:4, 4:6]
    torch.testing.assert_close(kept * std + mean, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close((kept + others) * std + 2 * mean, pixels, atol=1e-6, rtol=0)
    assert torch.equal(black_out(pixels, torch.ones(1, 6, dtype=torch.bool), 2), pixels)


def test_kernel_averages_the_k_most_similar_patches():
    patches = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]]])
    kernel = SimilarityKernel(torch.tensor([[2.0, 0.0], [0.0, 5.0]]), k=2)
    local = kernel(patches)
    half = math.sqrt(0.5)
    torch.testing.assert_close(local.maps, torch.tensor([[[1.0, 0.0, half, -1.0], [0.0, 1.0, half, 0.0]]]))
    torch.testing.assert_close(local.features, torch.tensor([[[1 + half, half], [half, 1 + half]]]) / 2)


@pytest.mark.parametrize("mean", [mean_of_rows, mean_by_product])
def test_means_are_those_of_the_named_rows_of_each_image(mean):
    generator = torch.Generator().manual_seed(0)
    patches, rows = torch.randn(3, 6, 4, generator=generator), torch.rand(3, 5, 6, generator=generator).topk(2).indices
    expected = torch.stack([image[chosen].mean(dim=1) for image, chosen in zip(patches, rows)])
    torch.testing.assert_close(mean(patches, rows), expected)


def test_kernel_with_more_k_than_patches_averages_all():
    patches = F.normalize(torch.randn(2, 3, 4), dim=-1)
    local = SimilarityKernel(torch.randn(5, 4), k=10)(patches)
    torch.testing.assert_close(local.features, patches.mean(dim=1, keepdim=True).expand(-1, 5, -1))


def test_caption_graph_is_conditional_probability():
    counts = torch.tensor([4.0, 2.0, 0.0])
    co_occurrence = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    # P(0 given 1) = 1/2, P(1 given 0) = 1/4; nothing is known of the category that is never named.
    expected = torch.tensor([[1.0, 0.5, 0.0], [0.25, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert torch.equal(caption_graph(counts, co_occurrence), expected)


def test_node_adjacency_edges_and_normalisation():
    graph = torch.tensor([[1.0, 0.5, 0.2], [0.25, 1.0, 0.0], [0.1, 0.0, 1.0]])  # two classes, one background
    plain = node_adjacency(graph, num_classes=2, num_globals=2, threshold=0.15, global_edge=0.5, normalisation="none")
    expected = torch.tensor([[1.0, 0.0, 0.5, 0.5, 0.5],  # globals: themselves and every local node
                             [0.0, 1.0, 0.5, 0.5, 0.5],
                             [0.5, 0.5, 1.0, 0.5, 0.2],
                             [0.5, 0.5, 0.25, 1.0, 0.0],
                             [0.5, 0.5, 0.0, 0.0, 1.0]])  # 0.1 was cut by the threshold
    assert torch.equal(plain, expected)
    cut = node_adjacency(graph, 2, 2, class_background_edges=False, normalisation="none")
    assert (cut[2:4, 4] == 0).all() and (cut[4, 2:4] == 0).all() and cut[2, 3] == 0.5
    torch.testing.assert_close(node_adjacency(graph, 2, 2).sum(dim=1), torch.ones(5))
    degree = expected.sum(dim=1)
    torch.testing.assert_close(node_adjacency(graph, 2, 2, 0.15, global_edge=0.5, normalisation="symmetric"),
                               torch.diag(degree**-0.5) @ expected @ torch.diag(degree**-0.5))
    assert graph[2, 0] == pytest.approx(0.1), "the caller's graph must stay as it was"


def test_gcn_starts_as_identity_and_mixes_along_the_adjacency():
    torch.manual_seed(0)
    adjacency = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    nodes = torch.randn(2, 3, 4)
    assert torch.equal(CLIPGCN(4, adjacency, hidden=8)(nodes), nodes)
    gcn = CLIPGCN(4, adjacency, hidden=8, depth=1, residual=False)
    mixed = torch.einsum("ij,bjd->bid", adjacency, nodes)
    torch.testing.assert_close(gcn(nodes), F.linear(mixed, gcn.layers[0].weight, gcn.layers[0].bias))
    gcn = CLIPGCN(4, adjacency, hidden=8, depth=2, residual=False)
    moved = nodes.clone()
    moved[:, 2] += 1  # an isolated node reaches nobody else
    assert torch.equal(gcn(moved)[:, :2], gcn(nodes)[:, :2])


def test_sage_layer_weighs_a_node_apart_from_its_neighbours():
    layer = GraphSAGE(1, 1)
    with torch.no_grad():
        layer.linear.weight.copy_(torch.tensor([[10.0, 1.0]]))
        layer.linear.bias.zero_()
    adjacency = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    assert layer(torch.tensor([[[2.0], [4.0]]]), adjacency).tolist() == [[[23.0], [44.0]]]


@pytest.mark.parametrize("layer", list(GCN_LAYERS))
@pytest.mark.parametrize("depth", [1, 3])
def test_gcn_starts_as_identity_whatever_its_layers(layer, depth):
    nodes = torch.randn(2, 3, 4)
    assert torch.equal(CLIPGCN(4, torch.rand(3, 3), hidden=8, depth=depth, layer=layer)(nodes), nodes)


def test_bac_gcn_takes_any_module_that_maps_nodes_to_nodes():
    text, patches, plain = torch.randn(3, 4), torch.randn(2, 5, 4), torch.randn(2, 1, 4)
    passed_on = BACGCN(text, 2, torch.nn.Identity())(patches, plain)
    assert torch.equal(passed_on.logits, BACGCN(text, 2)(patches, plain).logits)


@pytest.mark.parametrize("schedule, rates", [("constant", [2.0, 2.0, 2.0]), ("cosine", [2.0, 1.0, 0.0])])
def test_the_schedule_runs_from_the_first_batch_to_the_end_of_the_last_epoch(schedule, rates):
    args = argparse.Namespace(lr=2.0, weight_decay=0.0, lr_schedule=schedule, lr_warmup=0.0, epochs=4)
    optimizer = build_optimizer(torch.nn.Linear(1, 1), args)
    for epochs_done, rate in zip((0, 2, 4), rates):
        set_learning_rate(optimizer, args, epochs_done)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize("depth", [1, 3])
def test_gcn_depth_and_learned_adjacency(depth):
    gcn = CLIPGCN(4, torch.eye(3), hidden=8, depth=depth, learned_adjacency=True)
    assert len(gcn.layers) == depth and gcn.layers[-1].out_features == 4
    assert "adjacency" in dict(gcn.named_parameters())


@pytest.mark.parametrize("activation, negative", [("relu", 0.0), ("leaky_relu", -0.02), ("gelu", -0.0455)])
def test_gcn_activation_stands_between_the_layers(activation, negative):
    gcn = CLIPGCN(1, torch.eye(2), hidden=1, residual=False, activation=activation)
    for layer in gcn.layers:
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    nodes = torch.tensor([[[-2.0], [8.0]]])
    torch.testing.assert_close(gcn(nodes), torch.tensor([[[negative], [8.0]]]), atol=1e-4, rtol=0)


def small_model(**options) -> BACGCN:
    torch.manual_seed(0)
    adjacency = torch.full((7, 7), 1 / 7)
    return BACGCN(torch.randn(5, 8), k=2, gcn=CLIPGCN(8, adjacency, hidden=6, residual=False), **options)


def test_gradients_reach_kernel_classifier_and_gcn():
    model = small_model()
    model(torch.randn(3, 9, 8), torch.randn(3, 2, 8)).logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_frozen_encoder_gets_no_gradient_and_stays_frozen():
    torch.manual_seed(0)
    clip_model = clip.build_model(CLIP(Architecture(
        embed_dim=8, image_resolution=32, patch_size=8, vision_width=64, vision_layers=2, context_length=77,
        vocab_size=100, text_width=64, text_layers=1)).state_dict())
    features = CLIPEncoder(clip_model)(torch.randn(2, 3, 32, 32))
    assert features.patch_embeddings.shape == (2, 16, 8) and features.global_embeddings.shape == (2, 3, 8)
    assert not any(tensor.requires_grad for tensor in features)
    assert not any(parameter.requires_grad for parameter in clip_model.parameters())
    high = high_attention(clip_model.encode_image_dense(images := torch.randn(2, 3, 32, 32)).cls_attention)
    torch.testing.assert_close(CLIPEncoder(clip_model, mask_mode="pixel")(images).global_embeddings[:, 1],
                               clip_model.encode_image(black_out(images, high, 8)))


def test_final_logits_are_the_sum_of_their_parts_and_start_at_cosines():
    patches, globals_ = torch.randn(3, 9, 8), torch.randn(3, 2, 8)
    torch.manual_seed(0)
    text = torch.randn(5, 8)
    parts = {part: BACGCN(text, k=9, logits=part)(patches, globals_).logits for part in ("both", "local", "global")}
    torch.testing.assert_close(parts["both"], parts["local"] + parts["global"])
    cosines = torch.stack([F.cosine_similarity(globals_[:, g, None], text[None], dim=-1) for g in (0, 1)])
    torch.testing.assert_close(parts["global"], 10 * cosines.mean(dim=0))
    mean_patch = F.normalize(patches, dim=-1).mean(dim=1, keepdim=True)
    torch.testing.assert_close(parts["local"], 10 * F.cosine_similarity(mean_patch, text[None], dim=-1))


def test_frozen_kernel_and_calibration():
    model = small_model(learned_kernel=False)
    assert "kernel.weight" not in {name for name, p in model.named_parameters() if p.requires_grad}
    logits = model(torch.randn(50, 9, 8), torch.randn(50, 2, 8)).logits
    torch.manual_seed(1)
    prior = torch.tensor([0.5, 0.1, 0.9, 0.2, 0.01])
    model.calibrate(logits.mean(dim=0).detach(), prior)
    torch.manual_seed(0)
    assert torch.allclose(logits.mean(dim=0) + model.bias, torch.logit(prior), atol=1e-5)


def test_losses_known_answers():
    logits, targets = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    assert pseudo_label_loss(logits, targets).item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    p = 1 / (1 + math.exp(-2)) - 0.05
    assert asymmetric_loss(logits, targets).item() == pytest.approx((math.log(2) - p**4 * math.log(1 - p)) / 2)
    assert ranking_loss(logits, targets).item() == pytest.approx(3.0)  # 1 - 0 + 2
    assert ranking_loss(logits, torch.zeros(1, 2)).item() == 0  # nothing to rank
    for kind in LOSSES:
        extreme = torch.tensor([[90.0, -90.0]], requires_grad=True)
        loss = pseudo_label_loss(extreme, torch.tensor([[0.0, 1.0]]), kind)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(extreme.grad).all(), kind


def reso_map() -> torch.Tensor:
    """One image, two categories, a 4 x 5 grid: a 2 x 2 peak with a stray patch, and a map that is large."""
    small = torch.zeros(4, 5)
    small[1:3, 2:4] = 0.9
    small[1, 2] = 1.0
    small[3, 0] = 0.8
    large = torch.ones(4, 5)
    large[0, 0] = 0
    return torch.stack([small.flatten(), large.flatten()])[None]


def test_small_regions_area_and_box():
    positive = torch.tensor([[True, True]])
    region, = small_regions(reso_map(), positive, (4, 5), gamma=0.7, epsilon=0.5, min_side=0.0)
    assert (region.image, region.category) == (0, 0)
    assert region.area == pytest.approx(5 / 20)  # T counts the stray patch, the box does not hold it
    assert region.box == pytest.approx((2 / 5, 1 / 4, 4 / 5, 3 / 4))


def test_small_regions_conditions():
    positive = torch.tensor([[True, True]])
    assert not list(small_regions(reso_map(), ~positive, (4, 5), 0.7, 0.5, 0.0)), "only pseudo-positives are cropped"
    assert not list(small_regions(reso_map(), positive, (4, 5), 0.7, 0.25, 0.0)), "area must be below epsilon"
    assert len(list(small_regions(reso_map(), positive, (4, 5), 0.7, 1.0, 0.0))) == 2
    region, = small_regions(reso_map(), positive[:, :1], (4, 5), 0.95, 0.5, 0.0)
    assert region.box == pytest.approx((2 / 5, 1 / 4, 3 / 5, 2 / 4))  # a higher gamma leaves the peak alone
    assert not list(small_regions(torch.ones(1, 1, 20), positive[:, :1], (4, 5), 0.7, 1.1, 0.0)), "a flat map"


def test_small_regions_widens_boxes_inside_the_image():
    corner = torch.zeros(1, 1, 16)
    corner[0, 0, 15] = 1
    region, = small_regions(corner, torch.tensor([[True]]), (4, 4), 0.5, 0.5, min_side=0.5)
    assert region.box == pytest.approx((0.5, 0.5, 1.0, 1.0))


def test_crop_has_the_pixels_of_the_box(tmp_path):
    image = Image.new("RGB", (100, 60), "black")
    image.paste((255, 0, 0), (50, 15, 75, 45))
    save_crop(image, (0.5, 0.25, 0.75, 0.75), 32, tmp_path / "crop.jpg")
    crop = Image.open(tmp_path / "crop.jpg")
    assert crop.size == (32, 32)
    red, green, _ = crop.resize((1, 1), Image.BOX).getpixel((0, 0))
    assert red > 240 and green < 15


def test_crop_index_round_trip_and_faults(tmp_path):
    crops = [Crop("a_03", "a", 3, 0.05, [0.0, 0.1, 0.2, 0.3]), Crop("b_00", "b/ü", 0, 0.01, [0.5, 0.5, 1.0, 1.0])]
    write_index(tmp_path, crops)
    assert read_index(tmp_path) == crops
    (tmp_path / "index.json").write_text('[{"file": "x"}]')
    with pytest.raises(DataError, match="crop 0: not the entry of a crop"):
        read_index(tmp_path)


def test_crop_targets():
    targets = torch.tensor([[0.9, 0.8, 0.4], [0.2, 1.0, 0.0]])  # two classes, one background
    own = crop_targets(targets, torch.tensor([1, 1]), num_classes=2, labels="category")
    torch.testing.assert_close(own, torch.tensor([[0.0, 0.8, 0.4], [0.0, 1.0, 0.0]]))
    assert torch.equal(crop_targets(targets, torch.tensor([1, 1]), 2, labels="image"), targets)


def test_zero_shot_scores():
    images, text = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    cosines = torch.tensor([[1.0, math.sqrt(0.5)]])
    torch.testing.assert_close(zero_shot_scores(images, text, softmax=False), cosines)
    torch.testing.assert_close(zero_shot_scores(images, text), (100 * cosines).softmax(dim=1))
