"""The mini CLIP: its training objective, its reproducible start, and the weights that come with the code."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import clip
from datasets.files import read_json
from datasets.registry import get_dataset
from mini import train_clip as mini
from mini.clip_training import batches, objective, pictures, start
from mini.clip_training.pictures import Pool
from mini.clip_training.recipe import Phase, Recipe, phases
from mini.clip_training.start import Vocabulary
from mini.portraits import render_portrait
from mini.simulated_captioner import NOUNS

ROOT = Path(__file__).parents[2]
WEIGHTS, LOG = (ROOT / mini.SHIPPED / name for name in (mini.WEIGHTS_FILE, mini.LOG_FILE))


def test_the_loss_is_zero_for_a_perfect_match_and_log_n_for_none() -> None:
    matched = torch.eye(4, dtype=torch.bool)
    assert objective.contrastive_loss(1000 * torch.eye(4), matched).item() == pytest.approx(0)
    assert objective.contrastive_loss(torch.zeros(4, 4), matched).item() == pytest.approx(np.log(4))


def test_equal_captions_share_the_target() -> None:
    positives = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    logits = 1000 * positives.float()
    assert objective.contrastive_loss(logits, positives).item() == pytest.approx(2 * np.log(2) / 3)
    assert objective.contrastive_loss(logits, torch.eye(3, dtype=torch.bool)).item() == pytest.approx(2 * np.log(2) / 3)
    uneven = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]])
    alone = torch.eye(3, dtype=torch.bool)
    assert objective.contrastive_loss(uneven, positives) > objective.contrastive_loss(uneven, alone)


def test_blackout_blackens_whole_patches_of_a_share_of_the_images() -> None:
    images = batches.to_tensor(torch.full((10, 3, 96, 96), 255, dtype=torch.uint8))
    white = images
    images = batches.black_out_patches(white, 0.4, np.random.default_rng(0))
    assert torch.equal(images[4:], white[4:])
    black = batches.to_tensor(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))[0]
    patches = images[:4].unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    is_black = torch.tensor([torch.allclose(patch, black, atol=1e-6) for patch in patches])
    is_white = torch.tensor([torch.equal(patch, white[0, :, :16, :16]) for patch in patches])
    assert (is_black ^ is_white).all() and is_black.any() and is_white.any()


def test_patch_components_are_decorrelated() -> None:
    torch.manual_seed(0)
    model = clip.CLIP(clip.Architecture(embed_dim=16, image_resolution=32, vision_width=64, vision_layers=1,
                                        text_width=64, text_layers=1, vocab_size=100))
    images = F.interpolate(torch.randn(64, 3, 12, 12), 32, mode="bilinear")
    start.init_patch_embedding(model, images)
    codes = model.visual.conv1(images).flatten(2).transpose(1, 2).flatten(0, 1).T
    covariance = torch.cov(codes).detach()
    diagonal = covariance.diagonal()
    assert (covariance - diagonal.diag()).abs().max() < 1e-3 * diagonal.max()
    assert diagonal[:8].min() > 0.5 and diagonal.max() <= 1.001  # equal but for the faintest


def test_the_dense_vocabulary_encodes_as_the_full_one() -> None:
    texts = ["a photo of a dog.", "two kites in the sky", "img 2034"]
    vocabulary = Vocabulary(texts)
    recipe = dataclasses.replace(Recipe(), vision_layers=1, text_layers=1)
    model = start.initial_model(recipe)
    expected = model.encode_text(clip.tokenize(texts))
    model.token_embedding = torch.nn.Embedding.from_pretrained(
        model.token_embedding.weight.detach()[vocabulary.token_ids], freeze=False)
    assert torch.allclose(model.encode_text(vocabulary.encode(texts)), expected, atol=1e-6)
    rebuilt = clip.build_model(start.full_state_dict(model, vocabulary, recipe))
    assert torch.allclose(rebuilt.encode_text(clip.tokenize(texts)), expected, atol=0.02)  # fp16


def test_the_first_pass_needs_only_the_first_scenes() -> None:
    recipe = dataclasses.replace(Recipe(), num_scenes=8, batch_size=4)
    pixels = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 192, 192, 3), np.uint8)
    pool = Pool(pixels, [[f"{row} {take}" for take in range(pictures.CAPTIONS_PER_PICTURE)] for row in range(8)])
    steps = [captions for _, captions in batches.batches(pool, recipe, Phase(6, 1e-3, 8, shuffle_first=False))]
    rows = [[int(caption.split()[0]) for caption in captions] for captions in steps]
    assert rows[:2] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sorted(rows[2] + rows[3]) == list(range(8))
    taken = [caption for captions in steps for caption in captions]
    assert len(set(taken)) == len(taken)  # a picture that comes again comes with another caption
    shuffled = [captions for _, captions in batches.batches(pool, recipe, Phase(2, 1e-3, 8, shuffle_first=True))]
    assert sorted(shuffled[0] + shuffled[1]) == sorted(steps[0] + steps[1]) and shuffled[0] != steps[0]


def test_portraits_show_any_class_anywhere_and_captions_name_it() -> None:
    names = {render_portrait(0, index, 32).name for index in range(200)}
    assert names == set(get_dataset("mini").classes)
    assert np.array_equal(render_portrait(3, 5, 64).pixels, render_portrait(3, 5, 64).pixels)
    for texts, index in zip(pictures.render_pool(0, num_scenes=0, num_portraits=4).captions, range(4)):
        nouns = [noun for noun, _ in NOUNS[render_portrait(0, index, 32).name]]
        assert all(any(noun in text for noun in nouns) for text in texts)


def test_the_logged_losses_are_reproduced_from_the_start() -> None:
    log = read_json(LOG)
    recipe = Recipe(**log["recipe"])
    steps = 3
    pool = pictures.render_pool(recipe.seed, max(256, steps * recipe.batch_size))
    model, vocabulary = start.start(recipe, pool)
    rows = mini.train(model, vocabulary, pool, recipe, phases(recipe)[0], stop_after=steps)
    assert len(rows) == steps
    for row, logged in zip(rows, log["losses"]):
        assert row == pytest.approx(logged, abs=2e-3)


def test_the_shipped_weights_are_small_and_of_openai_s_architecture() -> None:
    assert WEIGHTS.stat().st_size < 4e6
    model, _ = clip.load(WEIGHTS)
    recipe = Recipe(**read_json(LOG)["recipe"])
    assert model.visual.patch_size == 16
    assert model.visual.input_resolution == recipe.resolution
    assert model.embed_dim == recipe.embed_dim
    assert model.vocab_size == 49408 and model.context_length == 77


def test_the_shipped_weights_recognise_new_scenes_by_cls_and_by_patches() -> None:
    model, _ = clip.load(WEIGHTS)
    measured = mini.measure(model, 150, seed=12345, workers=1)
    logged = read_json(LOG)["held_out"]
    chance = 9  # percent of the scenes that a class is in, on average
    for name in ("zero_shot_mAP", "patch_maximum_mAP"):
        assert logged[name] > 2 * chance
        assert measured[name] == pytest.approx(logged[name], abs=15)  # 150 scenes of another seed


def test_the_registry_names_the_shipped_weights() -> None:
    assert ROOT / get_dataset("mini").model_path == WEIGHTS
