"""Choosing without a true label: the criterion, a grid of flags, and successive halving."""
from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

from datasets.files import DataError, PathLike, counted, read_json, write_json
from engine.command_line.older_runs import complete_flags
from engine.results.finished_runs import PLACES, changed_flags, format_flags
from engine.results.studies import Variant
from engine.results.tables import NOTHING, Cell, Table

CHOSEN = "chosen.json"

CRITERION = ("pseudo_mAP", "pseudo_AP")
"""Entries of an epoch's record and of result.json whose mean compares epochs, runs and variants: together they rank
variants closer to the true mAP than pseudo_mAP does alone (docs/recipes.md)."""


def common_criterion(records: Iterable[Mapping[str, Any]]) -> Tuple[str, ...]:
    """The entries to compare these records by: pseudo_mAP alone where one of them is from before pseudo_AP, since
    scores of two kinds cannot be compared."""
    return CRITERION if all(record.get("pseudo_AP") is not None for record in records) else ("pseudo_mAP",)


def selection_score(record: Mapping[str, Any], criterion: Sequence[str]) -> float:
    """What a record of held-out images is compared by, in percent; higher is better.

    Args:
        record: of an epoch, a result.json, or means over seeds.
        criterion: `common_criterion` of all that are compared.
    """
    return sum(record[name] for name in criterion) / len(criterion)


def criterion_title(criterion: Sequence[str]) -> str:
    """The criterion within a sentence."""
    return criterion[0] if len(criterion) == 1 else f"the mean of {' and '.join(criterion)}"


def read_grid(parser: argparse.ArgumentParser, words: Sequence[str]) -> List[Variant]:
    """`--grid k=2,4 lr=3e-4,1e-3`: every combination of the values; a switch takes true and false.

    Args:
        parser: of the train script, which knows the flags and their types.
        words: FLAG=VALUE,VALUE,...

    Raises:
        DataError: a word is none of these, or names no flag.
    """
    actions = {action.dest: action for action in parser._actions}
    axes: List[List[Tuple[str, Any]]] = []
    for word in words:
        flag, equals, values = word.partition("=")
        if not equals or flag not in actions or flag in PLACES:
            raise DataError(f"--grid {word}: not FLAG=VALUE,VALUE with a flag of training")
        switch = actions[flag].nargs == 0
        if switch and not set(values.split(",")) <= {"true", "false"}:
            raise DataError(f"--grid {word}: a switch takes true and false")
        axes.append([(flag, value == "true" if switch else getattr(parser.parse_args([f"--{flag}", value]), flag))
                     for value in values.split(",")])
    return [Variant("_".join(f"{flag}_{value}" for flag, value in point), format_flags(dict(point)), dict(point))
            for point in itertools.product(*axes)]


def budgets(epochs: int, count: int) -> List[int]:
    """Epochs of each round of successive halving over `count` variants: twice as many a round, `epochs` in the last."""
    rounds = 1 + min(math.ceil(math.log2(max(count, 1))), int(math.log2(epochs)))
    return [max(1, epochs >> (rounds - 1 - number)) for number in range(rounds)]


class Ranked(NamedTuple):
    """A variant and how it fared."""

    variant: Variant
    scores: Tuple[float, ...]
    """Mean `selection_score` of its seeds after each round that it took part in."""


def halve(variants: Sequence[Variant], rounds: Sequence[int], score: Callable[[Variant, int], float]) -> List[Ranked]:
    """Successive halving (Jamieson and Talwalkar, AISTATS 2016): the better half of a round enters the next one.

    Args:
        variants: what is compared.
        rounds: epochs of each round.
        score: of a variant trained for so many epochs; higher is better.

    Returns:
        The best first: who came further, then by the last score.
    """
    ranking: List[Ranked] = [Ranked(variant, ()) for variant in variants]
    entered = len(ranking)
    for epochs in rounds:
        taking_part = [Ranked(variant, (*scores, score(variant, epochs))) for variant, scores in ranking[:entered]]
        ranking[:entered] = sorted(taking_part, key=lambda ranked: -ranked.scores[-1])
        entered = math.ceil(entered / 2)
    return ranking


def measured(folder: PathLike, settings: Dict[str, Any]) -> Dict[int, Dict[str, float]]:
    """The lines of log.txt by epoch, of the run in a folder, that tell of held-out images; {} where none has begun.

    Args:
        folder: output folder of a run.
        settings: the flags that it should have, whatever its number of epochs.

    Raises:
        DataError: the folder holds another run.
    """
    config, log = Path(folder) / "config.json", Path(folder) / "log.txt"
    if not config.exists() or not log.exists():
        return {}
    made = complete_flags(read_json(config)["args"])
    changed = changed_flags({flag: value for flag, value in settings.items() if flag not in {*PLACES, "epochs"}}, made)
    if changed:
        raise DataError(f"{folder}: made without {format_flags(changed)}; choose another --output_dir, or delete it")
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {record["epoch"]: record for record in records if "pseudo_mAP" in record}


def selection_table(ranking: Sequence[Ranked], rounds: Sequence[int], seeds: int, criterion: Sequence[str]) -> Table:
    """The ranking; no true label was read for it, and the test images took no part."""
    rows: List[Tuple[Cell, ...]] = [
        (str(place), ranked.variant.title, format_flags(ranked.variant.flags) or NOTHING,
         *(f"{score:.2f}" for score in ranked.scores), *[NOTHING] * (len(rounds) - len(ranked.scores)))
        for place, ranked in enumerate(ranking, start=1)]
    header = ("rank", "variant", "flags", *(f"after {counted(epochs, 'epoch')}" for epochs in rounds))
    return Table(f"Variants by {criterion_title(criterion)} in percent", header, rows, (
        f"{seeds} seed{'s' * (seeds > 1)} each, on training images that were held out, against their caption scores; "
        "the better half of a column goes on to the next.",
        *["A run that was there before has no pseudo_AP, so all are compared without."] * (criterion != CRITERION)))


def write_chosen(folder: PathLike, settings: Dict[str, Any]) -> Path:
    """Leave the flags of the chosen variant for `--config`; nothing is held out from then on."""
    path = Path(folder) / CHOSEN
    write_json(path, {"args": {**{flag: value for flag, value in settings.items() if flag not in PLACES},
                               "val_share": None}}, indent=1)
    return path
