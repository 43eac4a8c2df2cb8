"""The one style of every figure, how figures are saved, and the caption graph as a picture."""
from __future__ import annotations

from pathlib import Path
from typing import Any, ContextManager, Dict, List, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datasets.files import PathLike, atomic_write

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a8f98"
"""Colours that stay apart for colour-blind readers and in grey print (Okabe and Ito)."""
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, "#e69f00")
HEAT = "inferno"
"""Colour map of similarity maps: brightness alone tells the order."""
SHARES = "Blues"
"""Colour map of probabilities; nothing is white."""

PAGE = 7.0
"""Width of a page's text in inches."""

STYLE: Dict[str, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8,
    "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.edgecolor": "#444444",
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "axes.grid": False, "grid.color": "#dddddd", "grid.linewidth": 0.5, "lines.linewidth": 1.6,
    "legend.frameon": False, "figure.dpi": 100,
    "pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "bac-gcn", "path.simplify": True,
}
"""Type of 7 and 8 points, to be set at page width without scaling; letters stay letters in the PDF."""


def paper_style() -> ContextManager[None]:
    """Matplotlib settings of all figures; artists take them when they are made, so draw inside of it."""
    return matplotlib.rc_context(STYLE)


def save_figure(figure: Figure, stem: PathLike) -> List[Path]:
    """Save as `stem`.pdf (vectors, for papers) and `stem`.png (300 dpi). The bytes depend on the drawing alone."""
    paths = []
    with paper_style():
        for kind, metadata in (("pdf", {"CreationDate": None}), ("png", None)):
            path = Path(f"{stem}.{kind}")
            with atomic_write(path, "wb") as file:
                figure.savefig(file, format=kind, dpi=300, metadata=metadata)
            paths.append(path)
    return paths


def graph_figure(graph: np.ndarray, categories: Sequence[str], num_classes: int) -> Figure:
    """The caption graph as a matrix, as in the authors' figure: no threshold, no normalisation (paper Fig. 2).

    Args:
        graph: (O, O), `graph[i, j]` = P(i given j).
        categories: the O names, classes first.
        num_classes: C; lines part classes from backgrounds.
    """
    count = len(categories)
    with paper_style():
        side = min(max(0.125 * count + 1.2, 3.2), 13.0)
        figure = Figure(figsize=(side, side * 0.94), layout="constrained")
        axes = figure.add_subplot()
        picture = axes.imshow(graph, cmap=SHARES, vmin=0, vmax=1, interpolation="nearest")
        type_size = min(7.0, 0.72 * 72 * (side - 1.2) / count)
        axes.set_xticks(range(count), categories, rotation=90, fontsize=type_size)
        axes.set_yticks(range(count), categories, fontsize=type_size)
        axes.tick_params(length=0, pad=2)
        axes.set(xlabel="given that the captions name j", ylabel="category i")
        for spine in axes.spines.values():
            spine.set_visible(True)
        if 0 < num_classes < count:
            axes.axhline(num_classes - 0.5, color=ORANGE, linewidth=0.9)
            axes.axvline(num_classes - 0.5, color=ORANGE, linewidth=0.9)
            _part_names(axes, num_classes, count)
        bar = figure.colorbar(picture, ax=axes, shrink=0.6, aspect=30, pad=0.02)
        bar.set_label("P(i given j)")
        bar.outline.set_linewidth(0.4)
    return figure


def _part_names(axes: Axes, num_classes: int, count: int) -> None:
    """Write "classes" and "backgrounds" over the two parts of the matrix."""
    for start, stop, name in ((0, num_classes, "classes"), (num_classes, count, "backgrounds")):
        axes.text((start + stop - 1) / 2, -0.9, name, ha="center", va="bottom", color=ORANGE)
