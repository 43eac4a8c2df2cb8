"""What the mini CLIP is trained on: pictures of scenes and portraits, with web-style captions."""
from __future__ import annotations

import multiprocessing.pool
import sys
from typing import List, NamedTuple, Tuple

import numpy as np
from PIL import Image

from datasets.progress import bar
from mini.portraits import render_portrait
from mini.scenes import render_scene, scene_rng
from mini.simulated_captioner import portrait_caption, web_caption

CAPTIONS_PER_PICTURE = 4
_STORED_SIDE = 192


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


def worker_processes(workers: int) -> multiprocessing.pool.Pool:
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn").Pool(workers)


def render_pool(seed: int, num_scenes: int, num_portraits: int = 0, workers: int = 1) -> Pool:
    """Render the first scenes of the seed's training stream, then its first portraits, with their web captions."""
    pixels = np.empty((num_scenes + num_portraits, _STORED_SIDE, _STORED_SIDE, 3), np.uint8)
    captions: List[List[str]] = []
    with worker_processes(workers) as processes:
        for what, render, count in (("scenes", _render_scene, num_scenes),
                                    ("portraits", _render_portrait, num_portraits)):
            pictures = processes.imap(render, [(seed, index) for index in range(count)], chunksize=16)
            for image, texts in bar(f"rendering {what}", "image", count, over=pictures):
                pixels[len(captions)] = image
                captions.append(texts)
    return Pool(pixels, captions)
