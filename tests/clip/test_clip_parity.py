"""Weights of transformers and open_clip give the numbers that these libraries give, where they are installed."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import clip
from clip.configs import find_config

TEXTS = ["a photo of a dog", "potted plant", "two zebras that cross a dusty road behind a fence"]
VIT_H = {"hidden_size": 1280, "num_attention_heads": 16, "intermediate_size": 5120}  # heads of 80


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def randomise(model: nn.Module) -> None:
    """New weights of which no bias is zero and no scale is one, so that a forgotten one shows; fp16 holds them."""
    pool = torch.randn(1_000_003, generator=torch.Generator().manual_seed(3))  # repeated: new numbers are slow
    for name, parameter in model.named_parameters():
        noise = pool.repeat(parameter.numel() // len(pool) + 1)[: parameter.numel()].view(parameter.shape)
        if parameter.ndim > 1:
            value = noise * parameter.shape[1:].numel() ** -0.5
        else:
            value = 0.1 * noise + (name.endswith("weight") or name == "logit_scale")
        parameter.data = value.half().float()


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert ((actual - expected).abs().max() / expected.abs().max()).item() < 2e-5


# --- transformers ---------------------------------------------------------------------------------------------------

def by_transformers(activation: str = "quick_gelu", projection: int = 24, **vision: Any) -> nn.Module:
    """A CLIPModel, small where nothing else is said."""
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 96, "num_attention_heads": 6, "intermediate_size": 160, "num_hidden_layers": 2}
    vision = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256, "num_hidden_layers": 3,
              "image_size": 32, "patch_size": 8, **vision}
    if vision["hidden_size"] == 768:
        text = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "num_hidden_layers": 12}
    with torch.device("meta"):  # no time for numbers that are overwritten at once
        model = transformers.CLIPModel(transformers.CLIPConfig(
            projection_dim=projection, text_config={**text, "hidden_act": activation},
            vision_config={**vision, "hidden_act": activation}))
    model.to_empty(device="cpu")
    for tower in (model.text_model, model.vision_model):
        tower.embeddings.position_ids = torch.arange(tower.embeddings.position_ids.shape[-1])[None]
    randomise(model)
    return model.eval()


@torch.no_grad()
def assert_equal_to_transformers(ours: clip.CLIP, theirs: nn.Module) -> None:
    size = ours.visual.input_resolution
    images, tokens = torch.randn(1, 3, size, size), clip.tokenize(TEXTS).long()
    for actual, expected in ((ours.encode_image(images), theirs.get_image_features(images)),
                             (ours.encode_text(tokens), theirs.get_text_features(tokens))):
        assert_same(actual, getattr(expected, "pooler_output", expected))  # what a feature is changed with version 5


VIT_B_16 = {"projection": 512, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
            "num_hidden_layers": 12, "image_size": 224, "patch_size": 16}


@pytest.mark.parametrize(("file", "dtype", "sizes"), [
    ("model.safetensors", torch.float32, {}),
    ("model.safetensors", torch.bfloat16, {"activation": "gelu"}),
    ("pytorch_model.bin", torch.float64, {"activation": "gelu", "projection": 32, "num_attention_heads": 2}),
    ("pytorch_model.bin", torch.float16, {"activation": "gelu", **VIT_H}),
    ("model.safetensors", torch.float16, VIT_B_16),
], ids=["small", "gelu", "bin", "ViT-H's heads", "ViT-B/16"])
def test_a_folder_of_transformers(tmp_path: Path, file: str, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    theirs = by_transformers(**sizes).to(dtype)
    theirs.save_pretrained(tmp_path, safe_serialization=True, max_shard_size="5GB")
    if file.endswith(".bin"):
        (tmp_path / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), tmp_path / file)
    assert_equal_to_transformers(clip.load(tmp_path, "cpu")[0], theirs.float())


@torch.no_grad()
def test_logits_and_attentions_of_a_file_of_transformers(tmp_path: Path) -> None:
    theirs = by_transformers()
    theirs.config._attn_implementation = "eager"  # newer versions' default gives no attentions
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    ours, _ = clip.load(tmp_path / "model.safetensors", "cpu")
    images, tokens = torch.randn(2, 3, 32, 32), clip.tokenize(TEXTS).long()
    outputs = theirs(tokens, images, output_attentions=True)
    per_image, per_text = ours(images, tokens)
    assert_same(per_image, outputs.logits_per_image)
    assert_same(per_text, outputs.logits_per_text)
    attentions = torch.stack(outputs.vision_model_output.attentions).mean(dim=2)
    assert_same(ours.encode_image_attentions(images).attentions, attentions)


def test_a_folder_of_transformers_in_pieces(tmp_path: Path) -> None:
    theirs = by_transformers()
    theirs.save_pretrained(tmp_path, safe_serialization=True, max_shard_size="1MB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert_equal_to_transformers(clip.load(tmp_path, "cpu")[0], theirs)
    next(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(clip.WeightsError, match=r"index\.json: model-0000\d-of-.*No such file"):
        clip.load(tmp_path)


def test_old_configurations_mean_what_transformers_takes_them_for(tmp_path: Path) -> None:
    theirs = by_transformers("gelu")
    theirs.save_pretrained(tmp_path, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        config[f"{tower}_dict"] = config[tower]
        config[tower] = {"hidden_act": "quick_gelu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_equal_to_transformers(clip.load(tmp_path, "cpu")[0], type(theirs).from_pretrained(tmp_path).eval())


# --- open_clip ------------------------------------------------------------------------------------------------------

SMALL = {"embed_dim": 24, "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8},
         "text_cfg": {"width": 96, "heads": 6, "layers": 2, "mlp_ratio": 2.0}}


def by_open_clip(model_cfg: dict[str, Any], folder: Path, **preprocess_cfg: Any) -> nn.Module:
    """A model of open_clip with its configuration in the folder."""
    open_clip = pytest.importorskip("open_clip")
    folder.mkdir(exist_ok=True)
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    sizes = {key: value for key, value in model_cfg.items() if key != "custom_text"}
    model = (open_clip.CustomTextCLIP if "custom_text" in model_cfg else open_clip.CLIP)(**sizes)
    randomise(model)
    return model.eval()


@torch.no_grad()
def assert_equal_to_open_clip(ours: clip.CLIP, theirs: nn.Module) -> None:
    size = ours.visual.input_resolution
    images, tokens = torch.randn(2, 3, size, size), clip.tokenize(TEXTS).long()
    assert_same(ours.encode_image(images), theirs.encode_image(images))
    assert_same(ours.encode_text(tokens), theirs.encode_text(tokens))


@pytest.mark.parametrize("changes", [
    {}, {"quick_gelu": True}, {"custom_text": True},
    {"vision_cfg": {"image_size": 28, "layers": 2, "width": 1280, "head_width": 80, "patch_size": 14},
     "text_cfg": {"width": 1024, "heads": 16, "layers": 1}},
    {"vision_cfg": {**SMALL["vision_cfg"], "width": 104, "head_width": 104, "mlp_ratio": 4.9231, "pool_type": "tok"}},
    {"embed_dim": 512, "vision_cfg": {"patch_size": 16}, "text_cfg": {}},
], ids=["small", "quick_gelu", "custom_text", "ViT-H's heads", "ViT-bigG's ratio", "ViT-B/16"])
def test_files_of_open_clip(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = by_open_clip({**SMALL, **changes}, tmp_path)
    file = "open_clip_pytorch_model.bin" if changes.get("embed_dim") else "open_clip_model.safetensors"
    weights = {key: value.half() for key, value in theirs.state_dict().items()}
    if file.endswith(".bin"):
        torch.save(weights, tmp_path / file)
    else:
        save_file(weights, tmp_path / file)
    assert_equal_to_open_clip(clip.load(tmp_path, "cpu")[0], theirs)


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14"])
def test_sizes_of_released_models(tmp_path: Path, name: str) -> None:
    """Of the real sizes, without their weights: what the configuration says is what the tensors and heads are."""
    open_clip = pytest.importorskip("open_clip")
    config = open_clip.get_model_config(name)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    told = find_config(tmp_path, by_transformers=False).architecture
    with torch.device("meta"):
        theirs = open_clip.CLIP(**config)
        ours = clip.CLIP(told)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    for encoder, twin in ((ours.visual, theirs.visual), (ours, theirs)):
        assert encoder.transformer.resblocks[0].attn.heads == twin.transformer.resblocks[0].attn.num_heads
    assert clip.Architecture.of(theirs.state_dict(), told.activation) == told, "without it, too"


def test_training_checkpoints_of_open_clip(tmp_path: Path) -> None:
    theirs = by_open_clip(SMALL, tmp_path)
    weights = {f"module._orig_mod.{key}": value for key, value in theirs.state_dict().items()}
    optimizer = torch.optim.AdamW(theirs.parameters()).state_dict()
    torch.save({"epoch": 3, "name": "run", "state_dict": weights, "optimizer": optimizer}, tmp_path / "epoch_3.pt")
    assert_equal_to_open_clip(clip.load(tmp_path / "epoch_3.pt", "cpu")[0], theirs)


def test_images_that_are_normalised_otherwise(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    half = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}
    theirs = by_open_clip(SMALL, tmp_path, **half)
    torch.save(theirs.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    ours, preprocess = clip.load(tmp_path, "cpu")
    transform = open_clip.image_transform(32, is_train=False, **half)
    photo = Image.effect_noise((50, 40), 80).convert("RGB")
    with torch.no_grad():
        assert_same(ours.encode_image(preprocess(photo)[None]), theirs.encode_image(transform(photo)[None]))
