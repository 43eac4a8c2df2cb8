#!/usr/bin/env python3
"""From images to captions, and from captions to pseudo-labels and the co-occurrence graph.

    python caption.py --dataset voc2007 --stage fetch      # the authors' captions (VOC only), or
    python caption.py --dataset coco2014 --stage all       # caption, then filter
    python caption.py --dataset coco2014 --stage caption   # BLIP-2: six captions and six re-captions an image
    python caption.py --dataset coco2014 --stage merge     # the shards of a captioning run, put together
    python caption.py --dataset coco2014 --stage filter    # captions to labels, scores and graph
    python caption.py --dataset coco2014 --stage report --truth imageset/coco2014/train_cls.txt
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Dict, List, Optional

from datasets.captions import SYNONYM_ROOT, filter_captions
from datasets.files import DataError, counted
from datasets.flag_parser import FlagParser
from datasets.registry import get_dataset
from engine.command_line.captioning_flags import add_captioning_flags, check_stage
from engine.command_line.flag_types import DATASET_HELP, dataset_name, natural
from engine.process.entry_point import run_main

STAGES = ("fetch", "caption", "merge", "filter", "report", "all")


def get_args_parser() -> FlagParser:
    """The flags of all stages."""
    parser = FlagParser(__doc__)
    parser.add_argument("--dataset", type=dataset_name, required=True, help=DATASET_HELP)
    parser.add_argument("--stage", choices=STAGES, default="filter", help="what to do (default: filter)")
    parser.add_argument("--caption_root", default="caption",
                        help="holds DATASET/DATASET_captions.json and DATASET_re_captions.json (default: caption)")
    parser.add_argument("--output_root", help="gets DATASET/train_*.json and the report (default: --caption_root)")

    group = parser.add_argument_group("labels (stages filter, report and all)")
    group.add_argument("--no_scores", action="store_true", help="write label lists and counts only")
    group.add_argument("--synonym_root", default=SYNONYM_ROOT,
                       help="folder of the synonym files (default: the repository's caption/)")

    group = parser.add_argument_group("report")
    group.add_argument("--truth", nargs="+", default=[], metavar="SPLIT_FILE",
                       help="true labels to measure the pseudo-labels by; nothing else reads them")
    group.add_argument("--top", type=natural, default=40, help="words and edges to list (default: 40)")
    add_captioning_flags(parser)
    return parser


def filter_stage(args: argparse.Namespace) -> None:
    """Captions to labels, scores and counts."""
    spec = get_dataset(args.dataset)
    images = filter_captions(spec, args.caption_root, args.output_root, scores=not args.no_scores,
                             synonym_root=args.synonym_root)
    print(f"{Path(args.output_root) / spec.name}: labels of {counted(images, 'image')}")


def report_stage(args: argparse.Namespace) -> None:
    """What the filter found, and what it did not."""
    from datasets.captions.label_report import report

    report(get_dataset(args.dataset), args.caption_root, args.output_root, args.truth, args.top, args.synonym_root)


def caption_stage(args: argparse.Namespace) -> Dict[str, str]:
    """Caption the images, or merge the shards; image id to reason of each image that could not be read."""
    from engine import captioning  # torch and the captioner, which the other stages do not need

    return captioning.merge_stage(args) if args.stage == "merge" else captioning.caption_stage(args)


def fetch_stage(args: argparse.Namespace) -> None:
    """Download the captions that the authors published."""
    from datasets.captions.published import fetch_captions

    fetch_captions(get_dataset(args.dataset).name, args.caption_root)


def main(argv: Optional[List[str]] = None) -> None:
    parser = get_args_parser()
    args = parser.parse_args(argv)
    check_stage(args.stage, parser.typed(argv))
    args.output_root = args.output_root or args.caption_root
    unreadable: Dict[str, str] = {}
    if args.stage == "fetch":
        fetch_stage(args)
    if args.stage in ("caption", "merge", "all"):
        unreadable = caption_stage(args)
    if args.stage in ("filter", "all"):
        filter_stage(args)
    if args.stage == "report":
        report_stage(args)
    if unreadable:
        for image_id, reason in unreadable.items():
            print(f"{image_id}: {reason}", file=sys.stderr)
        summary = f"{counted(len(unreadable), 'image')} could not be read and got no captions (listed above)"
        if not args.skip_unreadable:
            raise DataError(f"{summary}; mend or remove them, or pass --skip_unreadable")
        print(summary, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
