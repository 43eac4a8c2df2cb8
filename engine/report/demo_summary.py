"""What the mini world's runs have shown, in one summary."""
from __future__ import annotations

import argparse
from typing import Any, Dict, Tuple

import numpy as np

from datasets.registry import DatasetSpec
from datasets.split_file import read_split_file
from engine.evaluation.metrics import average_precision, mean_ap
from engine.training.run import Run
from engine.training.training_labels import load_pseudo_labels


def summarise_demo(args: argparse.Namespace, spec: DatasetSpec, runs: Dict[Tuple[int, str], Run]) -> Dict[str, Any]:
    """Means over the seeds, in percent; true labels of training images are read here, after training, and only here.

    Args:
        args: the flags of the runs.
        spec: the dataset.
        runs: finished runs by seed and folder: "", "no_reso" or "plus".
    """
    truth = read_split_file(args.train_split_file, len(spec.classes))
    pseudo = load_pseudo_labels(args, spec, truth.image_ids, spec.classes)

    def mean(key: str, folder: str = "") -> float:
        return float(np.mean([run.result[key] for (_, name), run in runs.items() if name == folder]))

    summary = {
        "seeds": sorted({seed for seed, _ in runs}),
        "pseudo_label_mAP": mean_ap(average_precision(pseudo.targets, truth.targets(len(spec.classes)))),
        "zero_shot_mAP": mean("zero_shot_mAP"),
        "bac_gcn_mAP": mean("last_mAP"),
        "bac_gcn_no_reso_mAP": mean("last_mAP", "no_reso"),
        "bac_gcn_plus_mAP": mean("last_mAP", "plus"),
    }
    if args.zoom:
        summary["bac_gcn_zoom_mAP"] = mean("zoom_mAP")
    return summary
