"""Chat-style vision-language models of transformers (LLaVA, Qwen2-VL, ...), asked through their chat template."""
from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any, Callable, List, NamedTuple, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.captions.prompts import CHAT_DECODING, chat_question
from datasets.files import DataError
from models.captioners.captioner import HUB_NAMES, cannot_load, import_library
from models.captioners.halving_batches import HalvingBatches

LONGEST_SIDE = 1024
"""Pixels; a larger photo is scaled down before the model's processor sees it (our choice: photos wait in memory)."""


class _Question(NamedTuple):
    """One caption to be made."""

    image: int
    position: int
    text: str


class ChatCaptioner:
    """A `Captioner` of any model that takes images and text through its processor's chat template.

    How an image becomes tokens differs from family to family, so it is encoded anew with each question.

    Args:
        model: the model in evaluation mode, on `device`, loaded as `dtype`.
        processor: the one that belongs to it, with a chat template.
        device: where the model is.
        dtype: of the model.
    """

    decoding = CHAT_DECODING

    def __init__(self, model: Any, processor: Any, device: torch.device, dtype: torch.dtype) -> None:
        self.model = model
        self.processor = processor
        self.device = device
        self.dtype = dtype
        self.transform: Callable[[Image.Image], Tensor] = to_pixels
        self.library = f"transformers {version('transformers')}"
        self._batches = HalvingBatches("caption")
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # so that every answer begins where its question ends
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    def question(self, prompt: str) -> str:
        """The question of a prompt, without the words that BLIP-2 is used to."""
        return chat_question(prompt)

    def encode(self, images: Sequence[Tensor]) -> List[Tensor]:
        """The images (3, H, W) as they are."""
        return list(images)

    @torch.inference_mode()
    def answer(self, queries: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> List[List[str]]:
        """One caption for each prompt.

        Args:
            queries: the images, (3, H, W) of 0..255 each.
            prompts: the prompts of each image.

        Returns:
            the captions of each image in the order of its prompts.
        """
        captions = [[""] * len(of_image) for of_image in prompts]
        questions = [_Question(image, position, self.question(prompt)) for image, of_image in enumerate(prompts)
                     for position, prompt in enumerate(of_image)]
        answers = self._batches.run(partial(self._ask, queries), questions)
        for asked, caption in zip(questions, answers):
            captions[asked.image][asked.position] = caption
        return captions

    def _ask(self, images: Sequence[Tensor], questions: Sequence[_Question]) -> List[str]:
        conversations = [[{"role": "user", "content": [
            {"type": "image", "image": Image.fromarray(images[asked.image].permute(1, 2, 0).numpy())},
            {"type": "text", "text": asked.text}]}] for asked in questions]
        inputs = self.processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            padding=True).to(self.device, dtype=self.dtype)
        tokens = self.model.generate(**inputs, **self.decoding)
        answers = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        return [" ".join(text.split()) for text in answers]


def to_pixels(image: Image.Image) -> Tensor:
    """An RGB image to (3, H, W) of 0..255, its longer side at most `LONGEST_SIDE`."""
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def load_chat_model(model_type: str, device: torch.device, dtype: torch.dtype) -> ChatCaptioner:
    """Load a local folder or a name on the hub.

    Raises:
        DataError: transformers is not installed or too old, or there is no such model, or it has no chat template.
    """
    hint = "pip install 'transformers>=4.56' in an environment without LAVIS (tests/requirements-transformers.txt)"
    transformers = import_library("transformers", hint)
    if not hasattr(transformers, "AutoModelForImageTextToText"):
        raise DataError(f"transformers {transformers.__version__} has no chat-style vision-language models; {hint}")
    if model_type in HUB_NAMES:
        raise DataError(f"--model_type {model_type}: a BLIP-2, which does not chat; name a folder or a model on the "
                        "hub, such as HuggingFaceTB/SmolVLM-Instruct")
    try:
        processor = transformers.AutoProcessor.from_pretrained(model_type)
        model = transformers.AutoModelForImageTextToText.from_pretrained(model_type, dtype=dtype)
    except (OSError, RuntimeError, ValueError) as error:
        raise cannot_load(model_type, error) from None
    if not getattr(processor, "chat_template", None):
        raise DataError(f"--model_type {model_type}: its processor has no chat template; take a model that was tuned "
                        "to follow instructions")
    return ChatCaptioner(model.eval().to(device), processor, device, dtype)
