"""Finished runs, read from their folders and grouped: runs that differ in nothing but the seed belong together."""
from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from datasets.files import DataError, PathLike, read_json
from engine.command_line.method_flags import SAID_BY_TITLE, TRAINED_METHODS
from engine.command_line.older_runs import complete_flags
from engine.command_line.train_flags import default_flags
from engine.command_line.unread_flags import TAKEN_BACK, unread_flags
from engine.results.studies import REFERENCE
from engine.results.tables import NO_MAP, Statistic, weights_label

PLACES = frozenset((
    "train_img_root", "train_split_file", "val_img_root", "val_split_file", "model_path", "activation", "caption_root",
    "feature_root", "output_dir", "config", "resume", "overwrite", "logger", "unlabelled_test", "device", "num_workers",
    "encode_batch_size", "compile", "no_feature_store", "skip_unreadable", "resnet_weights", "zoom", "seed", "dataset",
    "method", "keep_crop_features"))
"""Flags that say where and how a run was made, or which of several equal runs it is; not what was trained."""

F1_MEASURES = {"OF1": "last_OF1", "CF1": "last_CF1"}
"""F1 of tags over all pairs of image and class, and over the classes' means; their entries of result.json. A
`FinishedRun` has them only where the threshold was found by the one rule for all methods."""


def settings_of(flags: Mapping[str, Any]) -> Dict[str, Any]:
    """Of all flags of a run those that decide what is trained: no places, no seed, nothing that does nothing there."""
    if flags.get("no_feature_store"):  # features are rounded as a store of fp16 does
        flags = {**flags, "no_feature_store": False, "patch_dtype": "fp16"}
    unread = unread_flags(flags)
    return {flag: value for flag, value in flags.items() if flag not in PLACES and flag not in unread}


@dataclass(frozen=True)
class FinishedRun:
    """The folder of one finished run."""

    folder: Path
    args: Dict[str, Any]
    """The flags of config.json, completed by those that are younger."""
    result: Dict[str, Any]
    """result.json."""
    weights_sha256: Optional[str]
    """Digest of the CLIP weights, where config.json has it."""
    data_sha256: Optional[str]
    """Digest of the images, test labels and captions, where config.json has it."""

    @property
    def settings(self) -> Dict[str, Any]:
        """The flags that decide what is trained, the seed apart."""
        return settings_of(self.args)

    @property
    def zoom(self) -> int:
        """Tiles a side with which the last epoch was also scored, 0 without `--zoom`."""
        return self.result.get("zoom", self.args.get("zoom")) or 0  # younger results say which they are of

    @property
    def history(self) -> List[Tuple[int, float]]:
        """(epoch, mAP on the test images) of every line of log.txt."""
        lines = [json.loads(line) for line in (self.folder / "log.txt").read_text(encoding="utf-8").splitlines()]
        return [(line["epoch"], line["mAP"]) for line in lines if "mAP" in line]


class Experiment(NamedTuple):
    """What the runs of a group measure: numbers of different experiments do not belong into one column."""

    dataset: str
    split: str
    """File name of the test split, with the digest of the data where runs of the same settings had others."""
    weights: str
    """File name of the CLIP weights as `weights_label`, with their digest where two files of a name differ."""


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but the seed."""

    experiment: Experiment
    method: str
    title: str
    """The method's name in tables; a port to another backbone says so."""
    settings: Dict[str, Any]
    runs: Tuple[FinishedRun, ...]
    """In the order of their seeds, each seed once."""

    @cached_property
    def off_defaults(self) -> Dict[str, Any]:
        """The flags that are not at the defaults of the method, less those that its title says."""
        if self.method not in TRAINED_METHODS or not self.runs[0].result["epochs"]:
            changed = changed_flags(self.settings, settings_of(complete_flags({"method": self.method})))
            return {flag: value for flag, value in changed.items() if flag not in SAID_BY_TITLE.get(self.method, ())}
        defaults = default_flags(self.experiment.dataset, self.method, self.settings.get("backbone"),
                                 self.settings.get("recipe", "paper"), self.settings.get("encoder", "clip"))
        return changed_flags(self.settings, defaults)

    def changed_from(self, reference: RunGroup) -> Dict[str, Any]:
        """The flags that have another value in another group. A flag that does nothing there is none of them where it
        would have the same value."""
        unread = reference.runs[0].args if reference.method == self.method else {}
        return changed_flags(self.settings, {**unread, **reference.settings})

    @property
    def seeds(self) -> List[int]:
        """The seeds, ascending."""
        return [run.result["seed"] for run in self.runs]

    def statistic(self, key: str) -> Optional[Statistic]:
        """Mean and deviation of an entry of result.json over the runs; None where one of them has none."""
        values = [run.result[key] for run in self.runs if run.result.get(key) is not None]
        return Statistic.of(values) if len(values) == len(self.runs) else None

    def differences(self, other: RunGroup, key: str) -> Optional[Statistic]:
        """This group minus another, seed by seed over the seeds that both have; None where they share none."""
        theirs = {run.result["seed"]: run.result[key] for run in other.runs}
        values = [run.result[key] - theirs[run.result["seed"]] for run in self.runs if run.result["seed"] in theirs]
        return Statistic.of(values) if values else None


_Key = Tuple[Experiment, str, str, str]
"""What the runs of a group share: experiment, method, title and settings."""


class Collection(NamedTuple):
    """What was found under some folders."""

    groups: List[RunGroup]
    left_out: List[str]
    """Why a folder with a run in it does not count, one line each."""


def collect_runs(folders: Sequence[PathLike], nested: bool = True) -> Collection:
    """Find all finished runs in `folders` and below, and group them.

    A run is finished where its result.json tells of as many epochs as its config.json asks for. Two runs of a
    group with the same seed are the same run twice: the first counts.

    Args:
        folders: of runs, or folders that hold some.
        nested: False for the runs in the folders themselves and their seed_N alone, not what lies below them, such as
            the control in runs/mini/no_reso.

    Raises:
        DataError: a folder is missing, a file is damaged, or no finished run is there.
    """
    runs, left_out = [], []
    for folder in _run_folders(folders, nested):
        run = read_run(folder)
        if run is None:
            left_out.append(f"{folder}: the run is not finished; the same command goes on with it")
        elif run.result["last_mAP"] is None:
            left_out.append(f"{folder}: {NO_MAP}")
        else:
            runs.append(run)
    if not runs:
        reason = f" ({left_out[0]})" if left_out else ""
        raise DataError(f"{', '.join(map(str, folders))}: no finished run with an mAP is there{reason}; train one, or "
                        "give --runs its folder")
    keys = [(_experiment(run, runs), run.result["method"], run.result["title"],
             json.dumps(run.settings, sort_keys=True)) for run in runs]
    digests: Dict[_Key, Set[str]] = defaultdict(set)
    for run, key in zip(runs, keys):
        digests[key].update(filter(None, (run.data_sha256,)))
    buckets: Dict[_Key, Dict[int, FinishedRun]] = defaultdict(dict)
    for run, key in zip(runs, keys):
        if len(digests[key]) > 1:  # the same flags with other images or captions are another experiment
            split = f"{key[0].split}, data {(run.data_sha256 or 'unknown')[:8]}"
            key = (key[0]._replace(split=split), *key[1:])
        first = buckets[key].setdefault(run.result["seed"], run)
        if first is not run:
            left_out.append(f"{run.folder}: the same run as {first.folder}, which counts")
    groups = [RunGroup(experiment, method, title, next(iter(bucket.values())).settings,
                       tuple(bucket[seed] for seed in sorted(bucket)))
              for (experiment, method, title, _), bucket in buckets.items()]
    return Collection(groups, left_out)


def _experiment(run: FinishedRun, runs: Sequence[FinishedRun]) -> Experiment:
    """What a run measures, by the names of its files."""
    return Experiment(run.result["dataset"], Path(run.args["val_split_file"]).name, _weights_name(run, runs))


def _weights_name(run: FinishedRun, runs: Sequence[FinishedRun]) -> str:
    label = weights_label(run.result)
    digests = {other.weights_sha256 for other in runs if weights_label(other.result) == label and other.weights_sha256}
    return f"{label} {(run.weights_sha256 or 'unknown')[:8]}" if len(digests) > 1 else label


def _run_folders(folders: Sequence[PathLike], nested: bool) -> List[Path]:
    """Every folder with a config.json, each once, in the order given and then by name."""
    found: Dict[Path, Path] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            if folder.exists():
                continue  # `runs/*` also names files
            raise DataError(f"{folder}: no such folder; give --runs the output folders of train scripts")
        paths = folder.rglob("config.json") if nested else [*folder.glob("config.json"),
                                                             *folder.glob("seed_*/config.json")]
        for path in sorted(paths):
            found.setdefault(path.parent.resolve(), path.parent)
    return list(found.values())


_RESULT: Dict[str, Any] = {"dataset": str, "method": str, "title": str, "weights": str, "seed": int, "epochs": int,
           "last_mAP": (int, float, type(None))}
"""Types of what a result.json has in any case; without test labels the mAP is null."""


def read_run(folder: PathLike) -> Optional[FinishedRun]:
    """The run in a folder, or None while it is not finished.

    Raises:
        DataError: its config.json or result.json is not what a train script writes.
    """
    config_path, result_path = Path(folder) / "config.json", Path(folder) / "result.json"
    if not result_path.exists():
        return None
    config, result = read_json(config_path), read_json(result_path)
    args = config.get("args") if isinstance(config, dict) else None
    if not isinstance(args, dict) or not isinstance(args.get("val_split_file"), str) \
            or not isinstance(args.get("epochs", 0), int) or not all(
                isinstance(config.get(name, ""), str) for name in ("weights_sha256", "data_sha256")):
        raise DataError(f"{config_path}: not the config.json of a run; leave the folder out")
    if not isinstance(result, dict) or not all(isinstance(result.get(key, ()), kind) for key, kind in _RESULT.items()):
        raise DataError(f"{result_path}: not the result.json of a run; leave the folder out")
    if result["epochs"] < args.get("epochs", 0):  # a method without training has no such flag
        return None
    if result.get("threshold") is None or args.get("threshold") is not None:
        result = {**result, **dict.fromkeys(F1_MEASURES.values())}  # of tags that another rule chose
    return FinishedRun(Path(folder), complete_flags(args), result, config.get("weights_sha256"),
                       config.get("data_sha256"))


def changed_flags(settings: Mapping[str, Any], reference: Mapping[str, Any]) -> Dict[str, Any]:
    """The flags of `settings` that have another value in `reference`, or none."""
    return {flag: value for flag, value in settings.items() if flag not in reference or reference[flag] != value}


def reference_group(groups: Sequence[RunGroup]) -> RunGroup:
    """The group that the others are variants of: the one that a study put into its folder of the reference, else the
    one that differs from them in the fewest flags in all, and among equals the one that is nearest to the defaults of
    its train script."""
    def distance(group: RunGroup) -> Tuple[bool, int, int]:
        named = any(run.folder.parent.name == REFERENCE for run in group.runs)
        return (not named, sum(len(other.changed_from(group)) for other in groups),
                len(group.off_defaults))

    return min(groups, key=distance)


def format_flags(flags: Dict[str, Any]) -> str:
    """Flags as they are typed: `--no_gcn --k 8`."""
    words: List[str] = []
    for flag, value in flags.items():
        if value is False or value is None:
            words.append(TAKEN_BACK.get(flag, f"no --{flag}"))
        else:
            words.append(f"--{flag}" if value is True else f"--{flag} {value}")
    return " ".join(words)
