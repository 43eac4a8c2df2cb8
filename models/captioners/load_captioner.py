"""Which captioners there are, and loading one."""
from __future__ import annotations

from typing import Callable, Dict

import torch

from datasets.files import DataError
from datasets.progress import others_bars
from models.captioners.captioner import PRECISIONS, Captioner
from models.captioners.chat_model import load_chat_model
from models.captioners.lavis_blip2 import load_lavis
from models.captioners.transformers_blip2 import load_transformers


def load_captioner(name: str, model_type: str, device: torch.device, precision: str = "auto") -> Captioner:
    """Load a captioner; its weights are downloaded at the first use.

    Args:
        name: "lavis" or "transformers" for BLIP-2, "vlm" for a chat-style vision-language model.
        model_type: one of `HUB_NAMES`; for transformers also, and for vlm only, a local folder or a name on the hub.
        device: where to run.
        precision: a key of `PRECISIONS`, or "auto": fp16 on a GPU, as LAVIS does, and fp32 elsewhere.

    Raises:
        DataError: no such captioner or precision, the library is not installed, or it cannot load the model.
    """
    if name not in _LOADERS:
        raise DataError(f"--captioner {name}: choose {', '.join(_LOADERS)}")
    if precision not in ("auto", *PRECISIONS):
        raise DataError(f"--precision {precision}: choose auto, {' or '.join(PRECISIONS)}")
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise DataError("--precision fp16 needs a GPU; take bf16 or fp32 on a CPU")
    with others_bars():
        return _LOADERS[name](model_type, device, PRECISIONS[precision])


_LOADERS: Dict[str, Callable[[str, torch.device, torch.dtype], Captioner]] = {
    "lavis": load_lavis, "transformers": load_transformers, "vlm": load_chat_model}
