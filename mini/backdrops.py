"""The places of the mini world: light, sky, ground, buildings and the clutter that belongs to no class."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Dict, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from mini.drawing import Box, Colour, Drawing, Point, jitter, mix, noise, pick, shade
from mini.objects import FABRICS, GLASS, METAL, PAINTS, WHITE, WOODS

_PAINT = (226, 223, 206)
"""Markings on a road."""

Zone = Tuple[float, float]
"""Where objects may stand or fly: the y of the farthest and of the nearest, in pixels."""


class Light(NamedTuple):
    """The light of a scene: colours of the sky and of the haze, a tint, and where it comes from."""

    sky_top: Colour
    sky_low: Colour
    tint: Tuple[float, float, float]
    haze: Colour
    contrast: float


_SUNNY, _BRIGHT, _PALE, _OVERCAST, _SUNSET, _DUSK, _NIGHT = (
    Light((70, 130, 205), (178, 210, 236), (1.0, 1.0, 1.0), (196, 214, 230), 1.0),
    Light((96, 156, 220), (206, 226, 240), (1.04, 1.03, 1.0), (210, 222, 232), 1.05),
    Light((150, 172, 196), (220, 224, 226), (0.96, 0.97, 1.0), (208, 212, 214), 0.85),
    Light((138, 142, 150), (188, 190, 192), (0.8, 0.82, 0.86), (176, 178, 182), 0.7),
    Light((84, 96, 150), (248, 176, 112), (1.08, 0.88, 0.7), (238, 178, 130), 1.0),
    Light((60, 66, 120), (214, 128, 118), (0.86, 0.72, 0.76), (160, 114, 126), 0.85),
    Light((34, 42, 84), (84, 98, 140), (0.56, 0.62, 0.8), (84, 92, 124), 0.75),
)
_DAYLIGHT = (_SUNNY, _SUNNY, _BRIGHT, _BRIGHT, _BRIGHT, _PALE, _PALE, _OVERCAST, _OVERCAST, _SUNSET, _DUSK, _NIGHT)
_LAMPLIGHT = (
    Light((0, 0, 0), (0, 0, 0), (1.05, 1.0, 0.92), (0, 0, 0), 1.0),
    Light((0, 0, 0), (0, 0, 0), (1.0, 0.86, 0.66), (0, 0, 0), 0.9),
    Light((0, 0, 0), (0, 0, 0), (0.86, 0.92, 1.0), (0, 0, 0), 0.9),
    Light((0, 0, 0), (0, 0, 0), (0.76, 0.68, 0.58), (0, 0, 0), 0.85),
)


class Canvas:
    """A picture in the making: float pixels (height, width, 3) that shapes and gradients are painted on."""

    def __init__(self, width: int, height: int, light: Light, rng: np.random.Generator) -> None:
        self.width, self.height, self.light, self.rng = width, height, light, rng
        self.pixels = np.zeros((height, width, 3), dtype=np.float32)
        self.light_side = float(rng.uniform(-1, 1))
        self.focus = 1.0
        """How near the main object is, from 0 (far) to 1: tracks are laid where its train will fit."""

    def gradient(self, top: float, bottom: float, first: Colour, last: Colour, texture: float = 0.0,
                 stretch: int = 1) -> None:
        """Fill the rows from `top` to `bottom`; `texture` is the noise's share of the brightness."""
        y0, y1 = max(0, int(top)), min(self.height, int(math.ceil(bottom)))
        if y1 <= y0:
            return
        t = (np.arange(y0, y1, dtype=np.float32) - top) / max(1.0, bottom - top)
        rows = np.asarray(first, np.float32) + t[:,
                                                 None] * (np.asarray(last, np.float32) - np.asarray(first,
                                                                                                    np.float32))
        block = np.broadcast_to(rows[:, None, :], (y1 - y0, self.width, 3))
        if texture:
            block = block * (1 + texture * noise(self.rng, y1 - y0, self.width, stretch))[..., None]
        self.pixels[y0:y1] = block

    def blend(self, top: float, bottom: float, alpha: np.ndarray, colour: Colour) -> None:
        """Lay a colour over rows `top` to `bottom` with an opacity map of that height."""
        region = self.pixels[int(top):int(top) + alpha.shape[0]]
        region += alpha[..., None] * (np.asarray(colour, np.float32) - region)

    def paste(self, drawing: Drawing, x: float, y: float, scale: float, haze: float = 0.0, texture: float = 0.05,
              relief: float = 0.16) -> Tuple[Dict[str, Box], Optional[Tuple[int, int, np.ndarray]]]:
        """Paint a drawing with its origin at pixel (x, y), `scale` pixels a unit.

        Returns:
            The box of each part in pixels (not clipped), and (top, left, opacity) of what lies inside the picture.
        """
        sprite, (origin_x, origin_y), boxes = drawing.rasterise(scale)
        left, top = int(round(x - origin_x)), int(round(y - origin_y))
        placed = {part: (box[0] + left, box[1] + top, box[2] + left, box[3] + top) for part, box in boxes.items()}
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(self.width, left + sprite.shape[1]), min(self.height, top + sprite.shape[0])
        if x1 <= x0 or y1 <= y0:
            return placed, None
        cut = sprite[y0 - top:y1 - top, x0 - left:x1 - left].astype(np.float32)
        alpha, colour = cut[..., 3:] * np.float32(1 / 255), cut[..., :3]
        if relief or texture:
            u = (np.arange(x0, x1, dtype=np.float32) - left) * np.float32(2 / sprite.shape[1]) - 1
            v = 1 - (np.arange(y0, y1, dtype=np.float32) - top) * np.float32(2 / sprite.shape[0])
            slope = np.float32(relief * self.light.contrast)
            lit = (1 + 0.6 * slope * v)[:, None] + (0.5 * slope * np.float32(self.light_side) * u)[None, :]
            if texture:
                lit = lit + np.float32(texture) * noise(self.rng, y1 - y0, x1 - x0)
            colour = colour * lit[..., None]
        if haze:
            colour = colour * np.float32(1 - haze) + alpha * (np.float32(haze) * np.asarray(self.light.haze,
                                                                                            np.float32))
        region = self.pixels[y0:y1, x0:x1]
        region *= 1 - alpha
        region += colour
        return placed, (y0, x0, alpha[..., 0])

    def polygon(self, points: Sequence[Point], colour: Colour, haze: float = 0.0, texture: float = 0.05,
                relief: float = 0.0) -> None:
        """Fill a polygon given in pixels (y down)."""
        self.polygons([points], colour, haze, texture, relief)

    def polygons(self, outlines: Sequence[Sequence[Point]], colour: Colour, haze: float = 0.0, texture: float = 0.0,
                 relief: float = 0.0) -> None:
        """Fill several polygons given in pixels (y down)."""
        drawing = Drawing()
        for points in outlines:
            drawing.polygon([(x, -y) for x, y in points], colour)
        if drawing.shapes:
            self.paste(drawing, 0, 0, 1.0, haze, texture, relief)

    def rectangles(self, boxes: Sequence[Box], colour: Colour) -> None:
        """Fill upright rectangles, rounded to whole pixels and at least one pixel wide."""
        for x0, y0, x1, y1 in boxes:
            left, top = round(x0), round(y0)
            self.pixels[max(0, top):max(top + 1, round(y1), 0), max(0, left):max(left + 1, round(x1), 0)] = colour

    def shadow(self, x: float, y: float, rx: float, ry: float, strength: float) -> None:
        """Darken a soft ellipse."""
        y0, y1 = max(0, int(y - 2 * ry)), min(self.height, int(y + 2 * ry) + 1)
        x0, x1 = max(0, int(x - 2 * rx)), min(self.width, int(x + 2 * rx) + 1)
        if y1 <= y0 or x1 <= x0:
            return
        v = ((np.arange(y0, y1, dtype=np.float32) - y) / max(ry, 0.5)) ** 2
        u = ((np.arange(x0, x1, dtype=np.float32) - x) / max(rx, 0.5)) ** 2
        self.pixels[y0:y1, x0:x1] *= (1 - strength * np.exp(-v[:, None] - u[None, :]))[..., None]


@dataclass
class Place:
    """What a backdrop tells about itself: the zones for objects, the words for what is seen, the horizon."""

    zones: Dict[str, Zone]
    backgrounds: Set[str]
    horizon: float


# ---- clutter: props without a class ------------------------------------------------------------------------------

def _tree(rng: np.random.Generator, kind: str = "") -> Drawing:
    d = Drawing()
    kind = kind or pick(rng, ("round", "round", "fir", "poplar"))
    green = jitter(rng, pick(rng, ((58, 104, 48), (76, 120, 54), (92, 112, 44), (40, 84, 52), (150, 110, 44))), 12)
    d.limb([(0, 0), (0.02, 0.5)], (0.09, 0.06), jitter(rng, (92, 68, 48), 8))
    if kind == "fir":
        for level in range(4):
            y, w = 0.18 + level * 0.2, 0.34 - level * 0.07
            d.polygon([(-w, y), (w, y), (0, y + 0.36)], shade(green, 0.7 + 0.08 * level))
    else:
        wide, tall = (0.3, 0.26) if kind == "round" else (0.13, 0.36)
        leaves = 11
        place = rng.normal(0, (wide * 0.55, tall * 0.5), (leaves, 2))
        radii = rng.uniform(0.12, 0.21, leaves) * (1 if kind == "round" else 0.7)
        for i, ((x, y), r) in enumerate(zip(place.tolist(), radii.tolist())):
            d.ellipse(x, 0.66 + y, r, r * 0.85, shade(green, 0.75 + 0.036 * i))
    return d


def _palm(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    lean = rng.uniform(-0.25, 0.25)
    d.limb([(0, 0), (lean * 0.4, 0.5), (lean, 0.9)], (0.07, 0.055, 0.045), (130, 104, 74))
    for angle in np.linspace(-20, 200, 8) + rng.normal(0, 8, 8):
        a = math.radians(angle)
        d.curve([(lean, 0.9), (lean + 0.2 * math.cos(a), 0.98 + 0.14 * math.sin(a)),
                 (lean + 0.42 * math.cos(a), 0.86 + 0.16 * math.sin(a)),
                 (lean + 0.2 * math.cos(a), 0.92 + 0.12 * math.sin(a))],
                jitter(rng, (70, 120, 56), 10))
    return d


def _bush(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    green = jitter(rng, (70, 108, 52), 14)
    for i in range(9):
        d.ellipse(rng.normal(0, 0.3), 0.2 + abs(rng.normal(0, 0.14)), 0.2, 0.16, shade(green, 0.75 + 0.04 * i))
    return d


def _rock(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    grey = jitter(rng, (128, 122, 114), 18)
    r = rng.uniform(0.75, 1.1, 7)
    outline = [(0.5 * r[i] * math.cos(t), max(0.0, 0.34 * r[i] * math.sin(t))) for i,
               t in enumerate(np.linspace(0, math.pi, 7))]
    d.polygon(outline, grey)
    d.polygon([outline[3], outline[4], outline[5], (0.05, 0.05)], shade(grey, 1.18))
    d.polygon([outline[0], outline[1], outline[2], (0.12, 0.02)], shade(grey, 0.75))
    return d


def _house(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    wall = jitter(rng, pick(rng, ((226, 214, 190), (200, 120, 92), (236, 232, 222), (150, 130, 110),
                                  (210, 190, 120))), 10)
    roof = jitter(rng, pick(rng, ((150, 66, 48), (84, 70, 66), (110, 84, 60))), 10)
    wide = rng.uniform(0.5, 0.9)
    d.box(-wide, 0, wide, 0.6, wall)
    d.polygon([(-wide - 0.1, 0.58), (wide + 0.1, 0.58), (wide * 0.6, 1.0), (-wide * 0.6, 1.0)], roof)
    d.box(wide * 0.3, 0.9, wide * 0.3 + 0.12, 1.12, shade(roof, 0.8))
    d.box(-0.08, 0, 0.1, 0.34, shade(wall, 0.45))
    for x in (-wide * 0.65, wide * 0.55):
        d.box(x - 0.1, 0.24, x + 0.1, 0.46, GLASS)
        d.line([(x, 0.24), (x, 0.46)], 0.02, WHITE)
    return d


def _tower_block(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    wall = jitter(rng, pick(rng, ((176, 150, 130), (150, 152, 158), (196, 180, 150), (130, 90, 76), (110, 124, 140),
                                  (206, 204, 196))), 12)
    wide = rng.uniform(0.22, 0.42)
    d.box(-wide, 0, wide, 1, wall)
    d.box(-wide, 0.97, wide, 1.0, shade(wall, 0.7))
    lit = rng.random() < 0.5
    rows, columns = int(rng.integers(5, 9)), int(rng.integers(3, 6))
    for row in range(rows):
        for column in range(columns):
            x, y = -wide + 2 * wide * (column + 0.5) / columns, 0.18 + 0.76 * (row + 0.5) / rows
            pane = (250, 226, 150) if lit and rng.random() < 0.25 else shade(GLASS, rng.uniform(0.5, 0.95))
            d.box(x - wide * 0.55 / columns, y - 0.24 / rows, x + wide * 0.55 / columns, y + 0.24 / rows, pane)
    if rng.random() < 0.7:
        awning = jitter(rng, pick(rng, PAINTS), 10)
        d.box(-wide * 0.9, 0.0, wide * 0.9, 0.1, shade(GLASS, 0.6))
        d.polygon([(-wide * 0.95, 0.1), (wide * 0.95, 0.1), (wide * 0.85, 0.15), (-wide * 0.85, 0.15)], awning)
    return d


def _post(rng: np.random.Generator) -> Drawing:
    """A street lamp, a sign or a traffic light."""
    d = Drawing()
    kind = rng.random()
    d.line([(0, 0), (0, 0.95)], 0.035, (80, 84, 88))
    if kind < 0.5:
        d.line([(0, 0.93), (0.05, 1.0), (0.24, 1.0)], 0.03, (80, 84, 88))
        d.ellipse(0.22, 0.97, 0.07, 0.03, (250, 240, 190))
    elif kind < 0.75:
        d.ellipse(0, 0.9, 0.11, 0.11, pick(rng, ((200, 40, 40), (40, 80, 170))))
        d.box(-0.07, 0.88, 0.07, 0.92, WHITE)
    else:
        d.box(-0.06, 0.68, 0.06, 1.0, (40, 44, 44), 0.02)
        for y, colour in ((0.93, (220, 50, 40)), (0.84, (230, 180, 50)), (0.75, (60, 180, 90))):
            d.ellipse(0, y, 0.035, 0.035, colour)
    return d


def _fence(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    wood = jitter(rng, pick(rng, WOODS), 10)
    count = int(rng.integers(4, 9))
    for y in (0.35, 0.7):
        d.line([(0, y), (count * 0.6, y + rng.normal(0, 0.02))], 0.09, shade(wood, 0.9))
    for i in range(count + 1):
        d.line([(i * 0.6, 0), (i * 0.6 + rng.normal(0, 0.02), 1.0)], 0.1, wood)
    return d


def _bale(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    straw = jitter(rng, (206, 176, 96), 12)
    d.box(-0.1, 0.0, 0.62, 0.7, shade(straw, 0.85), 0.12)
    d.ellipse(0, 0.35, 0.33, 0.35, straw)
    for r in (0.24, 0.14):
        d.ring(0, 0.35, r, 0.02, shade(straw, 0.75))
    return d


def _bench(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    wood = jitter(rng, pick(rng, WOODS), 10)
    for x in (-0.6, 0.6):
        d.line([(x, 0), (x, 0.8)], 0.06, (60, 60, 64))
    for y in (0.42, 0.6, 0.74):
        d.line([(-0.72, y), (0.72, y)], 0.08 if y < 0.5 else 0.07, shade(wood, 0.9 + 0.1 * y))
    return d


def _crate(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    tone = jitter(rng, pick(rng, WOODS + PAINTS[:6]), 12)
    d.box(-0.5, 0, 0.3, 0.6, tone)
    d.polygon([(0.3, 0), (0.55, 0.14), (0.55, 0.72), (0.3, 0.6)], shade(tone, 0.75))
    d.polygon([(-0.5, 0.6), (0.3, 0.6), (0.55, 0.72), (-0.25, 0.72)], shade(tone, 1.15))
    return d


def _cone(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    d.polygon([(-0.22, 0.06), (0.22, 0.06), (0.05, 0.9), (-0.05, 0.9)], (232, 100, 40))
    d.polygon([(-0.15, 0.36), (0.15, 0.36), (0.1, 0.58), (-0.1, 0.58)], WHITE)
    d.box(-0.32, 0, 0.32, 0.08, (50, 48, 48))
    return d


def _buoy(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    paint = pick(rng, (PAINTS[0], PAINTS[5], PAINTS[6]))
    d.polygon([(-0.32, 0), (0.32, 0), (0.1, 0.6), (-0.1, 0.6)], paint)
    d.box(-0.14, 0.6, 0.14, 0.8, shade(paint, 0.6))
    d.line([(0, 0.8), (0, 1.05)], 0.05, METAL)
    return d


def _ball(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    first, second = jitter(rng, pick(rng, FABRICS)), WHITE
    d.ellipse(0, 0.5, 0.5, 0.5, first)
    d.polygon([(-0.1, 0.02), (0.1, 0.02), (0.16, 0.98), (-0.02, 0.98)], second)
    return d


def _tuft(rng: np.random.Generator, green: Colour) -> Drawing:
    d = Drawing()
    for _ in range(7):
        x, lean = rng.uniform(-0.3, 0.3), rng.normal(0, 0.25)
        d.polygon([(x - 0.05, 0), (x + 0.05, 0), (x + lean, rng.uniform(0.5, 1.0))],
                  shade(green, rng.uniform(0.65, 1.1)))
    if rng.random() < 0.3:
        flower = pick(rng, ((240, 220, 80), (236, 240, 240), (210, 70, 80), (160, 110, 200)))
        for _ in range(4):
            d.ellipse(rng.uniform(-0.4, 0.4), rng.uniform(0.5, 1.0), 0.09, 0.09, flower)
    return d


def _crockery(rng: np.random.Generator) -> Drawing:
    """A cup, a bowl with fruit or a glass jar."""
    d = Drawing()
    tone = jitter(rng, pick(rng, (WHITE,) + FABRICS), 10)
    kind = rng.random()
    if kind < 0.4:
        d.ring(0.3, 0.36, 0.16, 0.06, shade(tone, 0.9))
        d.box(-0.28, 0, 0.28, 0.62, tone, 0.06)
        d.ellipse(0, 0.6, 0.28, 0.06, shade(tone, 0.6))
    elif kind < 0.75:
        for x, y in ((-0.26, 0.46), (0.24, 0.48), (0.0, 0.58)):
            d.ellipse(x, y, 0.2, 0.2, jitter(rng, pick(rng, ((210, 50, 40), (240, 170, 40), (120, 170, 60))), 12))
        d.curve([(-0.62, 0.42), (-0.4, 0.06), (0.4, 0.06), (0.62, 0.42), (0.0, 0.36)], tone)
    else:
        d.box(-0.3, 0, 0.3, 0.7, mix(tone, (220, 230, 230), 0.5), 0.08)
        d.box(-0.26, 0.68, 0.26, 0.8, shade(tone, 0.6), 0.03)
    return d


def _picture(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    wide = rng.uniform(0.35, 0.7)
    d.box(-wide, 0, wide, 1, jitter(rng, pick(rng, WOODS), 10))
    d.box(-wide + 0.07, 0.07, wide - 0.07, 0.93, jitter(rng, (214, 206, 186), 14))
    for _ in range(3):
        d.ellipse(rng.uniform(-0.4, 0.4) * wide, rng.uniform(0.3, 0.7), 0.18, 0.14,
                  jitter(rng, pick(rng, FABRICS), 20))
    return d


def _window(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    sky = pick(rng, ((190, 216, 236), (220, 228, 230), (40, 50, 80), (236, 190, 150)))
    d.box(-0.45, 0, 0.45, 1, WHITE)
    d.box(-0.39, 0.06, 0.39, 0.94, sky)
    if rng.random() < 0.5:
        d.ellipse(-0.16, 0.16, 0.22, 0.14, (84, 120, 70))
        d.ellipse(0.18, 0.14, 0.2, 0.12, (70, 106, 62))
    d.line([(0, 0.06), (0, 0.94)], 0.05, WHITE)
    d.line([(-0.39, 0.55), (0.39, 0.55)], 0.05, WHITE)
    curtain = jitter(rng, pick(rng, FABRICS), 12)
    if rng.random() < 0.7:
        for side in (-1, 1):
            d.polygon([(side * 0.62, -0.1), (side * 0.36, -0.1), (side * 0.3, 1.06), (side * 0.62, 1.06)], curtain)
            d.line([(side * 0.5, -0.1), (side * 0.46, 1.06)], 0.03, shade(curtain, 0.8))
    return d


def _furniture(rng: np.random.Generator) -> Drawing:
    """A sofa, a cupboard, a television on its stand, or a floor lamp."""
    d = Drawing()
    kind = rng.random()
    if kind < 0.4:
        cloth = jitter(rng, pick(rng, FABRICS), 12)
        d.box(-1.1, 0.25, 1.1, 0.95, shade(cloth, 0.8), 0.12)
        for x in (-0.9, 0.02):
            d.box(x, 0.36, x + 0.88, 0.86, cloth, 0.1)
        d.box(-1.0, 0.1, 1.0, 0.46, shade(cloth, 0.92), 0.06)
        for x in (-1.14, 0.92):
            d.box(x, 0.06, x + 0.22, 0.66, shade(cloth, 0.86), 0.1)
    elif kind < 0.65:
        wood = jitter(rng, pick(rng, WOODS), 10)
        d.box(-0.5, 0, 0.5, 1.15, shade(wood, 0.7))
        for row in range(3):
            y = 0.1 + row * 0.35
            d.box(-0.44, y, 0.44, y + 0.3, shade(wood, 0.45))
            for x in np.arange(-0.42, 0.36, 0.1):
                if rng.random() < 0.8:
                    d.box(float(x), y, float(x) + 0.08, y + rng.uniform(0.16, 0.28), jitter(rng, pick(rng, FABRICS)))
    elif kind < 0.85:
        wood = jitter(rng, pick(rng, WOODS), 10)
        d.box(-0.6, 0, 0.6, 0.34, wood)
        d.line([(0, 0.04), (0, 0.32)], 0.02, shade(wood, 0.6))
        d.box(-0.55, 0.38, 0.55, 0.98, (30, 30, 34), 0.02)
        d.box(-0.5, 0.43, 0.5, 0.94, jitter(rng, (60, 76, 96), 14))
        d.box(-0.12, 0.33, 0.12, 0.4, (30, 30, 34))
    else:
        d.line([(0, 0), (0, 1.0)], 0.035, (70, 66, 62))
        d.ellipse(0, 0.03, 0.2, 0.04, (70, 66, 62))
        d.polygon([(-0.26, 0.9), (0.26, 0.9), (0.16, 1.22), (-0.16, 1.22)], (250, 230, 180))
    return d


def _cloud(rng: np.random.Generator) -> Drawing:
    d = Drawing()
    for _ in range(9):
        d.ellipse(rng.normal(0, 0.5), rng.normal(0, 0.1), rng.uniform(0.2, 0.5), rng.uniform(0.1, 0.2),
                  (250, 250, 252))
    return d


# ---- pieces of landscape -----------------------------------------------------------------------------------------

def _sky(canvas: Canvas, bottom: float, seen: Set[str]) -> None:
    light, rng = canvas.light, canvas.rng
    seen.add("sky")
    canvas.gradient(0, bottom + 1, light.sky_top, light.sky_low)
    rows = int(min(canvas.height, bottom + 1))
    if rows > 8 and rng.random() < 0.6:
        cover = rng.uniform(-0.4, 0.9)
        alpha = np.clip((noise(rng, rows, canvas.width, 2) - cover) * 0.7, 0, 0.85)
        bright = mix(light.sky_low, (255, 255, 255), 0.65) if light.contrast > 0.72 else shade(light.sky_top, 0.8)
        canvas.blend(0, bottom, alpha, bright)
        if cover < 0.5:
            seen.add("cloud")
    if rng.random() < 0.12:
        x, y, r = rng.uniform(0.1, 0.9) * canvas.width, rng.uniform(0.15, 0.9) * bottom, canvas.height * 0.05
        sun = Drawing()
        sun.ellipse(0, 0, 1, 1, (255, 244, 206))
        canvas.paste(sun, x, y, r, 0.0, 0.0, 0.0)


def _mountains(canvas: Canvas, base: float, height: float, seen: Set[str], snowy: bool = False) -> None:
    rng = canvas.rng
    seen.add("mountain")
    for layer, haze in ((1.0, 0.5), (0.65, 0.25)):
        rock = jitter(rng, (104, 104, 112) if rng.random() < 0.6 else (96, 110, 90), 10)
        x, ridge = -0.1 * canvas.width, []
        while x < 1.1 * canvas.width:
            peak = rng.uniform(0.55, 1.0) * height * layer
            half = peak * rng.uniform(0.8, 1.3)
            ridge.append((x + half, base - peak, half))
            x += half * rng.uniform(0.9, 1.5)
        for px, py, half in ridge:
            canvas.polygon([(px - half, base + 1), (px - half * 0.4, (base + py) / 2 - half * 0.08), (px, py),
                            (px + half * 0.45, (base + py) / 2 - half * 0.03), (px + half, base + 1)], rock, haze,
                           0.1, 0.25)
            if snowy or height > 0.3 * canvas.height:
                q = 0.32
                canvas.polygon([(px, py), (px + half * q * 0.8, py + (base - py) * q),
                                (px + half * 0.1, py + (base - py) * q * 0.75),
                                (px - half * 0.1, py + (base - py) * q * 1.1),
                                (px - half * q * 0.7, py + (base - py) * q)],
                               (240, 243, 248), haze * 0.6, 0.03)


def _tree_line(canvas: Canvas, base: float, size: float, seen: Set[str], share: float = 1.0, kind: str = "") -> None:
    """A row of trees on the horizon, some of it left open."""
    rng = canvas.rng
    seen.add("tree")
    kind = kind or pick(rng, ("round", "fir", ""))
    first = rng.uniform(-0.2, 1 - share) * canvas.width
    x, end = first, min(canvas.width * (0.2 + share), canvas.width * 1.05)
    row, trees = Drawing(), [_tree(rng, kind) for _ in range(5)]
    while x <= max(first, end):
        row.add(pick(rng, trees), rng.uniform(0.7, 1.15), (x - first) / size, rng.uniform(-3, 0) / size)
        x += size * rng.uniform(0.3, 0.55)
    canvas.paste(row, first, base, size, 0.28)


def _scatter(canvas: Canvas, prop: Callable[[np.random.Generator], Drawing], count: int, near: float, far: float,
             size: float) -> None:
    """Props on the ground between y = far and y = near, smaller with distance."""
    rng = canvas.rng
    for y in sorted(rng.uniform(far, near, count)):
        t = (y - far) / max(1.0, near - far)
        scale = size * (0.22 + 0.78 * t) * rng.uniform(0.7, 1.2)
        x = rng.uniform(-0.05, 1.05) * canvas.width
        canvas.shadow(x, y, scale * 0.4, scale * 0.06, 0.3)
        canvas.paste(prop(rng), x, y, scale, 0.2 * (1 - t))


def _meadow(canvas: Canvas, horizon: float, green: Colour) -> None:
    canvas.gradient(horizon, canvas.height, mix(green, canvas.light.haze, 0.25), shade(green, 0.85), 0.09, 3)
    rng = canvas.rng
    tufts = Drawing()
    for _ in range(int(rng.integers(4, 11))):
        t = rng.random() ** 0.6
        tufts.add(_tuft(rng, green), canvas.height * (0.012 + 0.05 * t), rng.uniform(0, 1) * canvas.width,
                  -horizon - t * (canvas.height - horizon) - 4)
    canvas.paste(tufts, 0, 0, 1.0, 0.0, 0.0, 0.0)


def _water(canvas: Canvas, top: float, bottom: float, seen: Set[str]) -> None:
    rng, light = canvas.rng, canvas.light
    seen.add("water")
    deep = jitter(rng, pick(rng, ((36, 88, 130), (44, 110, 136), (60, 100, 110), (70, 110, 150))), 10)
    far = mix(deep, light.sky_low, 0.55)
    canvas.gradient(top, bottom, far, deep, 0.07, 6)
    rows = int(bottom) - int(top)
    if rows > 4:
        depth = np.linspace(0.3, 1, rows, dtype=np.float32)[:, None]
        waves = noise(rng, rows, canvas.width, 9)
        canvas.blend(top, bottom, np.clip(waves - rng.uniform(0.6, 1.3), 0, 1) * 0.45 * depth,
                     mix(far, (255, 255, 255), 0.6))
    glints = []
    for _ in range(int(rng.integers(0, 14))):
        y = rng.uniform(top + 2, bottom)
        length = (6 + 26 * (y - top) / max(1.0, bottom - top)) * rng.uniform(0.5, 1.2)
        x = rng.uniform(0, canvas.width)
        glints.append([(x, y), (x + length, y - 0.8), (x + length * 0.6, y + 1.2)])
    canvas.polygons(glints, mix(far, (255, 255, 255), 0.5))


def _grass_colour(rng: np.random.Generator) -> Colour:
    return jitter(rng, pick(rng, ((96, 140, 62), (112, 150, 70), (140, 146, 76), (80, 122, 60), (176, 160, 90))), 10)


# ---- the places --------------------------------------------------------------------------------------------------

def _sea(canvas: Canvas) -> Place:
    rng, h = canvas.rng, canvas.height
    seen: Set[str] = set()
    horizon = h * rng.uniform(0.25, 0.6)
    _sky(canvas, horizon, seen)
    if rng.random() < 0.3:
        _mountains(canvas, horizon, h * rng.uniform(0.06, 0.16), seen)
    _water(canvas, horizon, h, seen)
    if rng.random() < 0.4:
        _scatter(canvas, _rock, int(rng.integers(1, 5)), h * 0.98, horizon + 2, h * 0.16)
    if rng.random() < 0.25:
        _scatter(canvas, _buoy, int(rng.integers(1, 3)), h * 0.95, horizon + 2, h * 0.12)
    return Place({"water": (horizon + 2, h * 0.97), "sky": (h * 0.06, horizon * 0.9)}, seen, horizon)


def _beach(canvas: Canvas) -> Place:
    rng, h = canvas.rng, canvas.height
    seen: Set[str] = set()
    horizon = h * rng.uniform(0.2, 0.45)
    shore = horizon + h * rng.uniform(0.08, 0.28)
    _sky(canvas, horizon, seen)
    if rng.random() < 0.25:
        _mountains(canvas, horizon, h * 0.1, seen)
    _water(canvas, horizon, shore, seen)
    sand = jitter(rng, pick(rng, ((226, 202, 152), (210, 184, 140), (236, 220, 186))), 8)
    canvas.gradient(shore, h, shade(sand, 0.86), sand, 0.05)
    seen.add("sand")
    canvas.polygon([(0, shore - 2)] + [(x, shore + 2 + 2.5 * math.sin(x / 23 + horizon))
                                       for x in range(0, canvas.width + 9, 8)]
                   + [(canvas.width, shore - 2)], (240, 244, 244), 0, 0)
    if rng.random() < 0.35:
        canvas.paste(_palm(rng), rng.uniform(0, 1) * canvas.width, shore + h * rng.uniform(0.05, 0.3),
                     h * rng.uniform(0.35, 0.6))
        seen.add("tree")
    if rng.random() < 0.5:
        _scatter(canvas, pick(rng, (_rock, _ball, _crate)), int(rng.integers(1, 4)), h, shore + 4, h * 0.1)
    return Place({"ground": (shore + 5, h * 0.98), "water": (horizon + 2, shore - 3),
                  "sky": (h * 0.05, horizon * 0.9)}, seen, horizon)


def _lake(canvas: Canvas) -> Place:
    rng, h = canvas.rng, canvas.height
    seen: Set[str] = set()
    horizon = h * rng.uniform(0.3, 0.5)
    _sky(canvas, horizon, seen)
    if rng.random() < 0.6:
        _mountains(canvas, horizon, h * rng.uniform(0.15, 0.3), seen)
    if rng.random() < 0.85:
        _tree_line(canvas, horizon + 2, h * rng.uniform(0.08, 0.18), seen, rng.uniform(0.5, 1.0))
    bank = h * rng.uniform(0.8, 1.0)
    _water(canvas, horizon, h, seen)
    zones = {"water": (horizon + 3, bank * 0.97), "sky": (h * 0.05, horizon * 0.7)}
    if bank < 0.93 * h:
        green = _grass_colour(rng)
        points = [(x, bank + 3 * math.sin(x / 31 + bank)) for x in range(0, canvas.width + 9, 8)]
        canvas.polygon([(0, h)] + points + [(canvas.width, h)], green, 0, 0.1)
        for _ in range(8):
            canvas.paste(_tuft(rng, green), rng.uniform(0, canvas.width), h * rng.uniform(0.93, 1.03), h * 0.07, 0, 0)
        seen.add("grass")
        zones["ground"] = (bank + 4, h * 0.99)
    return Place(zones, seen, horizon)


def _field(canvas: Canvas) -> Place:
    rng, h, seen = canvas.rng, canvas.height, {"field", "grass"}
    horizon = h * rng.uniform(0.28, 0.5)
    _sky(canvas, horizon, seen)
    green = _grass_colour(rng)
    if rng.random() < 0.5:
        hill = shade(mix(green, canvas.light.haze, 0.4), 0.9)
        points = [(x, horizon - h * 0.05 * (1 + math.sin(x / 70 + horizon))) for x in range(0, canvas.width + 9, 8)]
        canvas.polygon([(0, horizon + 2)] + points + [(canvas.width, horizon + 2)], hill, 0.1, 0.06)
    if rng.random() < 0.6:
        _tree_line(canvas, horizon + 2, h * rng.uniform(0.07, 0.16), seen, rng.uniform(0.3, 1.0))
    _meadow(canvas, horizon, green)
    if rng.random() < 0.2:
        canvas.paste(_house(rng), rng.uniform(0, 1) * canvas.width, horizon + 4, h * 0.11, 0.25)
        seen.add("building")
    if rng.random() < 0.35:
        _scatter(canvas, _bale, int(rng.integers(1, 4)), h * 0.9, horizon + 5, h * 0.2)
    if rng.random() < 0.35:
        y = rng.uniform(horizon + 0.15 * h, h * 0.8)
        canvas.paste(_fence(rng), rng.uniform(-0.3, 0.6) * canvas.width, y, h * 0.13)
    if rng.random() < 0.4:
        _scatter(canvas, _bush, int(rng.integers(1, 5)), h * 0.95, horizon + 3, h * 0.22)
    return Place({"ground": (horizon + 4, h * 0.98), "sky": (h * 0.05, horizon * 0.75)}, seen, horizon)


def _pasture(canvas: Canvas) -> Place:
    rng, h, seen = canvas.rng, canvas.height, {"grass"}
    horizon = h * rng.uniform(0.38, 0.52)
    _sky(canvas, horizon, seen)
    _mountains(canvas, horizon, h * rng.uniform(0.22, 0.4), seen)
    if rng.random() < 0.6:
        _tree_line(canvas, horizon + 2, h * 0.12, seen, rng.uniform(0.3, 1.0), "fir")
    _meadow(canvas, horizon, _grass_colour(rng))
    if rng.random() < 0.5:
        _scatter(canvas, _rock, int(rng.integers(1, 7)), h * 0.97, horizon + 4, h * 0.2)
    return Place({"ground": (horizon + 4, h * 0.98), "sky": (h * 0.05, horizon * 0.5)}, seen, horizon)


def _snow(canvas: Canvas) -> Place:
    rng, h, seen = canvas.rng, canvas.height, {"snow"}
    horizon = h * rng.uniform(0.3, 0.5)
    _sky(canvas, horizon, seen)
    if rng.random() < 0.7:
        _mountains(canvas, horizon, h * rng.uniform(0.15, 0.35), seen, snowy=True)
    if rng.random() < 0.7:
        _tree_line(canvas, horizon + 2, h * rng.uniform(0.1, 0.2), seen, rng.uniform(0.3, 1.0), "fir")
    canvas.gradient(horizon, h, (214, 222, 234), (240, 243, 248), 0.035, 2)
    if rng.random() < 0.3:
        canvas.paste(_house(rng), rng.uniform(0, 1) * canvas.width, horizon + 8, h * 0.14, 0.2)
        seen.add("building")
    if rng.random() < 0.5:
        _scatter(canvas, lambda r: _tree(r, "fir"), int(rng.integers(1, 4)), h * 0.9, horizon + 6, h * 0.5)
        seen.add("tree")
    if rng.random() < 0.4:
        _scatter(canvas, _rock, int(rng.integers(1, 4)), h * 0.97, horizon + 4, h * 0.15)
    return Place({"ground": (horizon + 4, h * 0.98), "sky": (h * 0.05, horizon * 0.7)}, seen, horizon)


def _country_road(canvas: Canvas) -> Place:
    rng, w, h, seen = canvas.rng, canvas.width, canvas.height, {"road", "grass"}
    horizon = h * rng.uniform(0.3, 0.48)
    _sky(canvas, horizon, seen)
    if rng.random() < 0.3:
        _mountains(canvas, horizon, h * 0.18, seen)
    if rng.random() < 0.6:
        _tree_line(canvas, horizon + 2, h * rng.uniform(0.08, 0.18), seen, rng.uniform(0.3, 1.0))
    _meadow(canvas, horizon, _grass_colour(rng))
    grey = jitter(rng, (104, 102, 104), 10)
    if rng.random() < 0.5:  # seen along the road
        x = w * rng.uniform(0.3, 0.7)
        canvas.polygon([(x - 2, horizon + 1), (x + 2, horizon + 1), (w * 1.1, h), (-w * 0.1, h)], grey, 0, 0.06)
        dashes = []
        for t0 in np.arange(0.06, 1.0, 0.16):
            t1 = t0 + 0.08
            y0, y1 = horizon + (h - horizon) * t0, horizon + (h - horizon) * t1
            x0, x1 = x + (w * 0.5 - x) * t0, x + (w * 0.5 - x) * t1
            dashes.append([(x0 - 3 * t0, y0), (x0 + 3 * t0, y0), (x1 + 3 * t1, y1), (x1 - 3 * t1, y1)])
        canvas.polygons(dashes, _PAINT)
        road = (horizon + 3, h * 0.98)
    else:  # seen across it
        y0 = horizon + h * rng.uniform(0.1, 0.25)
        y1 = y0 + h * rng.uniform(0.15, 0.3)
        canvas.polygon([(0, y0), (w, y0), (w, y1), (0, y1)], grey, 0, 0.06)
        y = (y0 + y1) / 2
        starts = np.arange(-10, w, 30) + rng.uniform(0, 20)
        canvas.rectangles([(x, y, x + 15, y + 2) for x in starts], _PAINT)
        road = (y0 + 2, y1)
    if rng.random() < 0.5:
        canvas.paste(_post(rng), rng.uniform(0, 1) * w, horizon + h * 0.2, h * 0.35)
    if rng.random() < 0.3:
        _scatter(canvas, pick(rng, (_bush, _cone, _rock)), int(rng.integers(1, 5)), h * 0.95, horizon + 5, h * 0.16)
    return Place({"road": road, "ground": (horizon + 4, h * 0.98), "sky": (h * 0.05, horizon * 0.75)}, seen, horizon)


def _city(canvas: Canvas) -> Place:
    rng, w, h, seen = canvas.rng, canvas.width, canvas.height, {"building", "road"}
    horizon = h * rng.uniform(0.42, 0.58)
    _sky(canvas, horizon, seen)
    x = -0.1 * w
    while x < 1.1 * w:
        block, size = _tower_block(rng), h * rng.uniform(0.3, 0.62)
        x += size * 0.3
        canvas.paste(block, x, horizon + 2, size, rng.uniform(0.0, 0.25), 0.04)
        x += size * rng.uniform(0.26, 0.42)
    curb = horizon + h * rng.uniform(0.06, 0.12)
    canvas.gradient(horizon, curb, (172, 168, 162), (186, 182, 176), 0.04)
    end = h * rng.uniform(0.84, 1.0)
    canvas.gradient(curb, h, jitter(rng, (96, 96, 100), 8), jitter(rng, (112, 112, 116), 8), 0.05)
    middle = (curb + end) / 2
    starts = np.arange(-10, w, 34) + rng.uniform(0, 20)
    canvas.rectangles([(x, middle, x + 18, middle + 2.5) for x in starts], _PAINT)
    canvas.gradient(end, h, (190, 186, 180), (176, 172, 166), 0.04)
    if rng.random() < 0.4:
        for x in np.linspace(0.1, 0.9, int(rng.integers(2, 5))) * w + rng.uniform(-10, 10):
            canvas.paste(_tree(rng, "round"), x, curb, h * rng.uniform(0.25, 0.35))
        seen.add("tree")
    for _ in range(int(rng.integers(0, 3))):
        canvas.paste(_post(rng), rng.uniform(0, 1) * w, curb + 2, h * rng.uniform(0.3, 0.45))
    if rng.random() < 0.4:
        _scatter(canvas, pick(rng, (_cone, _crate, _bench)), int(rng.integers(1, 3)), curb + 5, curb, h * 0.12)
    return Place({"road": (curb + 6, end), "ground": (curb - 2, h * 0.98), "sky": (h * 0.04, horizon * 0.35)}, seen,
                 horizon)


def _railway(canvas: Canvas) -> Place:
    rng, w, h, seen = canvas.rng, canvas.width, canvas.height, {"railway"}
    horizon = h * rng.uniform(0.3, 0.48)
    _sky(canvas, horizon, seen)
    town = rng.random() < 0.4
    if town:
        x = -0.1 * w
        while x < 1.1 * w:
            size = h * rng.uniform(0.12, 0.35)
            canvas.paste(_house(rng) if rng.random() < 0.5 else _tower_block(rng), x, horizon + 3, size, 0.2, 0.04)
            x += size * rng.uniform(0.5, 1.2)
        seen.add("building")
    elif rng.random() < 0.35:
        _mountains(canvas, horizon, h * 0.2, seen)
    if rng.random() < 0.5:
        _tree_line(canvas, horizon + 3, h * rng.uniform(0.08, 0.16), seen, rng.uniform(0.3, 1.0))
    _meadow(canvas, horizon, _grass_colour(rng))
    seen.add("grass")
    y = horizon + (h - horizon) * (0.12 + 0.6 * canvas.focus)
    depth = h * (0.012 + 0.08 * canvas.focus)
    canvas.polygon([(0, y - depth), (w, y - depth), (w, y + depth), (0, y + depth)], jitter(rng, (128, 120, 112), 8),
                   0, 0.16)
    canvas.polygons([[(x, y - depth * 0.5), (x + depth * 0.4, y - depth * 0.5), (x + depth * 0.3, y + depth * 0.5),
                      (x - depth * 0.1, y + depth * 0.5)] for x in np.arange(-8, w + 8, max(4.0, depth * 0.9))],
                    (92, 72, 56), 0, 0.08)
    canvas.rectangles([(0, y + dy * depth - 1, w, y + dy * depth + 1) for dy in (-0.3, 0.3)], (170, 166, 164))
    for x in np.arange(rng.uniform(0, 60), w, rng.uniform(70, 120)):
        if rng.random() < 0.6:
            canvas.paste(_post(rng), float(x), y - depth, h * 0.3, 0.1)
    if town and rng.random() < 0.6:
        top = y + depth + h * 0.05
        canvas.gradient(top, h, (176, 172, 166), (164, 160, 154), 0.04)
        canvas.gradient(top, top + 4, (226, 200, 90), (226, 200, 90))
        ground = (top + 8, h * 0.98)
    else:
        ground = (y + depth + 4, h * 0.98)
    return Place({"rail": (y + depth * 0.25, y + depth * 0.35), "ground": ground, "sky": (h * 0.05, horizon * 0.7)},
                 seen, horizon)


def _living_room(canvas: Canvas) -> Place:
    rng, w, h, seen = canvas.rng, canvas.width, canvas.height, {"room", "wall"}
    floor = h * rng.uniform(0.5, 0.66)
    wall = jitter(rng, pick(rng, ((224, 214, 196), (190, 204, 206), (214, 186, 160), (170, 186, 160), (232, 230, 226),
                                  (150, 120, 120))), 10)
    canvas.gradient(0, floor, shade(wall, 0.94), wall, 0.02)
    if rng.random() < 0.3:
        stripe = shade(wall, 0.93)
        canvas.rectangles([(x, 0, x + 10, floor) for x in np.arange(rng.uniform(0, 20), w, 24)], stripe)
    wood = jitter(rng, pick(rng, WOODS + ((170, 160, 150), (120, 110, 130))), 10)
    canvas.gradient(floor, h, shade(wood, 0.8), wood, 0.06, 4)
    planks = floor + np.linspace(0.08, 0.95, 6) ** 1.6 * (h - floor)
    canvas.rectangles([(0, y, w, y + 1) for y in planks], shade(wood, 0.66))
    canvas.rectangles([(0, floor - 4, w, floor)], shade(wall, 1.12))
    if rng.random() < 0.65:
        canvas.paste(_window(rng), rng.uniform(0.15, 0.85) * w, floor * rng.uniform(0.6, 0.8),
                     floor * rng.uniform(0.5, 0.7))
    for _ in range(int(rng.integers(0, 3))):
        canvas.paste(_picture(rng), rng.uniform(0.1, 0.9) * w, floor * rng.uniform(0.4, 0.6),
                     floor * rng.uniform(0.2, 0.34))
    if rng.random() < 0.5:
        rug = Drawing()
        cloth = jitter(rng, pick(rng, FABRICS), 12)
        rug.ellipse(0, 0, 1, 0.28, cloth)
        rug.ellipse(0, 0, 0.8, 0.2, shade(cloth, 1.25))
        canvas.paste(rug, rng.uniform(0.3, 0.7) * w, floor + (h - floor) * 0.55, h * rng.uniform(0.3, 0.5))
    for _ in range(int(rng.integers(0, 3))):
        canvas.paste(_furniture(rng), rng.uniform(0.0, 1.0) * w, floor + h * rng.uniform(0.02, 0.1),
                     h * rng.uniform(0.3, 0.44))
    return Place({"ground": (floor + 4, h * 0.98)}, seen, floor - h * 0.25)


def _kitchen(canvas: Canvas) -> Place:
    rng, w, h, seen = canvas.rng, canvas.width, canvas.height, {"room", "wall"}
    edge = h * rng.uniform(0.5, 0.7)
    wall = jitter(rng, pick(rng, ((226, 226, 220), (200, 212, 206), (236, 214, 180), (170, 190, 204))), 10)
    canvas.gradient(0, edge, wall, shade(wall, 0.92), 0.02)
    if rng.random() < 0.6:
        grout = shade(wall, 0.86)
        step = h * rng.uniform(0.07, 0.12)
        canvas.rectangles([(0, y, w, y + 1) for y in np.arange(0, edge, step)], grout)
        canvas.rectangles([(x, 0, x + 1, edge) for x in np.arange(0, w, step * 1.5)], grout)
    if rng.random() < 0.5:
        canvas.paste(_window(rng), rng.uniform(0.2, 0.8) * w, edge * rng.uniform(0.7, 0.85),
                     edge * rng.uniform(0.5, 0.7))
    if rng.random() < 0.5:
        door = jitter(rng, pick(rng, WOODS + (WHITE,)), 10)
        doors = np.arange(-0.1, 1.0, 0.26) * w
        canvas.rectangles([(x, 0, x + 0.24 * w, h * 0.2) for x in doors], door)
        canvas.rectangles([(x + 0.11 * w, h * 0.15, x + 0.13 * w, h * 0.18) for x in doors], METAL)
    if rng.random() < 0.4:
        canvas.paste(_picture(rng), rng.uniform(0.1, 0.9) * w, edge * 0.6, edge * 0.3)
    top = jitter(rng, pick(rng, WOODS + ((206, 206, 204), (90, 90, 96))), 10)
    canvas.gradient(edge, h, shade(top, 1.1), shade(top, 0.85), 0.05, 4)
    canvas.gradient(edge, edge + 2, shade(top, 0.6), shade(top, 0.6))
    if rng.random() < 0.75:
        _scatter(canvas, _crockery, int(rng.integers(1, 5)), h * 0.92, edge + 5, h * 0.2)
    return Place({"table": (edge + 5, h * 0.97), "ground": (edge + 5, h * 0.97)}, seen, edge - h * 0.3)


def _open_sky(canvas: Canvas) -> Place:
    rng, w, h = canvas.rng, canvas.width, canvas.height
    seen: Set[str] = set()
    horizon = h * rng.uniform(0.86, 1.1)
    _sky(canvas, min(horizon, h), seen)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 5))):
            canvas.paste(_cloud(rng), rng.uniform(0, 1) * w, rng.uniform(0.1, 0.9) * h, h * rng.uniform(0.1, 0.3),
                         0.35, 0.03, 0.1)
        seen.add("cloud")
    if horizon < h * 0.97:
        if rng.random() < 0.5:
            _tree_line(canvas, horizon + 2, h * 0.07, seen)
        else:
            _mountains(canvas, horizon, h * 0.1, seen)
        canvas.gradient(horizon, h, (90, 112, 70), (80, 104, 60), 0.08)
    return Place({"sky": (h * 0.1, h * 0.85)}, seen, horizon)


def _park(canvas: Canvas) -> Place:
    rng, w, h, seen = canvas.rng, canvas.width, canvas.height, {"grass", "tree"}
    horizon = h * rng.uniform(0.32, 0.5)
    _sky(canvas, horizon, seen)
    if rng.random() < 0.35:
        for _ in range(4):
            canvas.paste(_tower_block(rng), rng.uniform(0, 1) * w, horizon + 2, h * rng.uniform(0.2, 0.4), 0.45, 0.03)
        seen.add("building")
    _tree_line(canvas, horizon + 2, h * rng.uniform(0.14, 0.26), seen, 1.0, "round")
    _meadow(canvas, horizon, _grass_colour(rng))
    if rng.random() < 0.6:
        x, lean = w * rng.uniform(0.2, 0.8), rng.uniform(-0.4, 0.4) * w
        path = jitter(rng, (196, 176, 142), 10)
        canvas.polygon([(x - 3, horizon + 3), (x + 3, horizon + 3), (x + lean + 0.3 * w, h),
                        (x + lean - 0.25 * w, h)], path, 0, 0.06)
    for _ in range(int(rng.integers(0, 3))):
        canvas.paste(_tree(rng, "round"), rng.uniform(0, 1) * w, horizon + h * rng.uniform(0.05, 0.2),
                     h * rng.uniform(0.4, 0.7))
    if rng.random() < 0.5:
        _scatter(canvas, pick(rng, (_bench, _bush, _ball)), int(rng.integers(1, 4)), h * 0.9, horizon + 8, h * 0.18)
    return Place({"ground": (horizon + 5, h * 0.98), "sky": (h * 0.04, horizon * 0.6)}, seen, horizon)


_OPEN_GROUND = ("field", "pasture", "park", "lake", "country road", "railway")


def foreground_prop(canvas: Canvas, setting: str) -> Optional[Tuple[int, int, np.ndarray]]:
    """Paint something near the camera that may hide part of the objects; what `Canvas.paste` says of it."""
    rng, h = canvas.rng, canvas.height
    x = rng.uniform(0, 1) * canvas.width
    if setting in _OPEN_GROUND:
        prop = pick(rng, (_bush, _fence, _bush, _tree))(rng)
        scale = h * (rng.uniform(0.15, 0.3) if prop.bounds()[3] < 0.9 else rng.uniform(0.2, 0.3))
        return canvas.paste(prop, x, h * 1.03, scale)[1]
    if setting in ("city", "snow", "beach"):
        prop, largest = pick(rng, ((_post, 0.8), (_crate, 0.35), (_bush, 0.3)))
        return canvas.paste(prop(rng), x, h * 1.03, h * rng.uniform(0.2, largest))[1]
    if setting in ("kitchen", "living room"):
        return canvas.paste(pick(rng, (_crockery, _crate))(rng), x, h * 1.04, h * rng.uniform(0.15, 0.3))[1]
    return None


class Backdrop(NamedTuple):
    """A kind of place: how it is painted, which objects are at home there and how often, as in life."""

    paint: Callable[[Canvas], Place]
    lights: Tuple[Light, ...]
    homes: Dict[str, float]
    words: Tuple[str, ...]
    """What people call the place."""


BACKDROPS: Dict[str, Backdrop] = {
    "sea": Backdrop(_sea, _DAYLIGHT, {"boat": 8, "bird": 3, "aeroplane": 0.4},
                    ("the sea", "the ocean", "the water", "open water", "the waves")),
    "beach": Backdrop(_beach, _DAYLIGHT, {"person": 5, "umbrella": 3, "kite": 2.5, "dog": 1.5, "boat": 2, "bird": 2,
                                          "chair": 1, "bottle": 0.6, "horse": 0.4, "bicycle": 0.3, "car": 0.2},
                      ("a beach", "the beach", "a sandy beach", "the shore")),
    "lake": Backdrop(_lake, _DAYLIGHT, {"boat": 5, "bird": 4, "person": 1.5, "dog": 0.6, "chair": 0.3, "horse": 0.2,
                                        "cow": 0.3},
                     ("a lake", "the lake", "a river", "a calm lake")),
    "field": Backdrop(_field, _DAYLIGHT, {"cow": 4, "sheep": 4, "horse": 4, "person": 2, "dog": 1.5, "bird": 1,
                                          "kite": 0.8,
                                          "car": 0.3, "bicycle": 0.2, "aeroplane": 0.3, "cat": 0.2},
                      ("a field", "a grassy field", "a meadow", "the countryside")),
    "pasture": Backdrop(_pasture, _DAYLIGHT, {"cow": 4, "sheep": 5, "horse": 2, "person": 2, "dog": 1, "bird": 0.8,
                                              "bicycle": 0.3},
                        ("the mountains", "a mountain meadow", "the hills")),
    "snow": Backdrop(_snow, _DAYLIGHT, {"person": 5, "dog": 3, "horse": 1, "bird": 1, "car": 0.8, "cat": 0.3,
                                        "kite": 0.2},
                     ("the snow", "a snowy field", "a snowy landscape")),
    "country road": Backdrop(_country_road, _DAYLIGHT,
                             {"car": 5, "bus": 2, "bicycle": 3, "person": 2, "cow": 0.6, "sheep": 0.6,
                                                        "horse": 1, "dog": 0.7, "bird": 0.4},
                             ("a road", "a country road", "the road", "a highway")),
    "city": Backdrop(_city, _DAYLIGHT, {"car": 5, "bus": 4, "person": 4, "bicycle": 2.5, "umbrella": 1, "dog": 0.8,
                                        "cat": 0.3,
                                        "bird": 0.5, "potted plant": 0.5, "chair": 0.5, "aeroplane": 0.2},
                     ("a city street", "the street", "a city", "downtown")),
    "railway": Backdrop(_railway, _DAYLIGHT, {"train": 9, "person": 2.5, "bird": 0.5, "bicycle": 0.3, "dog": 0.3},
                        ("the tracks", "a railway", "a train station", "railroad tracks")),
    "living room": Backdrop(_living_room, _LAMPLIGHT,
                            {"chair": 5, "cat": 3, "dog": 2, "potted plant": 4, "person": 3, "bottle": 1.0,
                                                       "bicycle": 0.2, "umbrella": 0.2},
                            ("a living room", "a room", "the living room", "a house")),
    "kitchen": Backdrop(_kitchen, _LAMPLIGHT, {"bottle": 7, "potted plant": 3, "cat": 1.5},
                        ("a kitchen", "a table", "a counter", "a kitchen table")),
    "open sky": Backdrop(_open_sky, _DAYLIGHT[:-1], {"aeroplane": 5, "bird": 4, "kite": 3},
                         ("the sky", "a blue sky", "the air", "a cloudy sky")),
    "park": Backdrop(_park, _DAYLIGHT, {"person": 4, "dog": 3, "bicycle": 2, "bird": 2, "kite": 1.5, "umbrella": 0.7,
                                        "cat": 0.7,
                                        "potted plant": 0.3, "chair": 0.5, "horse": 0.4},
                     ("a park", "the park", "a garden", "the grass")),
}
