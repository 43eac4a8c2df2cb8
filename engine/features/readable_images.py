"""Images that cannot be read are found before the long work starts, once for each list of images."""
from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

from filelock import FileLock

from datasets.files import DataError, PathLike, counted, make_folder, read_json, shorten, write_json
from datasets.progress import say
from datasets.split_file import ImageList, Split, find_unreadable, read_split_file

CHECKED = "checked"
"""Folder in `--feature_root` with the outcomes, which captioning and training share."""


FEW_LABELLED = 10
"""Fewer test images with a label are warned about."""


class Readable(NamedTuple):
    """The images of a list, in its order."""

    images: ImageList
    skipped: List[str]
    """Those that cannot be read; empty without `--skip_unreadable`."""


def readable(image_ids: Sequence[str], img_root: PathLike, args: argparse.Namespace) -> Readable:
    """Decode every image once, unless these very files were checked before; the outcome is kept in `--feature_root`.

    Args:
        image_ids: ids of a split file.
        img_root: where its images are.
        args: `--skip_unreadable`, `--feature_root` and `--num_workers`.

    Raises:
        DataError: images cannot be read, and `--skip_unreadable` was not given; or it was and none can be read. The
            reasons are printed, a line an image.
    """
    images = ImageList(img_root, image_ids)
    reasons = check_once(images, Path(args.feature_root) / CHECKED, args.num_workers)
    if reasons:
        summary = f"{img_root}: {len(reasons):,} of {counted(len(images), 'image')} cannot be read (listed above)"
        if not args.skip_unreadable:
            raise DataError(f"{summary}; mend them, or go on without them by --skip_unreadable")
        if len(reasons) == len(images):
            raise DataError(f"{summary}; nothing is left to go on with")
        say(f"{summary}; going on without them")
    left = [image_id for image_id in images.image_ids if image_id not in reasons]
    return Readable(images.only(left), list(reasons))


class ReadableSplit(NamedTuple):
    """The readable images of a test split, with their true labels."""

    images: ImageList
    split: Split
    skipped: List[str]
    """Images that cannot be read; empty without `--skip_unreadable`."""


def read_test_split(args: argparse.Namespace, num_classes: int) -> ReadableSplit:
    """The test images that can be read, checked as `readable` does.

    Args:
        args: `--val_split_file`, `--val_img_root`, `--unlabelled_test`, and the flags of `readable`.
        num_classes: C.

    Raises:
        DataError: images cannot be read, or none of them has a label, so that there is nothing to measure, and that
            is not on purpose.
    """
    split = read_split_file(args.val_split_file, num_classes)
    images, skipped = readable(split.image_ids, args.val_img_root, args)
    split = split.only(images.image_ids)
    if not any(split.labels) and not args.unlabelled_test:
        raise DataError(f"{args.val_split_file}: no image has a label, so there is no mAP; a line of a test split is "
                        "`image_id class class ...`. To go on without labels, pass --unlabelled_test")
    labelled = sum(map(bool, split.labels))
    if 0 < labelled < FEW_LABELLED:
        say(f"warning: {args.val_split_file}: {counted(labelled, 'test image')} with a label, of "
            f"{len(set().union(*split.labels))} of {counted(num_classes, 'class')}; an mAP over so few means nothing")
    return ReadableSplit(images, split, skipped)


def check_once(images: ImageList, folder: PathLike, num_workers: int) -> Dict[str, str]:
    """Image id to the reason of each image that cannot be read; prints them, a line an image.

    Args:
        images: the images.
        folder: keeps the outcome, so that the same files are decoded only once.
        num_workers: threads that decode, at least one.
    """
    outcome = Path(folder) / f"{_digest(images)}.json"
    make_folder(outcome.parent)
    with FileLock(f"{outcome}.lock"):  # of several processes one checks
        if not outcome.exists():
            write_json(outcome, dict(find_unreadable(images, max(1, num_workers), progress=True)), indent=1)
    reasons: Dict[str, str] = read_json(outcome)
    for image_id, reason in reasons.items():
        print(f"{shorten(image_id)}: {reason}")
    return reasons


def _digest(images: ImageList) -> str:
    """Changes with the list, the folder, and the size or the time of any file."""
    digest, folder, start = hashlib.sha256(), os.path.abspath(images.folder), len(str(images.folder))
    for image_id, file in zip(images.image_ids, images.files()):
        state = f"{folder}{file.path[start:]} {file.size} {file.mtime_ns}" if file else f"{image_id} is missing"
        digest.update(f"{state}\n".encode())
    return digest.hexdigest()[:16]
