"""One table of any set of runs, and how far pseudo_mAP can be trusted to rank them."""
from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from datasets.registry import DATASETS
from engine.results.finished_runs import Collection, RunGroup, format_flags
from engine.results.tables import NOTHING, Cell, Number, Table

MEASURES = {"mAP": "last_mAP", "pseudo_mAP": "pseudo_mAP"}
"""Columns with numbers, and their entries of result.json."""

FEWEST = 4
"""Rows that a rank correlation takes."""


def runs_table(collection: Collection) -> Table:
    """Every group of runs that differ in the seed alone, a row each, the highest mAP of a dataset first."""
    groups = sorted(collection.groups, key=lambda group: (group.experiment, -_mean(group, "last_mAP")))
    rows: List[Tuple[Cell, ...]] = []
    for group in groups:
        measured = (group.statistic(key) for key in MEASURES.values())
        rows.append((dataset_title(group.experiment.dataset, group.experiment.split), group.experiment.weights,
                     group.title, format_flags(group.off_defaults) or NOTHING,
                     *(NOTHING if statistic is None else Number(statistic) for statistic in measured),
                     ", ".join(map(str, group.seeds))))
    header = ("dataset", "CLIP weights", "method", "flags", *MEASURES, "seeds")
    return Table("All runs: mAP in percent, last epoch", header, rows, tuple(_trust(groups)))


def _trust(groups: Sequence[RunGroup]) -> List[str]:
    """How pseudo_mAP ranks the rows of each dataset, where enough of them held images out."""
    of_dataset: Dict[Tuple[str, str], List[Tuple[float, float]]] = {}
    for group in groups:
        if group.statistic("pseudo_mAP") is not None:
            of_dataset.setdefault((group.experiment.dataset, group.experiment.split), []).append(
                (_mean(group, "pseudo_mAP"), _mean(group, "last_mAP")))
    notes = []
    for place, pairs in of_dataset.items():
        if len(pairs) >= FEWEST:
            from scipy.stats import spearmanr  # slow to import, and most commands make no such table

            lost = max(true for _, true in pairs) - max(pairs)[1]
            notes.append(f"{dataset_title(*place)}: over the {len(pairs)} rows with a pseudo_mAP its rank correlation "
                         f"with the mAP is {spearmanr(*zip(*pairs)).statistic:.2f}; the row that it would choose is "
                         f"{lost:.2f} mAP below the best.")
    return notes


def _mean(group: RunGroup, key: str) -> float:
    statistic = group.statistic(key)
    return float("nan") if statistic is None else statistic.mean


def group_title(group: RunGroup) -> str:
    """What a row of the group's runs is called: the method, and its flags where they are not at their defaults."""
    changed = group.off_defaults
    return f"{group.title} ({format_flags(changed)})" if changed else group.title


def dataset_title(dataset: str, split: str) -> str:
    """The dataset's title, with the file of the test split where it is not the usual one."""
    if dataset not in DATASETS:
        return f"{dataset}, {split}"
    spec = DATASETS[dataset]
    return spec.title if split == Path(spec.val_split_file).name else f"{spec.title}, {split}"
