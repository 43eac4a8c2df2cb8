"""Tensors as other libraries name them to OpenAI's names, and refusals of models that are none of CLIP's."""
from __future__ import annotations

import re
from typing import Dict, Mapping

import torch
from torch import Tensor

from clip.architecture import WeightsError

WHAT_WORKS = ("use a CLIP with a plain vision transformer and CLIP's own text encoder, such as ViT-B/16, "
              "openai/clip-vit-base-patch16 or a ViT-B-16 of open_clip")

FOREIGN = {  # pattern of a tensor's name: what it belongs to; the first that fits counts
    r"visual\.(layer1|attnpool)\.": "a CLIP ResNet, which has no patch tokens",
    r"logit_bias$|vision_model\.head\.": "a SigLIP, which has no [cls] token",
    r"text_decoder\.|visual\.attn_pool\.": "a CoCa, which pools its patches by another attention",
    r"visual\.(trunk\.)?blocks\.\d+\.(attn\.([qv]_bias|q_proj|inner_attn_ln)|mlp\.(fc1_g|w1))":
        "an EVA-CLIP, whose blocks differ from CLIP's",
    r"visual\.trunk\.": "a CLIP with an image encoder of timm",
    r"text\.(transformer\.(embeddings|encoder)|proj)\.|text_model\.encoder\.layer\.":
        "a CLIP with another text encoder than CLIP's own",
    r".*\.ls_1\.gamma$": "a CLIP with LayerScale",
}

_IGNORED = re.compile(  # sizes in OpenAI's archives, which shapes tell; constants that some versions saved
    r"(input_resolution|context_length|vocab_size|(text\.)?attn_mask|(vision|text)_model\.embeddings\.position_ids)$")

_TRANSFORMERS = {  # parts of transformers' names to OpenAI's
    "vision_model.": "visual.", "text_model.": "", "encoder.layers.": "transformer.resblocks.",
    "self_attn.": "attn.", "layer_norm1.": "ln_1.", "layer_norm2.": "ln_2.", "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.", "embeddings.patch_embedding.": "conv1.", "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding", "embeddings.token_embedding.": "token_embedding.",
    "pre_layrnorm.": "ln_pre.", "post_layernorm.": "ln_post.", "final_layer_norm.": "ln_final.",
}
_PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
_QUERY = ".self_attn.q_proj."


def is_transformers(names: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named as by transformers' CLIPModel."""
    return any(name.startswith(("vision_model.", "text_model.")) for name in names)


def to_openai_names(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """The tensors of a CLIP by OpenAI's names, from OpenAI's, open_clip's or transformers'.

    Raises:
        WeightsError: the tensors are those of another kind of model.
    """
    for pattern, what in FOREIGN.items():
        if any(re.match(pattern, name) for name in tensors):
            raise WeightsError(f"{what}; {WHAT_WORKS}")
    tensors = {name: tensor for name, tensor in tensors.items() if not _IGNORED.match(name)}
    if is_transformers(tensors):
        return _from_transformers(tensors)
    return {name[len("text."):] if name.startswith("text.") else name: tensor for name, tensor in tensors.items()}


def _from_transformers(tensors: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    for tower, encoder in (("vision_model.", "image"), ("text_model.", "text")):
        if not any(name.startswith(tower) for name in tensors):
            raise WeightsError(f"the {encoder} encoder is missing; save the whole CLIPModel, not one encoder of it")
    renamed: Dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in _PROJECTIONS:
            renamed[_PROJECTIONS[name]] = tensor.T
        elif _QUERY in name:  # OpenAI keeps the three projections in one
            names = [name.replace(_QUERY, f".self_attn.{part}_proj.") for part in "qkv"]
            absent = next((other for other in names if other not in tensors), None)
            if absent is not None:
                raise WeightsError(f"not a CLIP: {absent} is missing")
            parts = [tensors[other] for other in names]
            if not parts[0].shape or len({part.shape for part in parts}) > 1:
                raise WeightsError(f"not a CLIP: {' and '.join(names)} differ in shape")
            renamed[_openai_name(name.replace("q_proj.", "in_proj_"))] = torch.cat(parts)
        elif ".self_attn.k_proj." not in name and ".self_attn.v_proj." not in name:
            renamed[_openai_name(name)] = tensor
    return renamed


def _openai_name(name: str) -> str:
    for theirs, ours in _TRANSFORMERS.items():
        name = name.replace(theirs, ours)
    return name
