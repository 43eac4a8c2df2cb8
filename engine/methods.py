"""The methods beside BAC-GCN: their flags, defaults and names."""
from __future__ import annotations

import argparse
from typing import Any, Dict

from datasets.files import DataError

TRAINED_METHODS = ("bac_gcn", "cdul", "tai_dpt")
"""What `--method` of a train script takes."""

METHODS = ("clip", "tagclip", *TRAINED_METHODS)
"""What `--method` of `eval.py` takes."""

EVAL_DEFAULTS: Dict[str, Dict[str, Any]] = {"tagclip": {"prompts": "ensemble"}}
"""Defaults of `eval.py`'s shared flags where a method's differ."""

WITHOUT_TRAINING = ("clip", "tagclip", "cdul")
"""Methods that score images without a checkpoint; of CDUL it is the initialisation."""

BACKBONES = ("resnet101", "clip")


def add_cdul_flags(parser: argparse.ArgumentParser, training: bool = True) -> None:
    """CDUL's flags, or the one of its initialisation. Where nothing else is said, the paper gives no value and the
    default is our choice."""
    group = parser.add_argument_group("CDUL (--method cdul)")
    group.add_argument("--zeta", type=float, default=0.5,
                       help="a class counts at its best snippet from this probability on, else at its worst")
    if not training:
        return
    group.add_argument("--backbone", choices=BACKBONES, default="resnet101",
                       help="ImageNet ResNet-101 as in the paper, or a linear head on the frozen CLIP, which is a port")
    group.add_argument("--resnet_weights", metavar="FILE",
                       help="torchvision's resnet101 state dict (default: ImageNet1K_V1, downloaded once)")
    group.add_argument("--image_size", type=int, default=448, help="side of the ResNet's input")
    group.add_argument("--psi_sigma", type=float, default=0.2,
                       help="width of the Gaussian around 0.5 that says which labels are refined")
    group.add_argument("--warmup_epochs", type=int, default=5, help="epochs before the first refinement of the labels")


def add_tai_dpt_flags(parser: argparse.ArgumentParser) -> None:
    """TaI-DPT's flags; the defaults are the authors'."""
    group = parser.add_argument_group("TaI-DPT (--method tai_dpt)")
    group.add_argument("--num_context", type=int, default=16, help="learned tokens of each of the two contexts")
    group.add_argument("--cosine_epochs", type=int, default=20, help="length of the learning rate's cosine")


def add_tagclip_flags(parser: argparse.ArgumentParser) -> None:
    """TagCLIP's flags."""
    group = parser.add_argument_group("TagCLIP (--method tagclip)")
    group.add_argument("--published_behaviour", action="store_true",
                       help="as the published script: boxes end one patch before the border, and the first box that "
                            "is thereby empty ends an image")
    group.add_argument("--max_patches", type=int, default=4096,
                       help="larger images are scaled down to so many patches; memory grows with the square")


def method_defaults(args: argparse.Namespace) -> Dict[str, Any]:
    """Defaults of a train script's shared flags where a method's differ from BAC-GCN's."""
    if args.method == "cdul":
        if args.backbone == "resnet101":
            return {"epochs": 20, "batch_size": 32, "lr": 1e-4, "weight_decay": 1e-4}
        return {"epochs": 20, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.0}
    if args.method == "tai_dpt":
        return {"epochs": 20, "batch_size": 512, "lr": 1e-4, "weight_decay": 5e-4}
    return {}


def check_zoom(args: argparse.Namespace) -> None:
    """Raises DataError where `--zoom` is asked for with a method that has no such extension."""
    if args.zoom and args.method not in ("bac_gcn", "clip"):
        raise DataError(f"--zoom is an extension of bac_gcn and clip; leave it out for --method {args.method}")


def method_title(args: argparse.Namespace, trained: bool = True) -> str:
    """What a method is called in tables; what is not as in its paper is named a port.

    Args:
        args: `--method` and the flags of the method.
        trained: False for CDUL's initialisation.
    """
    if args.method == "clip":
        title = "CLIP zero-shot" if args.prompts == "single" else "CLIP zero-shot, prompt ensemble"
        title += ", raw cosine" if args.raw_cosine else ""
        return zoomed_title(title, args.zoom) if args.zoom else title
    if args.method == "tagclip":
        title = "TagCLIP" if args.prompts == "ensemble" else "TagCLIP, single prompt"
        return f"{title}, published behaviour" if args.published_behaviour else title
    if args.method == "cdul":
        if not trained:
            return "CDUL initialisation"
        return "CDUL" if args.backbone == "resnet101" else "CDUL port to a frozen-CLIP head"
    return "TaI-DPT port to ViT" if args.method == "tai_dpt" else "BAC-GCN"


def zoomed_title(title: str, zoom: int) -> str:
    """What a method with `--zoom` is called in tables."""
    return f"{title}, zoom {zoom} (extension, not in the paper)"


def default_folder(args: argparse.Namespace, trained: bool = True) -> str:
    """Where a method's results go without `--output_dir`: what has a row of its own in tables has its own folder.

    Args:
        args: `--dataset`, `--method` and the flags of the method.
        trained: False for CDUL's initialisation.
    """
    parts = [args.dataset]
    if args.method != "bac_gcn":
        parts.append(args.method)
    if args.method == "clip":
        parts += ["ensemble"] * (args.prompts == "ensemble") + ["cosine"] * args.raw_cosine
        parts += [f"zoom{args.zoom}"] if args.zoom else []
    elif args.method == "tagclip":
        parts += ["single"] * (args.prompts == "single") + ["published"] * args.published_behaviour
    elif args.method == "cdul":
        parts += ["initial"] if not trained else ["clip"] * (args.backbone == "clip")
    return f"runs/{'_'.join(parts)}"
