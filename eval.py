"""Evaluate a trained method, or one that needs no training, on a test split.

    python eval.py --checkpoint runs/voc2007/checkpoint.pth             BAC-GCN, CDUL or TaI-DPT, as it was trained
    python eval.py --method clip --dataset voc2007                      CLIP zero-shot
    python eval.py --method clip --dataset voc2007 --prompts ensemble --raw_cosine
    python eval.py --method tagclip --dataset voc2007                   TagCLIP, at native size
    python eval.py --method cdul --dataset voc2007                      CDUL's initialisation

Writes per-class AP as per_class_METHOD.csv beside the checkpoint. Without one it goes into --output_dir, together with
the config.json and result.json that tables are collected from.
"""
import argparse
import csv
from pathlib import Path
from typing import Optional, Tuple

from datasets.files import DataError, atomic_write
from datasets.registry import get_dataset
from engine.bench import Checkpoint, load_bench
from engine.cli import run_main
from engine.evaluation import score_test_images, write_result
from engine.methods import EVAL_DEFAULTS, METHODS, add_cdul_flags, add_tagclip_flags
from engine.metrics import average_precision, summarise
from engine.options import add_data_flags, fill_defaults
from engine.run import get_device, load_checkpoint, seed_everything
from engine.tables import format_table


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="bac_gcn", help="default: the checkpoint's")
    parser.add_argument("--checkpoint", help="checkpoint.pth or best.pth of a train script; it holds the run's flags")
    parser.add_argument("--output_dir", help="where the results of a method without training go (default: "
                                             "runs/DATASET_METHOD)")
    parser.add_argument("--raw_cosine", action="store_true", help="rank zero-shot scores by cosine, without softmax")
    add_data_flags(parser, dataset=None)
    add_tagclip_flags(parser)
    add_cdul_flags(parser, training=False)
    return parser


def parse_args() -> Tuple[argparse.Namespace, Optional[Checkpoint]]:
    """The flags, with those of the checkpoint's run as defaults, and the checkpoint."""
    parser = get_args_parser()
    args = parser.parse_args()
    trained = load_checkpoint(args.checkpoint) if args.checkpoint else None
    parser.set_defaults(**(trained["args"] if trained else EVAL_DEFAULTS.get(args.method, {})))
    args = parser.parse_args()
    if trained and args.method not in ("clip", trained["args"]["method"]):
        raise DataError(f"{args.checkpoint}: a checkpoint of {trained['args']['method']}, not of {args.method}; leave "
                        "--method or --checkpoint out")
    if args.dataset is None:
        raise DataError("--dataset is missing")
    return fill_defaults(args), trained


def main() -> None:
    args, trained = parse_args()
    spec, device = get_dataset(args.dataset), get_device(args.device)
    seed_everything(0, device)
    bench = load_bench(args, spec, device)
    scores, predicted = score_test_images(bench, trained)

    per_class, summary = average_precision(scores, bench.targets), summarise(scores, bench.targets, predicted)
    rows = [(name, f"{ap:.2f}", str(int(positives))) for name, ap, positives
            in zip(spec.classes, per_class, bench.targets.sum(dim=0))]
    folder = Path(args.checkpoint).parent if args.checkpoint else Path(args.output_dir)
    with atomic_write(folder / f"per_class_{args.method}.csv") as file:
        csv.writer(file).writerows([("class", "AP", "positives"), *rows])
    if trained is None:
        write_result(folder, args, summary["mAP"])
    print(format_table(("class", "AP", "positives"), rows))
    print("  ".join(f"{name} {value:.2f}" for name, value in summary.items() if name != "mAP"))
    print(f"mAP {summary['mAP']}")


if __name__ == "__main__":
    run_main(main)
