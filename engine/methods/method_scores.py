"""The scores that each method gives to images."""
from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Dict, Optional

import torch
from torch import Tensor

from datasets.captions.pseudo_labels import load_targets
from datasets.files import DataError, PathLike, write_json
from datasets.split_file import ImageList, read_image_ids
from engine.command_line.method_flags import WITHOUT_TRAINING, method_title
from engine.evaluation.evaluation_set import EvaluationSet, Scored, check_weights
from engine.evaluation.zoom import zoomed, zoomed_logits
from engine.features.extraction import extract_features
from engine.features.feature_set import FeatureSet
from engine.features.frozen_clip import clip_name, weights_name
from engine.features.readable_images import readable
from engine.features.tiles import Tiles
from engine.methods.cdul_training import cdul_initial_scores, cdul_logits
from engine.methods.sparc_scores import STATISTICS_FILE, sparc_test_scores
from engine.methods.tagclip_scores import tagclip_scores
from engine.methods.tai_dpt_training import tai_dpt_scores
from engine.process.distributed import barrier
from engine.process.reproducibility import git_revision
from engine.training.build_model import build_model
from engine.training.checkpoint import Checkpoint, load_weights
from engine.training.prediction import predict
from engine.training.training_labels import label_folder
from models.baselines.sparc import standardise_images
from models.baselines.zero_shot import zero_shot_scores
from models.kernel import KERNEL_STARTS


def score_images(test: EvaluationSet, trained: Optional[Checkpoint]) -> Scored:
    """Score the images of a set with `--method`.

    Args:
        test: the test split, or other images in its place.
        trained: the checkpoint, where there is one.

    Raises:
        DataError: the method needs a checkpoint.
    """
    method = test.args.method
    if trained is None:
        if method not in WITHOUT_TRAINING:
            raise DataError(f"--checkpoint is missing: {method} is trained first, by the dataset's train script; "
                            f"without training there are {', '.join(WITHOUT_TRAINING)}")
        score = {"clip": clip_scores, "tagclip": tagclip_scores, "sparc": sparc_test_scores,
                 "cdul": cdul_initial_scores}[method]
        return Scored(score(test), are_logits=False)
    check_weights(test.args, trained, test.encoder)
    return {"clip": lambda: Scored(clip_scores(test), are_logits=False),
            "bac_gcn": lambda: Scored(bac_gcn_logits(test, trained), are_logits=True),
            "cdul": lambda: Scored(cdul_logits(test, trained), are_logits=True),
            "tai_dpt": lambda: Scored(tai_dpt_scores(test, trained), are_logits=False)}[method]()


def score_training_images(sample: EvaluationSet, trained: Optional[Checkpoint]) -> Scored:
    """`score_images` of training images, after the test images: SPARC's statistics are those of the test images."""
    args = sample.args
    if args.method == "sparc" and not args.statistics:
        barrier()  # the main process has kept them
        kept = str(Path(args.output_dir) / STATISTICS_FILE)
        sample = replace(sample, args=argparse.Namespace(**{**vars(args), "statistics": kept, "compounds": None}))
    return score_images(sample, trained)


def clip_scores(test: EvaluationSet) -> Tensor:
    """Zero-shot scores of the images, (n, C), zoomed with `--zoom`."""
    args, encoder, text_embeddings = test.args, test.encoder, class_prototypes(test)

    def score(images: ImageList, what: str) -> Tensor:
        return clip_scores_of(extract_features(encoder, images, what, args).plain_globals(), text_embeddings, args)

    scores = score(test.images, "test")
    return zoomed(scores, score(Tiles(test.images, args.zoom), "tiles")) if args.zoom else scores


def clip_scores_of(global_embeddings: Tensor, text_embeddings: Tensor, args: argparse.Namespace) -> Tensor:
    """Zero-shot scores (n, C) from (n, D) and (C, D): the softmax, or what `--raw_cosine` or `--standardise` asks."""
    scores = zero_shot_scores(global_embeddings, text_embeddings, softmax=not (args.raw_cosine or args.standardise))
    return torch.from_numpy(standardise_images(scores.numpy(), scores.numpy())) if args.standardise else scores


def class_prototypes(test: EvaluationSet) -> Tensor:
    """(C, D): what images are compared with, the prompts or, by `--prototypes`, what captions show of the classes."""
    args, text_embeddings = test.args, test.class_embeddings()
    if args.prototypes == "text":
        return text_embeddings
    images, _ = readable(read_image_ids(args.train_split_file), args.train_img_root, args)
    labels = load_targets(label_folder(args, test.spec), images.image_ids, test.spec.categories)[:, :test.num_classes]
    store = extract_features(test.encoder, images.with_transform(test.encoder.transform), "train", args)
    return KERNEL_STARTS[args.prototypes](text_embeddings, store.plain_globals(), labels)


def bac_gcn_logits(test: EvaluationSet, trained: Checkpoint) -> Tensor:
    """Final logits of the images for the classes, (n, C), zoomed with `--zoom`."""
    args, device, encoder = test.args, test.device, test.encoder
    categories = trained["categories"]
    blank = torch.zeros(len(categories), encoder.embed_dim)
    model = build_model(args, blank, torch.eye(len(categories)), test.num_classes).to(device)
    load_weights(model, trained, args.checkpoint)
    test_set = FeatureSet([extract_features(encoder, test.images, "test", args)], test.targets)
    logits = (zoomed_logits(model, test_set, test.images, encoder, args, device) if args.zoom
              else predict(model, test_set, args, device))
    return logits[:, :test.num_classes]


def write_result(folder: PathLike, test: EvaluationSet, metrics: Dict[str, float], threshold: Optional[float]) -> None:
    """Leave what a train script leaves for the tables, for a method without training: config.json and result.json.

    Args:
        folder: gets both.
        test: what was measured, and the flags.
        metrics: of `summarise`; empty without labels.
        threshold: of the tags, where there is one.
    """
    args, facts = test.args, test.encoder.facts()
    title = method_title(args, clip_name(args, test.clip_model), trained=False)
    (Path(folder) / "result.json").unlink(missing_ok=True)  # a stop in between leaves no result of other flags
    write_json(Path(folder) / "config.json", {
        "args": vars(args), "git_revision": git_revision(), **facts, "skipped_images": test.skipped}, indent=1)
    write_json(Path(folder) / "result.json", {
        "dataset": test.spec.name, "method": args.method, "title": title,
        "weights": weights_name(args.model_path), "activation": facts["activation"], "seed": 0, "epochs": 0,
        "last_mAP": metrics.get("mAP"), "last_OF1": metrics.get("OF1"), "last_CF1": metrics.get("CF1"),
        "threshold": threshold}, indent=1)
