"""What lies beside weights and says what they do not: config.json (transformers), open_clip_config.json (open_clip)."""
from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Dict, NamedTuple, Tuple

from clip.architecture import MEAN, STD, Architecture, WeightsError
from clip.layouts import WHAT_WORKS

TRANSFORMERS_CONFIG, OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"
_PREPROCESSOR_CONFIGS = ("preprocessor_config.json", "processor_config.json")

# What an absent entry means.
_TRANSFORMERS_TEXT = {
    "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
    "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}
_TRANSFORMERS_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_channels": 3,
}
_OPEN_CLIP_TEXT = {"width": 512, "layers": 12, "heads": 8, "mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408}
_OPEN_CLIP_VISION = {"width": 768, "layers": 12, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16,
                     "image_size": 224}
_OPEN_CLIP_PLAIN: Dict[str, Tuple[Any, ...]] = {  # values that are CLIP's own; None and False always are
    "pool_type": ("tok", "argmax"), "pos_embed_type": ("learnable",), "proj_type": ("linear",), "text_mask": ("first",),
    "act_kwargs": ({},), "norm_kwargs": ({},), "block_type": ("default",),
}
_OPEN_CLIP_FREE = {"patch_dropout", "output_tokens", "pad_id", "eos_id", "attn_pooler_queries", "attn_pooler_heads"}
"""Entries that change nothing in a frozen CLIP, whatever their value."""


class Config(NamedTuple):
    """A configuration file's word on a model."""

    path: Path
    architecture: Architecture
    mean: Tuple[float, ...]
    """Of red, green and blue: the images are normalised by it."""
    std: Tuple[float, ...]
    """Likewise, above 0."""


def find_config(folder: Path, by_transformers: bool) -> Config | None:
    """The configuration of the weights in a folder; of two files, that of the library whose names the tensors have.

    Raises:
        WeightsError: a file is damaged, or describes a model whose numbers this CLIP cannot give.
    """
    readers = {OPEN_CLIP_CONFIG: _read_open_clip, TRANSFORMERS_CONFIG: _read_transformers}
    for name in reversed(readers) if by_transformers else readers:
        path = folder / name
        if not path.is_file():
            continue
        try:
            content = _read_json(path)
            if name == TRANSFORMERS_CONFIG and not by_transformers and content.get("model_type") != "clip":
                continue  # of timm, of a run, of anything
            config = readers[name](path, content)
            sizes = [(getattr(config.architecture, field.name), field.default)
                     for field in dataclasses.fields(Architecture)]
            if min(config.std) <= 0 or any(type(size) is not type(default) for size, default in sizes):
                raise ValueError
            return config
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            reason = error if isinstance(error, WeightsError) else "damaged, or no CLIP's configuration; get it again"
            raise WeightsError(f"{path}: {reason}") from None
    return None


def _read_json(path: Path) -> Dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise WeightsError("no JSON object; get it again")
    return content


# --- transformers ---------------------------------------------------------------------------------------------------

def is_transformers_clip(folder: Path) -> bool:
    """Whether a folder's config.json is that of transformers' CLIPModel."""
    try:
        return _read_json(folder / TRANSFORMERS_CONFIG).get("model_type") == "clip"
    except (OSError, ValueError):
        return False


def _read_transformers(path: Path, content: Dict[str, Any]) -> Config:
    if content["model_type"] != "clip":
        raise WeightsError(f"a model of type {content['model_type']}; {WHAT_WORKS}")
    # Old files say it twice; transformers believes the `..._dict`.
    text = {**_TRANSFORMERS_TEXT, **(content.get("text_config_dict") or content.get("text_config") or {})}
    vision = {**_TRANSFORMERS_VISION, **(content.get("vision_config_dict") or content.get("vision_config") or {})}
    for tower, name in ((text, "text_config"), (vision, "vision_config")):
        if tower["layer_norm_eps"] != 1e-5:
            raise WeightsError(f"{name}.layer_norm_eps is {tower['layer_norm_eps']}, not CLIP's 1e-5; {WHAT_WORKS}")
    if text["hidden_act"] != vision["hidden_act"]:
        raise WeightsError(f"the image encoder's activation is {vision['hidden_act']}, the text encoder's "
                           f"{text['hidden_act']}; {WHAT_WORKS}")
    architecture = Architecture(
        embed_dim=content.get("projection_dim", 512),
        image_resolution=vision["image_size"] // vision["patch_size"] * vision["patch_size"],
        patch_size=vision["patch_size"],
        vision_width=vision["hidden_size"],
        vision_layers=vision["num_hidden_layers"],
        context_length=text["max_position_embeddings"],
        vocab_size=text["vocab_size"],
        text_width=text["hidden_size"],
        text_layers=text["num_hidden_layers"],
        vision_mlp_ratio=vision["intermediate_size"] / vision["hidden_size"],
        text_mlp_ratio=text["intermediate_size"] / text["hidden_size"],
        vision_head_width=vision["hidden_size"] // vision["num_attention_heads"],
        text_head_width=text["hidden_size"] // text["num_attention_heads"],
        activation=vision["hidden_act"],
    )
    return Config(path, architecture, *_transformers_normalisation(path.parent))


def _transformers_normalisation(folder: Path) -> Tuple[Tuple[float, ...], Tuple[float, ...]]:
    for path in (folder / name for name in _PREPROCESSOR_CONFIGS):
        if path.is_file():
            content = _read_json(path)
            content = content.get("image_processor", content)
            return _three(content.get("image_mean", MEAN)), _three(content.get("image_std", STD))
    return MEAN, STD


# --- open_clip ------------------------------------------------------------------------------------------------------

def _read_open_clip(path: Path, content: Dict[str, Any]) -> Config:
    model = content["model_cfg"]
    text, vision = model["text_cfg"], model["vision_cfg"]
    if isinstance(vision.get("layers"), list):
        raise WeightsError(f"a CLIP ResNet, which has no patch tokens; {WHAT_WORKS}")
    if "multimodal_cfg" in model:
        raise WeightsError(f"a CoCa; {WHAT_WORKS}")
    for tower, name, known in ((vision, "vision_cfg", _OPEN_CLIP_VISION), (text, "text_cfg", _OPEN_CLIP_TEXT)):
        for entry, value in tower.items():
            if not (entry in known or entry in _OPEN_CLIP_FREE or value is None or value is False
                    or value in _OPEN_CLIP_PLAIN.get(entry, ())):
                raise WeightsError(f"{name}.{entry} is {json.dumps(value)}, which is not in CLIP; {WHAT_WORKS}")
    text, vision = {**_OPEN_CLIP_TEXT, **text}, {**_OPEN_CLIP_VISION, **vision}
    architecture = Architecture(
        embed_dim=model["embed_dim"],
        image_resolution=vision["image_size"] // vision["patch_size"] * vision["patch_size"],
        patch_size=vision["patch_size"],
        vision_width=vision["width"],
        vision_layers=vision["layers"],
        context_length=text["context_length"],
        vocab_size=text["vocab_size"],
        text_width=text["width"],
        text_layers=text["layers"],
        vision_mlp_ratio=int(vision["width"] * vision["mlp_ratio"]) / vision["width"],
        text_mlp_ratio=int(text["width"] * text["mlp_ratio"]) / text["width"],
        vision_head_width=vision["head_width"],
        text_head_width=text["width"] // text["heads"],
        activation="quick_gelu" if model.get("quick_gelu") else "gelu",
    )
    images = content.get("preprocess_cfg") or {}
    return Config(path, architecture, _three(images.get("mean") or MEAN), _three(images.get("std") or STD))


def _three(values: Any) -> Tuple[float, ...]:
    red, green, blue = map(float, values)
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError
    return red, green, blue
