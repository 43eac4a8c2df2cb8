"""One scene to disk: the unit of work of the processes that build the mini world."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, NamedTuple

from PIL import Image

from mini.scenes import render_scene, scene_rng
from mini.simulated_captioner import describe

_JPEG_QUALITY = 92


class Task(NamedTuple):
    """Scene `number` of a split, to be written into `folder`."""

    seed: int
    split: str
    number: int
    folder: Path


class Record(NamedTuple):
    """All about a scene but its pixels. `analysis` (setting, boxes, sizes) is never used in training."""

    image_id: str
    classes: list
    captions: list
    re_captions: list
    analysis: Dict[str, Any]


def write_scene(task: Task) -> Record:
    """Render a scene, save it as JPEG and describe it."""
    scene = render_scene(task.seed, task.split, task.number)
    image_id = f"{task.split}_{task.number:06d}"
    Image.fromarray(scene.pixels).save(task.folder / f"{image_id}.jpg", quality=_JPEG_QUALITY)
    captions, re_captions = describe(scene, scene_rng(task.seed, task.split, task.number, purpose=1))
    height, width = scene.pixels.shape[:2]
    objects = [{"class": item.name, "box": [round(side, 1) for side in item.box], "size": round(item.size, 4),
                "visible": round(item.visible, 3)} for item in scene.objects]
    analysis = {"setting": scene.setting, "backgrounds": list(scene.backgrounds), "width": width, "height": height,
                "objects": objects}
    return Record(image_id, scene.classes, captions, re_captions, analysis)
