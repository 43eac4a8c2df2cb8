"""The silhouettes of the mini world: one function a class, each with its own kinds, poses and colours.

Every function draws into a `Drawing` whose unit is about the object's height, facing right, feet at y = 0.
"""
from __future__ import annotations

import math
from typing import Callable, Dict, Optional, Sequence

import numpy as np

from mini.drawing import Colour, Drawing, jitter, mix, pick, shade

WHITE, BLACK, GLASS, TYRE, METAL = (240, 240, 238), (28, 26, 28), (120, 160, 186), (34, 34, 36), (150, 152, 156)
PAINTS = ((200, 38, 36), (30, 84, 168), (238, 238, 234), (36, 38, 42), (150, 154, 158), (232, 184, 40),
          (36, 120, 70), (226, 110, 36), (120, 30, 50), (70, 160, 190), (196, 186, 160))
FABRICS = PAINTS + ((220, 120, 160), (110, 70, 150), (60, 60, 90), (90, 110, 70), (170, 60, 60))
SKINS = ((244, 208, 180), (226, 180, 146), (188, 136, 98), (136, 90, 62), (92, 60, 44))
HAIRS = ((40, 30, 26), (84, 56, 34), (150, 106, 58), (214, 184, 120), (130, 130, 130), (120, 52, 30))
WOODS = ((150, 100, 56), (112, 72, 42), (186, 140, 88), (84, 54, 38), (214, 196, 164))


def _wheel(d: Drawing, x: float, radius: float, squash: float = 1.0) -> None:
    d.ellipse(x, radius, radius * squash, radius, TYRE)
    d.ellipse(x, radius, radius * 0.58 * squash, radius * 0.58, METAL)
    d.ellipse(x, radius, radius * 0.2 * squash, radius * 0.2, TYRE)


def aeroplane(d: Drawing, rng: np.random.Generator) -> None:
    """An airliner from the side or from below, or a light propeller plane."""
    body = jitter(rng, pick(rng, (WHITE, WHITE, (206, 210, 216), PAINTS[0], PAINTS[1], PAINTS[5])), 8)
    trim = jitter(rng, pick(rng, PAINTS), 10)
    kind = rng.random()
    if kind < 0.55:
        d.polygon([(-0.15, 0.06), (0.32, 0.04), (-0.18, 0.46), (-0.32, 0.46)], shade(body, 0.72))  # far wing
        d.polygon([(-1.0, 0.1), (-0.72, 0.1), (-0.98, 0.52), (-1.16, 0.52)], trim)
        d.polygon([(-0.98, 0.06), (-0.72, 0.06), (-1.02, 0.26), (-1.18, 0.26)], shade(body, 0.75))
        d.curve([(-1.15, 0.14), (-0.6, 0.15), (0.5, 0.15), (0.86, 0.12), (1.05, 0.0), (0.9, -0.1), (0.4, -0.14),
                 (-0.5, -0.12), (-0.9, 0.02)], body)
        d.polygon([(-1.0, 0.06), (0.95, -0.04), (0.98, -0.01), (-1.05, 0.1)], trim)
        for x in np.arange(-0.7, 0.75, 0.115):
            d.ellipse(float(x), 0.085, 0.028, 0.032, (70, 84, 104))
        d.polygon([(0.84, 0.07), (0.97, 0.05), (0.93, 0.1), (0.82, 0.115)], (50, 62, 84))
        d.ellipse(0.06, -0.2, 0.17, 0.07, shade(trim, 0.85), -4)
        d.polygon([(-0.22, -0.03), (0.3, -0.05), (-0.38, -0.56), (-0.54, -0.56)], shade(body, 0.86))
        d.polygon([(-1.02, 0.06), (-0.76, 0.04), (-1.12, -0.12), (-1.24, -0.12)], shade(body, 0.86))
    elif kind < 0.8:
        sweep = rng.uniform(0.1, 0.45)
        d.polygon([(0.22, 0.05), (-0.12 - sweep, 1.0), (-0.3 - sweep, 1.0), (-0.24, 0.05)], shade(body, 0.86))
        d.polygon([(0.22, -0.05), (-0.12 - sweep, -1.0), (-0.3 - sweep, -1.0), (-0.24, -0.05)], shade(body, 0.8))
        for side in (-1, 1):
            d.ellipse(0.08 - sweep * 0.3, side * 0.36, 0.14, 0.06, shade(trim, 0.7))
            d.polygon([(-0.72, 0), (-0.96, side * 0.36), (-1.06, side * 0.36), (-0.98, 0)], trim)
        d.ellipse(0, 0, 1.05, 0.115, body)
        d.ellipse(0.15, -0.03, 0.75, 0.05, shade(body, 0.88))
    else:
        d.polygon([(-1.0, 0.04), (-0.72, 0.06), (-0.92, 0.4), (-1.06, 0.4)], trim)
        d.curve([(-1.05, 0.06), (-0.3, 0.16), (0.0, 0.3), (0.34, 0.27), (0.52, 0.15), (0.86, 0.1), (0.9, -0.12),
                 (0.4, -0.2), (-0.4, -0.1)], body)
        d.polygon([(0.02, 0.27), (0.32, 0.25), (0.46, 0.12), (0.0, 0.12)], GLASS)
        d.polygon([(-1.0, 0.0), (0.88, -0.06), (0.88, -0.0), (-1.0, 0.05)], trim)
        d.polygon([(-0.1, 0.24), (0.5, 0.26), (0.48, 0.35), (-0.1, 0.33)], shade(trim, 0.9))
        d.line([(0.2, 0.26), (0.1, -0.1)], 0.03, METAL)
        d.line([(0.94, -0.3), (0.94, 0.3)], 0.035, (90, 88, 86))
        d.ellipse(0.92, 0.0, 0.06, 0.07, trim)
        for x in (0.12, 0.62):
            d.line([(x, -0.14), (x, -0.34)], 0.03, METAL)
            d.ellipse(x, -0.36, 0.08, 0.08, TYRE)


def bicycle(d: Drawing, rng: np.random.Generator) -> None:
    """Two wheels and a frame; parts of a city, a racing or a child's bicycle."""
    paint = jitter(rng, pick(rng, PAINTS), 12)
    thick = rng.uniform(0.045, 0.07)
    r, rear, front = 0.36, (-0.56, 0.36), (0.58, 0.36)
    crank, seat, head = (-0.05, 0.34), (-0.2, 0.84), (0.4, 0.86)
    for x, y in (rear, front):
        d.ring(x, y, r, 0.07, TYRE)
        for angle in np.arange(0, 180, 30) + rng.uniform(0, 30):
            dx, dy = r * math.cos(math.radians(angle)), r * math.sin(math.radians(angle))
            d.line([(x - dx, y - dy), (x + dx, y + dy)], 0.012, METAL)
        d.ellipse(x, y, 0.05, 0.05, METAL)
        if rng.random() < 0.3:
            d.line([(x + (r + 0.05) * math.cos(a), y + (r + 0.05) * math.sin(a)) for a in np.linspace(0.7, 2.6, 9)],
                   0.05, paint)
    d.line([rear, crank, head, seat, rear], thick, paint)
    d.line([seat, crank], thick, paint)
    d.line([head, front], thick, shade(paint, 0.85))
    d.line([seat, (seat[0] - 0.03, seat[1] + 0.13)], 0.04, METAL)
    d.ellipse(seat[0] - 0.04, seat[1] + 0.15, 0.15, 0.045, BLACK, -4)
    d.line([head, (0.36, 1.02)], 0.045, METAL)
    if rng.random() < 0.5:
        d.line([(0.24, 1.08), (0.36, 1.02), (0.5, 1.06)], 0.055, BLACK)
    else:
        d.line([(0.32, 1.02), (0.52, 1.02), (0.55, 0.9), (0.44, 0.86)], 0.05, BLACK)
    d.ring(crank[0], crank[1], 0.09, 0.04, METAL)
    turn = rng.uniform(0, 2 * math.pi)
    for sign in (-1, 1):
        x, y = crank[0] + sign * 0.17 * math.cos(turn), crank[1] + sign * 0.17 * math.sin(turn)
        d.line([crank, (x, y)], 0.03, BLACK)
        d.line([(x - 0.06, y), (x + 0.06, y)], 0.035, BLACK)
    if rng.random() < 0.3:
        d.box(0.44, 0.74, 0.78, 0.98, pick(rng, WOODS), 0.03)


def bird(d: Drawing, rng: np.random.Generator, manner: str = "") -> None:
    """A bird that flies, stands or swims (`manner`: "fly", "stand", "swim")."""
    manner = manner or pick(rng, ("fly", "stand"))
    coat = jitter(rng, pick(rng, ((236, 236, 232), (70, 66, 66), (128, 96, 66), (196, 60, 44), (60, 110, 180),
                                  (226, 190, 60), (150, 154, 160))), 14)
    dark, beak = shade(coat, 0.66), jitter(rng, (232, 160, 40), 10)
    belly = mix(coat, (245, 240, 228), 0.55)
    if manner == "fly":
        lift = rng.uniform(-0.15, 0.75)
        reach = rng.uniform(0.85, 1.15)
        tip, far = (-0.35 * reach, 0.2 + lift), (0.1, 0.24 + lift * 0.9)
        d.curve([(0.15, 0.06), (0.24, 0.3 + lift * 0.5), (far[0] - 0.1, far[1] + 0.16), (-0.1, 0.24 + lift * 0.4),
                 (-0.15, 0.04)], shade(coat, 0.75))
        d.polygon([(-0.4, 0.05), (-0.78, 0.16), (-0.8, 0.0), (-0.74, -0.1), (-0.38, -0.05)], dark)
        d.curve([(-0.5, 0.03), (-0.1, 0.14), (0.3, 0.12), (0.5, 0.1), (0.58, 0.02), (0.42, -0.08), (0.0, -0.13)],
                coat)
        d.curve([(-0.3, -0.04), (0.1, -0.02), (0.42, -0.03), (0.0, -0.12)], belly)
        d.polygon([(0.54, 0.07), (0.74, 0.01), (0.55, -0.01)], beak)
        d.ellipse(0.47, 0.06, 0.022, 0.022, BLACK)
        d.curve([(0.22, 0.08), (0.12, 0.24 + lift * 0.45), (tip[0] + 0.05, tip[1] + 0.14),
                 (tip[0] - 0.25, tip[1] + 0.16),
                 (tip[0] - 0.12, tip[1] - 0.06), (-0.28, 0.1 + lift * 0.3), (-0.22, 0.0)], mix(coat, dark, 0.35))
        d.curve([(tip[0] + 0.02, tip[1] + 0.13), (tip[0] - 0.26, tip[1] + 0.17), (tip[0] - 0.12, tip[1] - 0.03)],
                dark)
        return
    if manner == "swim":
        neck = rng.uniform(0.28, 0.75)
        d.polygon([(-0.62, 0.2), (-0.9, 0.44), (-0.5, 0.38)], dark)
        d.curve([(-0.72, 0.2), (-0.5, 0.38), (0.05, 0.36), (0.4, 0.3), (0.52, 0.12), (0.3, -0.04), (-0.4, -0.04)],
                coat)
        d.curve([(-0.62, 0.22), (-0.2, 0.36), (0.2, 0.24), (-0.1, 0.08)], dark)
        d.limb([(0.36, 0.2), (0.46, 0.2 + neck * 0.6), (0.4, 0.24 + neck)], (0.2, 0.13, 0.13),
               coat if neck > 0.5 else shade(coat, 0.7))
        d.ellipse(0.44, 0.28 + neck, 0.14, 0.11, coat if neck > 0.5 else (40, 96, 66))
        d.polygon([(0.54, 0.32 + neck), (0.8, 0.24 + neck), (0.54, 0.22 + neck)], beak)
        d.ellipse(0.49, 0.31 + neck, 0.022, 0.022, BLACK)
        d.ellipse(-0.05, -0.04, 0.7, 0.035, (226, 236, 242))
        return
    for x in (-0.02, 0.1):
        d.line([(x, 0.34), (x + 0.04, 0.16), (x, 0.0)], 0.035, beak)
        d.line([(x - 0.06, 0.0), (x + 0.12, 0.0)], 0.03, beak)
    d.polygon([(-0.35, 0.44), (-0.8, 0.26), (-0.76, 0.16), (-0.28, 0.3)], dark)
    d.curve([(-0.42, 0.4), (-0.15, 0.62), (0.1, 0.72), (0.2, 0.9), (0.4, 0.92), (0.46, 0.76), (0.4, 0.5), (0.18, 0.3),
             (-0.12, 0.27)], coat)
    d.curve([(0.34, 0.66), (0.4, 0.5), (0.18, 0.31), (0.02, 0.29), (0.2, 0.46)], belly)
    d.curve([(-0.62, 0.28), (-0.26, 0.56), (0.06, 0.62), (0.1, 0.46), (-0.16, 0.34)], dark)
    d.polygon([(0.43, 0.88), (0.68, 0.8), (0.44, 0.76)], beak)
    d.ellipse(0.34, 0.84, 0.03, 0.03, BLACK)


def boat(d: Drawing, rng: np.random.Generator) -> None:
    """A sailing boat, a motor boat, a ship or a rowing boat; the water line is y = 0."""
    hull = jitter(rng, pick(rng, ((240, 240, 236), (168, 44, 40), (32, 62, 110), (40, 40, 44), (60, 120, 130),
                                  WOODS[0])))
    kind = rng.random()
    if kind < 0.45:
        sail = jitter(rng, pick(rng, ((246, 244, 236), (246, 244, 236), (220, 70, 50), (70, 110, 180),
                                      (238, 190, 80))), 8)
        d.line([(0.0, 0.1), (0.0, 1.5)], 0.035, (110, 90, 70))
        d.polygon([(-0.04, 1.46), (-0.04, 0.3), (-0.72 + rng.uniform(-0.1, 0.15), 0.32)], sail)
        d.polygon([(-0.04, 1.46), (-0.04, 0.3), (-0.25, 0.3)], shade(sail, 0.9))
        d.polygon([(0.05, 1.3), (0.05, 0.3), (0.62, 0.3)], shade(sail, 0.94 if rng.random() < 0.6 else 0.7))
        d.line([(0.0, 0.28), (-0.76, 0.3)], 0.03, (110, 90, 70))
        d.curve([(-0.8, 0.2), (0.0, 0.18), (0.88, 0.26), (0.66, 0.02), (0.4, -0.06), (-0.6, -0.06)], hull)
        d.polygon([(-0.78, 0.14), (0.78, 0.16), (0.84, 0.21), (-0.8, 0.19)], shade(hull, 0.7))
    elif kind < 0.7:
        d.polygon([(-0.3, 0.3), (0.3, 0.3), (0.14, 0.58), (-0.26, 0.58)], shade(WHITE, 0.95))
        d.polygon([(0.02, 0.34), (0.26, 0.34), (0.14, 0.52), (0.02, 0.52)], GLASS)
        d.polygon([(-0.22, 0.36), (-0.04, 0.36), (-0.04, 0.52), (-0.22, 0.52)], GLASS)
        d.line([(-0.2, 0.58), (-0.26, 0.86)], 0.025, METAL)
        d.polygon([(-0.95, 0.36), (1.1, 0.42), (0.74, -0.06), (-0.86, -0.06)], hull)
        d.polygon([(-0.94, 0.29), (1.04, 0.34), (1.1, 0.41), (-0.95, 0.36)], shade(hull, 0.72))
        d.line([(0.5, 0.4), (0.66, 0.52), (1.04, 0.5)], 0.025, METAL)
    elif kind < 0.87:
        funnel = jitter(rng, pick(rng, PAINTS))
        d.polygon([(-0.5, 0.75), (-0.2, 0.75), (-0.23, 1.08), (-0.46, 1.08)], funnel)
        d.box(-0.48, 0.98, -0.22, 1.09, BLACK)
        d.box(-0.85, 0.3, 0.45, 0.58, WHITE)
        d.box(-0.7, 0.58, 0.25, 0.8, shade(WHITE, 0.93))
        for x in np.arange(-0.75, 0.4, 0.16):
            d.box(float(x), 0.4, float(x) + 0.08, 0.48, GLASS)
            if x < 0.1:
                d.box(float(x) + 0.1, 0.64, float(x) + 0.18, 0.71, GLASS)
        d.line([(0.35, 0.5), (0.35, 1.02)], 0.025, METAL)
        d.polygon([(-1.2, 0.34), (1.3, 0.4), (1.05, -0.06), (-1.1, -0.06)], hull)
        d.polygon([(-1.12, 0.04), (1.09, 0.04), (1.05, -0.06), (-1.1, -0.06)], (140, 50, 44))
    else:
        wood = jitter(rng, pick(rng, WOODS))
        d.curve([(-0.98, 0.34), (-0.5, 0.22), (0.5, 0.22), (1.0, 0.36), (0.7, -0.03), (-0.7, -0.03)], wood)
        d.curve([(-0.9, 0.31), (-0.5, 0.23), (0.5, 0.23), (0.92, 0.33), (0.5, 0.17), (-0.5, 0.17)], shade(wood, 0.6))
        for x in (-0.35, 0.25):
            d.line([(x, 0.24), (x - 0.55, -0.05)], 0.035, shade(wood, 1.3))
    d.ellipse(0.0, -0.06, 1.0, 0.035, (224, 234, 240))


def bottle(d: Drawing, rng: np.random.Generator) -> None:
    """A wine, beer or plastic bottle, with or without a label."""
    glass = jitter(rng, pick(rng, ((30, 74, 48), (90, 50, 24), (26, 30, 34), (170, 206, 214), (150, 30, 50),
                                   (60, 120, 170))), 12)
    shoulder, neck, width = rng.uniform(0.5, 0.66), rng.uniform(0.055, 0.08), rng.uniform(0.15, 0.21)
    d.curve([(-width, 0.02), (-width, shoulder * 0.5), (-width, shoulder), (-neck, shoulder + 0.17), (-neck, 0.97),
             (neck, 0.97), (neck, shoulder + 0.17), (width, shoulder), (width, shoulder * 0.5), (width, 0.02)], glass)
    d.box(-width, 0.0, width, 0.1, glass, 0.03)
    d.box(-width * 0.72, 0.08, -width * 0.5, shoulder, mix(glass, (255, 255, 255), 0.4))
    d.box(-neck * 1.25, 0.88, neck * 1.25, 1.0, jitter(rng, pick(rng, PAINTS)), 0.015)
    if rng.random() < 0.75:
        label = jitter(rng, pick(rng, ((238, 230, 206), (244, 244, 240), PAINTS[0], PAINTS[5], PAINTS[1])), 8)
        d.box(-width * 1.0, 0.14, width * 1.0, 0.14 + rng.uniform(0.2, 0.32), label)
        d.box(-width * 0.6, 0.24, width * 0.6, 0.28, shade(label, 0.55))


def bus(d: Drawing, rng: np.random.Generator) -> None:
    """A city bus with one or two decks, from the side or from the front."""
    paint = jitter(rng, pick(rng, (PAINTS[0], PAINTS[0], PAINTS[5], PAINTS[1], PAINTS[6], WHITE, PAINTS[7])), 10)
    double = rng.random() < 0.35
    height = 1.45 if double else 0.92
    if rng.random() < 0.25:
        d.box(-0.42, 0.0, -0.26, 0.2, TYRE)
        d.box(0.26, 0.0, 0.42, 0.2, TYRE)
        d.box(-0.48, 0.1, 0.48, height, paint, 0.07)
        d.box(-0.41, 0.44, 0.41, 0.8, GLASS, 0.03)
        if double:
            d.box(-0.41, 0.94, 0.41, 1.28, GLASS, 0.03)
        d.box(-0.3, height - 0.11, 0.3, height - 0.03, (30, 30, 30))
        d.box(-0.2, height - 0.09, 0.2, height - 0.05, (240, 200, 60))
        for x in (-0.34, 0.34):
            d.ellipse(x, 0.28, 0.07, 0.06, (250, 244, 200))
        d.box(-0.44, 0.12, 0.44, 0.19, shade(paint, 0.55))
        return
    length = rng.uniform(1.15, 1.35)
    d.box(-length, 0.14, length, height, paint, 0.08)
    d.box(-length, 0.18, length, 0.28, shade(paint, 0.7))
    stripe = jitter(rng, pick(rng, (WHITE, PAINTS[3], PAINTS[5])))
    d.box(-length + 0.02, 0.4, length - 0.02, 0.45, stripe)
    count = int(rng.integers(5, 8))
    edges = np.linspace(-length + 0.08, length - 0.42, count + 1)
    for row in ((0.54, 0.84), (0.98, 1.3))[:2 if double else 1]:
        for x0, x1 in zip(edges, edges[1:]):
            d.box(float(x0), row[0], float(x1) - 0.04, row[1] - (0.06 if not double else 0.0), GLASS)
        d.box(length - 0.16, row[0] - 0.06, length - 0.01, row[1] - 0.04, shade(GLASS, 0.85))
    d.box(length - 0.4, 0.2, length - 0.2, 0.8, shade(GLASS, 0.7))
    d.line([(length - 0.3, 0.2), (length - 0.3, 0.8)], 0.02, shade(paint, 0.6))
    d.box(length - 0.03, 0.26, length + 0.02, 0.36, (250, 240, 190))
    _wheel(d, -length * 0.6, 0.17)
    _wheel(d, length * 0.55, 0.17)


def car(d: Drawing, rng: np.random.Generator) -> None:
    """A saloon, hatchback or pick-up from the side, or a car from the front."""
    paint = jitter(rng, pick(rng, PAINTS), 14)
    glass = shade(GLASS, rng.uniform(0.6, 1.05))
    kind = rng.random()
    if kind < 0.22:
        for x in (-0.46, 0.28):
            d.box(x, 0.0, x + 0.18, 0.22, TYRE, 0.03)
        d.curve([(-0.4, 0.5), (-0.3, 0.8), (0.0, 0.86), (0.3, 0.8), (0.4, 0.5)], shade(paint, 0.85))
        d.polygon([(-0.38, 0.5), (-0.27, 0.77), (0.27, 0.77), (0.38, 0.5)], glass)
        d.box(-0.52, 0.12, 0.52, 0.54, paint, 0.1)
        d.box(-0.26, 0.24, 0.26, 0.36, shade(paint, 0.35), 0.03)
        for x in (-0.4, 0.4):
            d.ellipse(x, 0.38, 0.09, 0.065, (252, 248, 214))
            d.ellipse(x * 1.42, 0.56, 0.06, 0.04, paint)
        d.box(-0.5, 0.12, 0.5, 0.2, shade(paint, 0.6))
        d.box(-0.13, 0.14, 0.13, 0.21, WHITE)
        return
    if kind < 0.5:
        roof = [(-0.62, 0.44), (-0.4, 0.72), (0.12, 0.74), (0.42, 0.46)]
        body = [(-1.0, 0.2), (-1.0, 0.46), (-0.6, 0.5), (0.42, 0.48), (0.9, 0.38), (1.0, 0.18), (0.0, 0.12)]
    elif kind < 0.82:
        roof = [(-0.92, 0.46), (-0.78, 0.78), (0.1, 0.8), (0.46, 0.46)]
        body = [(-0.98, 0.2), (-0.98, 0.48), (-0.5, 0.52), (0.46, 0.48), (0.84, 0.38), (0.92, 0.18), (0.0, 0.12)]
    else:
        roof = [(-0.16, 0.46), (-0.1, 0.82), (0.34, 0.82), (0.54, 0.48)]
        body = [(-1.02, 0.2), (-1.02, 0.5), (-0.2, 0.5), (0.54, 0.5), (0.92, 0.44), (1.0, 0.18), (0.0, 0.14)]
    d.polygon(roof, paint)
    middle = sum(x for x, _ in roof) / len(roof)
    d.polygon([(0.9 * x + 0.1 * middle, y - 0.035) for x, y in roof], glass)
    d.line([(middle, 0.45), (middle, roof[1][1])], 0.05, paint)
    d.curve(body, paint)
    d.line([(-0.9, 0.36), (0.85, 0.33)], 0.018, shade(paint, 0.65))
    d.box(-0.9, 0.12, 0.9, 0.19, shade(paint, 0.55), 0.03)
    d.ellipse(0.9, 0.34, 0.06, 0.05, (252, 246, 200))
    d.box(-1.02, 0.34, -0.94, 0.44, (200, 40, 36))
    for x in (-0.58, 0.58):
        d.ellipse(x, 0.2, 0.25, 0.22, shade(paint, 0.4))
        _wheel(d, x, 0.19)


class _Beast:
    """The proportions of a four-legged animal, in units of its own."""

    def __init__(self, length: float, depth: float, leg: float, leg_width: float, neck: float, neck_width: float,
                 head: float, head_depth: float, snout: float) -> None:
        self.length, self.depth, self.leg, self.leg_width = length, depth, leg, leg_width
        self.neck, self.neck_width = neck, neck_width
        self.head, self.head_depth, self.snout = head, head_depth, snout


def _legs(d: Drawing, rng: np.random.Generator, beast: _Beast, colour: Colour, foot: Colour, far: bool,
          stride: float) -> None:
    tone = shade(colour, 0.7) if far else colour
    for x, phase in ((-beast.length * 0.36, 0.0), (beast.length * 0.34, 1.3)):
        swing = stride * math.sin(phase + (2.2 if far else 0.0)) * beast.leg
        x += 0.05 * beast.length if far else 0.0
        knee = (x + swing * 0.35 + 0.02, beast.leg * 0.5)
        d.limb([(x, beast.leg + beast.depth * 0.25), knee, (x + swing, 0.04)],
               (beast.leg_width * 1.7, beast.leg_width, beast.leg_width * 0.75), tone)
        d.box(x + swing - beast.leg_width * 0.5, 0.0, x + swing + beast.leg_width * 0.65, 0.07,
              shade(foot, 0.7 if far else 1))


def _trunk(d: Drawing, beast: _Beast, colour: Colour) -> None:
    half, low, depth = beast.length / 2, beast.leg, beast.depth
    d.curve([(-half, low + 0.5 * depth), (-half * 0.85, low + 0.96 * depth), (-half * 0.2, low + 0.93 * depth),
             (half * 0.5, low + depth), (half * 0.96, low + 0.82 * depth), (half * 0.92, low + 0.3 * depth),
             (half * 0.4, low + 0.02 * depth), (-half * 0.3, low + 0.1 * depth), (-half * 0.85, low + 0.12 * depth)],
            colour)


def _neck_and_head(d: Drawing, beast: _Beast, angle: float, pitch: float, coat: Colour, face: Colour,
                   muzzle: Colour) -> tuple:
    """Draw them and return the head's base, its direction and its normal."""
    a, p = math.radians(angle), math.radians(pitch)
    base = (beast.length * 0.4, beast.leg + beast.depth * 0.72)
    top = (base[0] + beast.neck * math.cos(a), base[1] + beast.neck * math.sin(a))
    d.limb([base, top], (beast.neck_width * 1.5, beast.neck_width), coat)
    direction, normal = np.array([math.cos(p), math.sin(p)]), np.array([-math.sin(p), math.cos(p)])
    h, w = beast.head, beast.head_depth
    start = np.asarray(top)
    outline = [start - direction * h * 0.2 + normal * w * 0.2, start + direction * h * 0.1 + normal * w * 0.55,
               start + direction * h * 0.55 + normal * w * 0.3,
               start + direction * h + normal * w * beast.snout * 0.4,
               start + direction * h - normal * w * beast.snout * 0.5, start + direction * h * 0.5 - normal * w * 0.4,
               start - normal * w * 0.55]
    d.curve(outline, face)
    end = start + direction * h * 0.9
    d.ellipse(end[0], end[1], h * 0.16, w * beast.snout * 0.46, muzzle, pitch)
    eye = start + direction * h * 0.32 + normal * w * 0.2
    d.ellipse(eye[0], eye[1], 0.022, 0.024, BLACK)
    return start, direction, normal


def cow(d: Drawing, rng: np.random.Generator) -> None:
    """A cow, standing or grazing: deep trunk, short legs, horns, often patched."""
    coat = jitter(rng, pick(rng, ((236, 232, 226), (60, 46, 40), (150, 92, 52), (190, 140, 92), (236, 232, 226))), 10)
    patch = jitter(rng, pick(rng, ((40, 34, 34), (120, 66, 36))), 8)
    beast = _Beast(1.24, 0.5, 0.42, 0.11, 0.22, 0.28, 0.36, 0.26, 0.85)
    stride = rng.uniform(0.0, 0.35)
    _legs(d, rng, beast, coat, (60, 50, 44), True, stride)
    d.line([(-0.6, 0.82), (-0.7, 0.66), (-0.68, 0.36)], 0.035, coat)
    d.ellipse(-0.68, 0.33, 0.045, 0.08, patch)
    _trunk(d, beast, coat)
    d.ellipse(-0.3, 0.42, 0.12, 0.07, (226, 170, 164))
    if sum(coat) > 600 or rng.random() < 0.3:
        for _ in range(int(rng.integers(2, 5))):
            x = rng.uniform(-0.42, 0.42)
            d.curve([(x + r * math.cos(t) * 0.16, 0.68 + r * math.sin(t) * 0.15)
                     for t, r in zip(np.linspace(0, 5.4, 7), rng.uniform(0.6, 1.25, 7))], patch)
    _legs(d, rng, beast, coat, (60, 50, 44), False, stride)
    grazing = rng.random() < 0.35
    start, direction, normal = _neck_and_head(d, beast, -50 if grazing else rng.uniform(5, 30),
                                              -75 if grazing else rng.uniform(-45, -20), coat,
                                              patch if rng.random() < 0.5 else coat, (222, 178, 166))
    crown = start + normal * beast.head_depth * 0.4
    for lean in (-0.05, 0.05):
        d.line([crown + direction * lean, crown + normal * 0.1 + direction * (lean * 2.5),
                crown + normal * 0.17 + direction * (lean * 2.2)], 0.035, (226, 214, 186))
    ear = start - direction * 0.06 + normal * 0.06
    d.ellipse(ear[0] - 0.06, ear[1], 0.1, 0.045, shade(coat, 0.75), 15)


def horse(d: Drawing, rng: np.random.Generator) -> None:
    """A horse: long legs, arched neck with a mane, flowing tail."""
    coat = jitter(rng, pick(rng, ((124, 72, 38), (84, 50, 32), (40, 32, 30), (214, 206, 196), (170, 110, 60),
                                  (150, 148, 146))), 10)
    mane = shade(coat, 0.45) if rng.random() < 0.75 else mix(coat, (240, 226, 196), 0.7)
    beast = _Beast(1.06, 0.38, 0.62, 0.075, 0.44, 0.2, 0.34, 0.17, 0.75)
    stride = rng.uniform(0.0, 0.6)
    _legs(d, rng, beast, coat, (44, 36, 32), True, stride)
    d.curve([(-0.46, 0.94), (-0.62, 0.92), (-0.78, 0.66), (-0.76, 0.36), (-0.64, 0.5), (-0.56, 0.78)], mane)
    _trunk(d, beast, coat)
    _legs(d, rng, beast, coat, (44, 36, 32), False, stride)
    grazing = rng.random() < 0.2
    angle = -48 if grazing else rng.uniform(42, 62)
    start, direction, normal = _neck_and_head(d, beast, angle, -70 if grazing else angle - rng.uniform(80, 100), coat,
                                              coat, shade(coat, 0.6))
    a = math.radians(angle)
    along, across = np.array([math.cos(a), math.sin(a)]), np.array([-math.sin(a), math.cos(a)])
    d.curve([start + across * 0.05, start + across * 0.15 - along * 0.1, start + across * 0.2 - along * 0.3,
             start + across * 0.16 - along * 0.45, start + across * 0.06 - along * 0.25], mane)
    crown = start + across * 0.05
    d.polygon([crown, crown + along * 0.13 + across * 0.02, crown + direction * 0.08 + along * 0.02], coat)


def sheep(d: Drawing, rng: np.random.Generator) -> None:
    """A sheep: a cloud of wool on thin legs, face dark or pale."""
    wool = jitter(rng, pick(rng, ((238, 232, 218), (226, 218, 204), (238, 232, 218), (110, 96, 86))), 8)
    face = jitter(rng, pick(rng, ((46, 40, 40), (226, 206, 186), (46, 40, 40))), 8)
    beast = _Beast(0.92, 0.46, 0.3, 0.07, 0.16, 0.2, 0.26, 0.2, 0.6)
    stride = rng.uniform(0.0, 0.3)
    _legs(d, rng, beast, face, (40, 36, 34), True, stride)
    _legs(d, rng, beast, face, (40, 36, 34), False, stride)
    for t in np.linspace(0, 2 * math.pi, 12, endpoint=False):
        r = rng.uniform(0.13, 0.18)
        d.ellipse(0.43 * math.cos(t), 0.56 + 0.19 * math.sin(t), r, r, shade(wool, 0.88 + 0.12 * math.sin(t)))
    d.ellipse(0, 0.57, 0.47, 0.26, wool)
    for _ in range(7):
        x, y = rng.uniform(-0.35, 0.35), rng.uniform(0.42, 0.74)
        d.line([(x - 0.06, y), (x, y - 0.045), (x + 0.06, y)], 0.02, shade(wool, 0.82))
    grazing = rng.random() < 0.4
    start, _, _ = _neck_and_head(d, beast, -40 if grazing else rng.uniform(10, 40),
                                 -70 if grazing else rng.uniform(-45, -15), wool, face, shade(face, 0.85))
    d.ellipse(start[0] - 0.06, start[1] + 0.02, 0.09, 0.04, shade(face, 0.8), 25)
    d.ellipse(start[0], start[1] + 0.07, 0.1, 0.07, wool)


def dog(d: Drawing, rng: np.random.Generator) -> None:
    """A dog, standing or sitting: long snout, ears that hang or stand, tail up."""
    coat = jitter(rng, pick(rng, ((196, 150, 92), (120, 76, 44), (40, 36, 36), (232, 224, 210), (166, 110, 66),
                                  (130, 126, 122))), 12)
    mark = jitter(rng, pick(rng, ((240, 234, 222), (70, 46, 34), (30, 28, 28))), 8)
    collar = pick(rng, PAINTS)
    pointed = rng.random() < 0.4
    if rng.random() < 0.3:  # sits
        d.line([(-0.34, 0.1), (-0.62, 0.14), (-0.72, 0.34)], 0.07, coat)
        d.curve([(-0.42, 0.02), (-0.44, 0.24), (-0.22, 0.5), (0.02, 0.82), (0.22, 0.76), (0.24, 0.4), (0.14, 0.02)],
                coat)
        d.limb([(0.12, 0.5), (0.17, 0.2), (0.17, 0.04)], (0.16, 0.1, 0.09), shade(coat, 0.9))
        d.ellipse(-0.18, 0.17, 0.2, 0.17, shade(coat, 0.92))
        d.ellipse(0.22, 0.04, 0.09, 0.045, mark)
        d.ellipse(-0.04, 0.04, 0.14, 0.045, mark)
        d.line([(-0.02, 0.76), (0.24, 0.7)], 0.06, collar)
        start, direction, normal = np.array([0.12, 0.9]), np.array([0.98, -0.17]), np.array([0.17, 0.98])
    else:
        beast = _Beast(0.92, 0.32, 0.36, 0.085, 0.24, 0.17, 0.0, 0.0, 0.6)
        stride = rng.uniform(0.0, 0.7)
        _legs(d, rng, beast, coat, mark, True, stride)
        tail = rng.uniform(-0.1, 0.34)
        d.line([(-0.42, 0.62), (-0.62, 0.66 + tail * 0.6), (-0.7, 0.72 + tail)], 0.065, coat)
        _trunk(d, beast, coat)
        if rng.random() < 0.4:
            d.ellipse(rng.uniform(-0.3, 0.1), 0.56, 0.17, 0.11, mark)
        _legs(d, rng, beast, coat, mark, False, stride)
        d.limb([(0.36, 0.58), (0.52, 0.84)], (0.24, 0.18), coat)
        d.line([(0.4, 0.76), (0.56, 0.68)], 0.055, collar)
        start, direction, normal = np.array([0.53, 0.88]), np.array([0.97, -0.22]), np.array([0.22, 0.97])
    skull = start + direction * 0.02
    d.ellipse(skull[0], skull[1], 0.17, 0.15, coat)
    end = start + direction * 0.36
    d.polygon([skull + normal * 0.08, end + normal * 0.05, end - normal * 0.06, skull - normal * 0.12],
              mark if rng.random() < 0.4 else coat)
    d.ellipse(end[0], end[1], 0.06, 0.06, mark if sum(mark) > 500 else shade(coat, 0.85))
    d.ellipse(end[0] + 0.04, end[1] + 0.02, 0.035, 0.032, BLACK)
    eye = start + direction * 0.1 + normal * 0.05
    d.ellipse(eye[0], eye[1], 0.022, 0.024, BLACK)
    if pointed:
        d.polygon([skull + normal * 0.06 - direction * 0.13, skull + normal * 0.3 - direction * 0.1,
                   skull + normal * 0.12 + direction * 0.04], shade(coat, 0.8))
    else:
        ear = skull - direction * 0.08 - normal * 0.06
        d.ellipse(ear[0], ear[1], 0.075, 0.17, shade(coat, 0.7), 10)


def cat(d: Drawing, rng: np.random.Generator) -> None:
    """A cat that sits, walks or lies: round head, pointed ears, whiskers, long tail."""
    coat = jitter(rng, pick(rng, ((216, 140, 70), (60, 56, 58), (150, 146, 142), (238, 232, 222), (120, 98, 76))), 12)
    dark, pale = shade(coat, 0.66), mix(coat, (250, 246, 238), 0.65)
    striped = rng.random() < 0.5
    kind = rng.random()
    if kind < 0.5:  # sits, seen from the front
        d.line([(0.24, 0.08), (0.5, 0.06), (0.6, 0.2), (0.52, 0.36)], 0.09, dark)
        d.curve([(-0.3, 0.02), (-0.32, 0.24), (-0.18, 0.5), (-0.1, 0.64), (0.1, 0.64), (0.18, 0.5), (0.32, 0.24),
                 (0.3, 0.02)], coat)
        d.ellipse(0, 0.36, 0.1, 0.2, pale)
        for x in (-0.09, 0.09):
            d.limb([(x, 0.34), (x, 0.05)], (0.12, 0.1), shade(coat, 0.93))
            d.ellipse(x, 0.04, 0.08, 0.045, pale)
        centre = (0.0, 0.78)
    elif kind < 0.8:  # walks
        beast = _Beast(0.86, 0.26, 0.26, 0.075, 0.1, 0.16, 0.0, 0.0, 0.5)
        stride = rng.uniform(0.1, 0.6)
        _legs(d, rng, beast, coat, pale, True, stride)
        d.line([(-0.4, 0.46), (-0.62, 0.56), (-0.66, 0.8), (-0.56, 0.94)], 0.075, dark)
        _trunk(d, beast, coat)
        if striped:
            for x in np.linspace(-0.3, 0.25, 5):
                d.line([(float(x), 0.52), (float(x) + 0.03, 0.38)], 0.035, dark)
        _legs(d, rng, beast, coat, pale, False, stride)
        centre = (0.5, 0.6)
    else:  # lies
        d.line([(-0.5, 0.1), (-0.76, 0.06), (-0.84, 0.16)], 0.08, dark)
        d.curve([(-0.58, 0.02), (-0.56, 0.24), (-0.3, 0.4), (0.1, 0.36), (0.4, 0.3), (0.5, 0.02)], coat)
        if striped:
            for x in np.linspace(-0.4, 0.15, 5):
                d.line([(float(x), 0.36), (float(x) + 0.04, 0.18)], 0.035, dark)
        d.ellipse(0.4, 0.05, 0.22, 0.055, pale)
        centre = (0.4, 0.4)
    x, y = centre
    d.ellipse(x, y, 0.22, 0.18, coat)
    for side in (-1, 1):
        d.polygon([(x + side * 0.04, y + 0.15), (x + side * 0.17, y + 0.34), (x + side * 0.21, y + 0.06)], coat)
        d.polygon([(x + side * 0.09, y + 0.15), (x + side * 0.16, y + 0.27), (x + side * 0.18, y + 0.1)],
                  (222, 160, 152))
        d.ellipse(x + side * 0.08, y + 0.02, 0.04, 0.045, (196, 206, 90))
        d.ellipse(x + side * 0.08, y + 0.02, 0.015, 0.04, BLACK)
        for tilt in (-0.02, 0.03):
            d.line([(x + side * 0.06, y - 0.07), (x + side * 0.3, y - 0.07 + tilt)], 0.009, (240, 240, 236))
    d.ellipse(x, y - 0.07, 0.08, 0.055, pale)
    d.polygon([(x - 0.025, y - 0.04), (x + 0.025, y - 0.04), (x, y - 0.07)], (200, 110, 110))
    if striped:
        for dx in (-0.06, 0.0, 0.06):
            d.line([(x + dx, y + 0.17), (x + dx * 0.8, y + 0.1)], 0.02, dark)


def chair(d: Drawing, rng: np.random.Generator) -> None:
    """A wooden chair or a padded armchair, turned a little."""
    wood = jitter(rng, pick(rng, WOODS + ((236, 234, 228), (60, 60, 64))), 10)
    cloth = jitter(rng, pick(rng, FABRICS), 10)
    if rng.random() < 0.35:
        dark = shade(cloth, 0.75)
        for x in (-0.42, 0.42):
            d.box(x - 0.04, 0.0, x + 0.04, 0.14, WOODS[3])
        d.box(-0.42, 0.3, 0.42, 1.0, dark, 0.12)
        d.box(-0.34, 0.4, 0.34, 0.94, cloth, 0.1)
        d.box(-0.4, 0.12, 0.4, 0.34, dark)
        d.box(-0.36, 0.32, 0.36, 0.46, shade(cloth, 1.1), 0.06)
        for x in (-0.46, 0.46):
            d.box(x - 0.1, 0.12, x + 0.1, 0.6, shade(cloth, 0.88), 0.08)
        return
    turn = rng.uniform(0.1, 0.28)
    seat = [(-0.32, 0.48), (0.2, 0.48), (0.2 + turn, 0.58), (-0.3 + turn, 0.58)]
    far = shade(wood, 0.72)
    d.line([(-0.28 + turn, 0.56), (-0.28 + turn, 0.1)], 0.05, far)
    d.line([(0.18 + turn, 0.56), (0.18 + turn, 0.1)], 0.05, far)
    back = -1 if rng.random() < 0.5 else 1
    if back < 0:  # back rest at the left
        posts = [((-0.3, 0.5), (-0.36, 1.08)), ((-0.28 + turn, 0.58), (-0.34 + turn, 1.16))]
    else:  # back rest behind the seat
        posts = [((-0.29 + turn, 0.58), (-0.31 + turn, 1.16)), ((0.19 + turn, 0.58), (0.21 + turn, 1.16))]
    (a0, a1), (b0, b1) = (np.asarray(post) for post in posts)
    if rng.random() < 0.5:
        d.polygon([a0 + (a1 - a0) * 0.35, b0 + (b1 - b0) * 0.35, b1, a1], cloth)
    else:
        for share in (0.35, 0.62, 0.92):
            d.line([a0 + (a1 - a0) * share, b0 + (b1 - b0) * share], 0.075, shade(wood, 0.88))
    for p0, p1 in ((a0, a1), (b0, b1)):
        d.line([p0, p1], 0.06, wood)
    d.polygon(seat, cloth if rng.random() < 0.5 else shade(wood, 1.12))
    d.polygon([(-0.32, 0.42), (0.2, 0.42), (0.2, 0.48), (-0.32, 0.48)], shade(wood, 0.85))
    d.polygon([(0.2, 0.42), (0.2 + turn, 0.52), (0.2 + turn, 0.58), (0.2, 0.48)], shade(wood, 0.7))
    d.line([(-0.29, 0.44), (-0.3, 0.0)], 0.06, wood)
    d.line([(0.17, 0.44), (0.18, 0.0)], 0.06, wood)


def kite(d: Drawing, rng: np.random.Generator) -> None:
    """A diamond or delta kite with a ribboned tail."""
    first, second = (jitter(rng, colour, 8) for colour in
                     (FABRICS[i] for i in rng.permutation(len(FABRICS))[:2]))
    first, second = mix(first, (255, 60, 60), 0.2), mix(second, (255, 230, 40), 0.25)
    sway = rng.uniform(-0.3, 0.3, 6).cumsum() * 0.7
    tail = [(float(s) * 0.6, -0.1 - 0.13 * i) for i, s in enumerate(np.concatenate([[0.0], sway]))]
    d.line(tail, 0.02, (60, 60, 60))
    for (x, y), colour in zip(tail[1:], (first, second) * 3):
        d.polygon([(x - 0.08, y + 0.035), (x + 0.08, y - 0.035), (x + 0.08, y + 0.035), (x - 0.08, y - 0.035)],
                  colour)
    if rng.random() < 0.65:
        d.polygon([(0, 0.9), (-0.36, 0.5), (0, -0.1)], first)
        d.polygon([(0, 0.9), (0.36, 0.5), (0, -0.1)], second)
        d.polygon([(0, 0.9), (0.36, 0.5), (0, 0.5)], shade(first, 0.8))
        d.polygon([(0, -0.1), (-0.36, 0.5), (0, 0.5)], shade(second, 0.85))
        d.line([(0, 0.9), (0, -0.1)], 0.02, (90, 70, 50))
        d.line([(-0.36, 0.5), (0.36, 0.5)], 0.02, (90, 70, 50))
    else:
        d.polygon([(0, 0.7), (-0.72, 0.1), (-0.2, 0.02), (0, -0.1)], first)
        d.polygon([(0, 0.7), (0.72, 0.1), (0.2, 0.02), (0, -0.1)], shade(first, 0.8))
        d.polygon([(0, 0.5), (-0.4, 0.12), (0, 0.0)], second)
        d.polygon([(0, 0.5), (0.4, 0.12), (0, 0.0)], shade(second, 0.85))


def person(d: Drawing, rng: np.random.Generator, manner: str = "") -> None:
    """A person (`manner`: "stand", "walk", "sit", "ride", "hold"); one unit is the standing height."""
    manner = manner or pick(rng, ("stand", "walk", "walk", "stand", "sit"))
    skin = jitter(rng, pick(rng, SKINS), 8)
    hair = jitter(rng, pick(rng, HAIRS), 8)
    top, bottom = jitter(rng, pick(rng, FABRICS), 12), jitter(rng, pick(rng, FABRICS[:11] + ((50, 66, 110),) * 4), 12)
    shoes = jitter(rng, pick(rng, (BLACK, WHITE, WOODS[1])), 8)
    woman = rng.random() < 0.5
    dress = woman and manner in ("stand", "walk", "hold") and rng.random() < 0.45
    short = rng.random() < 0.25
    hip, lift = (0.0, 0.5), 0.0
    if manner in ("stand", "hold"):
        spread = rng.uniform(0.03, 0.08)
        feet = [((-spread, 0.26), (-spread, 0.03)), ((spread, 0.26), (spread, 0.03))]
    elif manner == "walk":
        step = rng.uniform(0.1, 0.2)
        feet = [((0.06, 0.27), (-step, 0.05)), ((step * 0.6, 0.27), (step, 0.03))]
    elif manner == "ride":
        feet = [((0.2, 0.46), (0.16, 0.2)), ((0.22, 0.42), (0.13, 0.14))]
    else:
        feet = [((0.24, 0.5), (0.26, 0.26)), ((0.27, 0.48), (0.3, 0.24))]
        lift = -0.23
    hip = (hip[0], hip[1] + lift)
    feet = [((k[0], k[1] + lift), (f[0], f[1] + lift)) for k, f in feet]
    for index, (knee, foot) in enumerate(feet):
        tone = shade(bottom, 0.78) if index == 0 else bottom
        start = (hip[0] + (0.045 if index else -0.045) * (manner != "sit"), hip[1])
        d.limb([start, knee, foot], (0.13, 0.1, 0.08), tone)
        if short or dress:
            d.limb([((start[0] + knee[0] * 2) / 3, (start[1] + knee[1] * 2) / 3), knee, foot], (0.085, 0.08, 0.06),
                   skin)
        d.ellipse(foot[0] + 0.03, foot[1] - 0.005, 0.065, 0.032, shoes)
    neck = (hip[0] + (0.05 if manner == "ride" else 0.0), hip[1] + 0.32)
    shoulder_l, shoulder_r = (neck[0] - 0.1, neck[1] - 0.03), (neck[0] + 0.1, neck[1] - 0.03)
    if manner == "ride":
        arms = [[shoulder_r, (0.22, hip[1] + 0.2), (0.36, hip[1] + 0.16)],
                [shoulder_l, (0.14, hip[1] + 0.18), (0.34, hip[1] + 0.14)]]
    elif manner == "hold":
        arms = [[shoulder_l, (-0.16, hip[1] + 0.16), (-0.15, hip[1] + 0.02)],
                [shoulder_r, (0.2, hip[1] + 0.16), (0.17, hip[1] + 0.3)]]
    else:
        swing = rng.uniform(-0.16, 0.16) if manner == "walk" else rng.uniform(-0.03, 0.03)
        raised = rng.random() < 0.15
        arms = [[shoulder_l, (-0.16 + swing * 0.5, hip[1] + 0.16), (-0.15 + swing, hip[1] + 0.01)],
                [shoulder_r, (0.2, hip[1] + 0.34), (0.24, hip[1] + 0.5)] if raised else
                [shoulder_r, (0.16 - swing * 0.5, hip[1] + 0.16), (0.15 - swing, hip[1] + 0.01)]]
    sleeve = rng.random() < 0.6
    d.limb(arms[0], (0.085, 0.065, 0.05), shade(top if sleeve else skin, 0.8))
    if woman and rng.random() < 0.6:
        d.ellipse(neck[0] - 0.02, neck[1] + 0.06, 0.1, 0.15, hair)
    d.limb([(neck[0], neck[1] - 0.02), (neck[0] + 0.01, neck[1] + 0.07)], (0.07, 0.06), shade(skin, 0.9))
    d.curve([(shoulder_l[0] - 0.02, shoulder_l[1]), (neck[0], neck[1] + 0.01), (shoulder_r[0] + 0.02, shoulder_r[1]),
             (hip[0] + 0.085, hip[1] + 0.14), (hip[0] + 0.1, hip[1] - 0.03), (hip[0] - 0.1, hip[1] - 0.03),
             (hip[0] - 0.085, hip[1] + 0.14)], top)
    if dress:
        d.polygon([(hip[0] - 0.08, hip[1] + 0.12), (hip[0] + 0.08, hip[1] + 0.12), (hip[0] + 0.19, hip[1] - 0.2),
                   (hip[0] - 0.19, hip[1] - 0.2)], top)
    elif rng.random() < 0.25:
        d.line([(hip[0] - 0.09, hip[1] + 0.12), (hip[0] + 0.09, hip[1] + 0.12)], 0.05, shade(top, 0.6))
    d.limb(arms[1], (0.085, 0.065, 0.05), top if sleeve else skin)
    d.ellipse(arms[1][2][0], arms[1][2][1], 0.032, 0.032, skin)
    head = (neck[0] + 0.02, neck[1] + 0.135)
    d.ellipse(head[0] - 0.01, head[1] + 0.02, 0.085, 0.095, hair)
    d.ellipse(head[0] + 0.015, head[1] - 0.01, 0.07, 0.085, skin)
    if rng.random() < 0.22:
        cap = pick(rng, FABRICS)
        d.curve([(head[0] - 0.095, head[1] + 0.03), (head[0] - 0.06, head[1] + 0.12),
                 (head[0] + 0.05, head[1] + 0.12),
                 (head[0] + 0.09, head[1] + 0.03)], cap)
        d.line([(head[0], head[1] + 0.035), (head[0] + 0.15, head[1] + 0.025)], 0.025, cap)


def potted_plant(d: Drawing, rng: np.random.Generator) -> None:
    """A pot with broad, pointed or feathery leaves, or with flowers."""
    pot = jitter(rng, pick(rng, ((186, 98, 60), (186, 98, 60), WHITE, (70, 110, 150), (120, 118, 116),
                                 (214, 180, 90))), 10)
    green = jitter(rng, pick(rng, ((52, 124, 52), (84, 148, 60), (40, 100, 66), (110, 150, 70))), 12)
    kind = rng.random()
    if kind < 0.4:
        for angle in np.linspace(-75, 75, int(rng.integers(7, 11))) + rng.normal(0, 6):
            a = math.radians(90 - angle)
            length = rng.uniform(0.42, 0.68)
            d.ellipse(0.55 * length * math.cos(a), 0.36 + 0.55 * length * math.sin(a), length * 0.5, 0.075,
                      shade(green, rng.uniform(0.7, 1.2)), math.degrees(a))
    elif kind < 0.65:
        for angle in np.linspace(-38, 38, int(rng.integers(5, 9))):
            a = math.radians(90 - angle - rng.normal(0, 5))
            tip = (0.68 * math.cos(a), 0.36 + rng.uniform(0.5, 0.72) * math.sin(a))
            d.polygon([(-0.07, 0.34), tip, (0.07, 0.34)], shade(green, rng.uniform(0.7, 1.2)))
    else:
        bloom = jitter(rng, pick(rng, ((220, 60, 70), (240, 200, 60), (230, 130, 180), (240, 240, 240),
                                       (150, 80, 190))))
        d.line([(0, 0.3), (0.02, 0.6)], 0.05, WOODS[1])
        for _ in range(14):
            x, y = rng.normal(0, 0.2), 0.7 + rng.normal(0, 0.13)
            d.ellipse(x, y, 0.13, 0.1, shade(green, rng.uniform(0.7, 1.15)), rng.uniform(0, 180))
        if rng.random() < 0.6:
            for _ in range(7):
                d.ellipse(rng.normal(0, 0.2), 0.74 + rng.normal(0, 0.12), 0.055, 0.055, bloom)
    d.polygon([(-0.25, 0.32), (0.25, 0.32), (0.17, 0.0), (-0.17, 0.0)], pot)
    d.polygon([(0.06, 0.32), (0.25, 0.32), (0.17, 0.0), (0.06, 0.0)], shade(pot, 0.85))
    d.box(-0.28, 0.28, 0.28, 0.38, shade(pot, 1.08), 0.02)


def train(d: Drawing, rng: np.random.Generator) -> None:
    """A passenger train or a steam engine from the side, or an engine from the front; rails are y = 0."""
    paint = jitter(rng, pick(rng, (PAINTS[0], PAINTS[1], PAINTS[6], PAINTS[5], (206, 208, 210), PAINTS[8])), 10)
    stripe = jitter(rng, pick(rng, (WHITE, PAINTS[5], PAINTS[3])), 8)
    kind = rng.random()
    if kind < 0.22:
        d.box(-0.4, 0.0, 0.4, 0.2, (50, 48, 48), 0.03)
        d.box(-0.46, 0.14, 0.46, 1.06, paint, 0.12)
        d.polygon([(-0.46, 0.24), (0.46, 0.24), (0.3, 0.44), (-0.3, 0.44)], stripe)
        d.box(-0.38, 0.58, -0.03, 0.92, shade(GLASS, 0.75), 0.03)
        d.box(0.03, 0.58, 0.38, 0.92, shade(GLASS, 0.75), 0.03)
        for x in (-0.33, 0.33):
            d.ellipse(x, 0.36, 0.07, 0.07, (252, 246, 206))
        d.ellipse(0, 0.99, 0.05, 0.045, (252, 246, 206))
        d.line([(-0.5, 0.02), (0.5, 0.02)], 0.05, (90, 84, 80))
        return
    coaches = int(rng.integers(1, 4))
    length = 1.25
    if kind < 0.45:
        engine = jitter(rng, pick(rng, ((38, 38, 42), (30, 70, 50), (140, 34, 34))), 6)
        for _ in range(4):
            x, y = 0.8 - rng.uniform(0.0, 1.0), 1.2 + rng.uniform(0, 0.3)
            d.ellipse(x, y, rng.uniform(0.14, 0.3), rng.uniform(0.08, 0.16),
                      shade((226, 226, 228), rng.uniform(0.85, 1.05)))
        d.polygon([(0.72, 0.7), (0.96, 0.7), (0.99, 1.1), (0.69, 1.1)], BLACK)
        d.box(-0.1, 0.32, 1.15, 0.76, engine, 0.1)
        for x in (0.25, 0.6):
            d.line([(x, 0.32), (x, 0.76)], 0.035, (196, 160, 70))
        d.ellipse(0.42, 0.8, 0.11, 0.1, (196, 160, 70))
        d.box(-0.55, 0.26, -0.05, 1.02, engine)
        d.box(-0.62, 1.0, 0.02, 1.08, shade(engine, 0.7))
        d.box(-0.44, 0.62, -0.16, 0.9, GLASS)
        d.polygon([(1.1, 0.3), (1.38, 0.02), (1.08, 0.02)], (150, 40, 36))
        d.box(-0.55, 0.22, 1.15, 0.33, (120, 36, 32))
        for x in (-0.3, 0.12, 0.54):
            d.ellipse(x, 0.2, 0.2, 0.2, (50, 46, 46))
            d.ring(x, 0.2, 0.17, 0.04, (170, 50, 44))
        d.line([(-0.3, 0.16), (0.54, 0.16)], 0.045, METAL)
        d.ellipse(0.94, 0.11, 0.11, 0.11, (50, 46, 46))
        left = -0.7
    else:
        for x in (-0.7, 0.7):
            d.box(x - 0.3, 0.0, x + 0.3, 0.17, (52, 50, 50), 0.04)
        d.polygon([(-length, 0.12), (length + 0.12, 0.12), (length + 0.1, 0.4), (length - 0.22, 0.86),
                   (length - 0.5, 0.92),
                   (-length, 0.92)], paint)
        d.polygon([(length - 0.3, 0.54), (length + 0.01, 0.54), (length - 0.24, 0.84), (length - 0.34, 0.84)],
                  shade(GLASS, 0.7))
        d.box(-length, 0.3, length + 0.1, 0.38, stripe)
        for x in np.arange(-length + 0.1, length - 0.5, 0.32):
            d.box(float(x), 0.54, float(x) + 0.24, 0.78, shade(GLASS, 0.9), 0.03)
        if rng.random() < 0.6:
            d.line([(-0.3, 0.92), (-0.05, 1.08), (0.2, 0.92)], 0.025, (70, 70, 72))
            d.line([(-0.2, 1.08), (0.1, 1.08)], 0.025, (70, 70, 72))
        left = -length
    for _ in range(coaches - 1):
        right, left = left - 0.06, left - 0.06 - 2 * length * 0.92
        for x in (left + 0.4, right - 0.4):
            d.box(x - 0.28, 0.0, x + 0.28, 0.17, (52, 50, 50), 0.04)
        d.line([(right, 0.2), (right + 0.08, 0.2)], 0.06, (50, 48, 48))
        d.box(left, 0.12, right, 0.92, paint, 0.05)
        d.box(left, 0.3, right, 0.38, stripe)
        d.box(left, 0.88, right, 0.95, shade(paint, 0.6), 0.03)
        for x in np.arange(left + 0.14, right - 0.3, 0.32):
            d.box(float(x), 0.54, float(x) + 0.24, 0.78, shade(GLASS, 0.9), 0.03)


def umbrella(d: Drawing, rng: np.random.Generator, manner: str = "") -> None:
    """An open umbrella (`manner`: "held" with a hooked handle, "planted" as a sunshade)."""
    first = jitter(rng, pick(rng, FABRICS), 10)
    second = jitter(rng, pick(rng, (WHITE, (238, 200, 70), first, first)), 8)
    manner = manner or "planted"
    stick = 1.0 if manner == "planted" else 0.62
    d.line([(0, 0), (0, stick + 0.34)], 0.035, (120, 100, 80) if manner == "planted" else BLACK)
    if manner == "held":
        d.line([(0, 0.02), (0.03, -0.05), (0.09, -0.04), (0.1, 0.02)], 0.035, WOODS[1])
    y, ribs = stick - 0.08, 6
    xs = np.linspace(-0.66, 0.66, ribs + 1)
    for index, (x0, x1) in enumerate(zip(xs, xs[1:])):
        colour = shade(first if index % 2 == 0 else second, 1.05 - 0.07 * index)
        rim = [(x0 + (x1 - x0) * t, y + 0.06 * math.sin(math.pi * t)) for t in np.linspace(0, 1, 5)]
        right = [(x1 * math.cos(t), y + 0.42 * math.sin(t)) for t in np.linspace(0, math.pi / 2, 7)]
        left = [(x0 * math.cos(t), y + 0.42 * math.sin(t)) for t in np.linspace(math.pi / 2, 0, 7)]
        d.polygon(rim + right + left, colour)
    d.ellipse(0, y + 0.43, 0.025, 0.04, BLACK)


OBJECTS: Dict[str, Callable[..., None]] = {
    "aeroplane": aeroplane, "bicycle": bicycle, "bird": bird, "boat": boat, "bottle": bottle, "bus": bus, "car": car,
    "cat": cat, "chair": chair, "cow": cow, "dog": dog, "horse": horse, "kite": kite, "person": person,
    "potted plant": potted_plant, "sheep": sheep, "train": train, "umbrella": umbrella,
}


def draw_object(name: str, rng: np.random.Generator, manner: Optional[str] = None) -> Drawing:
    """One object of a class on an empty drawing, facing left or right, its shapes tagged with the class name."""
    drawing = Drawing()
    drawing.part = name
    if manner:
        OBJECTS[name](drawing, rng, manner)
    else:
        OBJECTS[name](drawing, rng)
    return drawing


def draw_group(names: Sequence[str], rng: np.random.Generator, manner: Optional[str] = None) -> Drawing:
    """One object, or two that belong together: a rider on a horse or bicycle, a person under an umbrella."""
    if len(names) == 1:
        return draw_object(names[0], rng, manner)
    other = next(name for name in names if name != "person")
    if other == "umbrella":
        drawing = draw_object("umbrella", rng, "held")
        person_ = draw_object("person", rng, "hold")
        both = Drawing()
        both.add(drawing, 0.85, 0.18, 0.72)
        both.add(person_)
        return both
    drawing = draw_object(other, rng)
    rider = draw_object("person", rng, "ride")
    if other == "horse":
        drawing.add(rider, 1.0, -0.06, 0.5)
    else:
        drawing.add(rider, 1.05, -0.2, 0.42)
    return drawing
