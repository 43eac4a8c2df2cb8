"""TagCLIP against a literal transcription of its equations in loops, and against answers worked out by hand."""
from __future__ import annotations

import json
import math
from typing import List, Tuple

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clip.model import CLIP, Architecture
from engine.methods import tagclip_scores as engine_tagclip
from models.baselines.tagclip import (
    TagCLIP,
    agreed_attention,
    box_columns,
    dual_masking_refinement,
    reidentification_views,
)
from tests.engine.training.test_training import run_script

PATCH, SIDE = 16, 64


@pytest.fixture(scope="module")
def model() -> CLIP:
    torch.manual_seed(0)
    return CLIP(Architecture(embed_dim=16, image_resolution=SIDE, patch_size=PATCH, vision_width=64, vision_layers=12,
                             text_width=64, text_layers=1)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def text_embeddings() -> torch.Tensor:
    """Seven categories close to each other, so that the softmax over them is not saturated."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 16, generator=generator) + 0.3 * torch.randn(7, 16, generator=generator)


def softmax_over_categories(embedding, text_embeddings) -> List[float]:
    exponentials = [math.exp(100 * float(F.cosine_similarity(embedding, text, dim=0))) for text in text_embeddings]
    return [value / sum(exponentials) for value in exponentials]


def flood(inside: List[List[bool]]) -> List[Tuple[int, int, int, int]]:
    """Boxes (top, bottom, left, right; bottom and right outside) of the 8-connected regions."""
    rows, columns, seen, boxes = len(inside), len(inside[0]), set(), []
    for start in [(y, x) for y in range(rows) for x in range(columns)]:
        if start in seen or not inside[start[0]][start[1]]:
            continue
        region, todo = [], [start]
        seen.add(start)
        while todo:
            y, x = todo.pop()
            region.append((y, x))
            for b in range(max(y - 1, 0), min(y + 2, rows)):
                for a in range(max(x - 1, 0), min(x + 2, columns)):
                    if inside[b][a] and (b, a) not in seen:
                        seen.add((b, a))
                        todo.append((b, a))
        ys, xs = [y for y, _ in region], [x for _, x in region]
        boxes.append((min(ys), max(ys) + 1, min(xs), max(xs) + 1))
    return boxes


def normalised(values: List[float]) -> List[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) for value in values]


def literal_tagclip(model, image, text_embeddings, num_classes, published) -> List[float]:
    """Section by section, one number at a time; published clamps boxes and stops at the first empty one."""
    rows, columns = image.shape[1] // PATCH, image.shape[2] // PATCH
    patches, categories = range(rows * columns), range(len(text_embeddings))
    embeddings, attentions = model.encode_image_attentions(image[None])
    layers = attentions[:, 0, 1:, 1:].double()
    p = [softmax_over_categories(embeddings[0, i], text_embeddings) for i in patches]

    means = [float(layer.sum()) / len(patches) ** 2 for layer in layers]
    a = [[0.0] * len(patches) for _ in patches]
    for i in patches:
        for j in patches:
            votes = sum(float(layers[number, i, j]) > means[number] for number in range(12))
            if votes >= 4:
                a[i][j] = sum(float(layers[number - 1, i, j]) for number in (9, 10, 11)) / 3

    def product(c, keep):
        return [sum(a[i][j] * p[j][c] for j in patches if keep(j)) for i in patches]

    r = []
    for c in categories:
        coarse = normalised(product(c, lambda j: True))
        mean = sum(coarse) / len(coarse)
        boxes = flood([[coarse[y * columns + x] > mean for x in range(columns)] for y in range(rows)])
        if published:
            boxes = [(y0, min(y1, rows - 1), x0, min(x1, columns - 1)) for y0, y1, x0, x1 in boxes]
        r.append(product(c, lambda j, boxes=boxes: any(
            y0 <= j // columns < y1 and x0 <= j % columns < x1 for y0, y1, x0, x1 in boxes)))

    scores = [max(r[c]) for c in range(num_classes)]
    middle = (max(map(max, r)) + min(map(min, r))) / 2
    for c in [c for c in range(num_classes) if scores[c] > middle]:
        mask = [value > 0.5 for value in normalised(r[c])]
        inside = [j for j in patches if mask[j]]
        y0, y1 = min(j // columns for j in inside), max(j // columns for j in inside) + 1
        x0, x1 = min(j % columns for j in inside), max(j % columns for j in inside) + 1
        if published:
            y1, x1 = min(y1, rows - 1), min(x1, columns - 1)
            if y0 == y1 or x0 == x1:
                return scores
        crop = F.interpolate(image[None, :, y0 * PATCH:y1 * PATCH, x0 * PATCH:x1 * PATCH], (SIDE, SIDE),
                             mode="bilinear", align_corners=False)
        side = SIDE // PATCH
        seen = [mask[(y0 + y * (y1 - y0) // side) * columns + x0 + x * (x1 - x0) // side]
                for y in range(side) for x in range(side)]
        embedding = model.encode_image(crop, patch_mask=torch.tensor([seen]))[0]
        scores[c] = (scores[c] + softmax_over_categories(embedding, text_embeddings)[c]) / 2
    return scores


@pytest.mark.parametrize("published", [False, True])
def test_scores_are_those_of_the_equations(model, text_embeddings, published):
    images = torch.randn(3, 3, 80, 112, generator=torch.Generator().manual_seed(2))
    scores = TagCLIP(model, text_embeddings, 5, published, crop_batch_size=2)(images)
    expected = torch.tensor([literal_tagclip(model, image, text_embeddings, 5, published) for image in images])
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)


def test_the_two_behaviours_differ(model, text_embeddings):
    images = torch.randn(3, 3, 80, 112, generator=torch.Generator().manual_seed(2))
    right, published = (TagCLIP(model, text_embeddings, 5, flag)(images) for flag in (False, True))
    assert ((right - published).abs().amax(dim=1) > 1e-3).all()


def test_a_batch_scores_as_its_images_alone(model, text_embeddings):
    images = torch.randn(4, 3, 96, 64, generator=torch.Generator().manual_seed(3))
    tagclip = TagCLIP(model, text_embeddings, 5)
    torch.testing.assert_close(tagclip(images), torch.cat([tagclip(image[None]) for image in images]))


def test_attention_counts_where_four_of_twelve_layers_agree():
    layers = torch.full((12, 2, 2), 0.5)  # in a constant layer nothing exceeds the mean
    layers[:4] = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    layers[:3, 1, 0] = 1.0  # one vote short
    layers[8], layers[9], layers[10], layers[11] = 0.1, 0.2, 0.6, 7.0  # the ninth to eleventh are averaged
    torch.testing.assert_close(agreed_attention(layers), torch.tensor([[0.0, 0.3], [0.0, 0.0]]))


def test_boxes_of_regions_reach_the_border():
    maps = torch.tensor([[0.0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]).flatten()
    #                    two diagonal neighbours are one region; the right corners are regions of their own
    inside = box_columns(torch.stack([maps, torch.zeros(20)], dim=1), (4, 5), published=False)
    assert inside[:, 0].view(4, 5).int().tolist() == [
        [0, 0, 0, 0, 1], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert inside[:, 1].all(), "a constant map is not confined"
    cut = box_columns(maps[:, None], (4, 5), published=True)
    assert cut[:, 0].view(4, 5).int().tolist() == [
        [0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def test_refinement_takes_from_the_boxes_alone():
    attention = torch.full((4, 4), 0.25)
    attention[3] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    probabilities = torch.tensor([[0.2], [0.2], [0.2], [0.6]])
    # R = (.3, .3, .3, .6): only patch 3 exceeds the mean, so every patch hears of patch 3 alone.
    refined = dual_masking_refinement(probabilities, attention, (2, 2))
    torch.testing.assert_close(refined[:, 0], torch.tensor([0.15, 0.15, 0.15, 0.6]))


def test_a_class_at_the_corner_gets_its_view_and_so_do_those_after_it():
    image = torch.arange(3 * 4 * 6, dtype=torch.float32).view(3, 4, 6)  # 2 x 3 patches of 2 pixels
    refined = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.1, 0.0], [0.1, 0.9], [0.1, 0.1], [0.9, 0.0]])
    views = reidentification_views(image, refined, torch.tensor([0.9, 0.9]), patch_size=2, resolution=4)
    assert [view.category for view in views] == [0, 1]
    corner = F.interpolate(image[None, :, 2:, 4:], (4, 4), mode="bilinear", align_corners=False)[0]
    assert torch.equal(views[0].image, corner) and views[0].patches.all()
    torch.testing.assert_close(views[1].image, image[:, :, :4])
    assert views[1].patches.tolist() == [True, True, True, False]
    assert reidentification_views(image, refined, torch.tensor([0.9, 0.9]), 2, 4, published=True) == []


def test_classes_below_the_midpoint_are_not_looked_at_again():
    refined = torch.tensor([[1.0, 0.0], [0.2, 0.49]])
    views = reidentification_views(torch.zeros(3, 2, 4), refined, torch.tensor([1.0, 0.49]), 2, 4)
    assert [view.category for view in views] == [0]


def test_large_images_are_limited_and_others_rounded_up():
    transform = engine_tagclip.native_transform(PATCH, max_patches=30)
    assert transform(Image.new("RGB", (70, 50))).shape == (3, 64, 80)
    assert transform(Image.new("RGB", (96, 80))).shape == (3, 80, 96)  # 6 x 5: just allowed
    rows, columns = (side // PATCH for side in transform(Image.new("RGB", (1000, 300))).shape[1:])
    assert rows * columns <= 30 and columns > 2 * rows


@pytest.fixture(scope="module")
def two_sizes(tiny_world, tmp_path_factory):
    """The test photos of the tiny world, every third turned on its side."""
    folder = tmp_path_factory.mktemp("two_sizes")
    for number, path in enumerate(sorted((tiny_world.root / "val").iterdir())):
        image = Image.open(path)
        (image.rotate(90, expand=True) if number % 3 == 0 else image).save(folder / path.name)
    return folder


def test_eval_scores_each_image_as_alone_and_only_once(tiny_world, two_sizes, tmp_path, capsys, monkeypatch):
    flags = ["--method", "tagclip", *tiny_world.flags, "--val_img_root", two_sizes, "--feature_root",
             tmp_path / "features", "--prompts", "single", "--output_dir", tmp_path]
    flags = [flag for flag in flags if flag not in ("--caption_root", str(tiny_world.root / "caption"))]
    sizes = []
    score = TagCLIP.__call__
    monkeypatch.setattr(TagCLIP, "__call__", lambda self, images: sizes.append(images.shape) or score(self, images))
    run_script("eval", *flags)
    batched = capsys.readouterr().out.strip().splitlines()[-1]
    assert sorted(tuple(size) for size in sizes) == [(4, 3, 112, 80), (8, 3, 80, 112)]
    run_script("eval", *flags)
    assert len(sizes) == 2, "the scores are kept"
    run_script("eval", *flags, "--encode_batch_size", 1, "--no_feature_store")
    assert len(sizes) == 14
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == batched
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["method"] == "tagclip" and result["title"] == "TagCLIP, single prompt"
    assert batched == f"mAP {result['last_mAP']}"
    run_script("eval", *flags, "--published_behaviour")
    assert capsys.readouterr().out.strip().splitlines()[-1] != batched
