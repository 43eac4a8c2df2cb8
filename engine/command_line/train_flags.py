"""The command line of the train scripts, in groups. Defaults that depend on the dataset live in its registry."""
from __future__ import annotations

import argparse
from typing import Any, Dict, List, Optional

from datasets.captions.pseudo_labels import LABEL_KINDS
from datasets.files import DataError, read_json
from datasets.flag_parser import FlagParser
from datasets.progress import say
from datasets.registry import DATASETS
from engine.command_line.data_flags import add_data_flags, fill_defaults
from engine.command_line.flag_types import count, describe, finite, natural, nonnegative, positive, share
from engine.command_line.method_flags import (
    BEFORE_FLAGS,
    RECIPES,
    TRAINED_METHODS,
    add_cdul_flags,
    add_encoder_flags,
    add_tai_dpt_flags,
    check_encoder,
    encoder_defaults,
    method_defaults,
)
from engine.command_line.saved_flags import check_flags
from engine.command_line.unread_flags import check_typed, drop_unread_tiles
from engine.process.metric_loggers import LOGGERS, import_wandb
from models.bac_gcn import LOGIT_STARTS, LOGITS
from models.encoder import MASK_MODES, PATCH_ATTENTIONS
from models.gcn import ACTIVATIONS, GCN_LAYERS
from models.graph import ADJACENCIES, NORMALISATIONS
from models.kernel import KERNEL_STARTS
from models.losses import LOSSES
from models.optimizer import LR_SCHEDULES
from models.reso import CROP_LABELS

_OWN_FLAGS = ("output_dir", "config", "resume", "overwrite")
"""Flags that --config does not take from the other run."""

TRAIN_SCRIPTS = {"voc2007": "train_voc07.py", "voc2012": "train_v12.py", "coco2014": "train_c14.py",
                 "nuswide": "train_nus.py", "mini": "train_mini.py"}
"""The script whose `main(args)` makes a run of a dataset."""


def train_script(dataset: str) -> str:
    """The script of a dataset; one that a description describes has a script for all of its kind."""
    return TRAIN_SCRIPTS.get(dataset, "train_custom.py")


def get_args_parser(dataset: Optional[str], description: Optional[str]) -> FlagParser:
    """The flags of a train script whose `--dataset` defaults to `dataset`; without one it must be given."""
    parser = FlagParser(description)
    add_data_flags(parser, dataset)
    group = parser.add_argument_group("run")
    group.add_argument("--method", choices=TRAINED_METHODS, default="bac_gcn",
                       help="a baseline in place of BAC-GCN, with its own defaults for --epochs, --batch_size, --lr "
                            "and --weight_decay")
    group.add_argument("--recipe", choices=list(RECIPES), default="paper",
                       help="defaults of the flags of BAC-GCN: all that the paper states, or ours, which is named "
                            "BAC-GCN+ (see docs/recipes.md)")
    group.add_argument("--output_dir", help="everything that the run leaves (default: runs/DATASET, for a baseline "
                                            "runs/DATASET_METHOD, runs/DATASET_cdul_clip)")
    group.add_argument("--config", help="take the defaults of all flags from another run's config.json")
    group.add_argument("--resume", metavar="CHECKPOINT",
                       help="go on from this checkpoint. Without it a run goes on from the one in its output folder")
    group.add_argument("--overwrite", action="store_true", help="start anew over the run in the output folder")
    group.add_argument("--logger", choices=list(LOGGERS), default="tensorboard",
                       help="where the numbers of every epoch go beside log.txt (default: tensorboard)")
    group.add_argument("--seed", type=natural, default=0, help="of the weights at the start and the order of images")
    group.add_argument("--val_share", type=share, metavar="SHARE",
                       help="keep this share of the training images out: their pseudo-labels make pseudo_mAP and "
                            "pseudo_AP, whose mean chooses best.pth and compares runs without a true label (see "
                            "docs/recipes.md)")

    group = parser.add_argument_group("optimisation")
    group.add_argument("--epochs", type=count, default=16, help="passes over the training images")
    group.add_argument("--batch_size", type=count, default=64, help="images a step, of all processes together")
    group.add_argument("--lr", type=positive, default=1e-3, help="learning rate")
    group.add_argument("--weight_decay", type=nonnegative, default=0.0, help="of the optimiser")
    group.add_argument("--loss", choices=list(LOSSES), default="bce", help=describe(LOSSES))
    group.add_argument("--lr_schedule", choices=list(LR_SCHEDULES), default="constant", help=describe(LR_SCHEDULES))
    group.add_argument("--step_precision", choices=("fp32", "bf16"), default="fp32",
                       help="of the products of a training step; weights, loss and scores stay fp32. bf16 is faster "
                            "where the processor or the card has products of it")
    group.add_argument("--lr_warmup", type=nonnegative, default=0.0, metavar="EPOCHS",
                       help="the rate rises from 0 over so many epochs, which need not be whole")

    add_encoder_flags(parser)

    group = parser.add_argument_group("captions, pseudo-labels and graph")
    group.add_argument("--caption_root", default="caption", help="folder with DATASET/, as caption.py leaves it")
    group.add_argument("--labels", choices=list(LABEL_KINDS), default="scores", help=describe(LABEL_KINDS))
    group.add_argument("--adjacency", choices=ADJACENCIES, default="cooccurrence",
                       help="cooccurrence: edges of the captions, P(i given j); identity: no edge; learned: edges that "
                            "start at those of the captions and are trained")
    group.add_argument("--edge_threshold", type=finite, default=0.0, help="cut edges of the caption graph below it")
    group.add_argument("--global_edge", type=nonnegative, default=1.0, help="weight of the global-local edges")
    group.add_argument("--normalisation", choices=NORMALISATIONS, default="row", help="of the adjacency")
    group.add_argument("--self_share", type=share,
                       help="what a node keeps of itself, the rest comes from its neighbours (ML-GCN's re-weighting; "
                            "default: what --normalisation makes of it)")
    group.add_argument("--no_class_background_edges", action="store_true",
                       help="cut the edges between classes and backgrounds")
    group.add_argument("--no_backgrounds", action="store_true", help="class nodes and labels only")

    group = parser.add_argument_group("masked globals and kernel")
    group.add_argument("--mask_share", type=share, default=0.15, help="share of the patches in H")
    group.add_argument("--mask_threshold", type=finite,
                       help="H by a threshold on the normalised attention instead of a share")
    group.add_argument("--attention_layer", type=int, default=-1, help="layer whose [cls] attention makes H")
    group.add_argument("--patch_attention", choices=PATCH_ATTENTIONS, default="self",
                       help="what a patch attends to in CLIP's last block: itself alone, or everything")
    group.add_argument("--mask_mode", choices=MASK_MODES,
                       help="paint the removed patches black, as the paper does (pixel, the default), or leave them "
                            "out of the transformer, which takes two thirds of the time (token, mini's default)")
    group.add_argument("--no_masked_globals", action="store_true", default=False,
                       help="one plain global node instead of two (default of another --encoder)")
    group.add_argument("--masked_globals", dest="no_masked_globals", action="store_false",
                       help="two masked global nodes, where a recipe or --encoder has one; takes a [cls] token")
    group.add_argument("--k", type=count, default=4, help="patches averaged per category")
    group.add_argument("--kernel_start", choices=list(KERNEL_STARTS), default="text",
                       help="of w_o and the classifier; " + describe(KERNEL_STARTS))
    group.add_argument("--frozen_kernel", action="store_true", help="keep the kernel where it starts")
    group.add_argument("--tiles", type=natural, default=0, metavar="N",
                       help="extension, not in the paper: train and score with NxN half-size tiles of each image too, "
                            "N^2 more encodings; a second kernel finds the best tile per category (default: 0, none)")
    group.add_argument("--small_tiles", type=natural, default=0, metavar="N",
                       help="the same with NxN tiles of a third of its sides, which have a kernel of their own "
                            "(default: 0, none)")

    group = parser.add_argument_group("CLIP-GCN and logits")
    group.add_argument("--no_gcn", action="store_true", help="score the nodes as they are")
    group.add_argument("--gcn_layer", choices=list(GCN_LAYERS), default="convolution", help=describe(GCN_LAYERS))
    group.add_argument("--gcn_depth", type=count, default=2, help="graph layers")
    group.add_argument("--gcn_width", type=count, help="between the layers (default: the width of CLIP's joint space)")
    group.add_argument("--gcn_activation", choices=list(ACTIVATIONS), default="gelu", help="between the layers")
    group.add_argument("--no_residual", action="store_true",
                       help="the last layer makes the nodes, instead of adding to them")
    group.add_argument("--logits", choices=LOGITS, default="both", help="global, local, or their sum as in the paper")
    group.add_argument("--logit_scale", type=positive, default=10.0, help="at the start; it is learned")
    group.add_argument("--logit_start", choices=LOGIT_STARTS, default="prior",
                       help="prior: biases so that the mean logit is the log-odds of the pseudo-labels; fitted: scale "
                            "and biases with the least cross-entropy, from --logit_scale")

    group = parser.add_argument_group("ReSO")
    group.add_argument("--reso_epoch", type=count, default=11, help="first epoch that trains on the crops too")
    group.add_argument("--no_reso", action="store_true", default=False, help="train the same epochs without crops")
    group.add_argument("--reso", dest="no_reso", action="store_false", help="crops, where a recipe has none")
    group.add_argument("--gamma", type=share, default=0.7, help="threshold on the normalised similarity map")
    group.add_argument("--epsilon", type=share, default=0.1, help="a region is small below this share of the patches")
    group.add_argument("--positive_threshold", type=share, default=0.5,
                       help="a class whose pseudo-label reaches it is pseudo-positive")
    group.add_argument("--crop_min_side", type=share, default=0.3, help="least side of a crop, as a share")
    group.add_argument("--crop_labels", choices=CROP_LABELS, default="category",
                       help="category: the class that a crop was cut for; image: all labels of its image; ignore: the "
                            "class, and no loss for the other positives of the image")
    group.add_argument("--max_crops", type=count, metavar="N",
                       help="at most so many crops, drawn by --seed (default: all that are found)")
    group.add_argument("--keep_crop_features", action="store_true",
                       help="leave the crops' features in the output folder when the run is done, for a run with more "
                            "--epochs; the crops themselves stay in any case")

    add_cdul_flags(parser)
    add_tai_dpt_flags(parser)
    return parser


def default_flags(dataset: str, method: str = "bac_gcn", backbone: Optional[str] = None,
                  recipe: str = "paper", encoder: str = "clip") -> Dict[str, Any]:
    """The flags of a dataset's train script that is given none but those which are part of a method's title.

    What only a description would tell, such as where the images are, is VOC2007's for a dataset of the user's own.
    """
    dataset = dataset if dataset in DATASETS else "voc2007"
    command = ["--method", method, *(["--recipe", recipe, "--encoder", encoder] if method == "bac_gcn" else []),
               *(["--backbone", backbone] if backbone and method == "cdul" else [])]
    return vars(parse_args(get_args_parser(dataset, None), command))


def parse_args(parser: FlagParser, argv: Optional[List[str]] = None) -> argparse.Namespace:
    """Parse a train script's command line; `--config` gives defaults first, the dataset's own come last.

    Raises:
        DataError: the config file is missing or does not fit the flags, or a flag that was typed does nothing.
    """
    given = parser.parse_args(argv)
    config = _read_config(given.config, parser) if given.config is not None else {}
    parser.set_defaults(**{flag: config[flag] for flag in {"method", "backbone", "recipe", "encoder"} & set(config)})
    named = parser.parse_args(argv)
    for flag, oldest in (("recipe", "paper"), ("encoder", "clip")):
        made_by, asked = config.get(flag, oldest), vars(named)[flag]
        if config and asked != made_by:
            raise DataError(f"{given.config}: made by --{flag} {made_by}, not {asked}; leave --config or --{flag} out")
    parser.set_defaults(**{**method_defaults(named), **RECIPES[named.recipe].flags,  # also what a config is older than
                           **encoder_defaults(named.encoder)})
    parser.set_defaults(**(BEFORE_FLAGS.get(named.method, {}) if config else {}))
    parser.set_defaults(**config)
    args = parser.parse_args(argv)
    typed = parser.typed(argv)
    if args.method == "bac_gcn" and not typed & {"tiles", "small_tiles"} and drop_unread_tiles(args):
        say(f"no tiles are made: --logits {args.logits} reads none")
    check_typed(args, typed, {**dict.fromkeys(RECIPES[named.recipe].flags, f"--recipe {named.recipe}"),
                              **dict.fromkeys(encoder_defaults(named.encoder), f"--encoder {named.encoder}"),
                              **dict.fromkeys(config, f"--config {given.config}")})
    if args.logger == "wandb":
        import_wandb()  # to fail at once where it is missing
    check_encoder(args)
    return fill_defaults(args)


def _read_config(path: str, parser: FlagParser) -> Dict[str, Any]:
    """The flags of another run's config.json, less those of its own."""
    if path.endswith(".pth"):
        raise DataError(f"{path}: a checkpoint; give the config.json beside it, or --resume it")
    config = read_json(path)
    if not isinstance(config, dict):
        raise DataError(f"{path}: not the config.json of a run")
    values = check_flags(path, config.get("args"), parser)
    return {flag: value for flag, value in values.items() if flag not in _OWN_FLAGS}
