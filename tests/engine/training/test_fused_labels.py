"""`--labels fused` on the tiny world: which views CLIP gives, and what becomes of the labels."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from datasets.registry import get_dataset
from datasets.split_file import ImageList, read_image_ids
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.features.extraction import extract_features
from engine.features.frozen_clip import build_encoder, load_clip
from engine.features.text_embeddings import encode_categories
from engine.features.tiles import Tiles
from engine.training.fused_labels import clip_views, fuse_with_clip
from engine.training.training_labels import load_pseudo_labels
from models.fusion import fuse_labels, probe_captions
from tests.engine.training.test_training import train


@pytest.fixture(scope="module")
def seen(tiny_world):
    """The images, store, encoder, text embeddings and flags of a run, and its pseudo-labels by captions."""
    args = parse_args(get_args_parser("voc2007", None), [*tiny_world.flags, "--labels", "fused", "--zoom", "2"])
    spec, clip_model = get_dataset("voc2007"), load_clip(args, torch.device("cpu"))
    encoder, image_ids = build_encoder(args, clip_model), read_image_ids(args.train_split_file)
    images = ImageList(args.train_img_root, image_ids, encoder.transform)
    pseudo = load_pseudo_labels(args, spec, image_ids, spec.categories)
    text = encode_categories(clip_model, spec.classes)
    return (images, extract_features(encoder, images, "train", args), encoder, text, args), pseudo


def test_views_are_cls_best_patches_probe_and_best_tile(seen):
    (images, store, encoder, text, args), pseudo = seen
    views = clip_views(pseudo.targets[:, :20], images, store, encoder, text, args)
    assert views.shape == (20, 20, 4)
    features = store[np.arange(20)]

    def less_mean(cosines):
        return cosines - cosines.mean(-1, keepdims=True)

    whole = F.normalize(features.global_embeddings[:, 0], dim=-1) @ text.T
    patches = F.normalize(features.patch_embeddings, dim=-1) @ text.T
    np.testing.assert_allclose(views[..., 0], less_mean(whole.numpy()), atol=1e-6)
    np.testing.assert_allclose(views[..., 1], np.sort(patches.numpy(), axis=1)[:, -4:].mean(axis=1), atol=1e-6)
    globals_ = F.normalize(features.global_embeddings, dim=-1).flatten(1).numpy()
    np.testing.assert_allclose(views[..., 2], probe_captions(globals_, pseudo.targets[:, :20].numpy()), atol=1e-5)
    with torch.no_grad():
        tiles = encoder.clip.encode_image(torch.stack([Tiles(images, 2)[index][0] for index in range(4 * 7, 4 * 8)]))
    cosines = (F.normalize(tiles, dim=-1) @ text.T).numpy()
    np.testing.assert_allclose(views[7, :, 3], less_mean(cosines).max(axis=0), atol=1e-3)


def test_trained_tiles_are_views_too(tiny_world, seen):
    (images, _, encoder, text, zoomed), pseudo = seen
    args = type(zoomed)(**{**vars(zoomed), "zoom": None, "tiles": 2})
    store = extract_features(encoder, images, "train", args)
    views = clip_views(pseudo.targets[:, :20], images, store, encoder, text, args)
    of_zoom = clip_views(pseudo.targets[:, :20], images, store.source, encoder, text, zoomed)
    np.testing.assert_allclose(views[..., [0, 1, 3]], of_zoom[..., [0, 1, 3]], atol=1e-6)
    globals_ = F.normalize(store[np.arange(20)].global_embeddings, dim=-1).flatten(1).numpy()
    np.testing.assert_allclose(views[..., 2], probe_captions(globals_, pseudo.targets[:, :20].numpy()), atol=1e-5)


def test_only_fused_labels_change_and_only_for_classes(seen):
    (images, store, encoder, text, args), pseudo = seen
    fused = fuse_with_clip(pseudo, images, store, encoder, text, 20, args)
    views = clip_views(pseudo.targets[:, :20], images, store, encoder, text, args)
    assert torch.equal(fused.targets, fuse_labels(pseudo.targets, views)) and fused.graph is pseudo.graph
    assert torch.equal(fused.targets[:, 20:], pseudo.targets[:, 20:])
    args = type(args)(**{**vars(args), "labels": "votes"})
    assert fuse_with_clip(pseudo, images, store, encoder, text, 20, args) is pseudo


def test_a_run_does_not_go_on_with_other_tiles(tiny_world, tmp_path, capsys):
    train(tiny_world, tmp_path, "--labels", "fused", "--epochs", 1)
    with pytest.raises(SystemExit):
        train(tiny_world, tmp_path, "--labels", "fused", "--zoom", 2)
    assert "--zoom" in capsys.readouterr().err
