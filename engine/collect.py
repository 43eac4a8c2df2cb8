"""Finished runs, read from their folders and grouped: runs that differ in nothing but the seed belong together."""
from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from datasets.files import DataError, PathLike, read_json
from engine.options import get_args_parser
from engine.tables import Statistic

PLACES = frozenset((
    "train_img_root", "train_split_file", "val_img_root", "val_split_file", "model_path", "caption_root",
    "feature_root", "output_dir", "config", "resume", "overwrite", "device", "num_workers", "encode_batch_size",
    "no_feature_store", "zoom", "seed", "seeds", "dataset"))
"""Flags that say where and how a run was made, or which of several equal runs it is; not what was trained."""


@dataclass(frozen=True)
class FinishedRun:
    """The folder of one finished run."""

    folder: Path
    args: Dict[str, Any]
    """The flags of config.json."""
    result: Dict[str, Any]
    """result.json."""

    @property
    def settings(self) -> Dict[str, Any]:
        """The flags that decide what is trained, the seed apart."""
        return {flag: value for flag, value in self.args.items() if flag not in PLACES}

    @property
    def history(self) -> List[Tuple[int, float]]:
        """(epoch, mAP on the test images) of every line of log.txt."""
        lines = [json.loads(line) for line in (self.folder / "log.txt").read_text(encoding="utf-8").splitlines()]
        return [(line["epoch"], line["mAP"]) for line in lines]


class Experiment(NamedTuple):
    """What the runs of a group measure: numbers of different experiments do not belong into one column."""

    dataset: str
    split: str
    """File name of the test split."""
    weights: str
    """File name of the CLIP weights."""


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but the seed."""

    experiment: Experiment
    method: str
    settings: Dict[str, Any]
    runs: Tuple[FinishedRun, ...]
    """In the order of their seeds, each seed once."""

    @property
    def seeds(self) -> List[int]:
        """The seeds, ascending."""
        return [run.result["seed"] for run in self.runs]

    def statistic(self, key: str) -> Optional[Statistic]:
        """Mean and deviation of an entry of result.json over the runs that have it; None where none has."""
        values = [run.result[key] for run in self.runs if run.result.get(key) is not None]
        return Statistic.of(values) if values else None

    def differences(self, other: RunGroup, key: str) -> Optional[Statistic]:
        """This group minus another, seed by seed over the seeds that both have; None where they share none."""
        theirs = {run.result["seed"]: run.result[key] for run in other.runs}
        values = [run.result[key] - theirs[run.result["seed"]] for run in self.runs if run.result["seed"] in theirs]
        return Statistic.of(values) if values else None


class Collection(NamedTuple):
    """What was found under some folders."""

    groups: List[RunGroup]
    left_out: List[str]
    """Why a folder with a run in it does not count, one line each."""


def collect_runs(folders: Sequence[PathLike]) -> Collection:
    """Find all finished runs in `folders` and below, and group them.

    A run is finished where its result.json tells of as many epochs as its config.json asks for. Two runs of a
    group with the same seed are the same run twice: the first counts.

    Raises:
        DataError: a folder is missing, a file is damaged, or no finished run is there.
    """
    runs, left_out = [], []
    for folder in _run_folders(folders):
        run = read_run(folder)
        if run is None:
            left_out.append(f"{folder}: the run is not finished; the same command goes on with it")
        else:
            runs.append(run)
    if not runs:
        raise DataError(f"{', '.join(map(str, folders))}: no finished run is there; train one, or give --runs its "
                        "folder")
    buckets: Dict[Tuple[Experiment, str, str], Dict[int, FinishedRun]] = defaultdict(dict)
    for run in runs:
        result = run.result
        experiment = Experiment(result["dataset"], Path(run.args["val_split_file"]).name, result["weights"])
        bucket = buckets[experiment, result["method"], json.dumps(run.settings, sort_keys=True)]
        first = bucket.setdefault(result["seed"], run)
        if first is not run:
            left_out.append(f"{run.folder}: the same run as {first.folder}, which counts")
    groups = [RunGroup(experiment, method, next(iter(bucket.values())).settings,
                       tuple(bucket[seed] for seed in sorted(bucket)))
              for (experiment, method, _), bucket in buckets.items()]
    return Collection(groups, left_out)


def _run_folders(folders: Sequence[PathLike]) -> List[Path]:
    """Every folder with a config.json, each once, in the order given and then by name."""
    found: Dict[Path, Path] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            if folder.exists():
                continue  # `runs/*` also names files
            raise DataError(f"{folder}: no such folder; give --runs the output folders of train scripts")
        for path in sorted(folder.rglob("config.json")):
            found.setdefault(path.parent.resolve(), path.parent)
    return list(found.values())


def read_run(folder: PathLike) -> Optional[FinishedRun]:
    """The run in a folder, or None while it is not finished.

    Raises:
        DataError: its config.json or result.json is not what a train script writes.
    """
    config_path, result_path = Path(folder) / "config.json", Path(folder) / "result.json"
    if not result_path.exists():
        return None
    config, result = read_json(config_path), read_json(result_path)
    keys = {"dataset", "method", "weights", "seed", "epochs", "last_mAP"}
    if not isinstance(config, dict) or not isinstance(config.get("args"), dict):
        raise DataError(f"{config_path}: not the config.json of a run; leave the folder out")
    if not isinstance(result, dict) or keys - set(result):
        raise DataError(f"{result_path}: not the result.json of a run; leave the folder out")
    if result["epochs"] < config["args"].get("epochs", 0):
        return None
    return FinishedRun(Path(folder), config["args"], result)


def changed_flags(settings: Dict[str, Any], reference: Dict[str, Any]) -> Dict[str, Any]:
    """The flags of `settings` that have another value in `reference`, or none."""
    return {flag: value for flag, value in settings.items() if flag not in reference or reference[flag] != value}


def default_settings(dataset: str) -> Dict[str, Any]:
    """The settings of a train script that is given no flag."""
    defaults = vars(get_args_parser(dataset, None).parse_args([]))
    return {flag: value for flag, value in defaults.items() if flag not in PLACES}


def reference_group(groups: Sequence[RunGroup]) -> RunGroup:
    """The group that the others are variants of: the one that differs from them in the fewest flags in all, and
    among equals the one that is nearest to the defaults of its train script."""
    def distance(group: RunGroup) -> Tuple[int, int]:
        return (sum(len(changed_flags(other.settings, group.settings)) for other in groups),
                len(changed_flags(group.settings, default_settings(group.experiment.dataset))))

    return min(groups, key=distance)


def format_flags(flags: Dict[str, Any]) -> str:
    """Flags as they are typed: `--no_gcn --k 8`."""
    words: List[str] = []
    for flag, value in flags.items():
        words.append(f"--{flag}" if value is True else f"no --{flag}" if value is False or value is None
                     else f"--{flag} {value}")
    return " ".join(words)
