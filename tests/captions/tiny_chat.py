"""Chat-style vision-language models in miniature, built locally: two families of transformers' real classes."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict

import torch

from tests.captions.tiny_blip2 import SENTENCES

TEMPLATE = ("{%% for message in messages %%}{{ message['role'] }}: {%% for part in message['content'] %%}"
            "{%% if part['type'] == 'image' %%}%s{%% else %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}\n"
            "{%% endfor %%}{%% if add_generation_prompt %%}assistant:{%% endif %%}")
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<image>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
                  "<|video_pad|>"]


def _tokenizer() -> Any:
    import transformers
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(SENTENCES * 3, vocab_size=600, min_frequency=2, special_tokens=SPECIAL_TOKENS)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        additional_special_tokens=SPECIAL_TOKENS[4:])


_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "initializer_range": 0.3, "max_position_embeddings": 512, "bos_token_id": 0,
         "pad_token_id": 1, "eos_token_id": 2}


def write_llava(folder: Path) -> Path:
    """LLaVA: CLIP's patches, a projection and Llama; every image is the same number of tokens."""
    import transformers

    tokenizer = _tokenizer()
    processor = transformers.LlavaProcessor(
        transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}), tokenizer,
        patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE % "<image>")
    model = transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 48,
                       "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
                       "projection_dim": 24, "initializer_range": 0.3},
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **_TEXT},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>")))
    return _save(model, processor, folder)


def write_qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: as many tokens as an image has patches at its own size, and positions in three dimensions."""
    import transformers

    tokenizer = _tokenizer()
    sizes = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    image_processor = transformers.Qwen2VLImageProcessor(size=sizes, patch_size=14, merge_size=2)
    processor = transformers.Qwen2VLProcessor(
        image_processor, tokenizer, transformers.Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE % "<|vision_start|><|image_pad|><|vision_end|>")
    ids: Callable[[str], int] = tokenizer.convert_tokens_to_ids
    model = transformers.Qwen2VLForConditionalGeneration(transformers.Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14,
                       "spatial_merge_size": 2, "initializer_range": 0.3},
        text_config={"vocab_size": len(tokenizer), **_TEXT,
                     "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [1, 1, 2]},
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>")))
    return _save(model, processor, folder)


def _save(model: Any, processor: Any, folder: Path) -> Path:
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 1
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


FAMILIES: Dict[str, Callable[[Path], Path]] = {"llava": write_llava, "qwen2_vl": write_qwen2_vl}


def write_chat_model(family: str, folder: Path) -> Path:
    """Write a tiny model of a family as `from_pretrained` reads it."""
    torch.manual_seed(0)
    return FAMILIES[family](folder)
