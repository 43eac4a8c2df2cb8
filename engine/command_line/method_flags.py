"""The recipes of BAC-GCN, and the methods beside it: their flags, defaults and names."""
from __future__ import annotations

import argparse
import re
from typing import Any, Dict, List, NamedTuple, Tuple

from datasets.files import DataError
from engine.command_line.flag_types import count, natural, positive, share
from engine.features.frozen_encoder import ENCODERS, encoder_of
from models.backbones.reduction import REDUCTIONS

TRAINED_METHODS = ("bac_gcn", "cdul", "tai_dpt")
"""What `--method` of a train script takes."""

METHODS = ("clip", "tagclip", "sparc", *TRAINED_METHODS)
"""What `--method` of `eval.py` takes."""

EVAL_DEFAULTS: Dict[str, Dict[str, Any]] = {"tagclip": {"prompts": "ensemble"}, "sparc": {"prompts": "ensemble"}}
"""Defaults of `eval.py`'s shared flags where a method's differ."""

SAID_BY_TITLE = {"clip": ("prompts", "raw_cosine", "standardise", "prototypes", "resolution"),
                 "tagclip": ("prompts", "prompt_words", "published_behaviour"), "sparc": ("prompts", "resolution")}
"""Flags of methods without training that stand in their titles."""

BEFORE_FLAGS: Dict[str, Dict[str, Any]] = {
    "bac_gcn": {"tiles": 0, "small_tiles": 0}, "tagclip": {"prompt_words": "ours"}, "tai_dpt": {"image_scale": 50.0}}
"""What a method did before it had a flag, where that is not the flag's default, or not that of every recipe."""

WITHOUT_TRAINING = ("clip", "tagclip", "sparc", "cdul")
"""Methods that score images without a checkpoint; of CDUL it is the initialisation."""

BACKBONES = ("resnet101", "clip")

PROMPT_WORDS = ("published", "ours")
"""What `--prompt_words` of TagCLIP takes."""


class Recipe(NamedTuple):
    """A named set of defaults."""

    title: str
    """Of the method in tables, figures and reports: numbers of two recipes never stand in one row."""
    flags: Dict[str, Any]
    """Flags of a train script, where their defaults differ from the paper's."""


RECIPES: Dict[str, Recipe] = {
    "paper": Recipe("BAC-GCN", {}),
    "plus": Recipe("BAC-GCN+", {
        "resolution": 192, "tiles": 3, "small_tiles": 4, "no_masked_globals": True, "no_reso": True,
        "logit_start": "fitted", "lr": 3e-3, "lr_schedule": "cosine"}),
}
"""`--recipe`: "paper" is all that the paper states, "plus" ours; docs/recipes.md says how it was chosen."""


def encoder_name(text: str) -> str:
    """What `--encoder` takes: clip, or the kind of another network, a colon and its name."""
    kind, colon, name = text.partition(":")
    if kind not in ENCODERS or (kind == "clip") != (not colon) or (colon and not name):
        raise argparse.ArgumentTypeError(f"{text!r} is unknown; give clip, or timm:NAME as in timm:resnet50")
    return text


def add_encoder_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the frozen encoder, where it is not CLIP. All are our choice."""
    group = parser.add_argument_group("frozen encoder (see docs/real-photos.md)")
    group.add_argument("--encoder", type=encoder_name, default="clip", metavar="clip|timm:NAME",
                       help="clip, or any network of timm with patch features. Then --model_path is a state dict "
                            "(default: what timm downloads), the kernel starts at captions, and the method is named "
                            "BAC-GCN on NAME")
    group.add_argument("--encoder_dim", type=count, default=256, help="its features are reduced to this width")
    group.add_argument("--encoder_reduction", choices=list(REDUCTIONS), default="pca",
                       help="PCA of patches of training images, or a random projection")
    group.add_argument("--encoder_whiten", type=share, default=0.5,
                       help="PCA divides by the standard deviations to this power: 0 not at all, 1 wholly")
    group.add_argument("--encoder_seed", type=natural, default=0, help="of the sampled patches and the projection")


def encoder_defaults(encoder: str) -> Dict[str, Any]:
    """Defaults of flags that differ where the frozen encoder is not CLIP."""
    return {} if encoder == "clip" else {"kernel_start": "captions", "no_masked_globals": True}


def check_encoder(args: argparse.Namespace) -> None:
    """Raises DataError where text is asked of an encoder that has none."""
    if args.encoder != "clip" and args.kernel_start != "captions":
        raise DataError(f"--kernel_start {args.kernel_start}: {args.encoder} embeds no text; leave it out, the kernel "
                        "starts at captions then")


def add_cdul_flags(parser: argparse.ArgumentParser, training: bool = True) -> None:
    """CDUL's flags, or the one of its initialisation. Where nothing else is said, the paper gives no value and the
    default is our choice."""
    group = parser.add_argument_group("CDUL (--method cdul)")
    group.add_argument("--zeta", type=share, default=0.5,
                       help="a class counts at its best snippet from this probability on, else at its worst")
    if not training:
        return
    group.add_argument("--backbone", choices=BACKBONES, default="resnet101",
                       help="ImageNet ResNet-101 as in the paper, or a linear head on the frozen CLIP, which is a port")
    group.add_argument("--resnet_weights", metavar="FILE",
                       help="torchvision's resnet101 state dict (default: ImageNet1K_V1, downloaded once)")
    group.add_argument("--image_size", type=count, default=448, help="side of the ResNet's input")
    group.add_argument("--psi_sigma", type=positive, default=0.2,
                       help="width of the Gaussian around 0.5 that says which labels are refined")
    group.add_argument("--warmup_epochs", type=natural, default=5,
                       help="epochs before the first refinement of the labels")


def add_tai_dpt_flags(parser: argparse.ArgumentParser) -> None:
    """TaI-DPT's flags; the defaults are the authors', those of `method_defaults` included."""
    group = parser.add_argument_group("TaI-DPT (--method tai_dpt)")
    group.add_argument("--num_context", type=count, default=16, help="learned tokens of each of the two contexts")
    group.add_argument("--cosine_epochs", type=count, default=20, help="length of the learning rate's cosine")
    group.add_argument("--image_scale", type=positive,
                       help="inverse temperature of the softmax over an image's patches (default: 40, NUS-WIDE 4)")


def add_tagclip_flags(parser: argparse.ArgumentParser) -> None:
    """TagCLIP's flags."""
    group = parser.add_argument_group("TagCLIP (--method tagclip)")
    group.add_argument("--prompt_words", choices=PROMPT_WORDS,
                       help="in the prompts: the classes and backgrounds that the authors publish (default where they "
                            "do: VOC and COCO), or those of this repository")
    group.add_argument("--published_behaviour", action="store_true",
                       help="as the published script: maps are rounded to whole numbers of 0..255, boxes end one patch "
                            "before the border, and the first box that is thereby empty ends an image")
    group.add_argument("--max_patches", type=count, default=4096,
                       help="larger images are scaled down to so many patches; memory grows with the square")


def add_sparc_flags(parser: argparse.ArgumentParser) -> None:
    """SPARC's flags."""
    group = parser.add_argument_group("SPARC (--method sparc)")
    group.add_argument("--compounds", metavar="FILE",
                       help="classes of a compound prompt a line, as in `cat, sofa` (default: pairs and triples that "
                            "the captions under --caption_root name together)")
    group.add_argument("--statistics", metavar="NPZ",
                       help="score with the statistics that an earlier evaluation left as sparc_statistics.npz, not "
                            "with those of the test images; needed with --image")


def method_defaults(args: argparse.Namespace) -> Dict[str, Any]:
    """Defaults of a train script's flags that depend on the method, and for TaI-DPT on the dataset."""
    if args.method == "cdul":
        if args.backbone == "resnet101":
            return {"epochs": 20, "batch_size": 32, "lr": 1e-4, "weight_decay": 1e-4}
        return {"epochs": 20, "batch_size": 64, "lr": 1e-3, "weight_decay": 0.0}
    if args.method == "tai_dpt":
        own = {"lr": 1e-3, "image_scale": 4.0} if args.dataset == "nuswide" else {"lr": 1e-4, "image_scale": 40.0}
        return {"epochs": 20, "batch_size": 512, "weight_decay": 5e-4, **own}
    return {}


def method_title(args: argparse.Namespace, clip_name: str, trained: bool = True) -> str:
    """What a method is called in tables; what is not as in its paper is named a port.

    Args:
        args: `--method` and the flags of the method.
        clip_name: of the frozen CLIP. CDUL, whose labels it makes, is named after it.
        trained: False for CDUL's initialisation.
    """
    title = ", ".join(title for _, title in _name_parts(args, trained))
    return f"{title} (labels by {clip_name})" if args.method == "cdul" and trained else title


def untrained_title(encoder: str) -> str:
    """What stands beside BAC-GCN in tables: the same features without any training."""
    _, _, network = encoder.partition(":")
    return f"Caption prototypes on {network}, no training" if network else "CLIP zero-shot"


def default_folder(args: argparse.Namespace, dataset: str, trained: bool = True) -> str:
    """Where a method's results go without `--output_dir`: what has a title of its own has its own folder.

    Args:
        args: `--method` and the flags of the method.
        dataset: its name.
        trained: False for CDUL's initialisation.
    """
    return "runs/" + "_".join([dataset, *(part for part, _ in _name_parts(args, trained) if part)])


def _name_parts(args: argparse.Namespace, trained: bool) -> List[Tuple[str, str]]:
    """(part of the folder, part of the title) of a method and of each variant of it that is asked for."""
    prompts = args.prompts, {"single": "single prompt", "ensemble": "prompt ensemble"}.get(
        args.prompts, f"prompts {args.prompts}")
    if args.method == "clip":
        variants = [(args.prompts != "single", *prompts),
                    (args.raw_cosine, "cosine", "raw cosine"),
                    (args.standardise, "standardised", "standardised cosine"),
                    (bool(args.resolution), f"{args.resolution}px", f"{args.resolution} px"),
                    (bool(args.zoom), f"zoom{args.zoom}", zoom_title(args.zoom))]
        of_captions = {"text": ("clip", "CLIP zero-shot"), "captions": ("captions", "Caption prototypes, no training"),
                       "both": ("captions_and_text", "Caption prototypes and prompts, no training")}
        return [of_captions[args.prototypes], *((part, title) for asked, part, title in variants if asked)]
    if args.method == "tagclip":
        variants = [(args.prompt_words == "ours", "our_words", "our words"),
                    (args.prompts != "ensemble", *prompts),
                    (args.published_behaviour, "published", "published behaviour")]
        return [("tagclip", "TagCLIP"), *((part, title) for asked, part, title in variants if asked)]
    if args.method == "sparc":
        variants = [(args.prompts != "ensemble", *prompts),
                    (bool(args.resolution), f"{args.resolution}px", f"{args.resolution} px"),
                    (bool(args.compounds), "compounds", "compounds of a file"),
                    (bool(args.statistics), "kept", "statistics of other images")]
        name = "SPARC" if args.statistics else "SPARC (transductive)"
        return [("sparc", name), *((part, title) for asked, part, title in variants if asked)]
    if args.method == "cdul":
        if not trained:
            return [("cdul_initial", "CDUL initialisation")]
        return [("cdul", "CDUL") if args.backbone == "resnet101" else ("cdul_clip", "CDUL port to a frozen-CLIP head")]
    if args.method == "tai_dpt":
        return [("tai_dpt", "TaI-DPT port to ViT")]
    recipe = getattr(args, "recipe", "paper")  # eval.py has it from a checkpoint alone
    _, _, network = encoder_of(args).partition(":")
    parts = ("" if recipe == "paper" else recipe, re.sub(r"[^\w.-]", "_", network))
    return [("_".join(filter(None, parts)), RECIPES[recipe].title + (f" on {network}" if network else ""))]


def zoom_title(zoom: int) -> str:
    """What `--zoom` is called behind a method's title."""
    return f"zoom {zoom} (extension, not in the paper)"
