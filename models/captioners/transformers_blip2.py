"""BLIP-2 as transformers has it."""
from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any, List, Sequence

import torch
from PIL import Image
from torch import Tensor

from datasets.captions.prompts import DECODING
from datasets.files import DataError
from models.captioners.captioner import HUB_NAMES, Blip2Captioner, attend_all, cannot_load, import_library


class TransformersCaptioner(Blip2Captioner):
    """transformers' `Blip2ForConditionalGeneration` with an OPT language model.

    Its beam search divides a text's log-probability by the number of new tokens, that of LAVIS' older transformers
    by the number of all tokens, prompt included: of the same beams it prefers longer captions.

    Args:
        model: the model in evaluation mode, on `device`, loaded as `dtype`.
        processor: the `Blip2Processor` that belongs to it.
        device: where the model is.
        dtype: of the vision and language model; transformers keeps the Q-Former in float32.
    """

    def __init__(self, model: Any, processor: Any, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(device, dtype)
        self.transform = partial(_pixel_values, processor.image_processor)
        self.library = f"transformers {version('transformers')}"
        self.model = model
        self.tokenizer = processor.tokenizer
        self._line_break = self._text_tokens(["\n"])[0][-1]  # BLIP-2 is trained to end a caption with it

    def _text_tokens(self, texts: Sequence[str]) -> List[List[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False).input_ids

    def _encode(self, images: Tensor) -> Tensor:
        model = self.model
        patches = model.vision_model(images.to(self.dtype), return_dict=True).last_hidden_state
        answers = model.qformer(query_embeds=model.query_tokens.expand(len(images), -1, -1),
                                encoder_hidden_states=patches, encoder_attention_mask=attend_all(patches),
                                return_dict=True)
        return model.language_projection(answers.last_hidden_state.to(self.dtype))

    def _tokenise(self, prompts: Sequence[str]) -> List[List[int]]:
        start = self.model.config.text_config.bos_token_id
        return [[start, *tokens] for tokens in self._text_tokens(prompts)]

    def _generate(self, queries: Tensor, prompt_ids: Tensor) -> List[str]:
        inputs = torch.cat([queries, self.model.get_input_embeddings()(prompt_ids)], dim=1)
        texts = self.model.language_model.generate(
            inputs_embeds=inputs, attention_mask=attend_all(inputs), eos_token_id=self._line_break, **DECODING)
        return self.tokenizer.batch_decode(texts, skip_special_tokens=True)


def _pixel_values(image_processor: Any, image: Image.Image) -> Tensor:
    return image_processor(images=image, return_tensors="pt")["pixel_values"][0]


def load_transformers(model_type: str, device: torch.device, dtype: torch.dtype) -> Blip2Captioner:
    """BLIP-2 of transformers, by its name in LAVIS, a name on the hub or a folder.

    Raises:
        DataError: transformers is missing or too old, or the model cannot be loaded or is no BLIP-2 with OPT.
    """
    hint = "pip install 'transformers>=4.56' in an environment without LAVIS"
    transformers = import_library("transformers", hint)
    if not hasattr(transformers, "Blip2ForConditionalGeneration"):
        raise DataError(f"transformers {transformers.__version__} has no BLIP-2; {hint}")
    source = HUB_NAMES.get(model_type, model_type)
    try:
        processor = transformers.Blip2Processor.from_pretrained(source)
        model = transformers.Blip2ForConditionalGeneration.from_pretrained(source, dtype=dtype)
    except (OSError, RuntimeError, ValueError) as error:
        raise cannot_load(model_type, error) from None
    if model.config.text_config.model_type != "opt":
        raise DataError(f"--model_type {model_type}: its language model is {model.config.text_config.model_type}, "
                        "the captioner is made for BLIP-2 with OPT")
    return TransformersCaptioner(model.eval().to(device), processor, device, dtype)
