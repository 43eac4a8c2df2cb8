"""What scores photos: BAC-GCN of a checkpoint, or CLIP, TagCLIP and SPARC without any training."""
from __future__ import annotations

import argparse
from functools import partial
from typing import Callable, Iterator, List, Optional, Protocol, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import CLIP
from datasets.files import DataError
from datasets.images import ImageTransform
from engine.command_line.photo_flags import TAG_WITHOUT_TRAINING
from engine.evaluation.evaluation_set import check_weights
from engine.evaluation.predictor import Predictor, Tags, load_predictor
from engine.features.frozen_clip import build_encoder
from engine.features.frozen_encoder import load_encoder, need_text_tower
from engine.features.text_embeddings import encode_words
from engine.methods.method_scores import clip_scores_of
from engine.methods.sparc_scores import load_sparc
from engine.methods.tagclip_scores import batch_limit, native_transform, prompt_words
from engine.process.distributed import get_device
from engine.tagging.vocabulary import photo_spec
from engine.training.checkpoint import Checkpoint
from models.baselines.tagclip import TagCLIP
from models.encoder import CLIPEncoder, weights_digest

NATIVE_BATCH = 8
"""Photos at their own size that are loaded together."""


class Scorer(Protocol):
    """Scores and similarity maps of photos."""

    categories: Tuple[str, ...]
    """What is scored: classes, then backgrounds where the method scores those too."""
    num_classes: int
    """C."""
    transform: ImageTransform
    """From a photo to pixels, (3, H, W) or several views of one size."""
    batch_size: int
    """Photos that are loaded together."""

    def __call__(self, images: Tensor) -> List[Tags]:
        """Tags of (n, 3, H, W) images."""
        ...

    def weights_sha256(self) -> str:
        """Digest of the frozen weights behind the scores."""
        ...


class BACGCNScorer:
    """BAC-GCN: probabilities of classes and backgrounds, and the kernel's maps."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.categories, self.num_classes = predictor.categories, predictor.num_classes
        self.transform = predictor.transform
        self.batch_size = max(1, predictor.args.encode_batch_size // (1 + predictor.args.tiles ** 2))

    def __call__(self, images: Tensor) -> List[Tags]:
        """See `Scorer`."""
        return self._predictor.tag_batch(images)

    def weights_sha256(self) -> str:
        """See `Scorer`."""
        return str(self._predictor.encoder.facts()["weights_sha256"])


class GlobalScorer:
    """What scores CLIP's embedding of the whole photo, zero-shot or by SPARC; its maps are the cosines of the patches.

    Args:
        encoder: the frozen encoder.
        text_embeddings: (C, D), for the maps.
        classes: the C names.
        score: from (n, D) global embeddings to (n, C) scores, on the CPU.
        batch_size: photos that are loaded together.
    """

    def __init__(self, encoder: CLIPEncoder, text_embeddings: Tensor, classes: Tuple[str, ...],
                 score: Callable[[Tensor], Tensor], batch_size: int) -> None:
        self._encoder = encoder
        self._text_embeddings = text_embeddings
        self._score = score
        self.categories, self.num_classes = classes, len(classes)
        self.transform = encoder.transform
        self.batch_size = batch_size

    @torch.no_grad()
    def __call__(self, images: Tensor) -> List[Tags]:
        """See `Scorer`."""
        dense = self._encoder.dense(images.to(self._text_embeddings.device))
        maps = self._text_embeddings @ F.normalize(dense.patch_embeddings.float(), dim=-1).transpose(1, 2)
        grid = self._encoder.grid(*images.shape[2:])
        scores = self._score(dense.global_embedding.float().cpu())
        return [Tags(*pair) for pair in zip(scores, maps.unflatten(2, grid).cpu())]

    def weights_sha256(self) -> str:
        """See `Scorer`."""
        return weights_digest(self._encoder.clip)


class TagCLIPScorer:
    """TagCLIP at the photos' own size: its scores, and its refined maps."""

    def __init__(self, clip_model: CLIP, text_embeddings: Tensor, classes: Tuple[str, ...],
                 args: argparse.Namespace) -> None:
        self._tagger = TagCLIP(clip_model, text_embeddings, len(classes), args.published_behaviour,
                               args.encode_batch_size)
        self._device = text_embeddings.device
        self.categories, self.num_classes = classes, len(classes)
        self.transform = native_transform(clip_model.visual.patch_size, args.max_patches)
        self.batch_size = min(args.encode_batch_size, NATIVE_BATCH)

    def __call__(self, images: Tensor) -> List[Tags]:
        """See `Scorer`."""
        grid = self._tagger.clip.visual.grid(*images.shape[2:])
        return [Tags(scores, refined[:, :self.num_classes].T.unflatten(1, grid))
                for part in images.split(batch_limit(self._tagger, tuple(images.shape[1:])))
                for scores, refined in self._score(part)]

    def weights_sha256(self) -> str:
        """See `Scorer`."""
        return weights_digest(self._tagger.clip)

    def _score(self, images: Tensor) -> Iterator[Tuple[Tensor, Tensor]]:
        scored = self._tagger.scores_and_maps(images.to(self._device))
        return zip(scored.scores.cpu(), scored.refined.cpu())


def check_scorer(args: argparse.Namespace) -> None:
    """Look at the flags before anything is loaded.

    Raises:
        DataError: the method tags no photos, or lacks a flag.
    """
    if args.method == "sparc" and not args.statistics:
        raise DataError("--statistics is missing: SPARC scores photos by what it learned from a test set; `eval.py "
                        "--method sparc` leaves it as sparc_statistics.npz")
    if args.method not in ("bac_gcn", *TAG_WITHOUT_TRAINING):
        raise DataError(f"{args.checkpoint}: a checkpoint of {args.method}; --image takes that of a BAC-GCN")


def load_scorer(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Scorer:
    """The scorer that `--checkpoint`, or `--method` with the words or a dataset, asks for.

    Raises:
        DataError: the words, the weights, the checkpoint or the statistics do not fit.
    """
    if args.method == "bac_gcn":
        return BACGCNScorer(load_predictor(args, trained))
    spec = photo_spec(args)
    classes = spec.classes
    encoder = load_encoder(args, get_device(args.device), trained and trained.get("encoder"))
    clip_model = need_text_tower(encoder, args)
    if trained is not None:
        check_weights(args, trained, encoder)
    if args.method == "tagclip":
        texts = _embed(clip_model, prompt_words(spec, args.prompt_words or "ours"), args)
        return TagCLIPScorer(clip_model, texts, classes, args)
    texts = _embed(clip_model, spec.prompt_names(classes), args)
    score: Callable[[Tensor], Tensor]
    if args.method == "sparc":
        sparc, statistics = load_sparc(args.statistics, clip_model, spec)
        score = partial(sparc.scores, statistics=statistics)
    else:
        score = partial(clip_scores_of, text_embeddings=texts.cpu(), args=args)
    return GlobalScorer(build_encoder(args, clip_model), texts, classes, score, args.encode_batch_size)


def _embed(clip_model: CLIP, words: Sequence[str], args: argparse.Namespace) -> Tensor:
    """(O, D), on the device of CLIP."""
    try:
        return encode_words(clip_model, words, args.prompts)
    except ValueError as error:  # a word that is longer than CLIP's context
        raise DataError(f"--words: {error}") from None
