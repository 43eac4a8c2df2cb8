"""Vector drawing for the mini world: shapes in a unit space, rasterised with antialiasing at any size."""
from __future__ import annotations

import math
from functools import cache
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image, ImageDraw

Colour = Tuple[float, float, float]
Point = Tuple[float, float]
Points = Union[Sequence[Point], Sequence[np.ndarray], np.ndarray]
Box = Tuple[float, float, float, float]
"""Left, top, right, bottom."""

SUPERSAMPLING = 3
_TURN = np.linspace(0, 2 * math.pi, 25)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


class Shape(NamedTuple):
    """A filled polygon, or a stroke where `width` is given. `part` names the object that it belongs to."""

    points: np.ndarray
    colour: Colour
    width: Optional[float]
    part: str


def shade(colour: Colour, factor: float) -> Colour:
    """The colour under more (`factor` > 1) or less light."""
    red, green, blue = colour
    return min(255.0, red * factor), min(255.0, green * factor), min(255.0, blue * factor)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second))
    return red, green, blue


def jitter(rng: np.random.Generator, colour: Colour, amount: float = 18) -> Colour:
    """The colour with a random change of brightness and a smaller one of hue."""
    change = rng.normal(0, (amount, amount / 2.5, amount / 2.5, amount / 2.5)).tolist()
    red, green, blue = (min(255.0, max(0.0, old + change[0] + new)) for old, new in zip(colour, change[1:]))
    return red, green, blue


def pick(rng: np.random.Generator, options: Sequence):
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def smooth_closed(points: Points, steps: int = 6) -> np.ndarray:
    """A closed Catmull-Rom spline through the points, (len(points) * steps, 2)."""
    p = np.asarray(points, dtype=float)
    before, after, beyond = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
    t = (np.arange(steps) / steps)[None, :, None]
    before, here, after, beyond = (q[:, None, :] for q in (before, p, after, beyond))
    curve = 0.5 * (2 * here + (after - before) * t + (2 * before - 5 * here + 4 * after - beyond) * t ** 2
                   + (3 * here - before - 3 * after + beyond) * t ** 3)
    return curve.reshape(-1, 2)


class Drawing:
    """Shapes in a unit space: x to the right, y up, feet at y = 0, about one unit high."""

    def __init__(self) -> None:
        self.shapes: List[Shape] = []
        self.part = ""

    def polygon(self, points: Points, colour: Colour) -> None:
        self.shapes.append(Shape(np.asarray(points, dtype=float), colour, None, self.part))

    def curve(self, points: Points, colour: Colour) -> None:
        """A filled smooth outline through the points."""
        self.polygon(smooth_closed(points), colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.0) -> None:
        """A filled ellipse around (x, y), turned anticlockwise by `angle` degrees."""
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self.polygon(_CIRCLE @ np.array([[rx * cos, rx * sin], [-ry * sin, ry * cos]]) + (x, y), colour)

    def ring(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        self.line(_CIRCLE * radius + (x, y), width, colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, round_: float = 0.0) -> None:
        """A rectangle, with rounded corners of radius `round_`."""
        if not round_:
            self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)
            return
        corners = [(x1 - round_, y1 - round_, 0), (x0 + round_, y1 - round_, 90),
                   (x0 + round_, y0 + round_, 180), (x1 - round_, y0 + round_, 270)]
        turn = np.radians(np.linspace(0, 90, 5))
        self.polygon(np.concatenate([
            np.stack([x + round_ * np.cos(turn + math.radians(a)), y + round_ * np.sin(turn + math.radians(a))], 1)
            for x, y, a in corners]), colour)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        self.shapes.append(Shape(np.asarray(points, dtype=float), colour, width, self.part))

    def limb(self, points: Sequence[Point], widths: Sequence[float], colour: Colour) -> None:
        """A chain of tapering segments with round joints: an arm, a leg, a neck."""
        for (x0, y0), (x1, y1), w0, w1 in zip(points, points[1:], widths, widths[1:]):
            length = math.hypot(x1 - x0, y1 - y0) or 1e-6
            nx, ny = -(y1 - y0) / length / 2, (x1 - x0) / length / 2
            self.polygon([(x0 + nx * w0, y0 + ny * w0), (x1 + nx * w1, y1 + ny * w1),
                          (x1 - nx * w1, y1 - ny * w1), (x0 - nx * w0, y0 - ny * w0)], colour)
        for (x, y), width in zip(points, widths):
            self.ellipse(x, y, width / 2, width / 2, colour)

    def add(self, other: Drawing, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> None:
        """Draw `other` over this drawing, scaled about its origin and moved."""
        for points, colour, width, part in other.shapes:
            self.shapes.append(Shape(points * scale + (dx, dy), colour, width and width * scale, part))

    def transform(self, matrix: np.ndarray) -> None:
        """Apply a 2x2 matrix to every point (flip, turn, shear, stretch)."""
        self.shapes = [shape._replace(points=shape.points @ matrix.T) for shape in self.shapes]

    def pose(self, degrees: float, width: float) -> None:
        """Stretch to `width` times as wide (flipped where it is negative), and turn."""
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        self.transform(np.array([[cos * width, -sin], [sin * width, cos]]))

    def bounds(self, part: Optional[str] = None) -> Box:
        """The extent (x0, y0, x1, y1) of one part, or of everything, in the unit space."""
        corners: List[np.ndarray] = []
        for points, _, width, name in self.shapes:
            if part is None or name == part:
                corners += [points - width / 2, points + width / 2] if width else [points]
        everything = np.concatenate(corners)
        (x0, y0), (x1, y1) = everything.min(0).tolist(), everything.max(0).tolist()
        return x0, y0, x1, y1

    def rasterise(self, pixels_per_unit: float) -> Tuple[np.ndarray, Point, Dict[str, Box]]:
        """Draw at a size.

        Returns:
            The sprite, (height, width, 4) bytes of red, green and blue times opacity, and opacity; the place of the
            unit space's origin in it, in pixels; and the box of each part, in pixels of the sprite.
        """
        x0, y0, x1, y1 = self.bounds()
        scale = pixels_per_unit * SUPERSAMPLING
        width = max(1, math.ceil((x1 - x0) * pixels_per_unit))
        height = max(1, math.ceil((y1 - y0) * pixels_per_unit))
        # Four plain channels ("CMYK" in name only): where nothing is drawn all are 0, so averaging the supersampled
        # pixels gives colours that are already multiplied by the opacity.
        sprite = Image.new("CMYK", (width * SUPERSAMPLING, height * SUPERSAMPLING))
        draw = ImageDraw.Draw(sprite)
        for points, colour, stroke, _ in self.shapes:
            xy = ((points - (x0, y1)) * (scale, -scale)).ravel().tolist()
            fill = (int(colour[0]), int(colour[1]), int(colour[2]), 255)
            if stroke is None:
                draw.polygon(xy, fill=fill)
            else:
                draw.line(xy, fill=fill, width=max(1, round(stroke * scale)), joint="curve")
        boxes = {}
        parts = list({shape.part: None for shape in self.shapes})
        for part in parts:
            left, low, right, high = self.bounds(part) if len(parts) > 1 else (x0, y0, x1, y1)
            boxes[part] = ((left - x0) * pixels_per_unit, (y1 - high) * pixels_per_unit,
                           (right - x0) * pixels_per_unit, (y1 - low) * pixels_per_unit)
        return np.asarray(sprite.reduce(SUPERSAMPLING)), (-x0 * pixels_per_unit, y1 * pixels_per_unit), boxes


@cache
def noise_tile(side: int = 512) -> np.ndarray:
    """Cloud-like noise of mean 0 and standard deviation 1, (side, side), without seams; the same everywhere."""
    rng = np.random.default_rng(20250717)
    total = np.zeros((side, side), dtype=np.float32)
    for cells in (4, 8, 16, 32, 64, 128):
        grid = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 4, mode="wrap")
        margin = 4 * side // cells
        octave = Image.fromarray(grid).resize((side + 2 * margin,) * 2, Image.Resampling.BICUBIC)
        total += np.asarray(octave)[margin:-margin, margin:-margin] / cells ** 0.8
    return ((total - total.mean()) / total.std()).astype(np.float32)


def noise(rng: np.random.Generator, height: int, width: int, stretch: int = 1) -> np.ndarray:
    """A random window of the noise, (height, width); `stretch` > 1 compresses it vertically (waves, grass)."""
    tile = noise_tile()
    y, x = (int(v) for v in rng.integers(0, tile.shape[0], 2))
    rows = (y + np.arange(height) * stretch) % tile.shape[0]
    columns = (x + np.arange(width)) % tile.shape[1]
    return tile[rows[:, None], columns[None, :]]
