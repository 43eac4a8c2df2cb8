"""What the captioner is asked about every image and how it decodes: the one place where both are written down."""
from __future__ import annotations

from typing import Any, Dict, List, Sequence

QUESTION_STEMS = (
    "What is in the photo",
    "What are shown in the photo",
    "Tell us about the photo",
    "What objects are present in this image",
    "Please explain this photo in detail",
    "What is the background of this image",
)
"""The six questions, in the order of the six captions of an image (BAC-GCN authors' caption files)."""

NUM_PROMPTS = len(QUESTION_STEMS)

# The authors write a question mark after "What ..." and none after "Tell us ..." and "Please ...".
_ASKS = tuple(stem.startswith("What") for stem in QUESTION_STEMS)

DECODING: Dict[str, Any] = {
    "num_beams": 5,
    "max_new_tokens": 30,
    "do_sample": False,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "num_return_sequences": 1,
}
"""Arguments of the language model's `generate`: LAVIS' defaults for BLIP-2. A caption ends at a line break. LAVIS'
remaining defaults do nothing here: top_p and temperature without sampling, min_length as it counts the prompt."""

CHAT_DECODING: Dict[str, Any] = {"num_beams": 1, "max_new_tokens": 64, "do_sample": False}
"""The same for chat-style models (our choice): they are trained for greedy answers, and those are longer."""


def chat_question(prompt: str) -> str:
    """A prompt as a chat-style model is asked it: the question alone, and the wish for a caption (our choice)."""
    return f"{prompt.replace('Question: ', '', 1).replace(' Answer:', '')} Answer in one sentence."


def first_prompts() -> List[str]:
    """The six prompts of an image's first captions."""
    return [f"Question: {stem}{'?' if asks else ''} Answer:" for stem, asks in zip(QUESTION_STEMS, _ASKS)]


def re_prompts(words: Sequence[str]) -> List[str]:
    """The six prompts of the re-captions, which ask for what is there beside the categories that `words` stand for.

    An image in which the first captions name nothing is asked without an exclusion.
    """
    if not words:
        return first_prompts()
    excluded = " ".join(words)
    return [f"Question: {stem}, excluding {excluded}? Answer:" for stem in QUESTION_STEMS]
