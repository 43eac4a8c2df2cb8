"""BLIP-2 in miniature, built locally: the libraries' real classes with small random parts.

The vocabulary is bytes plus the words of a few sentences. Words have the larger embeddings, so that the random
language model answers in words, category names among them.
"""
from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, List, Optional

import numpy as np
import torch
from PIL import Image

IMAGE_SIZE = 28
NUM_QUERIES = 4
SENTENCES = [
    "Question: What is in the photo? Answer: a dog and a cat on a sofa",
    "Question: Tell us about the photo Answer: a car and a bus on the road, a person with a bottle",
    "Question: Please explain this photo in detail Answer: a bird in a tree, a boat on the water",
    "Question: What objects are present in this image, excluding dog cat? Answer: a horse, a sheep and a cow",
]
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]
"""With OPT's ids: 1 pads, 2 starts and ends a text."""


def write_images(folder: Path, count: int, seed: int = 0) -> List[str]:
    """Write `count` images of coloured noise blocks and return their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    image_ids = [f"{index:06d}" for index in range(count)]
    for image_id in image_ids:
        blocks = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        blocks.resize((40, 30), Image.NEAREST).save(folder / f"{image_id}.png")
    return image_ids


def _train_tokenizer() -> Any:
    from tokenizers import ByteLevelBPETokenizer  # comes with transformers, which newer Pythons are without

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(SENTENCES * 3, vocab_size=600, min_frequency=2, special_tokens=SPECIAL_TOKENS)
    return tokenizer


def _favour_words(embedding: torch.nn.Embedding, vocabulary: dict) -> None:
    """Scale the embeddings, which the output layer shares: words up, single bytes down, the line break in between."""
    with torch.no_grad():
        for token, index in vocabulary.items():
            is_word = token.startswith("\u0120") and len(token) > 1
            embedding.weight[index] *= 2.0 if is_word else 2.0 if token == "\u010a" else 0.3


def lavis_captioner(folder: Path) -> Any:
    """A `LavisCaptioner` on the CPU over `lavis_model`."""
    from lavis.processors.blip_processors import BlipImageEvalProcessor

    from models.captioners.lavis_blip2 import LavisCaptioner

    return LavisCaptioner(lavis_model(folder), BlipImageEvalProcessor(IMAGE_SIZE), torch.device("cpu"), torch.float32)


def lavis_model(folder: Path, seed: int = 6) -> Any:
    """LAVIS' real `Blip2OPT` with tiny parts, the same for every call; `folder` takes the tokenizer."""
    from lavis.models.blip2_models.blip2 import LayerNorm
    from lavis.models.blip2_models.blip2_opt import Blip2OPT
    from lavis.models.blip2_models.modeling_opt import OPTConfig, OPTForCausalLM
    from lavis.models.blip2_models.Qformer import BertConfig, BertLMHeadModel
    from lavis.models.eva_vit import VisionTransformer
    from transformers import GPT2Tokenizer

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_file, merges_file = _train_tokenizer().save_model(str(folder))
    model = Blip2OPT.__new__(Blip2OPT)
    torch.nn.Module.__init__(model)
    model.visual_encoder = VisionTransformer(
        img_size=IMAGE_SIZE, patch_size=14, embed_dim=24, depth=2, num_heads=2, mlp_ratio=2, qkv_bias=True,
        use_mean_pooling=False, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
    model.ln_vision = LayerNorm(24)
    model.Qformer = BertLMHeadModel(BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        initializer_range=0.3, encoder_width=24, add_cross_attention=True, cross_attention_freq=1,
        query_length=NUM_QUERIES))
    model.query_tokens = torch.nn.Parameter(torch.randn(1, NUM_QUERIES, 32))
    model.opt_tokenizer = GPT2Tokenizer(vocabulary_file, merges_file, bos_token="</s>", eos_token="</s>",
                                        unk_token="</s>", pad_token="<pad>", add_bos_token=True)
    model.opt_model = OPTForCausalLM(OPTConfig(
        vocab_size=len(model.opt_tokenizer), hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=128, init_std=0.3))
    _favour_words(model.opt_model.get_input_embeddings(), model.opt_tokenizer.get_vocab())
    model.opt_proj = torch.nn.Linear(32, 32)
    model.eos_token_id = model.opt_tokenizer("\n", add_special_tokens=False).input_ids[0]
    model.prompt = ""
    return model.eval()


def write_transformers_model(folder: Path, seed: int = 0) -> Path:
    """Write a tiny model of transformers' real `Blip2ForConditionalGeneration` as `from_pretrained` reads it."""
    import transformers

    torch.manual_seed(seed)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_train_tokenizer()._tokenizer, bos_token="</s>", eos_token="</s>", unk_token="</s>",
        pad_token="<pad>")
    image_processor = transformers.BlipImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    processor = transformers.Blip2Processor(image_processor, tokenizer, num_query_tokens=NUM_QUERIES)
    config = transformers.Blip2Config(
        vision_config={"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": IMAGE_SIZE, "patch_size": 14, "initializer_range": 0.3},
        qformer_config={"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                        "intermediate_size": 64, "encoder_hidden_size": 24, "cross_attention_frequency": 1,
                        "initializer_range": 0.3},
        text_config={"model_type": "opt", "vocab_size": len(processor.tokenizer), "hidden_size": 32,
                     "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                     "max_position_embeddings": 128, "init_std": 0.3, "bos_token_id": 2, "eos_token_id": 2,
                     "pad_token_id": 1},
        num_query_tokens=NUM_QUERIES, image_token_index=len(processor.tokenizer) - 1)
    model = transformers.Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    _favour_words(model.get_input_embeddings(), processor.tokenizer.get_vocab())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def available_backend() -> Optional[str]:
    """The captioner whose library is installed here; the two do not go into one environment."""
    if find_spec("lavis") is not None:
        return "lavis"
    if find_spec("transformers") is None:
        return None
    import transformers
    return "transformers" if hasattr(transformers, "Blip2ForConditionalGeneration") else None
