"""The command line of `eval.py`."""
from __future__ import annotations

import argparse
from typing import AbstractSet, Dict, Iterable, Optional, Tuple

from datasets.files import DataError
from datasets.flag_parser import FlagParser
from engine.command_line.data_flags import add_data_flags
from engine.command_line.flag_types import describe, finite
from engine.command_line.method_flags import METHODS, add_cdul_flags, add_sparc_flags, add_tagclip_flags
from engine.command_line.photo_flags import PHOTO_FLAGS, TAG_WITHOUT_TRAINING, add_photo_flags
from models.kernel import KERNEL_STARTS


def get_eval_parser(description: Optional[str], tables: Iterable[str] = (),
                    figures: Iterable[str] = ()) -> FlagParser:
    """The flags of `eval.py`.

    Args:
        description: the script's docstring.
        tables: what `--table` takes.
        figures: what `--figure` takes.
    """
    parser = FlagParser(description)
    parser.add_argument("--method", choices=METHODS, default="bac_gcn", help="default: the checkpoint's")
    parser.add_argument("--checkpoint", help="checkpoint.pth or best.pth of a train script; it holds the run's flags")
    parser.add_argument("--output_dir", help="where the results of a method without training (default: "
                                             "runs/DATASET_METHOD_VARIANT), tables (runs/tables) and figures go "
                                             "(figures/ beside the checkpoint)")
    parser.add_argument("--raw_cosine", action="store_true", help="rank zero-shot scores by cosine, without softmax")
    parser.add_argument("--standardise", action="store_true",
                        help="rank zero-shot scores by the cosine less the image's mean over the classes, over its "
                             "deviation: SPARC's first step alone")
    parser.add_argument("--prototypes", choices=list(KERNEL_STARTS), default="text",
                        help="what --method clip compares images with; " + describe(KERNEL_STARTS))
    parser.add_argument("--threshold", type=finite,
                        help="a class is a tag from this score on (default: the checkpoint's, or found on training "
                             "images and their captions, see docs/baselines.md)")
    add_data_flags(parser, dataset=None)
    add_tagclip_flags(parser)
    add_sparc_flags(parser)
    add_cdul_flags(parser, training=False)
    group = parser.add_argument_group("tables, figures and photos, in place of an evaluation")
    group.add_argument("--table", choices=list(tables), help="collect the finished runs of --runs")
    group.add_argument("--figure", choices=list(figures), help="draw a figure of the paper")
    group.add_argument("--image", nargs="+", metavar="PHOTO",
                       help="tag these photos, and those in these folders; with --figure masks or maps: draw them, "
                            "not the first test images")
    group.add_argument("--runs", nargs="+", default=["runs"], help="folders with finished runs, at any depth")
    group.add_argument("--no_nested", action="store_true",
                       help="with --runs: the runs in these folders and their seed_N alone, not what lies below, such "
                            "as a control")
    group.add_argument("--categories", nargs="+", help="whose similarity maps to draw (default: the highest scores)")
    group.add_argument("--baseline", metavar="CSV",
                       help="per_class_METHOD.csv to draw beside --figure per_class (default: CLIP zero-shot)")
    group.add_argument("--caption_root", default="caption",
                       help="holds DATASET/ with the labels of thresholds, of --figure graph and of SPARC's compounds")
    add_photo_flags(parser)
    return parser


_COLLECTING = {"table": ("table", "runs", "no_nested", "output_dir"),
               "curves": ("figure", "runs", "no_nested", "output_dir")}
"""All that is read where finished runs are collected."""

READ_IN_MODES: Dict[str, Tuple[str, ...]] = {
    **dict.fromkeys(("runs", "no_nested"), ("table", "curves")),
    "categories": ("maps", "tags"), "baseline": ("per_class",),
    "image": ("tags", "masks", "maps"),
    **dict.fromkeys(PHOTO_FLAGS, ("tags",)),
    **dict.fromkeys(("method", "statistics", "threshold", "raw_cosine", "standardise", "prompt_words",
                     "published_behaviour", "max_patches"), ("evaluation", "tags")),
    **dict.fromkeys(("zoom", "prototypes", "zeta", "compounds"), ("evaluation",)),
}
"""What `eval.py` does when it reads a flag, for flags that it does not always read."""


def mode_of(args: argparse.Namespace) -> str:
    """What `eval.py` is asked to do: "table", the name of a figure, "tags" of photos, or "evaluation"."""
    return "table" if args.table else args.figure or ("tags" if args.image else "evaluation")


def check_mode(args: argparse.Namespace, typed: AbstractSet[str]) -> None:
    """Raises DataError where a flag that was typed does nothing, or `--checkpoint` is missing."""
    mode = mode_of(args)
    name = {"evaluation": "an evaluation", "tags": "--image", "table": "--table"}.get(mode, f"--figure {mode}")
    for flag in sorted(typed):
        if mode not in READ_IN_MODES.get(flag, (mode,)) or flag not in _COLLECTING.get(mode, (flag,)):
            raise DataError(f"--{flag} does nothing for {name}; leave it out")
    if mode == "tags" and args.checkpoint is None and args.method not in TAG_WITHOUT_TRAINING:
        raise DataError("--checkpoint is missing: --image takes the checkpoint.pth of a BAC-GCN, or --method clip or "
                        "tagclip with --words or --dataset")
    if mode == "tags" and args.checkpoint is None and args.dataset is None and not args.words:
        raise DataError("--words is missing: what the photos may show, or the classes of a --dataset")
    if args.checkpoint is None and mode in ("maps", "per_class", "method", "method_narrow"):
        raise DataError(f"--checkpoint is missing: {name} takes the checkpoint.pth of a BAC-GCN that a train script "
                        "left in its output folder")
    if args.checkpoint is not None and args.method != "clip" and mode in ("evaluation", "maps", "tags"):
        for flag in sorted({"prompts", "zeta"} & typed):
            raise DataError(f"--{flag} does nothing with --checkpoint, whose weights it went into; leave it out")
