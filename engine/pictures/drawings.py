"""The figures: masks, similarity maps, the graph, mAP per epoch and per-class AP. Each function draws one from data."""
from __future__ import annotations

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from datasets.plotting import BLUE, GREEN, GREY, HEAT, ORANGE, PAGE, SERIES, SKY, paper_style
from engine.evaluation.predictor import MaskedViews

VIEW_NOTES = ("original", "M_H: the attended patches", "M_Hc: the others")
"""What the pictures of a photo are called where there is no mathematics, in the order of `VIEWS`."""
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


def overlay(photo: Image.Image, similarity: Tensor, strength: float = 0.6) -> np.ndarray:
    """A similarity map over a photo.

    Args:
        photo: the photo; its grey values show through.
        similarity: (rows, columns) of any scale: its least value is drawn dark, its greatest bright.
        strength: opacity of the map.

    Returns:
        (height, width, 3) of 0..255, of the photo's size.
    """
    values = similarity.float().numpy()
    values = (values - values.min()) / max(float(values.max() - values.min()), 1e-12)
    smooth = np.asarray(Image.fromarray(values.astype(np.float32)).resize(photo.size, Image.BICUBIC)).clip(0, 1)
    colours = 255 * matplotlib.colormaps[HEAT](smooth)[..., :3]
    grey = np.asarray(photo.convert("L"), dtype=np.float32)[..., None]
    return (strength * colours + (1 - strength) * grey).round().clip(0, 255).astype(np.uint8)


class _Page:
    """A figure laid out from top to bottom in inches: pictures and bars keep their sizes, whatever the labels need."""

    GAP = 0.12

    def __init__(self, height: float, columns: int) -> None:
        self.figure = Figure(figsize=(PAGE, height))
        self.height = height
        self.column_width = self.width_of(columns)
        self._top = 0.0

    @classmethod
    def width_of(cls, columns: int) -> float:
        """Width of one of so many columns."""
        return (PAGE - cls.GAP * (columns - 1)) / columns

    def skip(self, inches: float) -> None:
        """Leave room."""
        self._top += inches

    def axes(self, column: int, height: float, indent: float = 0.0) -> Axes:
        """Axes at the current height in a column, its left part of `indent` inches left free."""
        left, width = column * (self.column_width + self.GAP) + indent, self.column_width - indent
        return self.figure.add_axes((left / PAGE, 1 - (self._top + height) / self.height, width / PAGE,
                                     height / self.height))


def masks_figure(photos: Sequence[MaskedViews], categories: Sequence[str], num_classes: int) -> Figure:
    """The photo, M_H and M_Hc, each with CLIP's five highest logits (paper Fig. 3). One row a photo."""
    title, bars, between, legend, names = 0.22, 0.72, 0.2, 0.25, 0.85
    with paper_style():
        heights = [_Page.width_of(3) * views.pictures[0].shape[0] / views.pictures[0].shape[1] for views in photos]
        page = _Page(title + sum(heights) + (0.06 + bars + between) * len(photos) + legend, columns=3)
        page.skip(title)
        for row, (views, height) in enumerate(zip(photos, heights)):
            tops = [top_scores(logits, categories, num_classes) for logits in views.logits]
            low = min(score.value for top in tops for score in top)
            high = max(score.value for top in tops for score in top)
            for column, (note, picture) in enumerate(zip(VIEW_NOTES, views.pictures)):
                axes = _picture(page.axes(column, height), picture)
                if row == 0:
                    axes.set_title(note.replace("M_Hc", "$M_{H^c}$").replace("M_H:", "$M_H$:"))
            page.skip(height + 0.06)
            for column, top in enumerate(tops):
                _score_bars(page.axes(column, bars, indent=names), top, low, high)
            page.skip(bars + between)
        page.figure.legend(handles=[Patch(color=BLUE, label="class"), Patch(color=ORANGE, label="background")],
                           loc="lower center", ncols=2)
    return page.figure


def _score_bars(axes: Axes, scores: Sequence[Score], low: float, high: float) -> None:
    """Bars from a little below `low`: CLIP's logits share a large offset that would hide what differs."""
    base = low - 0.25 * max(high - low, 1e-6)
    places = range(len(scores))
    axes.barh(places, [score.value - base for score in scores], left=base, height=0.74,
              color=[BLUE if score.is_class else ORANGE for score in scores])
    axes.set_yticks(places, [score.name for score in scores])
    for place, score in zip(places, scores):
        axes.text(score.value, place, f" {score.rounded}", va="center", fontsize=6.5)
    axes.set_xlim(base, high + 0.3 * (high - base))
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)


class MappedPhoto(NamedTuple):
    """A photo with the similarity maps of some categories."""

    photo: Image.Image
    maps: Dict[str, Tensor]
    """Category to (rows, columns)."""
    scores: Dict[str, float]
    """Category to BAC-GCN's probability."""


def maps_figure(photos: Sequence[MappedPhoto], classes: Sequence[str], most_columns: int = 6) -> Figure:
    """Similarity maps of classes and backgrounds over photos (paper Fig. 5).

    Args:
        photos: one block of pictures each.
        classes: names of the classes; the titles of backgrounds have another colour.
        most_columns: pictures in a row, the photo itself included; fewer maps make larger pictures.
    """
    title, between = 0.2, 0.06
    columns = min(most_columns, max(3, *(1 + len(photo.maps) for photo in photos)))
    with paper_style():
        heights = [_Page.width_of(columns) * photo.photo.height / photo.photo.width for photo in photos]
        rows = [-(-(1 + len(photo.maps)) // columns) for photo in photos]
        page = _Page(sum(count * (title + height + between) for count, height in zip(rows, heights)), columns)
        for photo, height in zip(photos, heights):
            pictures = [("photo", "black", np.asarray(photo.photo))]
            pictures += [(f"{name}  {photo.scores[name]:.2f}", BLUE if name in classes else ORANGE,
                          overlay(photo.photo, similarity)) for name, similarity in photo.maps.items()]
            for number, (text, colour, pixels) in enumerate(pictures):
                if number % columns == 0:
                    page.skip(title if number == 0 else height + between + title)
                _picture(page.axes(number % columns, height), pixels).set_title(text, color=colour, pad=3)
            page.skip(height + between)
    return page.figure


def curves_figure(curves: Dict[str, List[List[Tuple[int, float]]]], zero_shot: Optional[float],
                  crops_from: Optional[int], untrained: str = "CLIP zero-shot") -> Figure:
    """mAP per epoch (paper Fig. 4): the mean over the seeds, and a band of one standard deviation.

    Args:
        curves: name of a method to its runs, each a list of (epoch, mAP).
        zero_shot: mAP without training.
        crops_from: the first epoch that trains on ReSO's crops.
        untrained: what is called so.
    """
    with paper_style():
        figure = Figure(figsize=(PAGE * 0.62, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for number, (colour, (name, runs)) in enumerate(zip(SERIES, curves.items())):
            last = min(run[-1][0] for run in runs)
            epochs = [epoch for epoch, _ in runs[0] if epoch <= last]
            values = np.array([[value for epoch, value in run if epoch <= last] for run in runs])
            mean = values.mean(axis=0)
            label = name if len(runs) == 1 else f"{name}, mean of {len(runs)} seeds"
            # The first line lies narrow over the others, so that where lines coincide both are seen.
            axes.plot(epochs, mean, color=colour, linewidth=1.4 + 1.6 * number, marker="o", markersize=3 + number,
                      zorder=3 - 0.1 * number, label=f"{label}: {mean[-1]:.1f}")
            if len(runs) > 1:
                spread = values.std(axis=0, ddof=1)
                axes.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)
        if zero_shot is not None:
            axes.axhline(zero_shot, color=GREY, linewidth=1, linestyle="--", label=f"{untrained}: {zero_shot:.1f}")
        if crops_from is not None:
            axes.axvline(crops_from - 0.5, color=GREY, linewidth=0.8, linestyle=":")
            axes.annotate("ReSO's crops join", (crops_from - 0.5, 1), xycoords=("data", "axes fraction"),
                          xytext=(3, -1), textcoords="offset points", va="top", color="#555555", fontsize=7)
        axes.set(xlabel="epoch", ylabel="mAP on the test images (%)")
        axes.margins(y=0.14)  # room for the note above the lines
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left")
    return figure


def per_class_figure(classes: Sequence[str], ours: np.ndarray, baseline: np.ndarray, name: str,
                     baseline_name: str) -> Figure:
    """AP bars of every class, highest first, with a mark where the baseline ends; two columns for many classes.

    Args:
        classes: the C names.
        ours: (C,) AP in percent; NaN for a class without a positive, which is left out.
        baseline: (C,) of the baseline.
        name: what the bars are called.
        baseline_name: what the marks are called.
    """
    order = [int(row) for row in np.argsort(-np.nan_to_num(ours, nan=-1)) if np.isfinite(ours[row])]
    columns = 1 if len(order) <= 40 else 2
    rows = -(-len(order) // columns)
    with paper_style():
        figure = Figure(figsize=(PAGE * (0.62 if columns == 1 else 1), 0.155 * rows + 0.75),
                        layout="constrained")
        for column, axes in enumerate(np.atleast_1d(figure.subplots(1, columns))):
            _ap_bars(axes, classes, ours, baseline, order[column * rows:(column + 1) * rows])
        handles = [Patch(color=SKY, label=f"{name}: mAP {np.nanmean(ours):.1f}"),
                   Line2D([], [], color="black", marker="|", markersize=8, markeredgewidth=1.6,
                                           linestyle="", label=f"{baseline_name}: mAP {np.nanmean(baseline):.1f}")]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _ap_bars(axes: Axes, classes: Sequence[str], ours: np.ndarray, baseline: np.ndarray, order: Sequence[int]) -> None:
    places = range(len(order))
    axes.barh(places, ours[order], height=0.7, color=SKY)
    axes.plot(baseline[order], places, linestyle="", marker="|", color="black", markersize=8, markeredgewidth=1.6)
    for place, row in enumerate(order):
        gain = ours[row] - baseline[row]
        axes.annotate(f"{gain:+.1f}", (max(ours[row], baseline[row]), place), xytext=(5, 0),
                      textcoords="offset points", va="center", fontsize=6.5, color=GREEN if gain >= 0 else ORANGE)
    axes.set_yticks(places, [classes[row] for row in order])
    axes.set(xlim=(0, 112), ylim=(len(order) - 0.4, -0.6), xlabel="AP on the test images (%)")
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _picture(axes: Axes, pixels: np.ndarray) -> Axes:
    axes.imshow(pixels)
    axes.set_axis_off()
    return axes
