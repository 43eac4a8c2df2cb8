"""Train BAC-GCN on the embedded mini world: rendered scenes, simulated captions and a small CLIP, nothing downloaded.

    make demo

does the three steps of any other dataset in a few minutes:

    python -m mini.render
    python caption.py --dataset mini --stage filter
    python train_mini.py
    python train_mini.py --seeds 3

Besides what every train script leaves, runs/mini/ gets summary.json and report.html, runs/mini/no_reso/ the
control that trains the same epochs without crops, and runs/mini/plus/ BAC-GCN+. Further seeds go to runs/mini/seed_1/
and so on.
"""
import argparse
import time
from pathlib import Path

from datasets.files import write_json
from datasets.progress import say
from datasets.registry import get_dataset
from datasets.split_file import read_image_ids
from engine.command_line.flag_types import count
from engine.command_line.method_flags import RECIPES
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
from engine.process.distributed import is_main, leave, setup
from engine.process.entry_point import run_main
from engine.process.reproducibility import seed_everything
from engine.process.stopwatch import Stopwatch
from engine.report.demo_summary import summarise_demo
from engine.report.run_report import write_report
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


DEMO = {"": {}, "no_reso": {"no_reso": True}, "plus": {"recipe": "plus", "zoom": None, **RECIPES["plus"].flags}}
"""Folder to flags of the runs of a demo: the method, the same epochs without crops, and BAC-GCN+."""


def demo(args: argparse.Namespace) -> None:
    """Make the runs of `DEMO` from every seed, and sum up; others are only trained.

    Others are baselines, `--no_reso` and `--recipe plus` alone, and another frozen encoder than CLIP.
    """
    start, spec, folder = time.perf_counter(), get_dataset(args.dataset), Path(args.output_dir)
    seeds = [args.seed + number for number in range(vars(args).pop("seeds"))]
    folders = {seed: folder / ("" if seed == seeds[0] else f"seed_{seed}") for seed in seeds}
    if args.method != "bac_gcn" or args.no_reso or args.recipe != "paper" or args.encoder != "clip":
        for seed in seeds:
            main(argparse.Namespace(**{**vars(args), "seed": seed, "output_dir": str(folders[seed])}))
        return
    runs = {}
    for seed in seeds:
        for name, flags in DEMO.items():
            say(f"\n{spec.title}, seed {seed}" + (f", {name}" if name else ""))
            runs[seed, name] = main(argparse.Namespace(
                **{**vars(args), "seed": seed, **flags, "output_dir": str(folders[seed] / name)}))
    if not is_main():
        return
    leave()
    summary = summarise_demo(args, spec, runs)
    report = write_report(folder, args)
    write_json(folder / "summary.json", {**summary, "seconds": round(time.perf_counter() - start, 1)}, indent=1)
    print(f"""
CLIP alone {summary['zero_shot_mAP']:.1f} mAP; BAC-GCN, which learned from captions only, {summary['bac_gcn_mAP']:.1f};
the same epochs without ReSO's crops {summary['bac_gcn_no_reso_mAP']:.1f}; BAC-GCN+, our recipe, \
{summary['bac_gcn_plus_mAP']:.1f}; pseudo-labels {summary['pseudo_label_mAP']:.1f} on the training images.
Numbers in {folder / 'summary.json'}, pictures in {report}: open it in a browser.""")


if __name__ == "__main__":
    mini_parser = get_args_parser("mini", __doc__)
    mini_parser.add_argument("--seeds", type=count, default=1, help="runs, from --seed on")
    run_main(lambda: demo(parse_args(mini_parser)))
