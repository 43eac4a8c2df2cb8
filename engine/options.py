"""The command line of the train scripts, in groups. Defaults that depend on the dataset live in its registry."""
from __future__ import annotations

import argparse
from typing import List, Optional

from datasets.files import DataError, read_json
from datasets.pseudo_labels import LABEL_KINDS
from datasets.registry import DATASETS, get_dataset
from engine.feature_store import PATCH_DTYPES
from engine.flags import check_flags, count, finite, natural, positive, share
from engine.methods import TRAINED_METHODS, add_cdul_flags, add_tai_dpt_flags, default_folder, method_defaults
from engine.text import PROMPT_SETS
from models.bac_gcn import LOGITS
from models.encoder import MASK_MODES, PATCH_ATTENTIONS, PRECISIONS
from models.gcn import ACTIVATIONS
from models.graph import ADJACENCIES, NORMALISATIONS
from models.losses import LOSSES
from models.reso import CROP_LABELS

_OWN_FLAGS = ("output_dir", "config", "resume", "overwrite")
"""Flags that --config does not take from the other run."""

DATA_DEFAULTS = ("train_img_root", "train_split_file", "val_img_root", "val_split_file")


def add_data_flags(parser: argparse.ArgumentParser, dataset: Optional[str]) -> None:
    """Flags that say where images, split files and weights are; shared with `eval.py`."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", choices=list(DATASETS), default=dataset)
    group.add_argument("--train_img_root", help="folder of the training images (default: see the README's data tree)")
    group.add_argument("--train_split_file", help="lines `image_id ...`; what follows the id is not read")
    group.add_argument("--val_img_root", help="folder of the test images")
    group.add_argument("--val_split_file", help="lines `image_id class class ...`")
    group.add_argument("--model_path", help="CLIP weights: OpenAI's archive, a state dict, or safetensors")
    group.add_argument("--prompts", choices=PROMPT_SETS, default="single",
                       help="of the text embeddings: \"a photo of a\", or the mean of 85 (TagCLIP's default)")
    group.add_argument("--feature_root", default="features",
                       help="folder of the frozen encoder's features, shared by all runs")
    group.add_argument("--patch_dtype", choices=PATCH_DTYPES, default="fp16",
                       help="of the stored patch embeddings; int8 takes half of the disk")
    group.add_argument("--no_feature_store", action="store_true",
                       help="store nothing: encode the images again in every epoch, for want of disk")
    group.add_argument("--skip_unreadable", action="store_true",
                       help="list images that cannot be read and go on without them, instead of stopping at once")
    group.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the frozen encoder's products")
    group.add_argument("--compile", action="store_true",
                       help="compile the frozen encoder, which pays in half precision on thousands of images")
    group.add_argument("--encode_batch_size", type=count, default=32, help="images a pass of the frozen encoder")
    group.add_argument("--zoom", type=count, metavar="N",
                       help="extension, not in the paper: also score NxN half-size tiles of each test image, at N^2 "
                            "times the cost of encoding the test images")
    group.add_argument("--num_workers", type=natural, default=4,
                       help="processes that decode images, at most one a core")
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: cuda where there is one)")


def get_args_parser(dataset: str, description: Optional[str]) -> argparse.ArgumentParser:
    """The flags of a train script whose `--dataset` defaults to `dataset`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_flags(parser, dataset)
    group = parser.add_argument_group("run")
    group.add_argument("--method", choices=TRAINED_METHODS, default="bac_gcn",
                       help="a baseline in place of BAC-GCN, with its own defaults for --epochs, --batch_size, --lr "
                            "and --weight_decay")
    group.add_argument("--output_dir", help="everything that the run leaves (default: runs/DATASET, for a baseline "
                                            "runs/DATASET_METHOD, runs/DATASET_cdul_clip)")
    group.add_argument("--config", help="take the defaults of all flags from another run's config.json")
    group.add_argument("--resume", metavar="CHECKPOINT",
                       help="go on from this checkpoint. Without it a run goes on from the one in its output folder")
    group.add_argument("--overwrite", action="store_true", help="start anew over the run in the output folder")
    group.add_argument("--seed", type=natural, default=0)

    group = parser.add_argument_group("optimisation")
    group.add_argument("--epochs", type=count, default=16)
    group.add_argument("--batch_size", type=count, default=64)
    group.add_argument("--lr", type=positive, default=1e-3)
    group.add_argument("--weight_decay", type=finite, default=0.0)
    group.add_argument("--loss", choices=LOSSES, default="bce")

    group = parser.add_argument_group("captions, pseudo-labels and graph")
    group.add_argument("--caption_root", default="caption", help="folder with DATASET/, as caption.py leaves it")
    group.add_argument("--labels", choices=LABEL_KINDS, default="scores",
                       help="caption scores, the share of prompts that name a category, or 0/1")
    group.add_argument("--adjacency", choices=ADJACENCIES, default="cooccurrence")
    group.add_argument("--edge_threshold", type=finite, default=0.0, help="cut edges of the caption graph below it")
    group.add_argument("--global_edge", type=finite, default=1.0, help="weight of the global-local edges")
    group.add_argument("--normalisation", choices=NORMALISATIONS, default="row", help="of the adjacency")
    group.add_argument("--no_class_background_edges", action="store_true")
    group.add_argument("--no_backgrounds", action="store_true", help="class nodes and labels only")

    group = parser.add_argument_group("masked globals and kernel")
    group.add_argument("--mask_share", type=share, default=0.15, help="share of the patches in H")
    group.add_argument("--mask_threshold", type=finite,
                       help="H by a threshold on the normalised attention instead of a share")
    group.add_argument("--attention_layer", type=int, default=-1, help="layer whose [cls] attention makes H")
    group.add_argument("--patch_attention", choices=PATCH_ATTENTIONS, default="self",
                       help="what a patch attends to in CLIP's last block: itself alone, or everything")
    group.add_argument("--mask_mode", choices=MASK_MODES, default="token",
                       help="leave the removed patches out of the transformer, or paint them black, as the paper "
                            "does, which takes half as long again")
    group.add_argument("--no_masked_globals", action="store_true", help="one plain global node instead of two")
    group.add_argument("--k", type=count, default=4, help="patches averaged per category")
    group.add_argument("--frozen_kernel", action="store_true", help="keep the kernel at the text embeddings")

    group = parser.add_argument_group("CLIP-GCN and logits")
    group.add_argument("--no_gcn", action="store_true", help="score the nodes as they are")
    group.add_argument("--gcn_depth", type=count, default=2)
    group.add_argument("--gcn_width", type=count, help="between the layers (default: the width of CLIP's joint space)")
    group.add_argument("--gcn_activation", choices=list(ACTIVATIONS), default="gelu")
    group.add_argument("--no_residual", action="store_true")
    group.add_argument("--logits", choices=LOGITS, default="both")
    group.add_argument("--logit_scale", type=positive, default=10.0, help="at the start; it is learned")

    group = parser.add_argument_group("ReSO")
    group.add_argument("--reso_epoch", type=count, default=11, help="first epoch that trains on the crops too")
    group.add_argument("--no_reso", action="store_true", help="train the same epochs without crops")
    group.add_argument("--gamma", type=share, default=0.7, help="threshold on the normalised similarity map")
    group.add_argument("--epsilon", type=share, default=0.1, help="a region is small below this share of the patches")
    group.add_argument("--positive_threshold", type=share, default=0.5,
                       help="a class whose pseudo-label reaches it is pseudo-positive")
    group.add_argument("--crop_min_side", type=share, default=0.3, help="least side of a crop, as a share")
    group.add_argument("--crop_labels", choices=CROP_LABELS, default="category",
                       help="the class that a crop was cut for, or all labels of its image")

    add_cdul_flags(parser)
    add_tai_dpt_flags(parser)
    return parser


def parse_args(parser: argparse.ArgumentParser, argv: Optional[List[str]] = None) -> argparse.Namespace:
    """Parse a train script's command line; `--config` gives defaults first, the dataset's own come last.

    Raises:
        DataError: the config file is missing or does not fit the flags.
    """
    config_path = parser.parse_args(argv).config
    if config_path is not None:
        config = read_json(config_path)
        if not isinstance(config, dict):
            raise DataError(f"{config_path}: not the config.json of a run")
        values = check_flags(config_path, config.get("args"), parser)
        parser.set_defaults(**{flag: value for flag, value in values.items() if flag not in _OWN_FLAGS})
    else:
        parser.set_defaults(**method_defaults(parser.parse_args(argv)))
    return fill_defaults(parser.parse_args(argv))


def fill_defaults(args: argparse.Namespace, trained: bool = True) -> argparse.Namespace:
    """Give the flags that were left open the values of the dataset's registry entry.

    Args:
        args: the flags.
        trained: False for what scores images without training.
    """
    spec = get_dataset(args.dataset)
    for flag in (*DATA_DEFAULTS, "model_path"):
        if getattr(args, flag) is None:
            setattr(args, flag, getattr(spec, flag))
    if getattr(args, "output_dir", "") is None:
        args.output_dir = default_folder(args, trained)
    return args
