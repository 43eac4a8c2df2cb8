"""CLIP with OpenAI's public API, and the dense features that this repository builds on."""
from clip.architecture import MEAN, STD, Architecture, WeightsError
from clip.clip import WeightsWarning, available_models, load, preprocess
from clip.model import CLIP, DenseFeatures, PatchAttentions, build_model
from clip.tokenizer import tokenize
from clip.transformer import ACTIVATIONS
from clip.weight_files import save_compact

__all__ = [
    "ACTIVATIONS", "CLIP", "MEAN", "STD", "Architecture", "DenseFeatures", "PatchAttentions", "WeightsError",
    "WeightsWarning", "available_models", "build_model", "load", "preprocess", "save_compact", "tokenize",
]
