"""The flags of `caption.py`'s captioning stages. Light to import: the filter starts without torch."""
from __future__ import annotations

import argparse
from typing import AbstractSet, Dict, Tuple

from datasets.files import DataError
from engine.command_line.flag_types import count, natural

READ_IN_STAGES: Dict[str, Tuple[str, ...]] = {
    **dict.fromkeys(("captioner", "model_type", "train_img_root", "train_split_file", "skip_unreadable",
                     "caption_batch_size", "precision", "num_shards", "shard", "device", "num_workers", "feature_root"),
                    ("caption", "merge", "all")),  # merging may repeat the command that it follows
    "output_root": ("filter", "report", "all"), "synonym_root": ("caption", "filter", "report", "all"),
    "no_scores": ("filter", "all"), "truth": ("report",), "top": ("report",),
}
"""The stages of `caption.py` that read a flag, for flags that not all of them read."""


def check_stage(stage: str, typed: AbstractSet[str]) -> None:
    """Raises DataError where a flag that was typed does nothing in the stage."""
    for flag in sorted(typed):
        stages = READ_IN_STAGES.get(flag, (stage,))
        if stage not in stages:
            raise DataError(f"--{flag} does nothing with --stage {stage}: it is a flag of {' and '.join(stages)}; "
                            "leave it out")


def add_captioning_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the stages `caption`, `merge` and `all`."""
    group = parser.add_argument_group("captioning (stages caption, merge and all)")
    group.add_argument("--captioner", default="lavis",
                       help="BLIP-2 by lavis (default) or transformers, or vlm: a chat-style vision-language model")
    group.add_argument("--model_type", default="pretrain_opt2.7b",
                       help="pretrain_opt2.7b (default), pretrain_opt6.7b, caption_coco_opt2.7b or "
                            "caption_coco_opt6.7b; for transformers also, and for vlm only, a local folder or a name "
                            "on the hub, such as HuggingFaceTB/SmolVLM-Instruct")
    group.add_argument("--train_img_root", "--img_root",
                       help="folder of the images (default: the dataset's training images)")
    group.add_argument("--train_split_file", "--split_file",
                       help="lines `image_id ...` (default: the dataset's training split)")
    group.add_argument("--feature_root", default="features",
                       help="keeps the outcome of the check of the images, for the train scripts too (default: "
                            "features)")
    group.add_argument("--skip_unreadable", action="store_true",
                       help="list images that cannot be read and go on without them, instead of stopping at once")
    group.add_argument("--caption_batch_size", type=count, default=32, help="images a batch (default: 32)")
    group.add_argument("--precision", default="auto", help="fp32, fp16 or bf16 (default: fp16 on a GPU, else fp32)")
    group.add_argument("--num_shards", type=count, default=1, help="parts of the run, for several GPUs or machines")
    group.add_argument("--shard", type=natural, default=0, help="the part to be captioned, from 0")
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: cuda where there is one)")
    group.add_argument("--num_workers", type=natural, default=4, help="processes that read images (default: 4)")
