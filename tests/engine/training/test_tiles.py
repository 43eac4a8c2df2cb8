"""`--tiles`: from the features of tiles to a checkpoint that is evaluated, goes on and tags photos."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.images import read_image
from datasets.split_file import ImageList, read_image_ids
from engine.command_line.older_runs import complete_flags
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.evaluation.scores_file import load_scores
from engine.features.extraction import extract_features
from engine.features.frozen_encoder import load_encoder
from engine.features.tiles import TileGrid, Tiles
from engine.training.run import Run
from tests.engine.training.test_training import assert_same_weights, log, run_script, train

TILES = ["--tiles", "2", "--patch_dtype", "fp16"]


@pytest.fixture(scope="module")
def tiled(tiny_world, tmp_path_factory):
    return train(tiny_world, tmp_path_factory.mktemp("runs") / "tiled", *TILES)


def test_small_tiles_have_a_kernel_of_their_own_and_stand_behind_the_others(tiny_world, tmp_path, capsys):
    run = train(tiny_world, tmp_path / "run", "--tiles", 1, "--small_tiles", 2, "--patch_dtype", "fp16")
    weights = torch.load(run / "checkpoint.pth", weights_only=True)["model"]
    assert not torch.equal(weights["tile_kernel.weight"], weights["small_tile_kernel.weight"])
    run_script("eval", "--checkpoint", run / "checkpoint.pth", "--output_dir", tmp_path)
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(log(run)[-1]["mAP"], abs=1e-3)
    args = parse_args(get_args_parser("voc2007", None), [*tiny_world.flags, "--tiles", "1", "--small_tiles", "2"])
    encoder = load_encoder(args, torch.device("cpu"))
    images = ImageList(args.val_img_root, read_image_ids(args.val_split_file), encoder.transform)
    stored = extract_features(encoder, images, "test", args)[np.array([7, 0])].global_embeddings[:, 3:]
    photo = read_image(images.path(7))
    views = [TileGrid(1).cut(photo, 0), *(TileGrid(2, parts=3).cut(photo, tile) for tile in range(4))]
    with torch.no_grad():
        expected = encoder.encode_whole(torch.stack([encoder.transform(view) for view in views]))
    assert stored.shape[1] == 5
    torch.testing.assert_close(stored[0], expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("flags", [[], ["--no_feature_store"]])
def test_features_of_tiles_stand_behind_the_global_ones(tiny_world, flags):
    args = parse_args(get_args_parser("voc2007", None), [*tiny_world.flags, "--tiles", "2", *flags])
    encoder = load_encoder(args, torch.device("cpu"))
    images = ImageList(args.val_img_root, read_image_ids(args.val_split_file), encoder.transform)
    rows = [7, 0, 11]
    features = extract_features(encoder, images, "test", args)[np.array(rows)]
    cut = Tiles(images, 2)
    with torch.no_grad():
        tiles = torch.stack([encoder.encode_whole(torch.stack([cut[4 * row + tile][0] for tile in range(4)]))
                             for row in rows])
        whole = encoder(torch.stack([images[row][0] for row in rows]))
    torch.testing.assert_close(features.global_embeddings[:, 3:], tiles, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(features.global_embeddings[:, :3], whole.global_embeddings, atol=2e-3, rtol=2e-3)


def test_a_run_with_tiles_trains_on_crops_is_evaluated_and_goes_on(tiny_world, tiled, tmp_path, monkeypatch, capsys):
    assert log(tiled)[2]["images"] > 20, "crops have tiles, too"
    assert "tile_kernel.weight" in torch.load(tiled / "checkpoint.pth", weights_only=True)["model"]
    run_script("eval", "--checkpoint", tiled / "checkpoint.pth", "--output_dir", tmp_path)
    assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(log(tiled)[-1]["mAP"], abs=1e-3)

    def stop(*args) -> None:
        finish_epoch(*args)
        raise KeyboardInterrupt

    finish_epoch = Run.finish_epoch
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, SystemExit)):
        patch.setattr(Run, "finish_epoch", stop)
        train(tiny_world, tmp_path / "stopped", *TILES)
    train(tiny_world, tmp_path / "stopped", *TILES)
    assert_same_weights(tmp_path / "stopped", tiled)


def test_other_tiles_are_refused_before_they_are_encoded(tiny_world, tiled, tmp_path, capsys):
    features = tiny_world.path("--feature_root")
    before = sorted(features.iterdir())
    with pytest.raises(SystemExit):
        train(tiny_world, tiled, "--tiles", 3)
    assert "made with --tiles 2, not 3" in capsys.readouterr().err and sorted(features.iterdir()) == before


@pytest.mark.parametrize("damage", ["truncated", "emptied", "deleted"])
def test_damaged_features_of_tiles_are_named(tiny_world, tmp_path, capsys, damage):
    flags = [*tiny_world.flags, "--feature_root", tmp_path / "features", "--tiles", 1, "--epochs", 1, "--no_reso"]
    run_script("train_voc07", *flags, "--output_dir", tmp_path / "one")
    for path in (tmp_path / "features").glob("*/rows.npy"):
        if damage == "deleted":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:300] if damage == "truncated" else b"")
    with pytest.raises(SystemExit):
        run_script("train_voc07", *flags, "--output_dir", tmp_path / "other")
    said = capsys.readouterr().err
    assert re.search(r"error: .*features/\w+: a damaged feature store \(rows.npy.*delete the folder", said)


def test_photos_are_tagged_with_their_tiles(tiny_world, tiled, tmp_path):
    run_script("eval", "--checkpoint", tiled / "checkpoint.pth", "--output_dir", tmp_path)
    run_script("eval", "--checkpoint", tiled / "checkpoint.pth", "--image", tiny_world.path("--val_img_root"),
               "--json", tmp_path / "tags.json")
    measured, photos = load_scores(tmp_path / "scores.npz"), json.loads((tmp_path / "tags.json").read_text())["photos"]
    assert [Path(photo["photo"]).stem for photo in photos] == measured.ids
    scores = np.array([list(photo["scores"].values()) for photo in photos])
    assert np.allclose(scores, 1 / (1 + np.exp(-measured.scores)), atol=5e-3), "the store is in half precision"


@pytest.mark.parametrize("flags, named", [
    (["--tiles", "2", "--zoom", "3"], "--zoom does nothing with --tiles 2"),
    (["--tiles", "2", "--logits", "global"], "--tiles does nothing with --logits global"),
    (["--tiles", "2", "--method", "tai_dpt"], "--tiles does nothing with --method tai_dpt"),
    (["--small_tiles", "2", "--zoom", "3"], "--zoom does nothing with --small_tiles 2"),
    (["--small_tiles", "2", "--logits", "global"], "--small_tiles does nothing with --logits global"),
])
def test_flags_that_do_nothing_beside_tiles_are_refused(tiny_world, tmp_path, capsys, flags, named):
    with pytest.raises(SystemExit):
        run_script("train_voc07", *tiny_world.flags, "--output_dir", tmp_path, *flags)
    assert named in capsys.readouterr().err


def test_a_checkpoint_with_tiles_is_not_zoomed(tiled, capsys):
    with pytest.raises(SystemExit):
        run_script("eval", "--checkpoint", tiled / "checkpoint.pth", "--zoom", 2)
    assert "--zoom does nothing with --tiles 2" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["paper", "plus"])
def test_runs_before_the_flag_had_no_tiles(tmp_path, recipe):
    flags = vars(parse_args(get_args_parser("voc2007", None), ["--recipe", recipe]))
    assert (flags["tiles"], flags["small_tiles"]) == {"paper": (0, 0), "plus": (3, 4)}[recipe]
    del flags["small_tiles"]
    assert complete_flags(dict(flags))["tiles"] == flags["tiles"] and complete_flags(dict(flags))["small_tiles"] == 0
    del flags["tiles"]
    assert complete_flags(flags)["tiles"] == complete_flags(flags)["small_tiles"] == 0
    (tmp_path / "config.json").write_text(json.dumps({"args": flags}))
    args = parse_args(get_args_parser("voc2007", None), ["--config", str(tmp_path / "config.json")])
    assert (args.recipe, args.tiles, args.small_tiles) == (recipe, 0, 0)
