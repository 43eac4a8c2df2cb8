"""Evaluate a trained BAC-GCN, or CLIP without training, on a test split.

    python eval.py --checkpoint runs/voc2007/checkpoint.pth
    python eval.py --method clip --dataset voc2007

Writes per-class AP beside the checkpoint (or into --output_dir) as per_class_METHOD.csv.
"""
import argparse
import csv
from pathlib import Path

import torch

import clip
from datasets.files import DataError, atomic_write
from datasets.images import image_transform
from datasets.registry import get_dataset
from datasets.split_file import ImageList, read_split_file
from engine.cli import run_main
from engine.features import FeatureSet, extract_features, weights_digest
from engine.metrics import average_precision, summarise
from engine.options import add_data_flags, fill_defaults
from engine.run import get_device, load_checkpoint, seed_everything
from engine.tables import format_table
from engine.text import encode_categories
from engine.training import build_model, predict
from engine.zoom import Tiles, zoomed, zoomed_logits
from models.encoder import FrozenEncoder
from models.zero_shot import zero_shot_scores


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("bac_gcn", "clip"), default="bac_gcn")
    parser.add_argument("--checkpoint", help="checkpoint.pth or best.pth of a train script; it holds the run's flags")
    parser.add_argument("--raw_cosine", action="store_true", help="rank zero-shot scores by cosine, without softmax")
    parser.add_argument("--output_dir", help="where per_class_METHOD.csv goes (default: beside the checkpoint)")
    add_data_flags(parser, dataset=None)
    return parser


def main() -> None:
    args = get_args_parser().parse_args()
    if args.method == "bac_gcn" and args.checkpoint is None:
        raise DataError("--checkpoint is missing; train first, or ask for --method clip")
    trained = load_checkpoint(args.checkpoint) if args.checkpoint else None
    if trained:  # the run's own flags, save those given here
        given = {flag: value for flag, value in vars(args).items() if value is not None}
        args = argparse.Namespace(**{**trained["args"], **given})
    if args.dataset is None:
        raise DataError("--dataset is missing")
    fill_defaults(args)
    spec, device = get_dataset(args.dataset), get_device(args.device)
    num_classes = len(spec.classes)
    seed_everything(0, device)

    # Features of the test images.
    clip_model, _ = clip.load(args.model_path, device)
    split = read_split_file(args.val_split_file, num_classes)
    images = ImageList(args.val_img_root, split.image_ids, image_transform(clip_model.visual.input_resolution))
    targets = split.targets(num_classes)
    mask = {flag: getattr(args, flag) for flag in ("mask_share", "mask_threshold", "attention_layer") if trained}
    encoder = FrozenEncoder(clip_model, **mask)
    store = extract_features(encoder, images, "test", args)

    # Scores.
    categories = spec.categories if trained is None else trained["categories"]
    text_embeddings = encode_categories(clip_model, categories)
    if args.method == "clip":
        def score(features):
            return zero_shot_scores(features.plain_globals(), text_embeddings[:num_classes].cpu(), not args.raw_cosine)

        scores = score(store)
        if args.zoom:
            scores = zoomed(scores, score(extract_features(encoder, Tiles(images, args.zoom), "tiles", args)))
    else:
        if trained["weights_sha256"] != weights_digest(clip_model):
            raise DataError(f"{args.model_path}: not the CLIP weights that {args.checkpoint} was trained on")
        model = build_model(args, text_embeddings, torch.eye(len(categories)), num_classes).to(device)
        model.load_state_dict(trained["model"])
        test_set = FeatureSet([store], targets)
        scores = (zoomed_logits(model, test_set, images, encoder, args, device) if args.zoom
                  else predict(model, test_set, args, device))[:, :num_classes]

    # Table.
    per_class, summary = average_precision(scores, targets), summarise(scores, targets)
    rows = [(name, f"{ap:.2f}", str(int(positives))) for name, ap, positives
            in zip(spec.classes, per_class, targets.sum(dim=0))]
    folder = Path(args.output_dir) if args.checkpoint is None else Path(args.checkpoint).parent
    with atomic_write(folder / f"per_class_{args.method}.csv") as file:
        csv.writer(file).writerows([("class", "AP", "positives"), *rows])
    print(format_table(("class", "AP", "positives"), rows))
    print("  ".join(f"{name} {value:.2f}" for name, value in summary.items() if name != "mAP"))
    print(f"mAP {summary['mAP']}")


if __name__ == "__main__":
    run_main(main)
