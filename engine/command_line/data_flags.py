"""The flags that train scripts and `eval.py` share: images, split files and weights, and how they are read."""
from __future__ import annotations

import argparse
from typing import Optional

from clip.transformer import ACTIVATIONS
from datasets.files import DataError
from datasets.registry import get_dataset, guess_dataset
from datasets.tagclip_words import published_words
from engine.command_line.flag_types import DATASET_HELP, count, dataset_name, natural
from engine.command_line.method_flags import default_folder
from engine.features.feature_store import PATCH_DTYPES
from engine.features.frozen_encoder import encoder_of
from engine.features.text_embeddings import PROMPT_SETS
from models.encoder import PRECISIONS

DATA_DEFAULTS = ("train_img_root", "train_split_file", "val_img_root", "val_split_file")


def add_data_flags(parser: argparse.ArgumentParser, dataset: Optional[str]) -> None:
    """Flags that say where images, split files and weights are; shared with `eval.py`."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", type=dataset_name, default=dataset, help=DATASET_HELP)
    group.add_argument("--train_img_root", help="folder of the training images (default: that of imageset/README.md)")
    group.add_argument("--train_split_file", help="lines `image_id ...`; what follows the id is not read")
    group.add_argument("--val_img_root", help="folder of the test images")
    group.add_argument("--val_split_file", help="lines `image_id class class ...`")
    group.add_argument("--unlabelled_test", action="store_true",
                       help="the test split may be without labels: then there is no mAP, and the rest goes on")
    group.add_argument("--min_positives", type=count, default=1, metavar="N",
                       help="measure only classes with at least so many positive test images")
    group.add_argument("--model_path", help="CLIP weights: a file or folder of OpenAI, open_clip or Hugging Face, or a "
                                            "name on Hugging Face's hub (see docs/weights.md)")
    group.add_argument("--activation", choices=list(ACTIVATIONS),
                       help="of the CLIP of --model_path, where no configuration beside the weights says it")
    group.add_argument("--prompts", choices=list(PROMPT_SETS), default="single",
                       help="of the text embeddings: \"a photo of a\", or the mean of 85 (TagCLIP's default)")
    group.add_argument("--feature_root", default="features",
                       help="folder of the frozen encoder's features, shared by all runs")
    group.add_argument("--patch_dtype", choices=PATCH_DTYPES, default="fp16",
                       help="of the stored patch embeddings; int8 takes half of the disk")
    group.add_argument("--no_feature_store", action="store_true",
                       help="store nothing: encode the images again in every epoch, for want of disk")
    group.add_argument("--skip_unreadable", action="store_true",
                       help="list images that cannot be read and go on without them, instead of stopping at once")
    group.add_argument("--resolution", type=count, metavar="PIXELS",
                       help="side of the frozen encoder's input, any multiple of its patch (default: CLIP's own)")
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


def fill_defaults(args: argparse.Namespace, trained: bool = True) -> argparse.Namespace:
    """Give the flags that were left open the values of the dataset's registry entry or description.

    Args:
        args: the flags.
        trained: False for what scores images without training.

    Raises:
        DataError: there is no dataset, its description is at fault, or a split file is another dataset's.
    """
    if args.dataset is None:
        raise DataError(f"--dataset is missing: {DATASET_HELP}")
    spec = get_dataset(args.dataset)
    args.unlabelled_test = args.unlabelled_test or spec.unlabelled_test
    on_clip = encoder_of(args) == "clip"  # another encoder brings weights of its own
    for flag in (*DATA_DEFAULTS, *(("model_path", "mask_mode") if on_clip else ())):
        if getattr(args, flag, "not a flag here") is None:
            setattr(args, flag, getattr(spec, flag))
    _check_belonging(args)
    if args.method == "tagclip" and args.prompt_words is None:
        args.prompt_words = "published" if published_words(spec.name) else "ours"
    if getattr(args, "output_dir", "") is None:
        args.output_dir = default_folder(args, spec.name, trained)
    return args


def _check_belonging(args: argparse.Namespace) -> None:
    """Raises DataError where images lie in the folder of one dataset and their split file in that of another, as in the
    command that the authors' README gives for VOC2012."""
    for part in ("train", "val"):
        root, split_file = getattr(args, f"{part}_img_root"), getattr(args, f"{part}_split_file")
        spec, other = guess_dataset(root), guess_dataset(split_file)
        if spec is not None and other is not None and spec is not other:
            # VOC2012's test images have no labels; its validation images lie with those for training.
            val_root = args.train_img_root if spec.train_img_root == spec.val_img_root else args.val_img_root
            raise DataError(f"{split_file}: a list of {other.name}, but {root} holds images of {spec.name}; give "
                            f"--train_img_root {args.train_img_root} --train_split_file {spec.train_split_file} "
                            f"--val_img_root {val_root} --val_split_file {spec.val_split_file}")
