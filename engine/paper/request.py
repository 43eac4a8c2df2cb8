"""What `reproduce.py` is asked for: its own flags, and those that go to every step."""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from datasets.files import DataError, read_json, write_json
from datasets.flag_parser import FlagParser
from datasets.progress import is_quiet
from datasets.registry import DatasetSpec, get_dataset
from engine.command_line.flag_types import DATASET_HELP, count, dataset_name
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.command_line.unread_flags import unread_flags
from engine.results.studies import STUDIES

PASSED_ON = ("train_img_root", "train_split_file", "val_img_root", "val_split_file", "model_path", "activation",
             "caption_root", "feature_root", "patch_dtype", "precision", "encode_batch_size", "skip_unreadable",
             "num_workers", "device")
"""Flags of the train scripts that say where data are and how they are read: they go to every step that takes them."""

_MAY_CHANGE = ("num_workers", "device", "encode_batch_size", "skip_unreadable", "feature_root")
"""Of these, what another call on the same folder may give otherwise."""

QUICK_EPOCHS = 2

RECORD = "reproduce.json"
"""In the output folder: what all that is in it was made with."""


@dataclass(frozen=True)
class PaperRequest:
    """The dataset, the extent and the place of a reproduction."""

    args: argparse.Namespace
    """The flags of `reproduce.py` itself."""
    train_args: argparse.Namespace
    """All flags of the dataset's train script, as the steps give them to it."""
    typed: Dict[str, Any]
    """The flags of `PASSED_ON` that were typed."""

    @property
    def spec(self) -> DatasetSpec:
        """The dataset."""
        return get_dataset(self.args.dataset)

    @property
    def folder(self) -> Path:
        """Gets all that the steps leave but features and data."""
        return Path(self.args.output_dir)

    @property
    def runs(self) -> Path:
        """Gets the folders of runs."""
        return self.folder / "runs"

    @property
    def seeds(self) -> range:
        """Of what is trained."""
        return range(self.args.seeds)

    def flags(self, method: Optional[str] = None) -> List[str]:
        """What every command is given: the dataset and the typed flags that the method reads, as words."""
        words = ["--dataset", self.args.dataset, *(["--quiet"] if is_quiet() else [])]
        unread = {} if method is None else unread_flags({"method": method, **self.typed})
        for flag, value in self.typed.items():
            if flag not in unread:
                words += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
        return words

    def quick(self, *more: str) -> List[str]:
        """What `--quick` adds to the flags of a training."""
        return ["--epochs", str(QUICK_EPOCHS), *more] if self.args.quick else []

    def keep(self) -> None:
        """Write down what the output folder is made with.

        Raises:
            DataError: it holds something that was made otherwise.
        """
        path = self.folder / RECORD
        made = {"dataset": self.args.dataset, "quick": self.args.quick,
                "flags": {flag: value for flag, value in self.typed.items() if flag not in _MAY_CHANGE}}
        if path.exists() and read_json(path) != made:
            raise DataError(f"{path}: made with other flags ({read_json(path)}); choose another --output_dir, or "
                            "delete the folder")
        write_json(path, made, indent=1)


def get_paper_parser(description: Optional[str]) -> FlagParser:
    """The flags of `reproduce.py` itself."""
    parser = FlagParser(description)
    parser.add_argument("--dataset", type=dataset_name, required=True, help=DATASET_HELP)
    parser.add_argument("--plan", action="store_true",
                        help="only say what is there, what is missing and how to get it, and measure for a few seconds "
                             "what disk and time all of it takes")
    parser.add_argument("--output_dir", help="gets runs, tables, figures, the page and the archive (default: "
                                             "runs/paper/DATASET, with --quick runs/paper/DATASET_quick)")
    parser.add_argument("--seeds", type=count, help="of what is trained (default: 3; with --quick 1)")
    parser.add_argument("--studies", nargs="*", choices=STUDIES, default=["components"],
                        help="studies of ablate.py (default: components; without a name: none)")
    parser.add_argument("--skip", nargs="*", default=[], metavar="STEP",
                        help="steps to leave out, by the names that --plan lists")
    parser.add_argument("--gpus", type=count, default=1, metavar="N", help="processes of torchrun, one a GPU")
    parser.add_argument("--quick", action="store_true",
                        help=f"{QUICK_EPOCHS} epochs of everything: shows that all steps run here; trained numbers are "
                             "not compared with what to expect")
    return parser


def read_request(description: Optional[str], argv: Optional[Sequence[str]] = None) -> PaperRequest:
    """Parse the command line of `reproduce.py`.

    Raises:
        DataError: a flag is neither its own nor one of `PASSED_ON`.
    """
    parser = get_paper_parser(description)
    args, words = parser.parse_known_args(argv)
    name = get_dataset(args.dataset).name
    args.seeds = args.seeds or (1 if args.quick else 3)
    args.output_dir = args.output_dir or f"runs/paper/{name}{'_quick' if args.quick else ''}"
    trainer = get_args_parser(args.dataset, None)
    trainer.prog = "reproduce.py"
    train_args = parse_args(trainer, words)
    typed: Tuple[str, ...] = tuple(sorted(trainer.typed(words)))
    foreign = [flag for flag in typed if flag not in PASSED_ON]
    if foreign:
        raise DataError(f"--{foreign[0]}: the tables are made with published flags; only flags that say where data are "
                        f"and how they are read go to all steps ({', '.join(PASSED_ON)}). For variants there is "
                        "ablate.py")
    return PaperRequest(args, train_args, {flag: getattr(train_args, flag) for flag in typed})
