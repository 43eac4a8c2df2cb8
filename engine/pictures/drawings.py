"""The figures with photos: masks and similarity maps. Each function draws one from data."""
from __future__ import annotations

from textwrap import wrap
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from datasets.plotting import BLUE, HEAT, ORANGE, PAGE, paper_style
from engine.evaluation.predictor import MaskedViews

VIEW_NOTES = ("original", "M_H: the attended patches", "M_Hc: the others")
"""What the pictures of `MaskedViews` are called where there is no mathematics, in their order."""
LONGEST_SIDE = 640
"""Pixels of a photo in a figure: 300 dpi at a third of the page."""


class Score(NamedTuple):
    """One bar of a list of scores."""

    name: str
    value: float
    is_class: bool
    """Else it is a background."""

    @property
    def rounded(self) -> str:
        """The value with one digit, without a minus before a zero."""
        return f"{round(self.value, 1) + 0.0:.1f}"


def top_scores(scores: Tensor, categories: Sequence[str], num_classes: int, count: int = 5) -> List[Score]:
    """The `count` highest of (O,) scores, highest first."""
    values, indices = scores.topk(min(count, len(scores)))
    return [Score(categories[index], value, index < num_classes)
            for value, index in zip(values.tolist(), indices.tolist())]


def fit(photo: Image.Image, longest: int = LONGEST_SIDE) -> Image.Image:
    """The photo with its longer side at most `longest` pixels."""
    scale = min(1.0, longest / max(photo.size))
    width, height = (max(1, round(side * scale)) for side in photo.size)
    return photo if scale == 1 else photo.resize((width, height), Image.LANCZOS)


class Scale(NamedTuple):
    """The similarities that are drawn darkest and brightest: one scale for all maps that are compared."""

    low: float
    high: float

    @classmethod
    def of(cls, maps: Iterable[Tensor]) -> Scale:
        """From the least to the greatest value of all maps."""
        values = [(float(similarity.min()), float(similarity.max())) for similarity in maps]
        return cls(min(low for low, _ in values), max(high for _, high in values))


def overlay(photo: Image.Image, similarity: Tensor, scale: Optional[Scale] = None, strength: float = 0.6) -> np.ndarray:
    """A similarity map over a photo.

    Args:
        photo: the photo; its grey values show through.
        similarity: (rows, columns).
        scale: what is dark and what is bright; by default the map's own least and greatest value.
        strength: opacity of the map.

    Returns:
        (height, width, 3) of 0..255, of the photo's size.
    """
    low, high = scale or Scale.of([similarity])
    values = (similarity.float().numpy() - low) / max(high - low, 1e-12)
    smooth = np.asarray(Image.fromarray(values.astype(np.float32)).resize(photo.size, Image.BICUBIC)).clip(0, 1)
    colours = 255 * matplotlib.colormaps[HEAT](smooth)[..., :3]
    grey = np.asarray(photo.convert("L"), dtype=np.float32)[..., None]
    return (strength * colours + (1 - strength) * grey).round().clip(0, 255).astype(np.uint8)


class _Page:
    """A figure laid out from top to bottom in inches: pictures and bars keep their sizes, whatever the labels need."""

    GAP = 0.12
    STEEPEST = 2.5
    """Most height of a picture beside its width; a photo of a pixel's width would make a page of hundreds of metres."""

    def __init__(self, height: float, columns: int) -> None:
        self.figure = Figure(figsize=(PAGE, height))
        self.height = height
        self.column_width = self.width_of(columns)
        self._top = 0.0

    @classmethod
    def width_of(cls, columns: int) -> float:
        """Width of one of so many columns."""
        return (PAGE - cls.GAP * (columns - 1)) / columns

    @classmethod
    def height_of(cls, columns: int, width: int, height: int) -> float:
        """Height of a picture of so many pixels in one of the columns: a narrow one does not fill the width."""
        return cls.width_of(columns) * min(height / width, cls.STEEPEST)

    def skip(self, inches: float) -> None:
        """Leave room."""
        self._top += inches

    def axes(self, column: int, height: float, indent: float = 0.0) -> Axes:
        """Axes at the current height in a column, its left part of `indent` inches left free."""
        left, width = column * (self.column_width + self.GAP) + indent, self.column_width - indent
        return self.figure.add_axes((left / PAGE, 1 - (self._top + height) / self.height, width / PAGE,
                                     height / self.height))


def masks_figure(photos: Sequence[MaskedViews], categories: Sequence[str], num_classes: int) -> Figure:
    """The photo, M_H and M_Hc, each with CLIP's five highest logits on one axis (paper Fig. 3). One row a photo."""
    title, dots, between, axis, legend, names = 0.22, 0.72, 0.14, 0.42, 0.22, 0.85
    with paper_style():
        heights = [_Page.height_of(3, *views.pictures[0].shape[1::-1]) for views in photos]
        page = _Page(title + sum(heights) + (0.06 + dots + between) * len(photos) + axis + legend, columns=3)
        page.skip(title)
        tops = [[top_scores(logits, categories, num_classes) for logits in views.logits] for views in photos]
        limits = _limits([score.value for of_photo in tops for top in of_photo for score in top])
        for row, (views, height) in enumerate(zip(photos, heights)):
            for column, (note, picture) in enumerate(zip(VIEW_NOTES, views.pictures)):
                axes = _picture(page.axes(column, height), picture)
                if row == 0:
                    axes.set_title(note.replace("M_Hc", "$M_{H^c}$").replace("M_H:", "$M_H$:"))
            page.skip(height + 0.06)
            for column, top in enumerate(tops[row]):
                _score_dots(page.axes(column, dots, indent=names), top, limits, labelled=row == len(photos) - 1)
            page.skip(dots + between)
        handles = [Line2D([], [], linestyle="", marker="o", markersize=5, color=colour, label=label)
                   for colour, label in ((BLUE, "class"), (ORANGE, "background"))]
        page.figure.legend(handles=handles, loc="lower center", ncols=2)
    return page.figure


def _limits(values: Sequence[float]) -> Tuple[float, float]:
    """The ends of an axis: a little beyond the values."""
    low, high = min(values), max(values)
    room = 0.08 * max(high - low, 1e-6)
    return low - room, high + room


def _score_dots(axes: Axes, scores: Sequence[Score], limits: Tuple[float, float], labelled: bool) -> None:
    """A dot a category. CLIP's logits share a large offset, which the length of a bar from 0 would show alone."""
    places = range(len(scores))
    for place, score in zip(places, scores):
        axes.plot(score.value, place, marker="o", markersize=5, color=BLUE if score.is_class else ORANGE)
        axes.annotate(score.rounded, (score.value, place), xytext=(5, 0), textcoords="offset points", va="center",
                      fontsize=6.5)
    axes.set_yticks(places, [score.name for score in scores])
    axes.set(xlim=(limits[0], limits[1] + 0.22 * (limits[1] - limits[0])), ylim=(len(scores) - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    if labelled:
        axes.set_xlabel("CLIP's logit (100 cosine)")
    else:
        axes.set_xticklabels([])


class MappedPhoto(NamedTuple):
    """A photo with the similarity maps of some categories."""

    photo: Image.Image
    maps: Dict[str, Tensor]
    """Category to (rows, columns), cosines."""
    scores: Dict[str, float]
    """Category to BAC-GCN's probability."""
    true: Optional[FrozenSet[str]] = None
    """Classes that are truly there; None where that is not known."""


def maps_figure(photos: Sequence[MappedPhoto], classes: Sequence[str], most_columns: int = 6) -> Figure:
    """Similarity maps of classes and backgrounds over photos, all on one scale (paper Fig. 5).

    Args:
        photos: one block of pictures each.
        classes: names of the classes; the titles of backgrounds have another colour.
        most_columns: pictures in a row, the photo itself included; fewer maps make larger pictures.
    """
    title, between, bar = 0.2 if all(photo.true is None for photo in photos) else 0.32, 0.06, 0.52
    columns = min(most_columns, max(3, *(1 + len(photo.maps) for photo in photos)))
    scale = Scale.of(similarity for photo in photos for similarity in photo.maps.values())
    with paper_style():
        heights = [_Page.height_of(columns, *photo.photo.size) for photo in photos]
        rows = [-(-(1 + len(photo.maps)) // columns) for photo in photos]
        page = _Page(sum(count * (title + height + between) for count, height in zip(rows, heights)) + bar, columns)
        for photo, height in zip(photos, heights):
            pictures = [(_true_title(photo, page.column_width), "black", np.asarray(photo.photo))]
            pictures += [(map_title(photo, name), BLUE if name in classes else ORANGE,
                          overlay(photo.photo, similarity, scale)) for name, similarity in photo.maps.items()]
            for number, (text, colour, pixels) in enumerate(pictures):
                if number % columns == 0:
                    page.skip(title if number == 0 else height + between + title)
                _picture(page.axes(number % columns, height), pixels).set_title(
                    text, color=colour, pad=3, fontsize=8 if number else 6.5)
            page.skip(height + between)
        _colour_bar(page, scale, any(photo.true is not None for photo in photos))
    return page.figure


def map_title(photo: MappedPhoto, name: str) -> str:
    """A map's category and its probability, with a mark where the class is truly there."""
    return f"{name}{' ✓' if photo.true is not None and name in photo.true else ''}  {photo.scores[name]:.2f}"


def _true_title(photo: MappedPhoto, width: float) -> str:
    """What is truly there, as far as two lines over a picture of `width` inches hold it."""
    if photo.true is None:
        return "photo"
    text = "true: " + (", ".join(sorted(photo.true)) or "none")
    return "\n".join(wrap(text, int(width * 19), max_lines=2, placeholder=" ..."))  # letters of 6.5 points an inch


def _colour_bar(page: _Page, scale: Scale, marked: bool) -> None:
    """The scale of all maps, in the room that is left at the bottom."""
    axes = page.figure.add_axes((0.3, 0.34 / page.height, 0.4, 0.08 / page.height))
    bar = page.figure.colorbar(ScalarMappable(Normalize(*scale), HEAT), cax=axes, orientation="horizontal")
    bar.outline.set_linewidth(0.4)
    note = "; ✓: truly there; number: the model's probability" if marked else "; number: the model's probability"
    bar.set_label(f"cosine of a patch and the category's kernel{note}", fontsize=7, labelpad=2)


def _picture(axes: Axes, pixels: np.ndarray) -> Axes:
    axes.imshow(pixels)
    axes.set_axis_off()
    return axes
