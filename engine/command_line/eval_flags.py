"""The command line of `eval.py`."""
from __future__ import annotations

import argparse
from typing import Iterable, Optional

from engine.command_line.data_flags import add_data_flags
from engine.command_line.method_flags import METHODS, add_cdul_flags, add_sparc_flags, add_tagclip_flags


def get_eval_parser(description: Optional[str], tables: Iterable[str] = (),
                    figures: Iterable[str] = ()) -> argparse.ArgumentParser:
    """The flags of `eval.py`.

    Args:
        description: the script's docstring.
        tables: what `--table` takes.
        figures: what `--figure` takes.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS, default="bac_gcn", help="default: the checkpoint's")
    parser.add_argument("--checkpoint", help="checkpoint.pth or best.pth of a train script; it holds the run's flags")
    parser.add_argument("--output_dir", help="where the results of a method without training (default: "
                                             "runs/DATASET_METHOD_VARIANT), tables (runs/tables) and figures go "
                                             "(figures/ beside the checkpoint)")
    parser.add_argument("--raw_cosine", action="store_true", help="rank zero-shot scores by cosine, without softmax")
    parser.add_argument("--standardise", action="store_true",
                        help="rank zero-shot scores by the cosine less the image's mean over the classes, over its "
                             "deviation: SPARC's first step alone")
    add_data_flags(parser, dataset=None)
    add_tagclip_flags(parser)
    add_sparc_flags(parser)
    add_cdul_flags(parser, training=False)
    group = parser.add_argument_group("tables, figures and photos, in place of an evaluation")
    group.add_argument("--table", choices=list(tables), help="collect the finished runs of --runs")
    group.add_argument("--figure", choices=list(figures), help="draw a figure of the paper")
    group.add_argument("--image", nargs="+", metavar="PHOTO",
                       help="tag these photos; with --figure masks or maps: draw them, not the first test images")
    group.add_argument("--runs", nargs="+", default=["runs"], help="folders with finished runs, at any depth")
    group.add_argument("--categories", nargs="+", help="whose similarity maps to draw (default: the highest scores)")
    group.add_argument("--baseline", metavar="CSV",
                       help="per_class_METHOD.csv to draw beside --figure per_class (default: CLIP zero-shot)")
    group.add_argument("--caption_root", default="caption",
                       help="holds DATASET/ with the labels of --figure graph and of SPARC's compounds")
    return parser
