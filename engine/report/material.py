"""What a report tells of: a finished run, its twins, its data and its model."""
from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import List

from datasets.captions.io import Captions, load_dataset_captions
from datasets.files import DataError
from datasets.split_file import ImageList, Split, read_split_file
from engine.command_line.method_flags import RECIPES
from engine.evaluation.metrics import average_precision, mean_ap
from engine.evaluation.predictor import Predictor, load_predictor
from engine.results.finished_runs import RunGroup, collect_runs, settings_of
from engine.training.checkpoint import load_checkpoint
from engine.training.training_labels import PseudoLabels, load_pseudo_labels


@dataclass(frozen=True)
class Material:
    """All that the page tells of."""

    args: argparse.Namespace
    runs: List[RunGroup]
    """The reported runs, then where there are any the control without ReSO, and BAC-GCN+."""
    predictor: Predictor
    train: Split
    """True labels of the training images: read here, after training, to judge the pseudo-labels by."""
    train_images: ImageList
    test: Split
    test_images: ImageList
    captions: Captions
    pseudo: PseudoLabels

    @property
    def pseudo_label_map(self) -> float:
        """mAP of the pseudo-labels on the training images, in percent."""
        classes = self.predictor.num_classes
        measured = mean_ap(average_precision(self.pseudo.targets[:, :classes], self.train.targets(classes)))
        assert measured is not None, "the world that is reported on has labels"
        return measured


def gather(folder: Path, args: argparse.Namespace) -> Material:
    """Read all that the page tells of.

    Args:
        folder: the output folder of a run.
        args: its flags; those in its checkpoint win.

    Raises:
        DataError: the run is not finished, or something it was made of is gone.
    """
    checkpoint = load_checkpoint(folder / "checkpoint.pth")
    args = argparse.Namespace(**{**vars(args), **checkpoint["args"], "output_dir": str(folder),
                                 "checkpoint": str(folder / "checkpoint.pth")})
    predictor = load_predictor(args, checkpoint)
    train = read_split_file(args.train_split_file, predictor.num_classes)
    test = read_split_file(args.val_split_file, predictor.num_classes)
    return Material(
        args, _own_runs(folder), predictor, train, ImageList(args.train_img_root, train.image_ids), test,
        ImageList(args.val_img_root, test.image_ids), load_dataset_captions(args.caption_root, predictor.spec),
        load_pseudo_labels(args, predictor.spec, train.image_ids, list(predictor.categories)))


def _own_runs(folder: Path) -> List[RunGroup]:
    groups = collect_runs([folder]).groups
    own = [group for group in groups if any(run.folder.resolve() == folder.resolve() for run in group.runs)]
    if not own:
        raise DataError(f"{folder}: its run is not finished; train on with the same command")
    control = settings_of({**own[0].runs[0].args, "no_reso": True})
    others = [group for group in groups if group is not own[0]]
    return (own + [group for group in others if group.settings == control]
            + [group for group in others if group.title == RECIPES["plus"].title != own[0].title])
