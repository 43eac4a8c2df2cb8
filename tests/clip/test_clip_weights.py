"""Which weights a CLIP is made of: wrappers, configurations, folders, the hub, and models that are none of CLIP's."""
from __future__ import annotations

import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import clip
from clip import clip as loading
from clip.layouts import FOREIGN
from tests.clip.test_clip_loading import write_torchscript

StateDict = Dict[str, Tensor]
SMALL = clip.Architecture(
    embed_dim=16, image_resolution=16, patch_size=8, vision_width=64, vision_layers=2,
    context_length=77, vocab_size=49408, text_width=64, text_layers=1,
)
OPEN_CLIP = {"model_cfg": {
    "embed_dim": 16, "vision_cfg": {"image_size": 18, "patch_size": 8, "width": 64, "layers": 2},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "layers": 1, "heads": 2}}}
TRANSFORMERS = {
    "model_type": "clip", "projection_dim": 16,
    "text_config": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2},
    "vision_config": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1,
                      "image_size": 16, "patch_size": 8}}


@pytest.fixture(scope="module")
def weights() -> StateDict:
    torch.manual_seed(0)
    return clip.CLIP(SMALL).state_dict()


@pytest.fixture
def path(weights: StateDict, tmp_path: Path) -> Path:
    save_file(weights, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def put(folder: Path, name: str, content: Any, **changes: Any) -> Path:
    """Write a JSON file; `a__b=value` changes its entry b of a, None removes it."""
    content = json.loads(json.dumps(content))
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / name).write_text(json.dumps(content))
    return folder / name


def load_quietly(name: Path, **options: Any) -> clip.CLIP:
    """Load where no warning may be given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return clip.load(name, "cpu", **options)[0]


def refusal(name: Path | str) -> str:
    with pytest.raises(clip.WeightsError) as caught:
        clip.load(name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(name))
    return str(caught.value)


# --- Wrappers and prefixes ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrappers", ["model", "model_state_dict", "state_dict", "model state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "clip.", "clip_model.", "module.clip_model."])
def test_wrapped_weights_are_the_same(weights: StateDict, tmp_path: Path, wrappers: str, prefix: str) -> None:
    content: Any = {prefix + key: value for key, value in weights.items()}
    for wrapper in reversed(wrappers.split()):
        content = {"epoch": 3, wrapper: content, "optimizer": {"lr": 0.1}}
    torch.save(content, tmp_path / "weights.pt")
    loaded = load_quietly(tmp_path / "weights.pt", activation="quick_gelu").state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_what_is_no_tensor_is_refused_with_its_key(weights: StateDict, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"model": {"state_dict": {**weights, "visual.extra": [1, 2]}}}, file)
    assert "model.state_dict.visual.extra is no tensor but list" in refusal(file)
    torch.save({**weights, 3: torch.zeros(1)}, file)
    assert "3 is no name of a tensor" in refusal(file)
    torch.save({"model": weights, "state_dict": weights}, file)
    assert "weights under 'state_dict' and 'model'; save one of them alone" in refusal(file)
    torch.save({"head.weight": torch.zeros(1), **{f"clip.{key}": value for key, value in weights.items()}}, file)
    assert "head.weight beside a model under 'clip.'" in refusal(file)


# --- Models of other kinds ------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "kind"), [
    ("visual.attnpool.k_proj.weight", "CLIP ResNet"), ("visual.layer1.0.conv1.weight", "CLIP ResNet"),
    ("logit_bias", "SigLIP"), ("vision_model.head.probe", "SigLIP"), ("text_decoder.resblocks.0.ln_1.weight", "CoCa"),
    ("visual.attn_pool.query", "CoCa"), ("visual.trunk.blocks.0.attn.q_bias", "EVA-CLIP"),
    ("visual.blocks.0.attn.inner_attn_ln.weight", "EVA-CLIP"), ("visual.trunk.stem.0.weight", "image encoder of timm"),
    ("text.transformer.embeddings.LayerNorm.weight", "another text encoder"),
    ("text.proj.0.weight", "another text encoder"), ("visual.transformer.resblocks.0.ls_1.gamma", "LayerScale"),
])
def test_other_models_are_refused_by_their_tensors(weights: StateDict, tmp_path: Path, name: str, kind: str) -> None:
    save_file({**weights, name: torch.zeros(2)}, tmp_path / "weights.bin")
    assert f"{kind}" in (message := refusal(tmp_path / "weights.bin"))
    assert "such as ViT-B/16, openai/clip-vit-base-patch16" in message
    assert kind in " ".join(FOREIGN.values())


@pytest.mark.parametrize(("changes", "reason"), [
    ({"vision_cfg__layers": [3, 4, 6, 3]}, "a CLIP ResNet"),
    ({"multimodal_cfg": {}}, "a CoCa"),
    ({"vision_cfg__timm_model_name": "vit_base_patch16_siglip_224"}, "vision_cfg.timm_model_name is \"vit_base"),
    ({"vision_cfg__pool_type": "avg"}, "vision_cfg.pool_type is \"avg\", which is not in CLIP"),
    ({"text_cfg__hf_model_name": "roberta-base"}, "text_cfg.hf_model_name is \"roberta-base\""),
    ({"text_cfg__no_causal_mask": True}, "text_cfg.no_causal_mask is true"),
    ({"text_cfg__heads": 3}, "width 64 is no multiple of the head width 21"),
    ({"vision_cfg__width": 128}, "open_clip_config.json beside it says vision_width 128, the weights 64"),
    ({"vision_cfg": 3}, "damaged"),
    ({"vision_cfg__patch_size": 0}, "damaged"),
    ({"vision_cfg__head_width": 32.0}, "damaged"),
])
def test_what_open_clips_configuration_rules_out(path: Path, changes: dict[str, Any], reason: str) -> None:
    changes = {f"model_cfg__{key}": value for key, value in changes.items()}
    put(path.parent, "open_clip_config.json", OPEN_CLIP, **changes)
    assert reason in refusal(path)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"vision_config__hidden_act": "gelu"}, "image encoder's activation is gelu, the text encoder's quick_gelu"),
    ({"vision_config__hidden_act": "relu", "text_config__hidden_act": "relu"}, "only quick_gelu and gelu are"),
    ({"text_config__layer_norm_eps": 1e-6}, "text_config.layer_norm_eps is 1e-06"),
    ({"projection_dim": 512}, "config.json beside it says embed_dim 512, the weights 16"),
    ({"vision_config__patch_size": None}, "damaged"),
])
def test_what_transformers_configuration_rules_out(path: Path, changes: dict[str, Any], reason: str) -> None:
    put(path.parent, "config.json", TRANSFORMERS, **changes)
    assert reason in refusal(path)


@pytest.mark.parametrize("std", [[0.5, 0.5, 0], [0.5, 0.5], [1, 1, float("nan")], "half"], ids=str)
def test_a_normalisation_that_is_none_is_refused(path: Path, std: Any) -> None:
    put(path.parent, "open_clip_config.json", {**OPEN_CLIP, "preprocess_cfg": {"std": std}})
    assert "open_clip_config.json: damaged" in refusal(path)


def test_a_folder_of_another_model_is_refused_by_its_type(weights: StateDict, tmp_path: Path) -> None:
    names = {"vision_model.post_layernorm.weight": torch.zeros(2), "text_model.final_layer_norm.weight": torch.zeros(2)}
    save_file(names, tmp_path / "model.safetensors")
    put(tmp_path, "config.json", {"model_type": "siglip"})
    with pytest.raises(clip.WeightsError, match=r"config\.json: a model of type siglip; use a CLIP with"):
        clip.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(clip.WeightsError, match=r"config\.json: damaged"):
        clip.load(tmp_path)


def test_weights_for_another_tokenizer_are_refused(weights: StateDict, tmp_path: Path) -> None:
    save_file({**weights, "token_embedding.weight": torch.zeros(32000, 64)}, tmp_path / "clipa.safetensors")
    message = refusal(tmp_path / "clipa.safetensors")
    assert "another tokenizer (its table of tokens is (32000, 64), CLIP's has 49408 rows)" in message


# --- The activation, the width of heads and the normalisation --------------------------------------------------------

def test_where_nothing_tells_the_activation_it_is_said_what_is_assumed(path: Path) -> None:
    with pytest.warns(clip.WeightsWarning) as caught:
        model, _ = clip.load(path, "cpu")
    (warning,) = caught
    assert Path(warning.filename) == Path(__file__)
    assert "\n" not in str(warning.message)
    assert str(warning.message).startswith(f"{path}: nothing tells its activation, so quick_gelu is assumed")
    assert model.architecture == SMALL


def test_what_tells_the_activation(path: Path) -> None:
    folder = path.parent
    assert load_quietly(path, activation="gelu").architecture.activation == "gelu"
    put(folder, "config.json", {"args": {}})  # of a run
    with pytest.warns(clip.WeightsWarning, match="nothing tells"):
        clip.load(path, "cpu")
    put(folder, "config.json", TRANSFORMERS, text_config__hidden_act="gelu", vision_config__hidden_act="gelu")
    assert load_quietly(path).architecture.activation == "gelu"
    put(folder, "open_clip_config.json", OPEN_CLIP, model_cfg__quick_gelu=True)
    model = load_quietly(path)
    assert model.architecture.activation == "quick_gelu", "the names are open_clip's, and so is the file"
    assert (model.architecture.vision_head_width, model.architecture.text_head_width) == (64, 32)
    with pytest.warns(clip.WeightsWarning, match=r"gelu, as asked for, though open_clip_config\.json says quick_gelu"):
        other, _ = clip.load(path, "cpu", activation="gelu")
    tokens = clip.tokenize("a dog")
    assert not torch.allclose(model.encode_text(tokens), other.encode_text(tokens), rtol=1e-3)
    with pytest.raises(clip.WeightsError, match="activation 'relu': only quick_gelu and gelu"):
        clip.build_model(model.state_dict(), activation="relu")


def test_openais_releases_are_known_wherever_they_lie(
    weights: StateDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "renamed.bin"
    write_torchscript(weights, file)
    monkeypatch.setitem(loading.URLS, "ViT-B/16", f"https://host/{loading._sha256(file)}/ViT-B-16.pt")
    assert load_quietly(file).architecture.activation == "quick_gelu"
    put(tmp_path, "open_clip_config.json", OPEN_CLIP)  # of other weights in the folder
    assert load_quietly(file).architecture.activation == "quick_gelu"
    with pytest.warns(clip.WeightsWarning, match="gelu, as asked for, though the file says quick_gelu"):
        clip.load(file, "cpu", activation="gelu")


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_compact_files_tell_their_activation(weights: StateDict, tmp_path: Path, activation: str) -> None:
    clip.save_compact(weights, tmp_path / "mini.safetensors", [1, 2], seed=0, activation=activation)
    assert load_quietly(tmp_path / "mini.safetensors").architecture.activation == activation


def test_the_heads_of_a_vit_h_are_80_wide() -> None:
    sizes = clip.Architecture(vision_width=1280, vision_layers=1, text_layers=1, vision_head_width=80)
    with torch.device("meta"):
        model = clip.CLIP(sizes)
    assert clip.Architecture.of(model.state_dict()) == sizes
    assert model.visual.transformer.resblocks[0].attn.heads == 16


# --- Folders and the hub --------------------------------------------------------------------------------------------

def test_of_several_files_in_a_folder_that_of_its_configuration_counts(weights: StateDict, tmp_path: Path) -> None:
    save_file({"head.weight": torch.zeros(1)}, tmp_path / "model.safetensors")  # as in timm's repositories
    torch.save(weights, tmp_path / "open_clip_pytorch_model.bin")
    put(tmp_path, "open_clip_config.json", OPEN_CLIP)
    put(tmp_path, "config.json", {"architecture": "vit_base_patch16_clip_224"})
    assert load_quietly(tmp_path).architecture.activation == "gelu"
    for file in tmp_path.iterdir():
        file.unlink()
    assert "a folder without model.safetensors, pytorch_model.bin, open_clip_model.safetensors" in refusal(tmp_path)


@pytest.fixture
def hub(weights: StateDict, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A huggingface_hub that holds `laion/small` with open_clip's files."""
    module = types.ModuleType("huggingface_hub")
    module.asked = []

    def snapshot_download(name: str, allow_patterns: list[str], cache_dir: str | None) -> str:
        if name != "laion/small":
            raise OSError("404 Client Error\nRepository Not Found")
        folder = Path(cache_dir) / "small"
        folder.mkdir(parents=True, exist_ok=True)
        module.asked += allow_patterns
        if "*config.json" in allow_patterns:
            put(folder, "open_clip_config.json", OPEN_CLIP)
        if "open_clip_pytorch_model.bin*" in allow_patterns:
            torch.save(weights, folder / "open_clip_pytorch_model.bin")
        return str(folder)

    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


@pytest.mark.parametrize("name", ["laion/small", "hf-hub:laion/small"])
def test_a_name_of_the_hub_is_fetched(hub: types.ModuleType, tmp_path: Path, name: str) -> None:
    model = load_quietly(name, download_root=tmp_path)
    assert model.architecture.activation == "gelu"
    assert "*config.json" in hub.asked
    assert "model.safetensors*" not in hub.asked, "open_clip's files come first where its configuration is"


def test_what_the_hub_does_not_send_comes_with_a_command(
    hub: types.ModuleType, monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = "hf download openai/none --local-dir pretrained_models/none"
    message = refusal("openai/none")
    assert "the hub did not send it (OSError: 404 Client Error)" in message
    assert message.endswith(command)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refusal("openai/none").endswith(f"get it with: pip install huggingface_hub && {command}")


def test_paths_are_not_looked_for_on_the_hub(
    hub: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for name in ("nowhere/clip.pt", "runs/clip"):
        assert "no such file" in refusal(name)


# --- OpenAI's API ---------------------------------------------------------------------------------------------------

@pytest.fixture
def default_model(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loading, "download", lambda url, root: path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clip.WeightsWarning)
        yield


def test_the_api_is_called_as_openais(default_model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import clip.clip as module
    assert (module.load, module.tokenize, module.available_models) == (clip.load, clip.tokenize, clip.available_models)
    for model, preprocess in (clip.load("ViT-B/32"), clip.load("ViT-B/32", "cpu", False),
                              clip.load("ViT-B/32", device="cpu", jit=False), clip.load(name="ViT-B/32", device="cpu")):
        assert isinstance(model, clip.CLIP)
        assert callable(preprocess)
    with pytest.raises(ValueError, match="jit=True"):
        clip.load("ViT-B/32", jit=True)
    assert clip.tokenize(["a dog " * 77], truncate=True).shape == (1, 77)
    assert "a CLIP ResNet" in refusal("RN50x4")
