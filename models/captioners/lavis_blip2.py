"""BLIP-2 as LAVIS has it."""
from __future__ import annotations

import pickle
from importlib.metadata import version
from typing import Any, Callable, List, Sequence

import torch
from PIL import Image, ImageFile
from torch import Tensor

from datasets.captions.prompts import DECODING
from datasets.files import DataError
from models.captioners.captioner import HUB_NAMES, Blip2Captioner, attend_all, cannot_load, import_library


class LavisCaptioner(Blip2Captioner):
    """LAVIS' `Blip2OPT`, as the BAC-GCN authors used it.

    Args:
        model: the model in evaluation mode, on `device`.
        transform: LAVIS' image processor.
        device: where the model is.
        dtype: float16 is LAVIS' own arithmetic on a GPU: autocast over float16 vision and language models.
    """

    def __init__(self, model: Any, transform: Callable[[Image.Image], Tensor], device: torch.device,
                 dtype: torch.dtype) -> None:
        super().__init__(device, dtype)
        self.transform = transform
        self.library = f"salesforce-lavis {version('salesforce-lavis')}, transformers {version('transformers')}"
        if dtype == torch.float32:
            model.float()
        elif dtype == torch.bfloat16:
            model.visual_encoder.bfloat16()
            model.opt_model.bfloat16()
        self.model = model
        _use_key_value_cache(model.opt_model)
        # Importing LAVIS makes Pillow fill up damaged images with grey; they are to be found and listed instead.
        ImageFile.LOAD_TRUNCATED_IMAGES = False

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def _encode(self, images: Tensor) -> Tensor:
        model = self.model
        with self._autocast():
            patches = model.ln_vision(model.visual_encoder(images))
            answers = model.Qformer.bert(
                query_embeds=model.query_tokens.expand(len(images), -1, -1), encoder_hidden_states=patches,
                encoder_attention_mask=attend_all(patches), return_dict=True)
            return model.opt_proj(answers.last_hidden_state)

    def _tokenise(self, prompts: Sequence[str]) -> List[List[int]]:
        return self.model.opt_tokenizer(list(prompts)).input_ids

    def _generate(self, queries: Tensor, prompt_ids: Tensor) -> List[str]:
        mask = torch.cat([attend_all(queries), torch.ones_like(prompt_ids)], dim=1)
        with self._autocast():
            texts = self.model.opt_model.generate(
                input_ids=prompt_ids, query_embeds=queries.repeat_interleave(DECODING["num_beams"], dim=0),
                attention_mask=mask, eos_token_id=self.model.eos_token_id, **DECODING)
        return self.model.opt_tokenizer.batch_decode(texts[:, prompt_ids.shape[1]:], skip_special_tokens=True)


def _use_key_value_cache(opt_model: Any) -> None:
    """Let LAVIS' OPT read the cache that it writes.

    LAVIS' OPT asks for the cache as `past`, transformers 4.26 hands it over as `past_key_values`, so that LAVIS
    computes all tokens again for every new one: the same captions, many times slower.
    """
    prepare = type(opt_model).prepare_inputs_for_generation

    def prepare_inputs_for_generation(input_ids: Tensor, past_key_values: Any = None, **kwargs: Any) -> Any:
        return prepare(opt_model, input_ids, past=past_key_values, **kwargs)

    opt_model.prepare_inputs_for_generation = prepare_inputs_for_generation


def load_lavis(model_type: str, device: torch.device, dtype: torch.dtype) -> Blip2Captioner:
    """LAVIS' BLIP-2, as the authors used it.

    Raises:
        DataError: LAVIS is missing, or has or gets no such model.
    """
    lavis_models = import_library("lavis.models", "LAVIS runs on Python 3.10 and 3.11: pip install "
                                  "salesforce-lavis==1.0.2; elsewhere take --captioner transformers")
    if model_type not in HUB_NAMES:
        raise DataError(f"--model_type {model_type}: LAVIS' blip2_opt has {', '.join(HUB_NAMES)}; "
                        "for a local folder take --captioner transformers")
    try:
        model, processors, _ = lavis_models.load_model_and_preprocess(
            name="blip2_opt", model_type=model_type, is_eval=True, device=device)
    except pickle.UnpicklingError:
        raise DataError(f"--model_type {model_type}: its checkpoint in torch's cache holds more than tensors, or is "
                        "damaged, and is not loaded; remove it to fetch it anew") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise cannot_load(model_type, error) from None
    return LavisCaptioner(model, processors["eval"], device, dtype)
