"""A trained BAC-GCN together with its frozen encoder: what single photos, figures and the report ask of it."""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from datasets.files import DataError
from datasets.images import ImageTransform
from datasets.registry import DatasetSpec, get_dataset
from engine.evaluation.evaluation_set import check_weights
from engine.evaluation.metrics import average_precision
from engine.features.extraction import extract_features
from engine.features.feature_set import FeatureSet
from engine.features.frozen_encoder import embed_categories, load_encoder
from engine.features.readable_images import read_test_split
from engine.features.tiles import TileTransform, tile_grids, with_tiles
from engine.process.distributed import get_device
from engine.results.tables import NO_MAP
from engine.training.build_model import build_model
from engine.training.checkpoint import Checkpoint, load_weights
from engine.training.prediction import model_inputs, predict, untrained_scores
from models.bac_gcn import BACGCN
from models.encoder import FrozenEncoder
from models.masks import high_attention


class MaskedViews(NamedTuple):
    """What the masks make of one photo."""

    pictures: List[np.ndarray]
    """Three (height, width, 3) of 0..255: the photo, M_H and M_Hc; black where a patch is removed."""
    logits: Tensor
    """(3, O) CLIP's logits of them, 100 cos."""
    share: float
    """Share of the patches in H."""


class Tags(NamedTuple):
    """What BAC-GCN says of one photo."""

    scores: Tensor
    """(O,) probabilities: the sigmoid of the final logits."""
    maps: Tensor
    """(O, rows, columns) similarity maps of the kernel, cosines."""


@dataclass(frozen=True)
class Predictor:
    """The frozen encoder and, where a checkpoint was given, the model on top of it."""

    args: argparse.Namespace
    spec: DatasetSpec
    categories: Tuple[str, ...]
    """Classes, then backgrounds (none for a run with `--no_backgrounds`)."""
    encoder: FrozenEncoder
    text_embeddings: Tensor
    """(O, D); without a text tower, where the kernel of the checkpoint started."""
    model: Optional[BACGCN]
    device: torch.device

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.spec.classes)

    @property
    def transform(self) -> ImageTransform:
        """From a photo to what `tag_batch` takes: (3, S, S), or with `--tiles` (1 + T, 3, S, S), the photo first."""
        whole, grids = self.encoder.transform, tile_grids(self.args)
        return TileTransform(whole, grids, whole=True) if grids else whole

    def tensor(self, photo: Image.Image) -> Tensor:
        """(1, 3, S, S): the photo as the encoder takes it."""
        return self.encoder.transform(photo)[None].to(self.device)

    def _grid(self, image: Tensor) -> Tuple[int, int]:
        """Rows and columns of patches."""
        return self.encoder.grid(*image.shape[-2:])

    @torch.no_grad()
    def masked_views(self, photo: Image.Image) -> MaskedViews:
        """The photo, M_H and M_Hc, and how CLIP scores them. The masks are laid over the photo at its own size."""
        image = self.tensor(photo)
        attention = self.encoder.attention(image)
        high = high_attention(attention, self.encoder.mask_share, self.encoder.mask_threshold)
        grid = high.view(self._grid(image)).cpu().numpy()
        mask = np.asarray(Image.fromarray(grid).resize(photo.size, Image.NEAREST))[..., None]
        pixels = np.asarray(photo)
        embeddings = F.normalize(self.encoder(image).global_embeddings[0].float(), dim=-1)
        logits = 100 * embeddings @ self.text_embeddings.to(self.device).T
        return MaskedViews([pixels, pixels * mask, pixels * ~mask], logits.cpu(), float(grid.mean()))

    def tag(self, photo: Image.Image) -> Tags:
        """Scores of all categories for a photo, and the similarity maps behind them."""
        return self.tag_batch(self.transform(photo)[None])[0]

    @torch.no_grad()
    def tag_batch(self, images: Tensor) -> List[Tags]:
        """What `tag` says, of n photos that `transform` has been through."""
        assert self.model is not None, "CLIP alone has no model to ask"
        images = images.to(self.device)
        whole, tiles = (images[:, 0], images[:, 1:]) if tile_grids(self.args) else (images, None)
        features = self.encoder(whole)
        if tiles is not None:
            embeddings = self.encoder.encode_whole(tiles.flatten(0, 1)).unflatten(0, tiles.shape[:2])
            features = with_tiles(features, embeddings)
        prediction = self.model.eval()(*model_inputs(features, not self.args.no_masked_globals, self.device))
        scores, maps = prediction.logits.sigmoid().cpu(), prediction.maps.unflatten(2, self._grid(whole)).cpu()
        return [Tags(*pair) for pair in zip(scores, maps)]


def load_predictor(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Predictor:
    """Load the frozen encoder and put the checkpoint's model on top of it.

    Args:
        args: data flags, and those of the run where there is one.
        trained: what `load_checkpoint` read of BAC-GCN; None for CLIP alone.

    Raises:
        DataError: the checkpoint was trained on other weights.
    """
    spec, device = get_dataset(args.dataset), get_device(args.device)
    state = trained.get("encoder", {}) if trained else {}
    encoder = load_encoder(args, device, state)
    categories = tuple(trained["categories"] if trained else spec.categories)
    embedded = embed_categories(encoder, spec.prompt_names(categories), args.prompts)
    text_embeddings = state["start"].to(device) if embedded is None else embedded
    model = None
    if trained:
        check_weights(args, trained, encoder)
        model = build_model(args, text_embeddings, torch.eye(len(categories)), len(spec.classes)).to(device)
        load_weights(model, trained, args.checkpoint)
    return Predictor(args, spec, categories, encoder, text_embeddings, model, device)


def class_ap(predictor: Predictor) -> Tuple[np.ndarray, np.ndarray]:
    """AP of every class on the test images in percent, (C,) each: of the model and of its start, without training."""
    assert predictor.model is not None, "CLIP alone has no model to ask"
    args, num_classes = predictor.args, predictor.num_classes
    images, split, _ = read_test_split(args, num_classes)
    if not any(split.labels):
        raise DataError(f"{args.val_split_file}: {NO_MAP}; there are no classes to draw")
    store = extract_features(predictor.encoder, images.with_transform(predictor.encoder.transform), "test", args)
    targets = split.targets(num_classes)
    scores = predict(predictor.model, FeatureSet([store], targets), args, predictor.device)[:, :num_classes]
    zero_shot = untrained_scores(store.plain_globals(), predictor.text_embeddings[:num_classes].cpu(), args)
    return average_precision(scores, targets, args.min_positives), average_precision(zero_shot, targets,
                                                                                   args.min_positives)
