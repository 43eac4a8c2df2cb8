"""What `eval.py --figure` does: gather the data of a figure, draw it, save it."""
from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from datasets.captions.pseudo_labels import load_counts
from datasets.files import DataError, PathLike, counted, read_json, read_lines
from datasets.images import read_image
from datasets.plotting import SERIES, graph_figure, save_figure
from datasets.registry import get_dataset
from datasets.split_file import ImageList, read_image_ids, read_split_file
from engine.command_line.method_flags import method_title, untrained_title
from engine.evaluation.predictor import Tags, class_ap, load_predictor
from engine.features.frozen_clip import weights_name
from engine.features.frozen_encoder import encoder_of
from engine.pictures.charts import curves_figure, per_class_figure
from engine.pictures.drawings import MappedPhoto, fit, maps_figure, masks_figure, top_scores
from engine.pictures.method_figure import NARROW, WIDE, draw_method
from engine.results.finished_runs import RunGroup, collect_runs, reference_group
from engine.results.paper_tables import variant_title
from engine.results.runs_table import group_title
from engine.training.checkpoint import Checkpoint
from engine.training.training_labels import label_folder
from models.graph import caption_graph

PHOTOS = 3
"""Test images in a figure for which no photo is named."""
SHOWN_CLASSES, SHOWN_BACKGROUNDS = 3, 2
"""Maps of a photo for which no categories are named: the highest scores."""


def draw_figure(args: argparse.Namespace, trained: Optional[Checkpoint], folder: PathLike) -> None:
    """`--figure`: draw a figure other than `curves` and save it in `folder` as PDF and PNG.

    Args:
        args: the flags of eval.py, on top of the run's where a checkpoint is given.
        trained: what `load_checkpoint` read, or None.
        folder: gets the files.

    Raises:
        DataError: the figure needs a checkpoint that is not given, or a photo, a category or a file that is not there.
    """
    save(_DRAWN_FROM_FLAGS[args.figure](args, trained), Path(folder) / args.figure)


def save_curves(runs: Sequence[PathLike], folder: PathLike, nested: bool = True) -> None:
    """`--figure curves`: mAP per epoch of all finished runs that `collect_runs` finds."""
    save(draw_curves(collect_runs(runs, nested).groups), Path(folder) / "curves")


def save(figure: Figure, stem: Path) -> None:
    """Save a figure as `stem`.pdf and .png, and say so."""
    pdf, png = save_figure(figure, stem)
    print(f"{png} and {pdf.name}")


def _draw_masks(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Figure:
    predictor = load_predictor(args, trained)
    views = [predictor.masked_views(fit(shown.photo)) for shown in photos(args)]
    return masks_figure(views, predictor.categories, predictor.num_classes)


def _draw_maps(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Figure:
    predictor = load_predictor(args, need_checkpoint(args, trained))
    mapped = [map_photo(shown.photo, predictor.tag(shown.photo), predictor.categories, predictor.num_classes,
                        args.categories, shown.true) for shown in photos(args)]
    return maps_figure(mapped, predictor.spec.classes)


def map_photo(photo: Image.Image, tags: Tags, categories: Sequence[str], num_classes: int,
              names: Optional[Sequence[str]] = None, true: Optional[FrozenSet[str]] = None) -> MappedPhoto:
    """A photo with the maps of the categories called `names`, or of those with the highest scores.

    Args:
        photo: the photo.
        tags: its scores and maps.
        categories: what they are of, classes first.
        num_classes: C.
        names: whose maps.
        true: the classes that are truly there, where that is known.

    Raises:
        DataError: a name is not among the categories.
    """
    if names is None:
        names = [score.name for part, count in ((slice(num_classes), SHOWN_CLASSES),
                                                (slice(num_classes, None), SHOWN_BACKGROUNDS))
                 for score in top_scores(tags.scores[part], categories[part], num_classes, count)]
    unknown = [name for name in names if name not in categories]
    if unknown:
        raise DataError(f"--categories {unknown[0]!r}: not among the model's: {', '.join(categories)}")
    rows = {name: categories.index(name) for name in names}
    return MappedPhoto(fit(photo), {name: tags.maps[row] for name, row in rows.items()},
                       {name: float(tags.scores[row]) for name, row in rows.items()}, true)


def draw_curves(groups: Sequence[RunGroup]) -> Figure:
    """mAP per epoch of finished runs, a line for each group of seeds.

    Raises:
        DataError: the runs do not fit into one figure.
    """
    if len({group.experiment for group in groups}) > 1:
        raise DataError("--runs: of several datasets, splits or CLIP weights; a figure of curves takes those of one")
    if len(groups) > len(SERIES):
        raise DataError(f"--runs: {len(groups)} kinds of runs, more than the {len(SERIES)} lines that a figure holds; "
                        "name fewer folders")
    reference = reference_group(groups)
    groups = sorted(groups, key=lambda group: group is not reference)
    curves = {}
    for group in groups:
        changed = group.changed_from(reference)
        variant = variant_title(changed) if changed else group.title
        name = variant if group.title == reference.title else group_title(group)
        curves[name] = [run.history for run in group.runs]
    zero_shot = reference.statistic("zero_shot_mAP")
    starts = [group.settings["reso_epoch"] for group in groups if not group.settings.get("no_reso", True)]
    return curves_figure(curves, zero_shot.mean if zero_shot else None, min(starts, default=None),
                         untrained_title(reference.settings.get("encoder", "clip")))


def _draw_graph(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Figure:
    spec = get_dataset(args.dataset)
    graph = caption_graph(*load_counts(label_folder(args, spec), spec.categories)).numpy()
    return graph_figure(graph, spec.categories, len(spec.classes))


def _draw_per_class(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Figure:
    predictor = load_predictor(args, need_checkpoint(args, trained))
    ours, baseline = class_ap(predictor)
    name = untrained_title(encoder_of(args))
    if args.baseline is not None:
        name, baseline = baseline_title(args.baseline), read_per_class(args.baseline, predictor.spec.classes)
    title = method_title(args, weights_name(args.model_path))
    images = len(read_image_ids(args.val_split_file))
    return per_class_figure(predictor.spec.classes, ours, baseline, title, name,
                            f"the {counted(images, 'test image')} of {predictor.spec.title}")


def baseline_title(path: PathLike) -> str:
    """What the method is called whose per_class_METHOD.csv this is: as the result.json beside it says, if it is its."""
    beside, name = Path(path).with_name("result.json"), Path(path).stem.removeprefix("per_class_")
    result = read_json(beside) if beside.exists() else {}
    return str(result["title"]) if result.get("method") == name else name


def read_per_class(path: PathLike, classes: Sequence[str]) -> np.ndarray:
    """AP of every class, (C,), from a per_class_METHOD.csv of eval.py.

    Raises:
        DataError: the file is missing, or is not one of these classes.
    """
    lines = [line for _, line in read_lines(path, "`eval.py --method METHOD` writes it.")]
    rows = list(csv.DictReader(lines))
    try:
        ap = {row["class"]: float(row["AP"]) for row in rows}
    except (KeyError, ValueError, TypeError):
        raise DataError(f"{path}: not a per_class_METHOD.csv of eval.py") from None
    if list(ap) != list(classes):
        raise DataError(f"{path}: of {len(ap)} other classes; give one of the same dataset")
    return np.array(list(ap.values()))


class ShownPhoto(NamedTuple):
    """A photo of a figure."""

    photo: Image.Image
    true: Optional[FrozenSet[str]]
    """The classes that are truly there; None for a photo without labels."""


def photos(args: argparse.Namespace) -> List[ShownPhoto]:
    """The photos that `--image` names, or the first test images."""
    if args.image:
        return [ShownPhoto(read_image(path), None) for path in args.image]
    classes = get_dataset(args.dataset).classes
    split = read_split_file(args.val_split_file, len(classes))
    images = ImageList(args.val_img_root, split.image_ids[:PHOTOS])
    return [ShownPhoto(read_image(images.path(row)),
                       frozenset(classes[label] for label in split.labels[row]) if any(split.labels) else None)
            for row in range(len(images))]


def need_checkpoint(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Checkpoint:
    """The checkpoint; raises DataError where none is given, or one that is no BAC-GCN's."""
    if trained is None or trained["args"]["method"] != "bac_gcn":
        raise DataError(f"--checkpoint {args.checkpoint or 'is missing'}: give the checkpoint.pth of a BAC-GCN that a "
                        "train script left in its output folder")
    return trained


def _draw_method(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Figure:
    return draw_method(args, need_checkpoint(args, trained), WIDE)


def _draw_method_for_phones(args: argparse.Namespace, trained: Optional[Checkpoint]) -> Figure:
    return draw_method(args, need_checkpoint(args, trained), NARROW)


_DRAWN_FROM_FLAGS: Dict[str, Callable[[argparse.Namespace, Optional[Checkpoint]], Figure]] = {
    "masks": _draw_masks, "maps": _draw_maps, "graph": _draw_graph, "per_class": _draw_per_class,
    "method": _draw_method, "method_narrow": _draw_method_for_phones}

FIGURES = ("curves", *_DRAWN_FROM_FLAGS)
"""What `--figure` takes."""
