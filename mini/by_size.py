"""AP on the embedded world by the size of the objects: whom ReSO, tiles and zooming help.

    python eval.py --checkpoint runs/mini/checkpoint.pth       # leaves runs/mini/scores.npz
    python -m mini.by_size runs/mini runs/mini/no_reso

A class counts as present in the images whose largest object of it, as far as it lies in the picture, has that size; the
other images that show it are left out, those that do not show it are the negatives.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch

from datasets.files import DataError, read_json
from datasets.flag_parser import FlagParser
from engine.evaluation.metrics import average_precision, mean_ap
from engine.evaluation.scores_file import load_scores
from engine.process.entry_point import run_main
from engine.results.tables import format_table

SIZES = (0.0, 0.02, 0.05, 0.1, 1.0)
"""Bounds of the groups, as shares of the picture's area."""

MIN_POSITIVES = 3
"""A class with fewer images of a size is left out there."""


def object_sizes(records: Dict[str, Any], image_ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """(n, C) share of the picture that the largest object of each class covers with its box; 0 where there is none.

    Args:
        records: boxes.json, as `mini.render` leaves it.
        image_ids: the images.
        classes: names.
    """
    sizes = np.zeros((len(image_ids), len(classes)))
    for row, image_id in enumerate(image_ids):
        record = records[image_id]
        width, height = record["width"], record["height"]
        for thing in record["objects"]:
            left, top, right, bottom = thing["box"]
            area = (max(min(right, width) - max(left, 0), 0) * max(min(bottom, height) - max(top, 0), 0)
                    / (width * height))
            column = classes.index(thing["class"])
            sizes[row, column] = max(sizes[row, column], area)
    return sizes


def map_by_size(scores: np.ndarray, sizes: np.ndarray) -> List[Optional[float]]:
    """mAP in percent of each group of `SIZES`; None for one without images.

    Args:
        scores: (n, C), larger for likelier.
        sizes: (n, C) of `object_sizes`.
    """
    measured = []
    for low, high in zip(SIZES, SIZES[1:]):
        of_size = (sizes > low) & (sizes <= high)
        per_class = []
        for column in range(scores.shape[1]):
            kept = of_size[:, column] | (sizes[:, column] == 0)
            if of_size[:, column].sum() >= MIN_POSITIVES:
                per_class.append(average_precision(torch.from_numpy(scores[kept, column, None]),
                                                   torch.from_numpy(of_size[kept, column, None]).float())[0])
        measured.append(mean_ap(np.array(per_class)) if per_class else None)
    return measured


def main(runs: Sequence[str], boxes: str) -> None:
    """Print the table of some runs' folders."""
    records, rows = read_json(boxes), []
    for run in runs:
        file = load_scores(Path(run) / "scores.npz")
        if not set(file.ids) <= set(records):
            raise DataError(f"{run}/scores.npz: of other images than {boxes}")
        sizes = object_sizes(records, file.ids, file.classes)
        rows.append([run, *("-" if value is None else f"{value:.1f}" for value in map_by_size(file.scores, sizes))])
    header = ["run", *(f"{100 * low:g} to {100 * high:g}%" for low, high in zip(SIZES, SIZES[1:]))]
    print(format_table(header, rows))


if __name__ == "__main__":
    parser = FlagParser(__doc__, "python -m mini.by_size")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs with a scores.npz of eval.py")
    parser.add_argument("--boxes", default="data/mini/boxes.json", help="of the world (default: data/mini/boxes.json)")
    run_main(lambda: main(**vars(parser.parse_args())))
