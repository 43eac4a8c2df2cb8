"""What a captioner is, and BLIP-2 with an OPT language model as one: LAVIS' implementation or transformers'.

Both BLIP-2s go through the parts of the model, so that an image is encoded once for all of its prompts: vision encoder,
Q-Former and projection give its query embeddings, and the language model reads them before each prompt. Prompts are
decoded together with others of the same number of tokens. Nothing is padded, so that every caption is the one that
the library's own `generate` gives for its image and prompt alone, up to rounding.
"""
from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from importlib import import_module
from itertools import groupby
from types import ModuleType
from typing import Any, Callable, Dict, List, NamedTuple, Protocol, Sequence

import torch
from PIL import Image
from torch import Tensor

from datasets.captions.prompts import DECODING
from datasets.files import DataError
from models.captioners.halving_batches import HalvingBatches

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Besides "auto", what `--precision` takes."""

HUB_NAMES = {
    "pretrain_opt2.7b": "Salesforce/blip2-opt-2.7b",
    "pretrain_opt6.7b": "Salesforce/blip2-opt-6.7b",
    "caption_coco_opt2.7b": "Salesforce/blip2-opt-2.7b-coco",
    "caption_coco_opt6.7b": "Salesforce/blip2-opt-6.7b-coco",
}
"""LAVIS' `model_type` to the same weights as transformers finds them on the hub."""


class Captioner(Protocol):
    """A frozen model that answers prompts about images."""

    transform: Callable[[Image.Image], Tensor]
    """From an RGB PIL image to the tensor that `encode` takes."""
    library: str
    """The packages whose code decides about the captions, with their versions."""
    dtype: torch.dtype
    decoding: Dict[str, Any]
    """Arguments of the language model's `generate`."""

    def question(self, prompt: str) -> str:
        """What the model is asked for a prompt of `datasets.captions.prompts`."""

    def encode(self, images: Sequence[Tensor]) -> Any:
        """Images as `transform` makes them to what `answer` reads, one for each."""

    def answer(self, queries: Any, prompts: Sequence[Sequence[str]]) -> List[List[str]]:
        """One caption for each prompt.

        Args:
            queries: what `encode` gave for the images.
            prompts: the prompts of each image.

        Returns:
            the captions of each image in the order of its prompts.
        """


class Blip2Captioner(ABC):
    """A frozen BLIP-2; a `Captioner` whose `transform` gives float tensors (3, H, W) of one size."""

    transform: Callable[[Image.Image], Tensor]
    library: str
    decoding = DECODING

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._image_batches = HalvingBatches("image")
        self._caption_batches = HalvingBatches("caption")

    def question(self, prompt: str) -> str:
        """The prompt as it is."""
        return prompt

    @torch.inference_mode()
    def encode(self, images: Sequence[Tensor]) -> Tensor:
        """B images (3, H, W) to query embeddings (B, Q, D) in the space of the language model's tokens."""
        return torch.stack(self._image_batches.run(self._encode_images, images))

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


def attend_all(embeddings: Tensor) -> Tensor:
    """The attention mask (B, N) of embeddings (B, N, D) without padding."""
    return torch.ones(embeddings.shape[:-1], dtype=torch.long, device=embeddings.device)


def import_library(module: str, hint: str) -> ModuleType:
    """A library that not every installation has; raises DataError with the `hint` where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"{module} cannot be imported ({error}); {hint}") from None


def cannot_load(model_type: str, error: Exception) -> DataError:
    """The error that says why a model cannot be loaded, and what loading takes."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return DataError(f"--model_type {model_type}: cannot be loaded ({reason}); the first use needs the network and "
                     "16 GB or more of disk")
