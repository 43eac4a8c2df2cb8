"""The method on one training image: every panel is drawn from what the code computes for it."""
from __future__ import annotations

import argparse
import math
import textwrap
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from datasets.captions.io import load_dataset_captions
from datasets.files import DataError
from datasets.images import read_image
from datasets.names import prompt_name
from datasets.plotting import BLUE, GREEN, GREY, ORANGE, paper_style
from datasets.split_file import ImageList, read_image_ids
from engine.evaluation.predictor import MaskedViews, Predictor, Tags, load_predictor
from engine.pictures.drawings import overlay
from engine.training.checkpoint import Checkpoint
from engine.training.training_labels import load_pseudo_labels
from models.reso import INDEX_NAME, Crop, read_index

WIDE, NARROW = 4, 2
"""Panels in a row: for pages, and for phones."""
SHOWN = 5
"""Categories in the graph, among the nodes and in the bars."""


class _Scene(NamedTuple):
    """All that the panels show."""

    photo: Image.Image
    captions: List[str]
    labels: Tensor
    """(O,) pseudo-labels."""
    graph: Tensor
    """(O, O) caption graph."""
    categories: Sequence[str]
    num_classes: int
    views: MaskedViews
    tags: Tags
    crop: Crop
    cut: Image.Image

    @property
    def top(self) -> List[int]:
        """The categories with the highest labels, classes first."""
        return sorted(self.labels.topk(min(SHOWN, len(self.labels))).indices.tolist())

    def colour(self, category: int) -> str:
        """Of a category: blue for a class, orange for a background."""
        return BLUE if category < self.num_classes else ORANGE


def draw_method(args: argparse.Namespace, trained: Checkpoint, columns: int = WIDE) -> Figure:
    """The method from photo to logits, on the first training image with a crop, several classes and a background.

    Args:
        args: the flags of the run, and its `--checkpoint`.
        trained: the checkpoint, of a run with ReSO.
        columns: panels in a row, each 3 inches wide and 3.6 high.

    Raises:
        DataError: the run has no crops, or its captions are gone.
    """
    scene = _find_scene(args, load_predictor(args, trained))
    panels = (_photo, _captions, _graph, _masks, _maps, _nodes, _logits, _reso)
    titles = ("Photo, no label", "Captions to labels", "Caption graph", "Masked globals", "Similarity kernel",
              "CLIP-GCN", "Logits", "ReSO: small object")
    rows = len(panels) // columns
    width, height = 3.0 * columns, 3.6 * rows
    with paper_style():
        figure = Figure(figsize=(width, height), facecolor="white")
        for number, (draw, title) in enumerate(zip(panels, titles)):
            row, column = divmod(number, columns)
            left, bottom = 0.14 + 2.98 * column, 0.22 + 3.6 * (rows - 1 - row)
            axes = figure.add_axes((left / width, bottom / height, 2.74 / width, 2.81 / height))
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
            axes.axis("off")
            axes.set_title(f"{number + 1}  {title}", fontsize=15, fontweight="bold", loc="left")
            draw(axes, scene)
    return figure


def _find_scene(args: argparse.Namespace, predictor: Predictor) -> _Scene:
    folder = Path(args.checkpoint).parent / "reso"
    crops = read_index(folder) if (folder / INDEX_NAME).exists() else []
    if not crops:
        raise DataError(f"{folder}: no crops; the figure of the method is made of a run with ReSO")
    image_ids = read_image_ids(args.train_split_file)
    pseudo = load_pseudo_labels(args, predictor.spec, image_ids, list(predictor.categories))
    captions = load_dataset_captions(args.caption_root, predictor.spec)
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    targets = [pseudo.targets[row_of[crop.image_id]] for crop in crops]
    crop, labels = next(((crop, labels) for crop, labels in zip(crops, targets)
                         if _is_telling(labels, predictor.num_classes)), (crops[0], targets[0]))
    photo = read_image(ImageList(args.train_img_root, image_ids).path(row_of[crop.image_id]))
    return _Scene(photo, captions[crop.image_id], labels, pseudo.graph, predictor.categories, predictor.num_classes,
                  predictor.masked_views(photo), predictor.tag(photo), crop, read_image(folder / f"{crop.file}.jpg"))


def _is_telling(labels: Tensor, num_classes: int) -> bool:
    """Whether an image has two or three sure classes and a sure background."""
    return 2 <= int((labels[:num_classes] > 0.7).sum()) <= 3 and bool((labels[num_classes:] > 0.7).any())


def _picture(axes: Axes, pixels: np.ndarray, left: float, bottom: float, width: float, height: float) -> Axes:
    """A picture in a part of a panel, in shares of its sides."""
    inner = axes.inset_axes((left, bottom, width, height))
    inner.imshow(pixels, aspect="auto")
    inner.set_xticks([])
    inner.set_yticks([])
    for spine in inner.spines.values():
        spine.set_visible(False)
    return inner


def _chip(axes: Axes, x: float, y: float, scene: _Scene, category: int, text: str = "", align: str = "center") -> None:
    """The name of a category in its colour, at shares of the sides of the axes."""
    axes.text(x, y, text or prompt_name(scene.categories[category]), ha=align, va="center", fontsize=12, color="white",
              transform=axes.transAxes, zorder=4,
              bbox={"boxstyle": "round,pad=0.28", "facecolor": scene.colour(category), "linewidth": 0})


def _photo(axes: Axes, scene: _Scene) -> None:
    _picture(axes, np.asarray(scene.photo), 0, 0.05, 1, 0.93)


def _captions(axes: Axes, scene: _Scene) -> None:
    distinct = dict.fromkeys(text.strip(" .") for text in scene.captions)
    varied = sorted(distinct, key=lambda text: -len(set(text.split())) / (1 + text.count(",")))
    lines = [textwrap.shorten(text, 60, placeholder=" ...") for text in varied[:3]]
    place = 0.97
    for text in lines:
        wrapped = textwrap.wrap(f"\u201c{text}\u201d", 32)
        axes.text(0, place, "\n".join(wrapped), fontsize=11.5, va="top", style="italic", color="#333333")
        place -= 0.105 * len(wrapped) + 0.03
    for number, category in enumerate(scene.top):
        name = f"{prompt_name(scene.categories[category])} {scene.labels[category]:.2f}"
        _chip(axes, 0.02 + 0.5 * (number % 2), 0.24 - 0.115 * (number // 2), scene, category, name, align="left")


def _places(scene: _Scene, middle: Tuple[float, float], radius: float) -> Dict[int, Tuple[float, float]]:
    """The shown categories on a circle."""
    top = scene.top
    return {category: (middle[0] + radius * math.sin(2 * math.pi * number / len(top)),
                       middle[1] + radius * math.cos(2 * math.pi * number / len(top)))
            for number, category in enumerate(top)}


def _edges(axes: Axes, scene: _Scene, places: Dict[int, Tuple[float, float]]) -> None:
    for i, there in places.items():
        for j, here in places.items():
            weight = float(scene.graph[i, j])
            if i != j and weight > 0.03:
                axes.annotate("", there, here, arrowprops={
                    "arrowstyle": "-|>", "color": GREY, "linewidth": 0.8 + 5 * weight, "alpha": 0.75, "shrinkA": 14,
                    "shrinkB": 16, "connectionstyle": "arc3,rad=0.12"})


def _graph(axes: Axes, scene: _Scene) -> None:
    places = _places(scene, (0.5, 0.47), 0.34)
    _edges(axes, scene, places)
    for category, (x, y) in places.items():
        _chip(axes, x, y, scene, category)
    axes.text(0, 0.94, "arrow from j to i: P(i given j)", fontsize=11, color="#333333")


def _masks(axes: Axes, scene: _Scene) -> None:
    names = (r"$M_H \rightarrow g_H$", r"$M_{H^c} \rightarrow g_{H^c}$")
    for number, (pixels, name) in enumerate(zip(scene.views.pictures[1:], names)):
        _picture(axes, pixels, 0.51 * number, 0.3, 0.48, 0.5)
        axes.text(0.51 * number + 0.24, 0.22, name, ha="center", va="center", fontsize=14)
    axes.text(0, 0.88, "patches that [cls] attends to; the rest", fontsize=11, color="#333333")


def _maps(axes: Axes, scene: _Scene) -> None:
    for number, category in enumerate(scene.top[:4]):
        left, bottom = 0.51 * (number % 2), 0.53 - 0.5 * (number // 2)
        picture = _picture(axes, overlay(scene.photo, scene.tags.maps[category]), left, bottom, 0.48, 0.42)
        _chip(picture, 0.06, 0.88, scene, category, align="left")


def _nodes(axes: Axes, scene: _Scene) -> None:
    places = _places(scene, (0.5, 0.36), 0.27)
    globals_at = {"$g_H$": (0.28, 0.86), "$g_{H^c}$": (0.72, 0.86)}
    for start in globals_at.values():
        for end in places.values():
            axes.plot(*zip(start, end), color=GREEN, linewidth=1.0, alpha=0.55, zorder=1)
    _edges(axes, scene, places)
    for name, (x, y) in globals_at.items():
        _node(axes, x, y, name, GREEN)
    for category, (x, y) in places.items():
        _node(axes, x, y, f"$l_{{{prompt_name(scene.categories[category])[:3]}}}$", scene.colour(category))


def _node(axes: Axes, x: float, y: float, name: str, colour: str) -> None:
    axes.text(x, y, name, ha="center", va="center", fontsize=13, color="white", zorder=3,
              bbox={"boxstyle": "circle,pad=0.3", "facecolor": colour, "linewidth": 0})


def _logits(axes: Axes, scene: _Scene) -> None:
    axes.text(0, 0.92, "sigmoid of global + local logits", fontsize=11, color="#333333")
    shown = scene.tags.scores.topk(min(SHOWN + 1, len(scene.tags.scores))).indices.tolist()
    for number, category in enumerate(shown):
        place, score = 0.77 - 0.145 * number, float(scene.tags.scores[category])
        axes.add_patch(Rectangle((0.42, place - 0.05), 0.56 * score, 0.1, color=scene.colour(category)))
        axes.text(0.4, place, prompt_name(scene.categories[category]), ha="right", va="center", fontsize=12.5)
        axes.text(0.43 + 0.56 * score if score < 0.75 else 0.4 + 0.56 * score, place, f"{score:.2f}", va="center",
                  ha="left" if score < 0.75 else "right", fontsize=11.5, color="#333333" if score < 0.75 else "white")


def _reso(axes: Axes, scene: _Scene) -> None:
    left, top, right, bottom = scene.crop.box
    photo = _picture(axes, np.asarray(scene.photo), 0, 0.3, 0.48, 0.5)
    photo.add_patch(Rectangle((left, 1 - bottom), right - left, bottom - top, fill=False, edgecolor=BLUE, linewidth=3,
                              transform=photo.transAxes))
    _picture(axes, np.asarray(scene.cut), 0.52, 0.3, 0.48, 0.5)
    axes.text(0, 0.88, "cropped, enlarged, trained on", fontsize=11, color="#333333")
    _chip(axes, 0.76, 0.22, scene, scene.crop.category)
