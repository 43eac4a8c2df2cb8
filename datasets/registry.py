"""The datasets of the paper and the embedded world: categories, default paths, the numbers that the paper reports; and
where images lie as archives unpack."""
from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from datasets.description import SUFFIX, DatasetSpec, load_description
from datasets.files import DataError, PathLike, shorten
from datasets.names import (
    COCO_CLASSES,
    MINI_BACKGROUNDS,
    MINI_CLASSES,
    NUS_BACKGROUNDS,
    NUS_CLASSES,
    VOC_CLASSES,
    VOC_COCO_BACKGROUNDS,
)

_SPECS = (
    DatasetSpec(
        name="voc2007", title="VOC2007 (trainval / test)", classes=VOC_CLASSES, backgrounds=VOC_COCO_BACKGROUNDS,
        train_img_root="data/voc2007/VOCtrainval_06-Nov-2007",
        train_split_file="imageset/voc2007/trainval_cls.txt",
        val_img_root="data/voc2007/VOCtest_06-Nov-2007",
        val_split_file="imageset/voc2007/test_cls.txt",
        get_split_files="python -m datasets.build --dataset voc2007",
        get_images="python -m datasets.build --dataset voc2007 --download",
        get_captions="python caption.py --dataset voc2007 --stage fetch",
    ),
    DatasetSpec(
        name="voc2012", title="VOC2012 (segmentation train / val)", classes=VOC_CLASSES,
        backgrounds=VOC_COCO_BACKGROUNDS,
        train_img_root="data/voc2012/VOCtrainval_11-May-2012",
        train_split_file="imageset/voc2012/train_cls.txt",
        val_img_root="data/voc2012/VOCtrainval_11-May-2012",
        val_split_file="imageset/voc2012/val_cls.txt",
        get_split_files="python -m datasets.build --dataset voc2012",
        get_images="python -m datasets.build --dataset voc2012 --download",
        get_captions="python caption.py --dataset voc2012 --stage fetch",
    ),
    DatasetSpec(
        name="coco2014", title="COCO2014 (train2014 / val2014)", classes=COCO_CLASSES,
        backgrounds=VOC_COCO_BACKGROUNDS,
        train_img_root="data/coco2014/train2014",
        train_split_file="imageset/coco2014/train_cls.txt",
        val_img_root="data/coco2014/val2014",
        val_split_file="imageset/coco2014/val_cls.txt",
        get_split_files="python -m datasets.build --dataset coco2014",
        get_images="python -m datasets.build --dataset coco2014 --download",
    ),
    DatasetSpec(
        name="nuswide", title="NUS-WIDE", classes=NUS_CLASSES, backgrounds=NUS_BACKGROUNDS,
        train_img_root="data/nuswide/Flickr",
        train_split_file="imageset/nuswide/train_cls.txt",
        val_img_root="data/nuswide/Flickr",
        val_split_file="imageset/nuswide/test_cls.txt",
        get_split_files="python -m datasets.build --dataset nuswide",
        get_images="ask for them at https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html",
    ),
    DatasetSpec(
        name="mini", title="mini (rendered scenes)", classes=MINI_CLASSES, backgrounds=MINI_BACKGROUNDS,
        train_img_root="data/mini/train",
        train_split_file="imageset/mini/train_cls.txt",
        val_img_root="data/mini/test",
        val_split_file="imageset/mini/test_cls.txt",
        model_path="mini/weights/mini_clip.safetensors",
        mask_mode="token",  # two thirds of the time, and the demo is to be short
        get_split_files="python -m mini.render",
        get_images="python -m mini.render",
    ),
)

DATASETS: Dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}
"""Every dataset by the name that `--dataset` takes; besides, it takes the path of a description."""


def is_dataset(name: str) -> bool:
    """Whether `name` can stand for a dataset: one of `DATASETS`, or the path of a description, there or not."""
    return name in DATASETS or name.endswith(SUFFIX)


def get_dataset(name: str) -> DatasetSpec:
    """The dataset called `name`, or described by the file of that path.

    Raises:
        DataError: there is no such dataset, or its description is at fault.
    """
    if not is_dataset(name):
        raise DataError(f"dataset {name!r} is unknown; choose one of {', '.join(DATASETS)}, or give the path of a "
                        f"description that ends in {SUFFIX}")
    if name in DATASETS:
        return DATASETS[name]
    spec = load_description(name)
    if spec.name in DATASETS:
        raise DataError(f"{name}: its dataset is called {spec.name!r}, which is a dataset of this repository; give it "
                        "another 'name'")
    return spec


def how_to_caption(name: str) -> str:
    """What makes the captions of the dataset called `name`, the quickest way first; for help in error messages."""
    if name not in DATASETS:
        return "`python caption.py --stage caption --dataset` and the path of its description"
    made = f"`python caption.py --dataset {name} --stage caption`"
    fetched = DATASETS[name].get_captions
    return f"`{fetched}`, which takes seconds, or {made}, which takes a GPU a day" if fetched else made


def guess_dataset(path: PathLike) -> Optional[DatasetSpec]:
    """The dataset whose name is a folder of `path`, as in data/voc2007/...; for help in error messages."""
    return next((DATASETS[part] for part in Path(path).parts if part in DATASETS), None)


_FOLDERS = ("JPEGImages", "VOCdevkit/*/JPEGImages", "VOC*/JPEGImages", "Flickr", "images", "train2014", "val2014")
"""Where the images lie below an image root, as archives unpack: patterns, tried in order."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".gif", ".tif", ".tiff", "")
"""What may follow an image id, tried in order; the empty one is for ids that already end in an extension."""


def find_layout(img_root: Path, image_ids: Sequence[str]) -> Tuple[Path, str]:
    """The folder below `img_root` that holds the images, and the extension of the first one found.

    Raises:
        DataError: there is no such folder, or none of the first images is in it.
    """
    spec = guess_dataset(img_root)
    help_text = f"get the images: {spec.get_images}" if spec else "name the folder that holds the images"
    if not img_root.is_dir():
        img_root = img_root.with_name(_OTHER_NAMES.get(img_root.name, img_root.name))
    if not img_root.is_dir():
        raise DataError(f"{img_root}: no such image folder; {help_text}")
    if not image_ids:
        return img_root, IMAGE_SUFFIXES[0]
    folders = [img_root, *(folder for pattern in _FOLDERS for folder in sorted(img_root.glob(pattern)))]
    probes = image_ids[:20]  # more than one, as the first may be missing or out of place
    for image_id in probes:
        for folder, stem, suffix in itertools.product(folders, possible_stems(image_id), IMAGE_SUFFIXES):
            if _is_file(folder / (stem + suffix)):
                return folder, suffix
    raise DataError(f"{img_root}: no image of the split file is here (looked for "
                    f"{shorten(probes[0] + IMAGE_SUFFIXES[0])} here and in JPEGImages/, VOCdevkit/*/JPEGImages/ and "
                    f"the like); {help_text}")


_OTHER_NAMES = {"VOCtrainval_11-May-2012": "VOC2012_train_val"}
"""Folder of an archive to what the authors call it."""

_NUS_ID = re.compile(r"[A-Za-z_]+/([0-9]{4}_[0-9]+)")


def possible_stems(image_id: str) -> List[str]:
    """The names without extension that an image may have; some copies of NUS-WIDE have all of them in one folder."""
    match = _NUS_ID.fullmatch(image_id)
    return [image_id, match[1]] if match else [image_id]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long or otherwise impossible for this file system
        return False
