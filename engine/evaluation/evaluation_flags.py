"""What `eval.py` is asked for: the flags that were typed, on top of those of the checkpoint's run."""
from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence

from datasets.files import DataError, check_folder, counted
from datasets.flag_parser import FlagParser
from datasets.registry import DATASETS, get_dataset
from engine.command_line.data_flags import DATA_DEFAULTS, fill_defaults
from engine.command_line.eval_flags import check_mode, mode_of
from engine.command_line.method_flags import EVAL_DEFAULTS
from engine.command_line.photo_flags import check_photo_flags, words_defaults
from engine.command_line.unread_flags import check_typed
from engine.training.checkpoint import Checkpoint, load_checkpoint


class Request(NamedTuple):
    """What `eval.py` is to do."""

    args: argparse.Namespace
    trained: Optional[Checkpoint]
    """The checkpoint, where one is given."""
    folder: Path
    """Gets the results: `--output_dir`, or beside the checkpoint, or the default of the method."""

    @property
    def suffix(self) -> str:
        """Of the names of result files. What is not measured as the run measured itself has names of its own."""
        if self.trained is None:
            return ""
        run = self.trained["args"]
        zoom = f"_zoom{self.args.zoom}" if self.args.zoom and self.args.zoom != run["zoom"] else ""
        if self.args.val_split_file == run["val_split_file"]:
            return zoom
        return f"{zoom}_on_{get_dataset(self.args.dataset).name}_{Path(self.args.val_split_file).stem}"

    @property
    def test_images(self) -> str:
        """What is evaluated on, in words; and what it was trained on, where that is another dataset."""
        text = f"test images of {self.args.val_split_file}, {get_dataset(self.args.dataset).title}"
        if self.trained is None or self.trained["args"]["dataset"] == self.args.dataset:
            return text
        return f"{text}; trained on {self.trained['args']['dataset']}"


def read_request(parser: FlagParser, argv: Optional[Sequence[str]] = None) -> Request:
    """The flags, with those of the checkpoint's run as defaults.

    A checkpoint may be evaluated on another split, and on another dataset of the same categories, with that dataset's
    images and split files.

    Raises:
        DataError: a flag does nothing, the checkpoint is missing or is of another method, or of other categories, or
            the results cannot be written.
    """
    given, typed = parser.parse_args(argv), parser.typed(argv)
    check_mode(given, typed)
    trained = load_checkpoint(given.checkpoint) if given.checkpoint else None
    parser.set_defaults(**(_run_flags(trained, given.dataset) if trained else EVAL_DEFAULTS.get(given.method, {})))
    args = parser.parse_args(argv)
    if trained and args.method not in ("clip", trained["args"]["method"]):
        raise DataError(f"{args.checkpoint}: a checkpoint of {trained['args']['method']}, not of {args.method}; leave "
                        "--method or --checkpoint out")
    if mode_of(args) in ("evaluation", "tags"):
        check_typed(args, typed, dict.fromkeys(trained["args"], args.checkpoint) if trained else {})
    if mode_of(args) == "tags":
        check_photo_flags(args)
    if trained:
        _check_categories(args, trained)
    args = words_defaults(args) if args.words else fill_defaults(args, trained is not None)
    beside = Path(args.checkpoint).parent if trained else Path(args.output_dir)
    request = Request(args, trained, Path(given.output_dir or beside))
    if given.output_dir or mode_of(args) != "tags":  # tags may go to files elsewhere
        check_folder(request.folder)
    return request


def _run_flags(trained: Checkpoint, dataset: Optional[str]) -> Dict[str, Any]:
    """The flags of the checkpoint's run, less its data where `--dataset` names another dataset."""
    flags: Dict[str, Any] = trained["args"]
    if dataset in (None, flags["dataset"]):
        return flags
    return {flag: value for flag, value in flags.items() if flag not in DATA_DEFAULTS}


def _check_categories(args: argparse.Namespace, trained: Checkpoint) -> None:
    trained_on: str = trained["args"]["dataset"]
    if args.dataset == trained_on and trained_on not in DATASETS and not Path(trained_on).exists():
        raise DataError(f"{trained_on}: no such file from the working folder, {os.getcwd()}; {args.checkpoint} was "
                        "trained on this description, so give its path by --dataset")
    spec, categories = get_dataset(args.dataset), tuple(trained["categories"])
    if categories not in (spec.classes, spec.categories):
        raise DataError(f"{args.checkpoint}: trained for the {counted(len(categories), 'category')} of "
                        f"{trained_on}, which are not those of {args.dataset}; leave --dataset out, or "
                        "train on it")
