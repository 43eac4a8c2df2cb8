"""Scenes of the mini world: a place, its light, and one to five objects that are at home there.

A scene is a pure function of (seed, split, index): any process renders it alike, in any order.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from PIL import Image, ImageFilter

from mini.backdrops import BACKDROPS, Backdrop, Canvas, Place, foreground_prop
from mini.drawing import Box, Drawing
from mini.objects import OBJECTS, draw_group

SPLITS = {"train": 0, "test": 1, "clip": 2, "clip_held_out": 3}
"""Streams of scenes that never meet: the data set's two splits, and two to train and to try the mini CLIP."""

MIN_SIZE, MAX_SIZE = 0.08, 0.6
"""The longer side of an object as a share of the picture's shorter side."""

_SHAPES = ((288, 216), (288, 216), (288, 216), (216, 288), (256, 256), (304, 204))
_MAX_OBJECTS = 5
_OBJECT_COUNT = (0.22, 0.3, 0.24, 0.14, 0.1)
_LEAST_VISIBLE = 0.25
"""Objects of which less is seen carry no label."""

_METRES: Dict[str, float] = {
    "aeroplane": 5.0, "bicycle": 1.1, "bird": 0.35, "boat": 3.5, "bottle": 0.3, "bus": 3.2, "car": 1.5, "cat": 0.4,
    "chair": 1.0, "cow": 1.5, "dog": 0.75, "horse": 1.8, "kite": 1.5, "person": 1.7, "potted plant": 0.8,
    "sheep": 0.95, "train": 3.8, "umbrella": 2.2,
}
"""Heights in life: with the eye's height above the ground they give the place of the feet in the picture."""

_HERDS = {
    "sheep": 0.55, "cow": 0.5, "bird": 0.45, "boat": 0.4, "person": 0.4, "car": 0.45, "bottle": 0.5, "chair": 0.4,
    "horse": 0.35, "kite": 0.35, "potted plant": 0.35, "bicycle": 0.25, "bus": 0.15, "dog": 0.2, "cat": 0.15,
    "aeroplane": 0.15, "umbrella": 0.4, "train": 0.0,
}
"""How often the next object is one more of the same class."""

_COMPANIONS = {
    "kite": 0.5, "dog": 0.4, "umbrella": 0.4, "bicycle": 0.2, "horse": 0.25, "chair": 0.2, "bottle": 0.1,
    "sheep": 0.15, "boat": 0.15, "train": 0.2,
}
"""How often the next object is a person who came with it."""

_ZONES = {"boat": ("water",), "train": ("rail",), "car": ("road", "ground"), "bus": ("road", "ground"),
          "bicycle": ("road", "ground"), "aeroplane": ("sky",), "kite": ("sky",), "bottle": ("table", "ground"),
          "potted plant": ("table", "ground"), "cat": ("table", "ground")}
_WITH_PERSON = {"horse": 0.35, "bicycle": 0.5, "umbrella": 0.7}


class SceneObject(NamedTuple):
    """An object in a scene. `box` is in pixels and may leave the picture; `visible` is the share that is seen."""

    name: str
    box: Box
    size: float
    visible: float


@dataclass(frozen=True)
class Scene:
    """A rendered picture, (height, width, 3) bytes, and what is in it."""

    pixels: np.ndarray
    setting: str
    backgrounds: Tuple[str, ...]
    objects: Tuple[SceneObject, ...]

    @property
    def classes(self) -> List[str]:
        """The classes of the objects, each once, in alphabetical order."""
        return sorted({item.name for item in self.objects})

    def sizes(self) -> Dict[str, float]:
        """The size of each class's largest object."""
        return {name: max(item.size for item in self.objects if item.name == name) for name in self.classes}


class _Actor(NamedTuple):
    drawing: Drawing
    x: float
    y: float
    scale: float
    zone: str


def scene_rng(seed: int, split: str, index: int, purpose: int = 0) -> np.random.Generator:
    """The random stream of one picture; `purpose` keeps apart a scene's pixels (0), captions (1) and web captions (2),
    and a portrait's pixels (3) and web captions (4)."""
    return np.random.default_rng([seed, SPLITS[split], index, purpose])


def render_scene(seed: int, split: str, index: int) -> Scene:
    """Render scene number `index` of a split."""
    rng = scene_rng(seed, split, index)
    while True:
        scene = _compose(rng)
        if scene.objects:
            return scene


def _sample_size(rng: np.random.Generator, prominent: bool) -> float:
    low, high = (0.2, MAX_SIZE) if prominent else (MIN_SIZE, 0.36)
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _choose_class(rng: np.random.Generator, backdrop: Backdrop, zones: Dict[str, Tuple[float, float]],
                  previous: Optional[str]) -> str:
    if previous and rng.random() < _HERDS[previous]:
        return previous
    if previous and "ground" in zones and rng.random() < _COMPANIONS.get(previous, 0.0):
        return "person"
    names = [name for name in backdrop.homes if _zone_of(name, zones)]
    weights = np.array([backdrop.homes[name] for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _zone_of(name: str, zones: Dict[str, Tuple[float, float]]) -> List[str]:
    """The zones of this place where the class may be, the best first."""
    if name == "bird":
        return [zone for zone in ("sky", "water", "ground") if zone in zones]
    return [zone for zone in _ZONES.get(name, ("ground",)) if zone in zones][:1]


def _compose(rng: np.random.Generator) -> Scene:
    setting = list(BACKDROPS)[int(rng.integers(len(BACKDROPS)))]
    backdrop = BACKDROPS[setting]
    width, height = _SHAPES[int(rng.integers(len(_SHAPES)))]
    light = backdrop.lights[int(rng.integers(len(backdrop.lights)))]
    count = 1 + int(rng.choice(_MAX_OBJECTS, p=_OBJECT_COUNT))
    main_size = _sample_size(rng, prominent=rng.random() < 0.75)
    canvas = Canvas(width, height, light, rng)
    canvas.focus = main_size / MAX_SIZE
    place = backdrop.paint(canvas)
    eye = rng.uniform(1.1, 3.0) if "table" not in place.zones else rng.uniform(0.4, 0.6)
    actors: List[_Actor] = []
    taken: List[Box] = []
    previous: Optional[str] = None
    budget = count
    while budget > 0:
        name = _choose_class(rng, backdrop, place.zones, previous)
        size = main_size if budget == count else _sample_size(rng, prominent=False)
        if previous == name and rng.random() < 0.6:
            size = float(np.clip(main_size * rng.uniform(0.5, 1.0), MIN_SIZE, MAX_SIZE))
        names: Tuple[str, ...] = (name,)
        if budget >= 2 and rng.random() < _WITH_PERSON.get(name, 0.0) and "ground" in place.zones:
            names = (name, "person")
        budget -= len(names)
        previous = name
        if name == "train" and any(actor.zone == "rail" for actor in actors):
            continue
        actors.append(_place_actor(rng, names, size, place, canvas, eye, taken))
    actors.sort(key=lambda actor: (actor.zone != "sky", actor.y))
    return _paint(canvas, setting, place, actors)


def _place_actor(rng: np.random.Generator, names: Tuple[str, ...], size: float, place: Place, canvas: Canvas,
                 eye: float,
                 taken: List[Box]) -> _Actor:
    """Draw the object or pair in a random pose and find it a spot that hides little of the others."""
    zones = _zone_of(names[0], place.zones)
    zone = zones[int(rng.integers(len(zones)))]
    manner = None
    if names == ("bird",):
        manner = {"sky": "fly", "water": "swim", "ground": "stand"}[zone]
    drawing = draw_group(names, rng, manner)
    turn = rng.uniform(-22, 22) if zone == "sky" else rng.normal(0, 1.5)
    flip = -1 if rng.random() < 0.5 else 1
    drawing.pose(turn, flip * rng.uniform(0.74, 1.06))
    x0, y0, x1, y1 = drawing.bounds()
    scale = size * min(canvas.width, canvas.height) / max(x1 - x0, y1 - y0)
    far, near = place.zones[zone]
    if zone == "sky":
        y = rng.uniform(far, near) + (y0 + y1) / 2 * scale
    elif zone == "rail":
        y = near
    else:
        metres = max(_METRES[name] for name in names) * (1.15 if len(names) > 1 else 1.0)
        y = place.horizon + eye * (y1 - y0) * scale / metres
        y = float(np.clip(y + rng.normal(0, 3), far, near))
    span = (x1 - x0) * scale
    best, least = 0.0, math.inf
    for _ in range(5):
        left = rng.uniform(-0.18 * span, canvas.width - 0.82 * span)
        box = (left, y - y1 * scale, left + span, y - y0 * scale)
        overlap = sum(_overlap(box, other) for other in taken)
        if overlap < least:
            best, least = left, overlap
    taken.append((best, y - y1 * scale, best + span, y - y0 * scale))
    return _Actor(drawing, best - x0 * scale, y, scale, zone)


def _overlap(first: Box, second: Box) -> float:
    """The share of the smaller box that the other covers."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return width * height / max(1e-6, min(areas))


def _paint(canvas: Canvas, setting: str, place: Place, actors: List[_Actor]) -> Scene:
    """Paint the actors from far to near, then what stands before them, then the light and the camera."""
    rng = canvas.rng
    owner = np.full((canvas.height, canvas.width), -1, dtype=np.int8)
    boxes: List[Dict[str, Box]] = []
    areas: List[float] = []
    outdoors = "sky" in place.zones
    for index, actor in enumerate(actors):
        x0, y0, x1, y1 = actor.drawing.bounds()
        share = max(x1 - x0, y1 - y0) * actor.scale / (MAX_SIZE * min(canvas.width, canvas.height))
        if actor.zone in ("ground", "road", "table", "rail"):
            centre = actor.x + (x0 + x1) / 2 * actor.scale
            canvas.shadow(centre + canvas.light_side * -0.1 * (x1 - x0) * actor.scale, actor.y,
                          (x1 - x0) * 0.5 * actor.scale, max(1.5, 0.07 * actor.scale), 0.45 * canvas.light.contrast)
        haze = 0.3 * max(0.0, 1 - 2.5 * share) if outdoors else 0.0
        placed, region = canvas.paste(actor.drawing, actor.x, actor.y, actor.scale, haze, 0.07)
        boxes.append(placed)
        area = 1e-6
        if region is not None:
            top, left, alpha = region
            owner[top:top + alpha.shape[0], left:left + alpha.shape[1]][alpha > 0.5] = index
            area = max(area, float((alpha > 0.5).sum()) * _inside(placed, canvas))
        areas.append(area)
    if rng.random() < 0.3:
        region = foreground_prop(canvas, setting)
        if region is not None:
            top, left, alpha = region
            owner[top:top + alpha.shape[0], left:left + alpha.shape[1]][alpha > 0.5] = -1
    objects: List[SceneObject] = []
    side = min(canvas.width, canvas.height)
    for index, (placed, area) in enumerate(zip(boxes, areas)):
        visible = float((owner == index).sum()) / area
        if visible >= _LEAST_VISIBLE:
            objects.extend(SceneObject(name, box, max(box[2] - box[0], box[3] - box[1]) / side, min(1.0, visible))
                           for name, box in placed.items() if name in OBJECTS)
    return Scene(photograph(canvas), setting, tuple(sorted(place.backgrounds)), tuple(objects))


def _inside(placed: Dict[str, Box], canvas: Canvas) -> float:
    """How many times the whole object is larger than its part inside the picture."""
    x0, y0 = min(box[0] for box in placed.values()), min(box[1] for box in placed.values())
    x1, y1 = max(box[2] for box in placed.values()), max(box[3] for box in placed.values())
    inside = max(1e-6, min(x1, canvas.width) - max(x0, 0)) * max(1e-6, min(y1, canvas.height) - max(y0, 0))
    return max(1.0, (x1 - x0) * (y1 - y0) / inside)


def photograph(canvas: Canvas) -> np.ndarray:
    """The finished picture, (height, width, 3) bytes: tint, exposure, vignette, blur and sensor noise."""
    rng, light = canvas.rng, canvas.light
    pixels = canvas.pixels
    tint = np.asarray(light.tint, np.float32) * rng.uniform(0.88, 1.1) * (1 + rng.normal(0, 0.02, 3))
    y = np.linspace(-1, 1, canvas.height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, canvas.width, dtype=np.float32)[None, :]
    falloff = 1 - rng.uniform(0.0, 0.16) * (x * x + y * y) + 0.06 * canvas.light_side * x
    pixels *= falloff[..., None] * tint.astype(np.float32)
    grey = np.float32(rng.uniform(0.0, 0.3))
    luminance = (pixels[..., 0] + pixels[..., 1] + pixels[..., 2]) * (grey / 3)
    sensor = np.random.Generator(np.random.SFC64(rng.integers(0, 2 ** 32, 2)))
    luminance += sensor.standard_normal(luminance.shape, dtype=np.float32) * np.float32(rng.uniform(0.8, 4.5))
    pixels *= 1 - grey
    pixels += luminance[..., None]
    image = Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.1)))
    return np.asarray(image)
