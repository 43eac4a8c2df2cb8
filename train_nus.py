"""Train BAC-GCN on NUS-WIDE: the official 161,789 / 107,859 images, 81 concepts and 8 backgrounds.

    python -m datasets.build --dataset nuswide --unlabelled keep
    python caption.py --dataset nuswide --stage all
    python train_nus.py
    python eval.py --checkpoint runs/nuswide/checkpoint.pth

About 22% of the images have no label; say with your numbers whether the split files keep or drop them.
"""
import argparse

from datasets.registry import get_dataset
from datasets.split_file import read_image_ids
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.evaluation.held_out import held_out_metrics, hold_out
from engine.evaluation.metrics import average_precision, mean_ap
from engine.evaluation.threshold import measure, spread
from engine.evaluation.zoom import zoomed_map
from engine.features.extraction import extract_train_and_test
from engine.features.feature_set import FeatureSet
from engine.features.frozen_encoder import embed_categories, encoder_state, fit_encoder, load_encoder
from engine.features.readable_images import read_test_split, readable
from engine.methods.baseline_training import train_baseline
from engine.process.distributed import setup
from engine.process.entry_point import run_main
from engine.process.reproducibility import seed_everything
from engine.process.stopwatch import Stopwatch
from engine.training.build_model import build_model, start_embeddings
from engine.training.crops import extend_with_crops
from engine.training.epoch import train_one_epoch
from engine.training.fused_labels import fuse_with_clip
from engine.training.prediction import calibrate, untrained_scores
from engine.training.provenance import data_facts
from engine.training.run import Run
from engine.training.same_run import check_output_dir
from engine.training.training_labels import load_pseudo_labels
from models.optimizer import build_optimizer


def main(args: argparse.Namespace) -> Run:
    spec = get_dataset(args.dataset)
    device = setup(args.device)
    check_output_dir(args)
    if args.method != "bac_gcn":
        return train_baseline(args, spec, device)
    num_classes = len(spec.classes)
    categories = spec.classes if args.no_backgrounds else spec.categories

    # Images: training takes ids alone, true labels of training images are never read.
    train_images, skipped = readable(read_image_ids(args.train_split_file), args.train_img_root, args)
    test_images, test_split, skipped_test = read_test_split(args, num_classes)

    # Captions: pseudo-labels over classes and backgrounds, and the graph between them.
    pseudo = load_pseudo_labels(args, spec, train_images.image_ids, categories)

    # Frozen CLIP: text embeddings of the categories; patch embeddings and masked globals of every image, once. Another
    # --encoder is fitted to a common width, and has no text embeddings.
    encoder = load_encoder(args, device)
    train_images = train_images.with_transform(encoder.transform)
    test_images = test_images.with_transform(encoder.transform)
    fit_encoder(encoder, train_images, args)
    text_embeddings = embed_categories(encoder, spec.prompt_names(categories), args.prompts)
    data = data_facts(train_images, pseudo.targets, pseudo.graph, test_images, test_split.targets(num_classes))
    train_store, test_store = extract_train_and_test(encoder, train_images, test_images,
                                                     pseudo.targets[:, :num_classes], args)
    pseudo = fuse_with_clip(pseudo, train_images, train_store, encoder, text_embeddings, num_classes, args)

    # Training set and, with --val_share, training images that are kept out to compare runs without true labels.
    train_set, held_out = hold_out(FeatureSet([train_store], pseudo.targets, train_images.image_ids), args, spec)
    train_images = train_images.only(train_set.image_ids)
    test_set = FeatureSet([test_store], test_split.targets(num_classes))
    threshold_set = train_set.select(spread(len(train_set)))  # where the threshold of tags is found

    # BAC-GCN: the similarity kernel and the GCN over global, class and background nodes.
    seed_everything(args.seed, device)
    start_at = start_embeddings(args, text_embeddings, train_set)
    model = build_model(args, start_at, pseudo.graph, num_classes).to(device)
    calibrate(model, train_set, args, device)
    optimizer = build_optimizer(model, args)
    run = Run(args, categories, {**encoder.facts(), **data, "skipped_images": skipped + skipped_test},
              encoder_state(encoder, start_at))
    run.restore(model, optimizer)

    for epoch in range(run.next_epoch, args.epochs + 1):
        watch = Stopwatch()
        # ReSO: before epoch 11 the small objects are cropped, and the crops join the training images.
        if epoch >= args.reso_epoch and not args.no_reso and len(train_set.stores) == 1:
            train_set = extend_with_crops(model, train_set, train_images, encoder, num_classes, run.crop_folder,
                                          args, device, watch)
        with watch.part("training"):
            loss, images = train_one_epoch(model, train_set, optimizer, args, device, run)
        with watch.part("evaluation"):
            metrics = measure(model, test_set, threshold_set, args, device)
            metrics.update(held_out_metrics(model, held_out, args, device))
        run.finish_epoch({"epoch": epoch, "loss": loss, "images": len(train_set), **metrics}, watch.timing(images),
                         model, optimizer)

    # The table: last and best epoch beside the paper's numbers and the encoder without training.
    starts = start_at if text_embeddings is None else text_embeddings
    untrained = untrained_scores(test_store.plain_globals(), starts[:num_classes].cpu(), args)
    run.finish(spec, mean_ap(average_precision(untrained, test_set.targets, args.min_positives)),
               zoomed_map(model, test_set, test_images, encoder, args, device) if args.zoom else None)
    return run


if __name__ == "__main__":
    run_main(lambda: main(parse_args(get_args_parser("nuswide", __doc__))))
