"""BLIP-2 with an OPT language model as captioner: LAVIS' implementation or transformers', behind one interface.

Both go through the parts of the model, so that an image is encoded once for all of its prompts: vision encoder,
Q-Former and projection give its query embeddings, and the language model reads them before each prompt. Prompts are
decoded together with others of the same number of tokens. Nothing is padded, so that every caption is the one that
the library's own `generate` gives for its image and prompt alone, up to rounding.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import groupby
from types import ModuleType
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, TypeVar

import torch
from PIL import Image, ImageFile
from torch import Tensor
from tqdm import tqdm

from datasets.captions.prompts import DECODING
from datasets.files import DataError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Besides "auto", what `--precision` takes."""

HUB_NAMES = {
    "pretrain_opt2.7b": "Salesforce/blip2-opt-2.7b",
    "pretrain_opt6.7b": "Salesforce/blip2-opt-6.7b",
    "caption_coco_opt2.7b": "Salesforce/blip2-opt-2.7b-coco",
    "caption_coco_opt6.7b": "Salesforce/blip2-opt-6.7b-coco",
}
"""LAVIS' `model_type` to the same weights as transformers finds them on the hub."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class HalvingBatches:
    """Runs a function over slices of a sequence; where memory runs out, the slices are halved from then on."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.limit: Optional[int] = None
        """Items a slice; None while everything has fitted."""

    def run(self, function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> List[Result]:
        """The results of `function` for all `items`, in order; it gives one result an item.

        Raises:
            DataError: there is not enough memory for one item.
        """
        results: List[Result] = []
        while len(results) < len(items):
            part = items[len(results):][:self.limit]
            try:
                results += function(part)
                continue
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            # Only here, with the error and the tensors of its frames gone, can memory be given back.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(part) == 1:
                raise DataError(f"out of memory with 1 {self.unit} at a time; take a smaller --model_type or a lower "
                                "--precision, or free the device")
            self.limit = len(part) // 2
            tqdm.write(f"Out of memory with {len(part)} {self.unit}s at a time; going on with {self.limit}")
        return results


def _is_out_of_memory(error: RuntimeError) -> bool:
    return any(sign in str(error) for sign in ("out of memory", "ALLOC_FAILED", "can't allocate memory"))


class Captioner(ABC):
    """A frozen BLIP-2 that answers prompts about images.

    `transform` turns an RGB PIL image into the float tensor (3, H, W) that `encode` stacks; `library` names the
    packages whose code decides about the captions, with their versions.
    """

    transform: Callable[[Image.Image], Tensor]
    library: str

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._image_batches = HalvingBatches("image")
        self._caption_batches = HalvingBatches("caption")

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to query embeddings (B, Q, D) in the space of the language model's tokens."""
        return torch.stack(self._image_batches.run(self._encode_images, images.unbind()))

    @torch.inference_mode()
    def answer(self, queries: Tensor, prompts: Sequence[Sequence[str]]) -> List[List[str]]:
        """One caption for each prompt.

        Args:
            queries: query embeddings of the images (B, Q, D).
            prompts: the prompts of each image.

        Returns:
            the captions of each image in the order of its prompts.
        """
        captions = [[""] * len(of_image) for of_image in prompts]
        rows = [_Row(image, position, tokens) for image, of_image in enumerate(prompts)
                for position, tokens in enumerate(self._tokenise(of_image))]
        rows.sort(key=lambda row: len(row.tokens))
        for _, same_length in groupby(rows, key=lambda row: len(row.tokens)):
            group = list(same_length)
            for row, caption in zip(group, self._caption_batches.run(partial(self._answer_rows, queries), group)):
                captions[row.image][row.position] = caption
        return captions

    def _encode_images(self, images: Sequence[Tensor]) -> Sequence[Tensor]:
        return self._encode(torch.stack(tuple(images)).to(self.device)).unbind()

    def _answer_rows(self, queries: Tensor, rows: Sequence[_Row]) -> List[str]:
        prompt_ids = torch.tensor([row.tokens for row in rows], device=self.device)
        return [text.strip() for text in self._generate(queries[[row.image for row in rows]], prompt_ids)]

    @abstractmethod
    def _encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to query embeddings (B, Q, D)."""

    @abstractmethod
    def _tokenise(self, prompts: Sequence[str]) -> List[List[int]]:
        """Token ids of each prompt, with the token that starts a text."""

    @abstractmethod
    def _generate(self, queries: Tensor, prompt_ids: Tensor) -> List[str]:
        """Decode one text for each row of query embeddings (R, Q, D) and prompt tokens (R, P), as `DECODING` says."""


class _Row(NamedTuple):
    """One caption to be made."""

    image: int
    position: int
    tokens: List[int]


class LavisCaptioner(Captioner):
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
                encoder_attention_mask=_attend_all(patches), return_dict=True)
            return model.opt_proj(answers.last_hidden_state)

    def _tokenise(self, prompts: Sequence[str]) -> List[List[int]]:
        return self.model.opt_tokenizer(list(prompts)).input_ids

    def _generate(self, queries: Tensor, prompt_ids: Tensor) -> List[str]:
        mask = torch.cat([_attend_all(queries), torch.ones_like(prompt_ids)], dim=1)
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


class TransformersCaptioner(Captioner):
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
                                encoder_hidden_states=patches, encoder_attention_mask=_attend_all(patches),
                                return_dict=True)
        return model.language_projection(answers.last_hidden_state.to(self.dtype))

    def _tokenise(self, prompts: Sequence[str]) -> List[List[int]]:
        start = self.model.config.text_config.bos_token_id
        return [[start, *tokens] for tokens in self._text_tokens(prompts)]

    def _generate(self, queries: Tensor, prompt_ids: Tensor) -> List[str]:
        inputs = torch.cat([queries, self.model.get_input_embeddings()(prompt_ids)], dim=1)
        texts = self.model.language_model.generate(
            inputs_embeds=inputs, attention_mask=_attend_all(inputs), eos_token_id=self._line_break, **DECODING)
        return self.tokenizer.batch_decode(texts, skip_special_tokens=True)


def _pixel_values(image_processor: Any, image: Image.Image) -> Tensor:
    return image_processor(images=image, return_tensors="pt")["pixel_values"][0]


def _attend_all(embeddings: Tensor) -> Tensor:
    """The attention mask (B, N) of embeddings (B, N, D) without padding."""
    return torch.ones(embeddings.shape[:-1], dtype=torch.long, device=embeddings.device)


def load_captioner(name: str, model_type: str, device: torch.device, precision: str = "auto") -> Captioner:
    """Load BLIP-2; its weights are downloaded at the first use.

    Args:
        name: "lavis" or "transformers".
        model_type: one of `HUB_NAMES`; for transformers also a local folder or another name on the hub.
        device: where to run.
        precision: a key of `PRECISIONS`, or "auto": fp16 on a GPU, as LAVIS does, and fp32 elsewhere.

    Raises:
        DataError: no such captioner or precision, the library is not installed, or it cannot load the model.
    """
    if name not in _LOADERS:
        raise DataError(f"--captioner {name}: choose {' or '.join(_LOADERS)}")
    if precision not in ("auto", *PRECISIONS):
        raise DataError(f"--precision {precision}: choose auto, {' or '.join(PRECISIONS)}")
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise DataError("--precision fp16 needs a GPU; take bf16 or fp32 on a CPU")
    return _LOADERS[name](model_type, device, PRECISIONS[precision])


def _load_lavis(model_type: str, device: torch.device, dtype: torch.dtype) -> Captioner:
    lavis_models = _import("lavis.models", "LAVIS runs on Python 3.9 to 3.11: pip install salesforce-lavis==1.0.2; "
                                           "elsewhere take --captioner transformers")
    if model_type not in HUB_NAMES:
        raise DataError(f"--model_type {model_type}: LAVIS' blip2_opt has {', '.join(HUB_NAMES)}; "
                        "for a local folder take --captioner transformers")
    try:
        model, processors, _ = lavis_models.load_model_and_preprocess(
            name="blip2_opt", model_type=model_type, is_eval=True, device=device)
    except (OSError, RuntimeError, ValueError) as error:
        raise _cannot_load(model_type, error) from None
    return LavisCaptioner(model, processors["eval"], device, dtype)


def _load_transformers(model_type: str, device: torch.device, dtype: torch.dtype) -> Captioner:
    hint = "pip install 'transformers>=4.56' in an environment without LAVIS"
    transformers = _import("transformers", hint)
    if not hasattr(transformers, "Blip2ForConditionalGeneration"):
        raise DataError(f"transformers {transformers.__version__} has no BLIP-2; {hint}")
    source = HUB_NAMES.get(model_type, model_type)
    try:
        processor = transformers.Blip2Processor.from_pretrained(source)
        model = transformers.Blip2ForConditionalGeneration.from_pretrained(source, dtype=dtype)
    except (OSError, RuntimeError, ValueError) as error:
        raise _cannot_load(model_type, error) from None
    if model.config.text_config.model_type != "opt":
        raise DataError(f"--model_type {model_type}: its language model is {model.config.text_config.model_type}, "
                        "the captioner is made for BLIP-2 with OPT")
    return TransformersCaptioner(model.eval().to(device), processor, device, dtype)


_LOADERS = {"lavis": _load_lavis, "transformers": _load_transformers}


def _import(module: str, hint: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"{module} cannot be imported ({error}); {hint}") from None


def _cannot_load(model_type: str, error: Exception) -> DataError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return DataError(f"--model_type {model_type}: cannot be loaded ({reason}); the first use needs the network and "
                     "16 GB or more of disk")
