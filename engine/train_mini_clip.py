"""Trains the mini CLIP: OpenAI's architecture, small, on rendered scenes and web-style captions alone.

    python -m engine.train_mini_clip [--output datasets/mini/weights]
    python -m engine.train_mini_clip --stop_after 300      # only compare the start of the losses with the log

No class label is used: the captions are what `datasets.mini.captioner` says about scenes that are in no split, mostly
the prominent object and the place, and about portraits of single things, as the web has them. Scenes come first; then
scenes and portraits together, since in scenes alone the place tells so much that the objects go unlearned. The
objective is our choice, after the needs of a method that reads single patches:

- contrastive: [cls] against captions within the batch, equal captions counted as positives;
- multiple instance: the log-sum-exp of a caption's similarities to the self-only patches, contrastive in the same
  way, since a caption is true of an image if some patches show it.

Scenes, order, crops and initial weights follow from the seed, so the losses can be reproduced from the start.
"""
from __future__ import annotations

import argparse
import math
import multiprocessing.pool
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize
from tqdm import tqdm

from clip import CLIP, MEAN, STD, Architecture, build_model, save_compact, tokenize
from datasets.files import read_json, write_json
from datasets.mini.captioner import portrait_caption, web_caption
from datasets.mini.portraits import render_portrait
from datasets.mini.scenes import render_scene, scene_rng
from datasets.names import prompt_name
from datasets.registry import get_dataset
from engine.metrics import average_precision, mean_ap
from engine.text import encode_categories, load_templates
from models.masks import black_out
from models.zero_shot import zero_shot_scores

SHIPPED = Path("datasets/mini/weights")
WEIGHTS_FILE, LOG_FILE = "mini_clip.safetensors", "mini_clip.json"
CAPTIONS_PER_PICTURE = 4
THREADS = 2
LOG_EVERY = 20
_STORED_SIDE = 192
_PATCH = 16
_FIRST = 256
"""Scenes that give the principal components of patches."""
_MAX_TOKENS = 16
"""Longer captions are cut in training; they only repeat themselves."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 7
    num_scenes: int = 24000
    num_portraits: int = 24000
    steps: int = 15000
    learning_rate: float = 7e-4
    mixed_steps: int = 9000
    """After the steps on scenes alone, those on scenes and portraits, with a schedule of their own."""
    mixed_learning_rate: float = 5e-4
    batch_size: int = 64
    weight_decay: float = 0.05
    warmup: int = 100
    resolution: int = 128
    early_resolution: int = 96
    early_share: float = 0.85
    """Share of the steps at the early resolution, which are twice as fast."""
    width: int = 128
    vision_layers: int = 3
    text_layers: int = 2
    embed_dim: int = 128
    instance_weight: float = 1.0
    blackout: float = 0.1
    """Share of the images of a batch in which random patches are black (random erasing)."""


class Pool(NamedTuple):
    """Pictures, (n, 192, 192, 3) bytes, and `CAPTIONS_PER_PICTURE` captions of each."""

    pixels: np.ndarray
    captions: List[List[str]]


def _render_scene(task: Tuple[int, int]) -> Tuple[np.ndarray, List[str]]:
    seed, index = task
    scene = render_scene(seed, "clip", index)
    rng = scene_rng(seed, "clip", index, purpose=2)
    image = Image.fromarray(scene.pixels).resize((_STORED_SIDE, _STORED_SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image), [web_caption(scene, rng) for _ in range(CAPTIONS_PER_PICTURE)]


def _render_portrait(task: Tuple[int, int]) -> Tuple[np.ndarray, List[str]]:
    portrait = render_portrait(*task, side=_STORED_SIDE)
    rng = scene_rng(task[0], "clip", task[1], purpose=4)
    return portrait.pixels, [portrait_caption(portrait.name, rng) for _ in range(CAPTIONS_PER_PICTURE)]


def _processes(workers: int) -> multiprocessing.pool.Pool:
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn").Pool(workers)


def render_pool(seed: int, num_scenes: int, num_portraits: int = 0, workers: int = 1) -> Pool:
    """Render the first scenes of the seed's training stream, then its first portraits, with their web captions."""
    pixels = np.empty((num_scenes + num_portraits, _STORED_SIDE, _STORED_SIDE, 3), np.uint8)
    captions: List[List[str]] = []
    with _processes(workers) as processes:
        for what, render, count in (("scenes", _render_scene, num_scenes),
                                    ("portraits", _render_portrait, num_portraits)):
            pictures = processes.imap(render, [(seed, index) for index in range(count)], chunksize=16)
            for image, texts in tqdm(pictures, total=count, desc=f"rendering {what}", unit="img"):
                pixels[len(captions)] = image
                captions.append(texts)
    return Pool(pixels, captions)


class Vocabulary:
    """The tokens of some texts, numbered densely: training need not carry the rows that nobody uses.

    The order of ids stays, so the end of text keeps the highest one, as CLIP's text encoder expects.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.token_ids: List[int] = sorted({*_tokenize(texts).flatten().tolist()})
        self._dense = torch.zeros(self.token_ids[-1] + 1, dtype=torch.long)
        self._dense[self.token_ids] = torch.arange(len(self.token_ids))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(n, 16) dense ids."""
        return self._dense[_tokenize(texts)]


def _tokenize(texts: Sequence[str]) -> Tensor:
    return tokenize(list(texts), context_length=_MAX_TOKENS, truncate=True)


def to_tensor(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) bytes to normalised floats."""
    return normalize(pixels.float() / 255, MEAN, STD)


# ---- model -------------------------------------------------------------------------------------------------------

def initial_model(recipe: Recipe) -> CLIP:
    """A CLIP with random weights that follow from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    return CLIP(Architecture(
        embed_dim=recipe.embed_dim, image_resolution=recipe.resolution, patch_size=_PATCH, vision_width=recipe.width,
        vision_layers=recipe.vision_layers, text_width=recipe.width, text_layers=recipe.text_layers,
    ))


@torch.no_grad()
def init_patch_embedding(model: CLIP, pixels: Tensor) -> None:
    """Set the patch embedding to the principal components of the patches of some images, (n, 3, H, W) normalised.

    The components are scaled to equal variance, up to a floor for the faintest: without this start a small model
    sees little but brightness for thousands of steps.
    """
    size, width = model.visual.patch_size, len(model.visual.conv1.weight)
    patches = F.unfold(pixels, size, stride=size).transpose(1, 2).flatten(0, 1)
    variances, components = torch.linalg.eigh(torch.cov(patches.T.double()))
    variances, components = variances.flip(0)[:width], components.flip(1)[:, :width]
    components = components * components.sum(0).sign()  # eigenvectors come with any sign
    scale = (variances + variances[width // 4]).rsqrt()
    model.visual.conv1.weight.copy_((components * scale).T.view_as(model.visual.conv1.weight))


# ---- objective ---------------------------------------------------------------------------------------------------

def contrastive_loss(logits: Tensor, positives: Tensor) -> Tensor:
    """Symmetric cross-entropy of (B, B) logits; the target of a row is spread over its `positives` (B, B bool)."""
    targets = positives.float()
    rows = -(targets / targets.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    columns = -(targets / targets.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (rows + columns) / 2


def losses(model: CLIP, images: Tensor, tokens: Tensor, recipe: Recipe) -> Dict[str, Tensor]:
    """The losses of a batch.

    Args:
        model: the CLIP, over the dense vocabulary.
        images: (B, 3, R, R).
        tokens: (B, L), their captions.
        recipe: weighs them.
    """
    scale = model.logit_scale.exp().clamp(max=100)
    text = F.normalize(model.encode_text(tokens), dim=-1)
    positives = (tokens[:, None] == tokens[None]).all(-1)
    dense = model.encode_image_dense(images)
    contrastive = contrastive_loss(scale * F.normalize(dense.global_embedding, dim=-1) @ text.T, positives)
    patches = F.normalize(dense.patch_embeddings, dim=-1)
    similarities = torch.einsum("ind,td->itn", patches, text)
    instance = contrastive_loss((scale * similarities).logsumexp(-1) - math.log(patches.shape[1]), positives)
    total = contrastive + recipe.instance_weight * instance
    return {"loss": total, "contrastive": contrastive, "instance": instance}


# ---- batches -----------------------------------------------------------------------------------------------------

def resize(pixels: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) bytes to (B, 3, side, side), antialiased."""
    return F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)


class Phase(NamedTuple):
    """Steps with a learning rate that rises, then falls to zero as a cosine."""

    steps: int
    learning_rate: float
    pictures: int
    """So many of the pool are shown."""
    shuffle_first: bool
    """Shuffle the first pass too. Else it takes the pictures in order, so that the first steps need only the first."""


def phases(recipe: Recipe) -> Tuple[Phase, Phase]:
    """Scenes alone, then scenes and portraits."""
    return (Phase(recipe.steps, recipe.learning_rate, recipe.num_scenes, shuffle_first=False),
            Phase(recipe.mixed_steps, recipe.mixed_learning_rate, recipe.num_scenes + recipe.num_portraits,
                  shuffle_first=True))


def batches(pool: Pool, recipe: Recipe, phase: Phase) -> Iterator[Tuple[Tensor, List[str]]]:
    """Images and captions of every step of a phase."""
    rng = np.random.default_rng([recipe.seed, 1, phase.steps] if phase.shuffle_first else [recipe.seed, 1])
    count = phase.pictures
    order = rng.permutation(count) if phase.shuffle_first else np.arange(count)
    per_epoch = count // recipe.batch_size
    for step in range(phase.steps):
        epoch, position = divmod(step, per_epoch)
        if epoch and position == 0:
            order = rng.permutation(count)
        rows = order[position * recipe.batch_size:(position + 1) * recipe.batch_size]
        captions = [pool.captions[row][(epoch + row) % CAPTIONS_PER_PICTURE] for row in rows]
        pixels = torch.from_numpy(pool.pixels[rows]).permute(0, 3, 1, 2).contiguous()
        side = recipe.early_resolution if step < recipe.early_share * phase.steps else recipe.resolution
        if rng.random() < 0.5:
            pixels = pixels.flip(3)
        yield black_out_patches(to_tensor(random_crop(pixels, side, rng)), recipe.blackout, rng), captions


def random_crop(pixels: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """Half of the batches whole, the others a crop of at least 60% of the side (one crop for the batch)."""
    if rng.random() < 0.5:
        full = pixels.shape[-1]
        part = int(rng.integers(int(0.6 * full), full))
        top, left = (int(v) for v in rng.integers(0, full - part + 1, 2))
        pixels = pixels[:, :, top:top + part, left:left + part]
    return resize(pixels, side)


def black_out_patches(images: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """In `share` of the images (B, 3, R, R), the first ones, blacken a random part of the patches."""
    side = images.shape[-1] // _PATCH
    keep = np.ones((len(images), side, side), bool)
    for mask in keep[:int(share * len(images))]:
        mask[:] = rng.random((side, side)) >= rng.uniform(0.1, 0.85)
    return black_out(images, torch.from_numpy(keep).flatten(1), _PATCH)


# ---- training ----------------------------------------------------------------------------------------------------

def start(recipe: Recipe, pool: Pool) -> Tuple[CLIP, Vocabulary]:
    """The model before the first step, over a dense vocabulary of what the captions and the prompts say."""
    model = initial_model(recipe)
    prompts = [template.format(prompt_name(name)) for template in load_templates("single")
               for name in get_dataset("mini").categories]
    vocabulary = Vocabulary([text for texts in pool.captions for text in texts] + prompts)
    table = model.token_embedding.weight.detach()[vocabulary.token_ids]
    model.token_embedding = torch.nn.Embedding.from_pretrained(table, freeze=False)
    first = torch.from_numpy(pool.pixels[:_FIRST]).permute(0, 3, 1, 2)
    init_patch_embedding(model, to_tensor(resize(first, recipe.resolution)))
    return model, vocabulary


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
    progress = tqdm(zip(range(stop_after), batches(pool, recipe, phase)), total=stop_after, desc="training",
                    unit="step")
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


def full_state_dict(model: CLIP, vocabulary: Vocabulary, recipe: Recipe) -> Dict[str, Tensor]:
    """The trained weights in fp16 with the token table of full height, as OpenAI's archives have it."""
    table = initial_model(recipe).token_embedding.weight.detach().clone()
    table[vocabulary.token_ids] = model.token_embedding.weight.detach()
    weights = {**model.state_dict(), "token_embedding.weight": table}
    return {name: value.half() for name, value in weights.items()}


@torch.no_grad()
def measure(model: CLIP, count: int, seed: int, workers: int) -> Dict[str, float]:
    """Zero-shot mAP in percent on scenes that are in no split and were not trained on: by [cls], by the best patch."""
    spec = get_dataset("mini")
    text = encode_categories(model, spec.categories)
    tasks = [(seed, "clip_held_out", index, model.visual.input_resolution) for index in range(count)]
    scores: List[Tensor] = []
    truth: List[List[bool]] = []
    with _processes(workers) as processes:
        for pixels, classes in processes.imap(_render_labelled, tasks, chunksize=16):
            dense = model.encode_image_dense(to_tensor(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
            scores.append(torch.stack([zero_shot_scores(embeddings, text)[:, :len(spec.classes)].amax(0)
                                       for embeddings in (dense.global_embedding, dense.patch_embeddings[0])]))
            truth.append([name in classes for name in spec.classes])
    of_cls, of_patches = (round(mean_ap(average_precision(part, torch.tensor(truth))), 2)
                          for part in torch.stack(scores, dim=1))
    return {"zero_shot_mAP": of_cls, "patch_maximum_mAP": of_patches}


def _render_labelled(task: Tuple[int, str, int, int]) -> Tuple[np.ndarray, List[str]]:
    seed, split, index, side = task
    scene = render_scene(seed, split, index)
    return np.asarray(Image.fromarray(scene.pixels).resize((side, side), Image.Resampling.BICUBIC)), scene.classes


def main(arguments: Sequence[str]) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine.train_mini_clip", description="Train the mini CLIP.")
    parser.add_argument("--stop_after", type=int,
                        help="stop after so many of the steps on scenes, and only compare their losses with the log")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="folder of weights and log")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    options = parser.parse_args(arguments)
    recipe = Recipe()
    stop_after = min(options.stop_after or recipe.steps, recipe.steps)
    torch.set_num_threads(THREADS)  # sums in one order: the same losses every time
    begun = time.perf_counter()
    whole = stop_after == recipe.steps
    num_scenes = min(recipe.num_scenes, max(_FIRST, stop_after * recipe.batch_size))
    pool = render_pool(recipe.seed, num_scenes, recipe.num_portraits if whole else 0, options.workers)
    rendered = time.perf_counter()
    model, vocabulary = start(recipe, pool)
    alone, mixed = phases(recipe)
    rows = train(model, vocabulary, pool, recipe, alone, stop_after)
    if not whole:
        shipped = read_json(SHIPPED / LOG_FILE)["losses"]
        largest = max(abs(here["loss"] - there["loss"]) for here, there in zip(rows, shipped))
        print(f"largest difference to the losses logged in {SHIPPED / LOG_FILE}: {largest:.4f}; nothing is written")
        return 0
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
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
