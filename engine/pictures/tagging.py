"""What `eval.py --image` does: score photos, print their tags, save their maps."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Optional

from datasets.files import DataError, PathLike
from datasets.registry import get_dataset
from engine.evaluation.predictor import load_predictor
from engine.features.frozen_clip import build_encoder, load_clip
from engine.methods.sparc_scores import load_sparc
from engine.pictures.drawings import (
    maps_figure,
    top_scores,
)
from engine.pictures.figure_data import SHOWN_BACKGROUNDS, map_photo, need_checkpoint, photos, save
from engine.process.distributed import get_device
from engine.results.tables import format_table
from engine.training.checkpoint import Checkpoint

TAG_THRESHOLD = 0.5
"""A class with this probability is a tag."""


LISTED = 10
"""Classes whose scores are printed for a photo."""


def tag_photos_by_sparc(args: argparse.Namespace) -> None:
    """`--method sparc --image`: print the scores of each photo, by the statistics that `--statistics` kept.

    Raises:
        DataError: there are none, or they are of other classes or weights.
    """
    if not args.statistics:
        raise DataError("--statistics is missing: SPARC scores photos by what it learned from a test set; `eval.py "
                        "--method sparc` leaves it as sparc_statistics.npz")
    spec, device = get_dataset(args.dataset), get_device(args.device)
    clip_model = load_clip(args, device)
    encoder = build_encoder(args, clip_model)
    sparc, statistics = load_sparc(args.statistics, clip_model, spec.classes)
    for path, photo in photos(args):
        embeddings = encoder(encoder.transform(photo)[None].to(device)).global_embeddings[:, 0]
        listed = top_scores(sparc.scores(embeddings, statistics)[0], spec.classes, len(spec.classes), LISTED)
        print(f"\n{path}")
        print(format_table(("class", "score"), [(score.name, f"{score.value:.3f}") for score in listed]))


def tag_photos(args: argparse.Namespace, trained: Optional[Checkpoint], folder: PathLike) -> None:
    """`--image`: print the scores of each photo and save their maps as tags_PHOTO.pdf and .png."""
    if args.method == "sparc":
        tag_photos_by_sparc(args)
        return
    predictor = load_predictor(args, need_checkpoint(args, trained))
    classes, num_classes = predictor.spec.classes, predictor.num_classes
    for path, photo in photos(args):
        tags = predictor.tag(photo)
        listed = top_scores(tags.scores[:num_classes], classes, num_classes, LISTED)
        scenery = top_scores(tags.scores[num_classes:], predictor.categories[num_classes:], 0, SHOWN_BACKGROUNDS)
        found = [score.name for score in listed if score.value >= TAG_THRESHOLD]
        print(f"\n{path}: {', '.join(found) or 'no class reaches ' + str(TAG_THRESHOLD)}")
        print(format_table(("class", "score"), [(score.name, f"{score.value:.3f}") for score in listed]))
        if scenery:
            print("background: " + ", ".join(f"{score.name} {score.value:.3f}" for score in scenery))
        mapped = map_photo(predictor, photo, tags, args.categories)
        save(maps_figure([mapped], classes), Path(folder) / f"tags_{Path(path).stem}")
