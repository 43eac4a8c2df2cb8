"""The scores that each method gives the test images."""
from __future__ import annotations

from pathlib import Path
from typing import Optional

import torch
from torch import Tensor

from datasets.files import DataError, PathLike, write_json
from datasets.split_file import ImageList
from engine.bench import Bench, Checkpoint, Scored, check_weights
from engine.cdul import cdul_initial_scores, cdul_logits
from engine.features import FeatureSet, extract_features, weights_digest
from engine.methods import WITHOUT_TRAINING, check_zoom, method_title
from engine.run import git_revision, load_weights
from engine.tagclip import tagclip_scores
from engine.tai_dpt import tai_dpt_scores
from engine.text import encode_categories
from engine.training import build_model, predict
from engine.zoom import Tiles, zoomed, zoomed_logits
from models.zero_shot import zero_shot_scores


def score_test_images(bench: Bench, trained: Optional[Checkpoint]) -> Scored:
    """Score the test images with `--method`.

    Args:
        bench: the test split.
        trained: the checkpoint, where there is one.

    Raises:
        DataError: the method needs a checkpoint, or is asked for `--zoom` and has none.
    """
    method = bench.args.method
    check_zoom(bench.args)
    if trained is None:
        if method not in WITHOUT_TRAINING:
            raise DataError(f"--checkpoint is missing: {method} is trained first, by the dataset's train script; "
                            f"without training there are {', '.join(WITHOUT_TRAINING)}")
        score = {"clip": clip_scores, "tagclip": tagclip_scores, "cdul": cdul_initial_scores}[method]
        return Scored.by_midpoint(score(bench))
    check_weights(bench.args, trained, bench.clip_model)
    return {"clip": lambda: Scored.by_midpoint(clip_scores(bench)),
            "bac_gcn": lambda: Scored.by_sign(bac_gcn_logits(bench, trained)),
            "cdul": lambda: Scored.by_sign(cdul_logits(bench, trained)),
            "tai_dpt": lambda: Scored.by_midpoint(tai_dpt_scores(bench, trained))}[method]()


def clip_scores(bench: Bench) -> Tensor:
    """Zero-shot scores of the test images, (n, C), zoomed with `--zoom`."""
    args, encoder, text_embeddings = bench.args, bench.encoder(), bench.class_embeddings()

    def score(images: ImageList, what: str) -> Tensor:
        store = extract_features(encoder, images, what, args)
        return zero_shot_scores(store.plain_globals(), text_embeddings, softmax=not args.raw_cosine)

    scores = score(bench.images, "test")
    return zoomed(scores, score(Tiles(bench.images, args.zoom), "tiles")) if args.zoom else scores


def bac_gcn_logits(bench: Bench, trained: Checkpoint) -> Tensor:
    """Final logits of the test images for the classes, (n, C), zoomed with `--zoom`."""
    args, device, encoder = bench.args, bench.device, bench.encoder()
    categories = trained["categories"]
    text_embeddings = encode_categories(bench.clip_model, categories, args.prompts)
    model = build_model(args, text_embeddings, torch.eye(len(categories)), bench.num_classes).to(device)
    load_weights(model, trained, args.checkpoint)
    test_set = FeatureSet([extract_features(encoder, bench.images, "test", args)], bench.targets)
    logits = (zoomed_logits(model, test_set, bench.images, encoder, args, device) if args.zoom
              else predict(model, test_set, args, device))
    return logits[:, :bench.num_classes]


def write_result(folder: PathLike, bench: Bench, mean_average_precision: float) -> None:
    """Leave what a train script leaves for the tables, for a method without training: config.json and result.json.

    Args:
        folder: gets both.
        bench: what was measured, and the flags.
        mean_average_precision: in percent.
    """
    args = bench.args
    write_json(Path(folder) / "config.json", {
        "args": vars(args), "git_revision": git_revision(), "weights_sha256": weights_digest(bench.clip_model),
        "skipped_images": bench.skipped}, indent=1)
    write_json(Path(folder) / "result.json", {
        "dataset": args.dataset, "method": args.method, "title": method_title(args, trained=False),
        "weights": Path(args.model_path).name, "seed": 0, "epochs": 0, "last_mAP": mean_average_precision}, indent=1)
