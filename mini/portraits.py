"""Portraits: one thing, large, before a plain wall or anything at all, as product, pet and stock photos show it.

CLIP's web pictures are mostly of this kind; the scenes that it is tried on are not. The mini CLIP's training needs
them for another reason too: in scenes the place tells so much of the classes that the things themselves go unlearned.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mini.backdrops import BACKDROPS, Canvas
from mini.drawing import jitter, pick, shade
from mini.objects import OBJECTS, draw_object
from mini.scenes import photograph, scene_rng

MIN_SIZE, MAX_SIZE = 0.35, 0.95
"""The longer side of the object as a share of the picture's side."""

_PLAIN = 0.5
"""Share of the portraits before a plain background; the others have a place that is drawn without regard to them."""


class Portrait(NamedTuple):
    """A picture, (side, side, 3) bytes, and the name of what it shows."""

    pixels: np.ndarray
    name: str


def render_portrait(seed: int, index: int, side: int) -> Portrait:
    """Render portrait number `index` of a seed, `side` pixels wide and high."""
    rng = scene_rng(seed, "clip", index, purpose=3)
    backdrop = BACKDROPS[pick(rng, tuple(BACKDROPS))]
    canvas = Canvas(side, side, pick(rng, backdrop.lights), rng)
    if rng.random() < _PLAIN:
        wall = jitter(rng, (rng.uniform(20, 250),) * 3, 40)
        canvas.gradient(0, side, wall, shade(wall, rng.uniform(0.5, 1.5)), rng.uniform(0, 0.15))
    else:
        backdrop.paint(canvas)
    name = pick(rng, tuple(OBJECTS))
    drawing = draw_object(name, rng)
    drawing.pose(rng.normal(0, 8), rng.choice((-1, 1)) * rng.uniform(0.74, 1.06))
    x0, y0, x1, y1 = drawing.bounds()
    scale = rng.uniform(MIN_SIZE, MAX_SIZE) * side / max(x1 - x0, y1 - y0)
    width, height = (x1 - x0) * scale, (y1 - y0) * scale
    left, top = rng.uniform(-0.1 * width, side - 0.9 * width), rng.uniform(-0.1 * height, side - 0.9 * height)
    canvas.paste(drawing, left - x0 * scale, top + y1 * scale, scale, texture=0.07)
    return Portrait(photograph(canvas), name)
