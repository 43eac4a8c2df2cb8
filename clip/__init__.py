"""CLIP with OpenAI's public API, and the dense features that this repository builds on."""
from clip.loading import MEAN, STD, available_models, load, preprocess
from clip.model import CLIP, Architecture, DenseFeatures, PatchAttentions, WeightsError, build_model
from clip.tokenizer import tokenize
from clip.weight_files import save_compact

__all__ = [
    "CLIP", "MEAN", "STD", "Architecture", "DenseFeatures", "PatchAttentions", "WeightsError", "available_models",
    "build_model", "load", "preprocess", "save_compact", "tokenize",
]
