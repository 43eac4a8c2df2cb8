"""Trains the mini CLIP: OpenAI's architecture, small, on rendered scenes and web-style captions alone.

    python -m mini.train_clip [--output mini/weights]
    python -m mini.train_clip --stop_after 300      # only compare the start of the losses with the log

No class label is used: the captions are what `mini.simulated_captioner` says about scenes that are in no split, mostly
the prominent object and the place, and about portraits of single things, as the web has them. Scenes come first; then
scenes and portraits together, since in scenes alone the place tells so much that the objects go unlearned. The
objective is our choice, after the needs of a method that reads single patches:

- contrastive: [cls] against captions within the batch, equal captions counted as positives;
- multiple instance: the log-sum-exp of a caption's similarities to the self-only patches, contrastive in the same
  way, since a caption is true of an image if some patches show it.

Scenes, order, crops and initial weights follow from the seed, so the losses can be reproduced from the start.
"""
from __future__ import annotations

import math
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip import CLIP, build_model, save_compact
from datasets.files import check_folder, read_json, write_json
from datasets.flag_parser import FlagParser
from datasets.progress import bar
from datasets.registry import get_dataset
from engine.command_line.flag_types import count
from engine.evaluation.metrics import average_precision
from engine.features.text_embeddings import encode_categories
from engine.process.entry_point import run_main
from mini.clip_training.batches import batches, to_tensor
from mini.clip_training.objective import losses
from mini.clip_training.pictures import Pool, render_pool, worker_processes
from mini.clip_training.recipe import Phase, Recipe, phases
from mini.clip_training.start import FIRST_SCENES, Vocabulary, full_state_dict, start
from mini.scenes import render_scene
from models.baselines.zero_shot import zero_shot_scores

SHIPPED = Path("mini/weights")
WEIGHTS_FILE, LOG_FILE = "mini_clip.safetensors", "mini_clip.json"
THREADS = 2
LOG_EVERY = 20


def train(model: CLIP, vocabulary: Vocabulary, pool: Pool, recipe: Recipe, phase: Phase,
          stop_after: int) -> List[Dict[str, float]]:
    """Train for `stop_after` of a phase's steps (the schedule is that of all of them).

    Returns:
        The losses of the first ten steps and of every twentieth.
    """
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": recipe.weight_decay},
                                   {"params": others, "weight_decay": 0.0}], lr=phase.learning_rate, betas=(0.9, 0.98))

    def rate(step: int) -> float:
        if step < recipe.warmup:
            return (step + 1) / recipe.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / max(1, phase.steps - recipe.warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    rows: List[Dict[str, float]] = []
    progress = bar("training", "step", stop_after, over=zip(range(stop_after), batches(pool, recipe, phase)))
    for step, (images, captions) in progress:
        values = losses(model, images, vocabulary.encode(captions), recipe)
        optimizer.zero_grad()
        values["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step < 10 or step % LOG_EVERY == 0:
            rows.append({"step": step, **{name: round(value.item(), 4) for name, value in values.items()}})
            progress.set_postfix({name: rows[-1][name] for name in ("loss", "contrastive", "instance")})
    return rows


@torch.no_grad()
def measure(model: CLIP, count: int, seed: int, workers: int) -> Dict[str, float]:
    """Zero-shot mAP in percent on scenes that are in no split and were not trained on: by [cls], by the best patch."""
    spec = get_dataset("mini")
    text = encode_categories(model, spec.categories)
    tasks = [(seed, "clip_held_out", index, model.visual.input_resolution) for index in range(count)]
    scores: List[Tensor] = []
    truth: List[List[bool]] = []
    with worker_processes(workers) as processes:
        for pixels, classes in processes.imap(_render_labelled, tasks, chunksize=16):
            dense = model.encode_image_dense(to_tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
            scores.append(torch.stack([zero_shot_scores(embeddings, text)[:, :len(spec.classes)].amax(0)
                                       for embeddings in (dense.global_embedding, dense.patch_embeddings[0])]))
            truth.append([name in classes for name in spec.classes])
    of_cls, of_patches = (round(float(np.nanmean(average_precision(part, torch.tensor(truth)))), 2)
                          for part in torch.stack(scores, dim=1))
    return {"zero_shot_mAP": of_cls, "patch_maximum_mAP": of_patches}


def _render_labelled(task: Tuple[int, str, int, int]) -> Tuple[np.ndarray, List[str]]:
    seed, split, index, side = task
    scene = render_scene(seed, split, index)
    return np.asarray(Image.fromarray(scene.pixels).resize((side, side), Image.Resampling.BICUBIC)), scene.classes


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    parser = FlagParser("Train the mini CLIP.", "python -m mini.train_clip")
    parser.add_argument("--stop_after", type=count,
                        help="stop after so many of the steps on scenes, and only compare their losses with the log")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="folder of weights and log")
    parser.add_argument("--workers", type=count, default=1, help="processes that render")
    options = parser.parse_args(arguments)
    check_folder(options.output)
    recipe = Recipe()
    stop_after = min(options.stop_after or recipe.steps, recipe.steps)
    torch.set_num_threads(THREADS)  # sums in one order: the same losses every time
    begun = time.perf_counter()
    whole = stop_after == recipe.steps
    num_scenes = min(recipe.num_scenes, max(FIRST_SCENES, stop_after * recipe.batch_size))
    pool = render_pool(recipe.seed, num_scenes, recipe.num_portraits if whole else 0, options.workers)
    rendered = time.perf_counter()
    model, vocabulary = start(recipe, pool)
    alone, mixed = phases(recipe)
    rows = train(model, vocabulary, pool, recipe, alone, stop_after)
    if not whole:
        shipped = read_json(SHIPPED / LOG_FILE)["losses"]
        largest = max(abs(here["loss"] - there["loss"]) for here, there in zip(rows, shipped))
        print(f"largest difference to the losses logged in {SHIPPED / LOG_FILE}: {largest:.4f}; nothing is written")
        return
    mixed_rows = train(model, vocabulary, pool, recipe, mixed, mixed.steps)
    trained = time.perf_counter()
    weights = full_state_dict(model, vocabulary, recipe)
    save_compact(weights, options.output / WEIGHTS_FILE, vocabulary.token_ids, recipe.seed)
    held_out = measure(build_model(weights), 1000, recipe.seed, options.workers)
    write_json(options.output / LOG_FILE, {
        "recipe": asdict(recipe),
        "seconds": {"rendering": round(rendered - begun), "training": round(trained - rendered)},
        "machine": f"{platform.machine()}, {THREADS} threads, torch {torch.__version__}",
        "held_out": held_out, "losses": rows, "mixed_losses": mixed_rows,
    }, indent=1)
    print(f"{options.output / WEIGHTS_FILE}: on 1000 held-out scenes {held_out}")


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
