"""TagCLIP against a plain transcription of its equations, and against answers worked out by hand."""
from __future__ import annotations

import json
from typing import List

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

import clip
from clip.model import CLIP, Architecture
from datasets.files import DataError
from datasets.images import read_image
from datasets.registry import get_dataset
from datasets.tagclip_words import published_words
from engine.command_line.data_flags import fill_defaults
from engine.command_line.eval_flags import get_eval_parser
from engine.command_line.method_flags import method_title
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


def probabilities(embeddings: np.ndarray, text_embeddings: torch.Tensor) -> np.ndarray:
    """Softmax over the categories of 100 cos, for embeddings (..., D)."""
    text = text_embeddings.double().numpy()
    text = text / np.linalg.norm(text, axis=1, keepdims=True)
    cosines = embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True) @ text.T
    exponentials = np.exp(100 * (cosines - cosines.max(axis=-1, keepdims=True)))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def normalised(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


def plain_tagclip(model: CLIP, image: torch.Tensor, text_embeddings: torch.Tensor, num_classes: int,
                  published: bool) -> List[float]:
    """Scores of one image, step by step and category by category, in float64.

    As published, the box step works on whole numbers of 0..255, boxes end before the last row and column, and the
    first empty box ends the image.
    """
    patch, side = model.visual.patch_size, model.visual.input_resolution
    rows, columns = image.shape[1] // patch, image.shape[2] // patch
    embeddings, attentions = model.encode_image_attentions(image[None])
    layers = attentions[:, 0, 1:, 1:].double().numpy()
    p = probabilities(embeddings[0].double().numpy(), text_embeddings)
    votes = sum((layer > layer.mean()).astype(int) for layer in layers)
    a = np.where(votes >= 4, (layers[8] + layers[9] + layers[10]) / 3, 0)

    r = np.empty_like(p)
    for c in range(p.shape[1]):
        coarse = normalised(a @ p[:, c])
        above = np.floor(255 * coarse) > np.floor(255 * coarse.mean()) if published else coarse > coarse.mean()
        parts, number = ndimage.label(above.reshape(rows, columns), np.ones((3, 3)))
        inside = np.zeros((rows, columns))
        for part in range(1, number + 1):
            ys, xs = np.nonzero(parts == part)
            bottom, right = ys.max() + 1, xs.max() + 1
            if published:
                bottom, right = min(bottom, rows - 1), min(right, columns - 1)
            inside[ys.min():bottom, xs.min():right] = 1
        r[:, c] = (a * inside.reshape(1, -1)) @ p[:, c]

    scores = r[:, :num_classes].max(axis=0)
    for c in np.nonzero(scores > r.min() + 0.5 * (r.max() - r.min()))[0]:
        mask = (normalised(r[:, c]) > 0.5).reshape(rows, columns)
        ys, xs = np.nonzero(mask)
        top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
        if published:
            bottom, right = min(bottom, rows - 1), min(right, columns - 1)
            if top == bottom or left == right:
                break
        crop = F.interpolate(image[None, :, top * patch:bottom * patch, left * patch:right * patch], (side, side),
                             mode="bilinear", align_corners=False)
        count = side // patch
        seen = [bool(mask[top + y * (bottom - top) // count, left + x * (right - left) // count])
                for y in range(count) for x in range(count)]
        embedding = model.encode_image(crop, patch_mask=torch.tensor([seen]))[0].double().numpy()
        scores[c] = (scores[c] + probabilities(embedding, text_embeddings)[c]) / 2
    return scores.tolist()


@pytest.mark.parametrize("published", [False, True])
def test_scores_are_those_of_the_equations(model, text_embeddings, published):
    images = torch.randn(3, 3, 80, 112, generator=torch.Generator().manual_seed(2))
    scores = TagCLIP(model, text_embeddings, 5, published, crop_batch_size=2)(images)
    expected = torch.tensor([plain_tagclip(model, image, text_embeddings, 5, published) for image in images])
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
    for flag, title in ((["--published_behaviour"], "TagCLIP, single prompt, published behaviour"),
                        (["--prompt_words", "ours"], "TagCLIP, our words, single prompt")):
        run_script("eval", *flags, *flag)
        assert capsys.readouterr().out.strip().splitlines()[-1] != batched
        assert json.loads((tmp_path / "result.json").read_text())["title"] == title


@pytest.mark.parametrize("dataset, words, number", [("voc2007", "published", 45), ("voc2012", "published", 45),
                                                    ("coco2014", "published", 103), ("nuswide", "ours", 89),
                                                    ("mini", "ours", 32)])
def test_words_are_the_published_ones_where_there_are_some(dataset, words, number):
    parser = get_eval_parser(None)
    args = fill_defaults(parser.parse_args(["--method", "tagclip", "--dataset", dataset, "--prompts", "ensemble"]),
                         trained=False)
    assert args.prompt_words == words and len(engine_tagclip.prompt_words(get_dataset(dataset), words)) == number
    assert method_title(args, "ViT-B/16", trained=False) == "TagCLIP" + ", our words" * (words == "ours")


def test_published_words_of_other_datasets_are_refused():
    with pytest.raises(DataError, match="none for nuswide"):
        engine_tagclip.prompt_words(get_dataset("nuswide"), "published")


@pytest.mark.parametrize("dataset, name", [("voc2007", "voc"), ("coco2014", "coco")])
def test_published_words_are_as_the_authors_write_them(shared_data, dataset, name):
    folder = shared_data / "classes"
    words = [(folder / file).read_text().split("\n")
             for file in (f"tagclip_{name}.txt", f"tagclip_background_{name}.txt")]
    assert list(published_words(dataset)) == [word for part in words for word in part if word]


def test_published_rows_are_reproduced_on_real_photos(shared_data):
    """The published words and behaviour on photos at their native size, by a small random CLIP."""
    torch.manual_seed(1)
    model = CLIP(Architecture(embed_dim=32, image_resolution=128, patch_size=32, vision_width=64, vision_layers=12,
                              text_width=64, text_layers=1)).eval().requires_grad_(False)
    words = published_words("coco2014")
    with torch.no_grad():
        texts = model.encode_text(clip.tokenize([f"a photo of a {word}." for word in words]))
    transform = engine_tagclip.native_transform(32, 4096)
    tagclip = TagCLIP(model, texts, 80, published_behaviour=True)
    photos = sorted((shared_data / "coco2014_mini" / "val2014").iterdir())
    assert len(photos) == 43
    for path in photos:
        image = transform(read_image(path))
        expected = plain_tagclip(model, image, texts, 80, published=True)
        torch.testing.assert_close(tagclip(image[None])[0], torch.tensor(expected), atol=1e-4, rtol=0)
