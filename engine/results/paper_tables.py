"""Tables from finished runs, as Markdown, LaTeX and CSV: results beside the paper's, and the studies' variants."""
from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from datasets.files import DataError, PathLike, atomic_write, counted
from engine.command_line.method_flags import METHODS, method_title, untrained_title, zoom_title
from engine.command_line.older_runs import complete_flags
from engine.results.finished_runs import (
    Collection,
    Experiment,
    RunGroup,
    collect_runs,
    format_flags,
    reference_group,
)
from engine.results.published_results import published_maps, sources_note
from engine.results.runs_table import (
    columns_of,
    dataset_title,
    f1_table,
    group_title,
    headline_groups,
    runs_table,
    seeds_note,
)
from engine.results.studies import CHOICES, COMPONENTS, HYPERPARAMETERS, study_of, variant_of
from engine.results.tables import NOTHING, Cell, Number, Statistic, Table

# ---- the tables -----------------------------------------------------------------------------------------------

def main_table(collection: Collection) -> Table:
    """mAP of every method on every dataset, the paper's number beside ours.

    Of several configurations of a method the one that is nearest to its defaults stands here; where it is not at
    its defaults, its flags are named. Rows of different CLIP weights are kept apart.
    """
    headline = headline_groups(collection.groups)
    columns = columns_of(headline)
    with_paper = {column: bool(published_maps(column[0])) for column in columns}
    rows: Dict[Tuple[str, str], Dict[Tuple[str, str], Number]] = {}
    for group in sorted(headline, key=lambda group: (METHODS.index(group.method), group.title)):
        column = (group.experiment.dataset, group.experiment.split)
        for name, statistic in _measures(group):
            rows.setdefault((name, group.experiment.weights), {})[column] = Number(statistic, digits=1)
    table: List[Tuple[Cell, ...]] = []
    header = ["method", "CLIP weights"]
    for column in columns:
        title = dataset_title(*column)
        header += [f"{title}: paper", f"{title}: ours"] if with_paper[column] else [title]
    reported = dict.fromkeys(name for column in columns for name in published_maps(column[0]))
    measured = {name for name, _ in rows}
    for name in reported:
        if name not in measured:
            table.append((name, NOTHING, *_main_cells(name, {}, columns, with_paper)))
    table += [(name, weights, *_main_cells(name, values, columns, with_paper))
              for (name, weights), values in sorted(rows.items(), key=lambda item: item[0][0].startswith("BAC-GCN"))]
    notes = [seeds_note(headline)]
    if left_out := len(collection.groups) - len(headline):
        notes.append(f"Left out: {counted(left_out, 'configuration')} further from the defaults; --table runs has all.")
    if reported:
        notes.append(sources_note(list(reported)))
    return Table("mAP in percent", tuple(header), table, tuple(notes))


def _main_cells(name: str, values: Dict[Tuple[str, str], Number], columns: Sequence[Tuple[str, str]],
                with_paper: Dict[Tuple[str, str], bool]) -> List[Cell]:
    cells: List[Cell] = []
    for column in columns:
        if with_paper[column]:
            reported = published_maps(column[0]).get(name)
            cells.append(NOTHING if reported is None else f"{reported:.1f}")
        cells.append(values.get(column, NOTHING))
    return cells


def _measures(group: RunGroup) -> List[Tuple[str, Statistic]]:
    """(name of a row, its number) of all that a group's runs measured."""
    name = group_title(group)
    measures = [(name, group.statistic("last_mAP"))]
    if group.method == "bac_gcn":
        measures = [(_untrained_row(group), group.statistic("zero_shot_mAP")), *measures,
                    (f"{name}, best epoch ({_best_by(group)})", group.statistic("best_mAP"))]
        for zoom in sorted({run.zoom for run in group.runs if run.result.get("zoom_mAP") is not None}):
            part = replace(group, runs=tuple(run for run in group.runs if run.zoom == zoom))
            measures.append((f"{name}, {zoom_title(zoom)}", part.statistic("zoom_mAP")))
    return [(row, statistic) for row, statistic in measures if statistic is not None]


_READ_WITHOUT_TRAINING = ("min_positives", "encoder_dim", "encoder_reduction", "encoder_whiten", "encoder_seed")
"""Flags of a training that move the number without training, beside those in the title of zero-shot CLIP."""

_READ_BY_PROTOTYPES = ("resolution", "labels", "val_share")
"""As well, where it is that of caption prototypes."""


def _untrained_row(group: RunGroup) -> str:
    """What the row of a run's encoder without training is called: as `eval.py` calls it, on the same flags."""
    settings, encoder = group.settings, group.settings.get("encoder", "clip")
    read = _READ_WITHOUT_TRAINING if encoder == "clip" else _READ_WITHOUT_TRAINING + _READ_BY_PROTOTYPES
    flags = {flag: value for flag, value in group.off_defaults.items() if flag in read}
    title = untrained_title(encoder)
    if encoder == "clip":
        asked = {flag: settings.get(flag) for flag in ("prompts", "resolution")}
        title = method_title(argparse.Namespace(**{**complete_flags({"method": "clip"}), **asked}), "")
    return f"{title} ({format_flags(flags)})" if flags else title


def _best_by(group: RunGroup) -> str:
    """How the best epoch was chosen."""
    return ("by pseudo-labels of held-out training images" if group.settings.get("val_share")
            else "chosen on the test images")


def ablation_table(collection: Collection) -> Table:
    """The method with one component less at a time, or with flags that are in no study, and the change seed by seed."""
    return _variants_table(collection, "Components", "components", None)


def choices_table(collection: Collection) -> Table:
    """The method with one other choice at a time where the paper is silent, and the change seed by seed."""
    return _variants_table(collection, "What the paper leaves open", "choices")


def _variants_table(collection: Collection, title: str, study: str, *others: Optional[str]) -> Table:
    rows: List[Tuple[Cell, ...]] = []
    blocks = _variants(collection, study, *others)
    for block in blocks:
        for group, changed in block.variants:
            name = group.title if not changed else variant_title(changed)
            rows.append((*block.place(len(blocks)), name, format_flags(changed) or NOTHING,
                         *_effect(group, block.reference)))
    _need(rows, study)
    header = (*_Block.place_header(len(blocks)), "variant", "flags", "mAP", "change", "seeds")
    return Table(f"{title}: mAP in percent, last epoch", header, rows, _study_notes(blocks))


def hyper_table(collection: Collection) -> Table:
    """The method with one hyperparameter at another value at a time, in the order of the values."""
    rows: List[Tuple[Cell, ...]] = []
    blocks = _variants(collection, "hyper")
    for block in blocks:
        for flag, sweep in HYPERPARAMETERS.items():
            own = {changed[flag]: group for group, changed in block.variants if flag in changed}
            if own:
                used = block.reference.settings[flag]
                own[used] = block.reference
                rows += [(*block.place(len(blocks)), sweep.title, f"{value:g}" + " (reference)" * (value == used),
                          *_effect(own[value], block.reference)) for value in sorted(own)]
    _need(rows, "hyper")
    header = (*_Block.place_header(len(blocks)), "hyperparameter", "value", "mAP", "change", "seeds")
    return Table("Hyperparameters: mAP in percent, last epoch", header, rows, _study_notes(blocks))


class _Block(NamedTuple):
    """The variants of one method on one dataset and weights, with their difference from the reference."""

    reference: RunGroup
    variants: List[Tuple[RunGroup, Dict[str, Any]]]
    """The reference first."""

    def place(self, blocks: int) -> Tuple[str, ...]:
        """Cells that say which dataset a row belongs to, where there are several."""
        experiment = self.reference.experiment
        title = dataset_title(experiment.dataset, experiment.split)
        return (f"{title}, {self.reference.title}, {experiment.weights}",) if blocks > 1 else ()

    @staticmethod
    def place_header(blocks: int) -> Tuple[str, ...]:
        return ("dataset and weights",) if blocks > 1 else ()


def _variants(collection: Collection, *studies: Optional[str]) -> List[_Block]:
    """The variants that belong to one of the studies (None: to no study), with their references."""
    buckets: Dict[Tuple[Experiment, str], List[RunGroup]] = {}
    for group in collection.groups:
        if group.method == "bac_gcn":
            buckets.setdefault((group.experiment, group.title), []).append(group)
    blocks = []
    for bucket in buckets.values():
        reference = reference_group(bucket)
        changes = [(group, group.changed_from(reference)) for group in bucket]
        picked = [(group, changed) for group, changed in changes if changed and study_of(changed) in studies]
        if picked:
            blocks.append(_Block(reference, [(reference, {}), *sorted(picked, key=_study_order)]))
    return blocks


def _study_order(variant: Tuple[RunGroup, Dict[str, Any]]) -> int:
    """Variants in the order of their study, other combinations of flags last."""
    studied = COMPONENTS + CHOICES
    known = variant_of(variant[1])
    return studied.index(known) if known else len(studied)


def variant_title(changed: Dict[str, Any]) -> str:
    """What a variant is called: its title in a study, or else its flags."""
    known = variant_of(changed)
    return known.title if known else f"with {format_flags(changed)}"


def _effect(group: RunGroup, reference: RunGroup) -> Tuple[Cell, Cell, Cell]:
    """mAP, the change from the reference over the seeds that both have, and the seeds."""
    measured = group.statistic("last_mAP")
    change = None if group is reference else group.differences(reference, "last_mAP")
    return (NOTHING if measured is None else Number(measured),
            NOTHING if change is None else Number(change, signed=True), ", ".join(map(str, group.seeds)))


def _need(rows: Sequence[Tuple[Cell, ...]], study: str) -> None:
    if not rows:
        raise DataError(f"no two runs to compare are there; make them with `python ablate.py --dataset NAME "
                        f"--study {study}`, and give --runs its output folder")


def _study_notes(blocks: Sequence[_Block]) -> Tuple[str, ...]:
    notes = []
    for block in blocks:
        experiment = block.reference.experiment
        changed = block.reference.off_defaults
        flags = f", all with {format_flags(changed)}" if changed else ""
        title = dataset_title(experiment.dataset, experiment.split)
        kind = "CLIP " if block.reference.settings.get("encoder", "clip") == "clip" else ""
        notes.append(f"{title}, {block.reference.title}, {kind}weights {experiment.weights}{flags}.")
    return (*notes, "Change: against the method as it is, seed by seed over the seeds that both have. "
                    "± is the standard deviation over seeds.")


# ---- writing --------------------------------------------------------------------------------------------------

TABLES = {"main": main_table, "f1": f1_table, "ablation": ablation_table, "choices": choices_table,
          "hyper": hyper_table, "runs": runs_table}
"""`--table`: what makes each from the runs that were found."""

TABLE_OF_STUDY = {"components": "ablation", "choices": "choices", "hyper": "hyper"}
"""The table of each study of `ablate.py`."""


def write_table(kind: str, runs: Sequence[PathLike], folder: PathLike, nested: bool = True) -> str:
    """Collect finished runs into a table and write it as KIND.md, KIND.tex and KIND.csv.

    Args:
        kind: one of `TABLES`.
        runs: folders of runs, or folders that hold some.
        folder: gets the three files.
        nested: see `collect_runs`.

    Returns:
        The table and what was left out, for the screen.
    """
    collection = collect_runs(runs, nested)
    table = TABLES[kind](collection)
    folder = Path(folder)
    for suffix, text in (("md", table.to_markdown()), ("tex", table.to_latex())):
        with atomic_write(folder / f"{kind}.{suffix}") as file:
            file.write(text)
    with atomic_write(folder / f"{kind}.csv") as file:
        csv.writer(file, lineterminator="\n").writerows(table.to_csv())
    lines = [table.to_markdown(), *(f"left out: {reason}" for reason in collection.left_out)]
    return "\n".join([*lines, f"written to {folder}: {kind}.md, {kind}.tex, {kind}.csv"])
