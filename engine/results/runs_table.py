"""One table of any set of runs, and how far what chooses without labels can be trusted to rank them; F1 of all
methods."""
from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from datasets.files import counted
from datasets.registry import DATASETS
from engine.command_line.method_flags import METHODS
from engine.results.finished_runs import F1_MEASURES, Collection, Experiment, RunGroup, format_flags
from engine.results.selection import CRITERION, common_criterion, criterion_title, selection_score
from engine.results.tables import NOTHING, Cell, Number, Table

MEASURES = {"mAP": "last_mAP", **{name: name for name in CRITERION}, **F1_MEASURES}
"""Columns with numbers, and their entries of result.json."""

F1_NOTE = ("OF1 and CF1: of tags at one threshold a run, found without true labels by one rule for all methods. A run "
           "that is older than the rule, had no captions for it, or was given --threshold has none.")
"""Below tables with F1."""

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
    return Table("All runs: percent, last epoch", header, rows, (*_trust(groups), F1_NOTE))


def f1_table(collection: Collection) -> Table:
    """OF1 and CF1 of every method on every dataset, at the threshold of the one rule, in the rows of `main_table`."""
    headline = headline_groups(collection.groups)
    columns = columns_of(headline)
    rows: Dict[Tuple[str, str], Dict[Tuple[Tuple[str, str], str], Number]] = {}
    for group in sorted(headline, key=_row_order):
        cells = rows.setdefault((group_title(group), group.experiment.weights), {})
        for name, key in F1_MEASURES.items():
            statistic = group.statistic(key)
            if statistic is not None:
                cells[(group.experiment.dataset, group.experiment.split), name] = Number(statistic, digits=1)
    header = ["method", "CLIP weights",
              *(f"{dataset_title(*column)}: {name}" for column in columns for name in F1_MEASURES)]
    table: List[Tuple[Cell, ...]] = [
        (*row, *(cells.get((column, name), NOTHING) for column in columns for name in F1_MEASURES))
        for row, cells in rows.items()]
    return Table("F1 of the tags in percent", tuple(header), table, (seeds_note(headline), F1_NOTE))


def _row_order(group: RunGroup) -> Tuple[bool, int, str]:
    """Ours last."""
    return group.title.startswith("BAC-GCN"), METHODS.index(group.method), group.title


def _trust(groups: Sequence[RunGroup]) -> List[str]:
    """How what chooses without labels ranks the rows of each dataset, where enough of them held images out."""
    of_dataset: Dict[Tuple[str, str], List[RunGroup]] = {}
    for group in groups:
        if group.statistic("pseudo_mAP") is not None:
            of_dataset.setdefault((group.experiment.dataset, group.experiment.split), []).append(group)
    notes = []
    for place, held_out in of_dataset.items():
        if len(held_out) >= FEWEST:
            from scipy.stats import spearmanr  # slow to import, and most commands make no such table

            records = [{name: _mean(group, name) for name in CRITERION if group.statistic(name)} for group in held_out]
            criterion = common_criterion(records)
            pairs = [(selection_score(record, criterion), _mean(group, "last_mAP"))
                     for record, group in zip(records, held_out)]
            lost = max(true for _, true in pairs) - max(pairs)[1]
            without = "" if criterion == CRITERION else " (not all of them have a pseudo_AP)"
            notes.append(f"{dataset_title(*place)}: over the {counted(len(pairs), 'row')} with held-out images the "
                         f"rank correlation of {criterion_title(criterion)}{without} with the mAP is "
                         f"{spearmanr(*zip(*pairs)).statistic:.2f}; the row that it would choose is {lost:.2f} mAP "
                         "below the best.")
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


def headline_groups(groups: Sequence[RunGroup]) -> List[RunGroup]:
    """Of each method in each experiment, the groups with the fewest flags off their defaults."""
    buckets: Dict[Tuple[Experiment, str], List[RunGroup]] = {}
    for group in groups:
        buckets.setdefault((group.experiment, group.title), []).append(group)
    headline = []
    for bucket in buckets.values():
        fewest = min(len(group.off_defaults) for group in bucket)
        headline += [group for group in bucket if len(group.off_defaults) == fewest]
    return headline


def seeds_note(groups: Sequence[RunGroup]) -> str:
    """How many seeds the rows of a table stand for."""
    counts = sorted({len(group.runs) for group in groups})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    spread = "; mean ± standard deviation over them" if counts[-1] > 1 else ""
    return f"Ours: last epoch, {seeds} seed{'s' if counts != [1] else ''} a row{spread}."


def columns_of(groups: Sequence[RunGroup]) -> List[Tuple[str, str]]:
    """(dataset, test split) of all groups, in the order of tables."""
    return sorted({(group.experiment.dataset, group.experiment.split) for group in groups}, key=_column_order)


def _column_order(column: Tuple[str, str]) -> Tuple[int, str, str]:
    dataset, split = column
    return list(DATASETS).index(dataset) if dataset in DATASETS else len(DATASETS), dataset, split
