"""The figures of numbers: mAP per epoch, and AP by class. Each function draws one from data."""
from __future__ import annotations

from textwrap import shorten
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from datasets.plotting import GREEN, GREY, ORANGE, PAGE, SERIES, SKY, paper_style

_MARKERS = "osD^vP"
"""Of the lines, in the order of their colours."""
_NAME_LETTERS = 58
"""Of a line's name, so that it takes less than half of the page."""
_LABEL_POINTS = 10
"""Height of a line's label, less which two labels lie on each other."""


class _Curve(NamedTuple):
    """The runs of a method over the epochs that all of them have."""

    name: str
    epochs: List[int]
    mean: np.ndarray
    deviation: Optional[np.ndarray]
    """None for one seed."""

    @classmethod
    def of(cls, name: str, runs: List[List[Tuple[int, float]]]) -> _Curve:
        last = min(run[-1][0] for run in runs)
        values = np.array([[value for epoch, value in run if epoch <= last] for run in runs])
        return cls(name, [epoch for epoch, _ in runs[0] if epoch <= last], values.mean(axis=0),
                   values.std(axis=0, ddof=1) if len(runs) > 1 else None)


def curves_figure(curves: Dict[str, List[List[Tuple[int, float]]]], zero_shot: Optional[float],
                  crops_from: Optional[int], untrained: str = "CLIP zero-shot") -> Figure:
    """mAP per epoch (paper Fig. 4): the mean over the seeds, and a band of one standard deviation.

    Every line is named at its end, where nothing has to be looked up and no legend takes room.

    Args:
        curves: name of a method to its runs, each a list of (epoch, mAP).
        zero_shot: mAP without training.
        crops_from: the first epoch that trains on ReSO's crops.
        untrained: what is called so.
    """
    drawn = [_Curve.of(shorten(name, _NAME_LETTERS, placeholder=" ..."), runs) for name, runs in curves.items()]
    with paper_style():
        figure = Figure(figsize=(PAGE, 2.9))
        longest = max([len(curve.name) for curve in drawn] + [len(untrained)] * (zero_shot is not None))
        left, right = 0.5, min(0.05 * (longest + 5) + 0.25, 0.5 * PAGE)  # inches; 7 points a letter
        axes = figure.add_axes((left / PAGE, 0.44 / 2.9, 1 - (left + right) / PAGE, 2.3 / 2.9))
        ends = [(float(curve.mean[-1]), f"{curve.name} {curve.mean[-1]:.1f}", colour)
                for curve, colour in zip(drawn, SERIES)]
        for number, (curve, colour) in enumerate(zip(drawn, SERIES)):
            # All are equally wide. Where lines coincide, their markers take turns.
            axes.plot(curve.epochs, curve.mean, color=colour, linewidth=1.2, marker=_MARKERS[number], markersize=4,
                      markevery=(number % len(curve.epochs), len(drawn)), zorder=3 - 0.1 * number, label=curve.name)
            if curve.deviation is not None:
                axes.fill_between(curve.epochs, curve.mean - curve.deviation, curve.mean + curve.deviation,
                                  color=colour, alpha=0.15, linewidth=0)
        if zero_shot is not None:
            axes.axhline(zero_shot, color=GREY, linewidth=1, linestyle="--", label=untrained)
            ends.append((zero_shot, f"{untrained} {zero_shot:.1f}", "#555555"))
        if crops_from is not None:
            axes.axvline(crops_from - 0.5, color=GREY, linewidth=0.8, linestyle=":")
            axes.annotate("ReSO's crops join", (crops_from - 0.5, 1), xycoords=("data", "axes fraction"),
                          xytext=(3, -1), textcoords="offset points", va="top", color="#555555", fontsize=7)
        axes.set(xlabel=f"epoch{_seeds_note(curves)}", ylabel="mAP on the test images (%)")
        axes.margins(x=0.02, y=0.14)  # room for the note above the lines
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        _name_ends(axes, ends)
    return figure


def _seeds_note(curves: Dict[str, List[List[Tuple[int, float]]]]) -> str:
    counts = sorted({len(runs) for runs in curves.values()})
    if counts == [1]:
        return ""
    return f"  (mean of {counts[0] if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'} seeds; band: one deviation)"


def _name_ends(axes: Axes, ends: Sequence[Tuple[float, str, str]]) -> None:
    """Write (value, name, colour) beside the right end of each line, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    points = 72 * axes.bbox.height / axes.figure.dpi
    step = _LABEL_POINTS / points * (high - low)
    order = sorted(ends, key=lambda end: end[0])
    places = [value for value, _, _ in order]
    for row in range(1, len(places)):
        places[row] = max(places[row], places[row - 1] + step)
    overhang = max(places[-1] - max(high, order[-1][0]), 0.0)
    places = [place - overhang for place in places]
    for row in range(len(places) - 2, -1, -1):
        places[row] = min(places[row], places[row + 1] - step)
    for place, (value, name, colour) in zip(places, order):
        across = axes.get_yaxis_transform()  # to the right as a share of the axes, upwards as the data
        axes.add_line(Line2D([1, 1.025], [value, place], transform=across, clip_on=False, color=colour, linewidth=0.5))
        axes.text(1.03, place, name, transform=across, va="center", color=colour, fontsize=7)


def per_class_figure(classes: Sequence[str], ours: np.ndarray, baseline: np.ndarray, name: str, baseline_name: str,
                     measured_on: str = "the test images") -> Figure:
    """AP bars of every class, highest first, with a mark where the baseline ends; two columns for many classes.

    Args:
        classes: the C names.
        ours: (C,) AP in percent; NaN for a class without a positive, which is left out.
        baseline: (C,) of the baseline.
        name: what the bars are called.
        baseline_name: what the marks are called.
        measured_on: the images, in words.
    """
    order = [int(row) for row in np.argsort(-np.nan_to_num(ours, nan=-1)) if np.isfinite(ours[row])]
    columns = 1 if len(order) <= 40 else 2
    rows = -(-len(order) // columns)
    with paper_style():
        figure = Figure(figsize=(PAGE * (0.62 if columns == 1 else 1), 0.155 * rows + 1.05),
                        layout="constrained")
        for column, axes in enumerate(np.atleast_1d(figure.subplots(1, columns))):
            _ap_bars(axes, classes, ours, baseline, order[column * rows:(column + 1) * rows])
        figure.supxlabel(f"AP on {measured_on} (%)", fontsize=8)
        handles = [Patch(color=SKY, label=f"{name}: mAP {np.nanmean(ours):.1f}"),
                   Line2D([], [], color="black", marker="|", markersize=8, markeredgewidth=1.6, linestyle="",
                          label=f"{baseline_name}: mAP {np.nanmean(baseline):.1f}"),
                   Line2D([], [], color=GREEN, marker=r"$\pm$", markersize=6, linestyle="",
                          label=f"{name} minus {baseline_name}")]
        figure.legend(handles=handles, loc="outside upper left", ncols=1 if columns == 1 else 3)
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
    axes.set(xlim=(0, 112), ylim=(len(order) - 0.4, -0.6))
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
