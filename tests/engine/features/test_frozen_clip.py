"""The CLIP of a run: which weights a command takes, and what tells one CLIP from another."""
from __future__ import annotations

import argparse
import json

import pytest
import torch

import clip
from engine.features.frozen_clip import load_clip, weights_name
from models.encoder import weights_digest
from tests.engine.training.test_training import run_script


def config_of(**model_cfg) -> str:
    """open_clip's configuration of the tiny CLIP."""
    return json.dumps({"model_cfg": {
        "embed_dim": 32, "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2},
        "text_cfg": {"width": 64, "heads": 1, "layers": 1}, **model_cfg}})


def test_the_digest_tells_what_the_tensors_do_not() -> None:
    sizes = {"embed_dim": 8, "image_resolution": 16, "patch_size": 8, "vision_width": 160, "vision_layers": 1,
             "vocab_size": 9, "text_width": 64, "text_layers": 1, "vision_head_width": 80}
    weights = clip.CLIP(clip.Architecture(**sizes)).state_dict()
    models = [clip.build_model(weights, activation, head_width)
              for activation, head_width in (("quick_gelu", 80), ("gelu", 80), ("quick_gelu", 160))]
    assert len({weights_digest(model) for model in models}) == 3
    assert len({weights_digest(model.visual) for model in models}) == 3


def test_digests_of_openais_models_are_those_of_their_weights_alone(tiny_world) -> None:
    """So that the stores and checkpoints of earlier versions stay good."""
    model = clip.build_model({key: torch.ones_like(value) for key, value in
                              torch.load(tiny_world.path("--model_path"), weights_only=True).items()})
    assert weights_digest(model.visual) == (
        "75ea3ac1c98ef09ee0a8d24175752c64e5fa4dd0517089496023b96b356cca65")


@pytest.mark.parametrize(("path", "name"), [
    ("a/ViT-B-16.pt", "ViT-B-16.pt"), ("openai/clip-vit-base-patch16", "clip-vit-base-patch16"),
    ("a/laion/open_clip_pytorch_model.bin", "laion"), ("model.safetensors", "model.safetensors"),
])
def test_weights_go_by_the_name_that_tells_them_apart(path: str, name: str) -> None:
    assert weights_name(path) == name


def test_what_is_assumed_is_one_line(tiny_world, capsys) -> None:
    path = tiny_world.path("--model_path")
    load_clip(argparse.Namespace(model_path=str(path), activation=None), torch.device("cpu"))
    message = capsys.readouterr().err
    assert message.startswith(f"warning: {path}: nothing tells its activation") and message.count("\n") == 1
    load_clip(argparse.Namespace(model_path=str(path), activation="gelu"), torch.device("cpu"))
    assert capsys.readouterr().err == ""


def test_a_run_on_gelu_weights_says_so_and_is_no_other_run(tiny_world, tmp_path, capsys) -> None:
    folder, output_dir = tmp_path / "laion", tmp_path / "run"
    folder.mkdir()
    (folder / "open_clip_pytorch_model.bin").write_bytes(tiny_world.path("--model_path").read_bytes())
    (folder / "open_clip_config.json").write_text(config_of())
    command = [*tiny_world.flags, "--model_path", folder, "--feature_root", tmp_path / "features", "--epochs", "1",
               "--output_dir", output_dir]
    run_script("train_voc07", *command)
    config, result = (json.loads((output_dir / f"{name}.json").read_text()) for name in ("config", "result"))
    assert (config["activation"], config["head_width"], result["activation"]) == ("gelu", 64, "gelu")
    assert "CLIP weights laion, gelu" in capsys.readouterr().out
    run_script("train_voc07", *command, "--activation", "gelu")  # it is what it was
    stores = set((tmp_path / "features").iterdir())
    with pytest.raises(SystemExit):
        run_script("train_voc07", *command, "--activation", "quick_gelu")
    assert "made with weights_sha256" in capsys.readouterr().err
    assert stores < set((tmp_path / "features").iterdir()), "other features than those of gelu"
    with pytest.raises(SystemExit):
        run_script("eval", "--checkpoint", output_dir / "checkpoint.pth", "--activation", "quick_gelu")
    assert "they were gelu then and are quick_gelu here, see --activation" in capsys.readouterr().err
