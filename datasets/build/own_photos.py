"""Make the description and the split files of a folder of photos of one's own."""
from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from datasets.description import DatasetSpec
from datasets.files import DataError, PathLike, counted, read_lines, shorten
from datasets.filter.grammar import singular_candidates
from datasets.names import VOC_COCO_BACKGROUNDS, listed_name
from datasets.registry import IMAGE_SUFFIXES
from datasets.split_file import Split, check_image_id

Labels = Dict[str, List[int]]
"""Image id to class indices, of the photos that somebody labelled."""

_PHOTO_HEADS = frozenset(("photo", "image", "file", "filename", "file_name", "image_id", "id", "path"))
"""What the first cell of a table's head may be called."""


class Photos(NamedTuple):
    """What a folder holds."""

    image_ids: List[str]
    """Of the photos that can be read, sorted."""
    left_out: List[str]
    """Why a photo is not among them, a line each."""
    unreadable: Dict[str, str]
    """Image id to the reason of those that cannot be read."""


def find_photos(folder: PathLike, workers: int = 4, progress: bool = False) -> Photos:
    """All photos in a folder and below that can be read; what is hidden is passed over.

    An id is the path below the folder without its extension; photos that differ in nothing else keep theirs.

    Raises:
        DataError: no such folder, or no photo that can be read is in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: {'a file; give its folder' if root.exists() else 'no such folder of photos'}")
    paths, others = _walk(root)
    stems = Counter(_stem(path) for path in paths)
    ids = {path: _stem(path) if stems[_stem(path)] == 1 else path for path in paths}
    left_out = [f"{counted(count, 'file')} other than photos ({suffix or 'without extension'})"
                for suffix, count in sorted(others.items())]
    from datasets.images import check_images  # torch, which lists of originals do without

    usable = []
    for path in paths:
        try:
            check_image_id(str(root / path), ids[path])
            usable.append(path)
        except DataError as error:
            left_out.append(str(error))
    unreadable = dict(check_images([root / path for path in usable], workers, progress))
    left_out += unreadable.values()
    image_ids = [ids[path] for number, path in enumerate(usable) if number not in unreadable]
    if not image_ids:
        reasons = f"; {left_out[0]}" if left_out else ""
        raise DataError(f"{folder}: no photo that can be read is here{reasons}")
    return Photos(sorted(image_ids), left_out, {ids[usable[number]]: reason for number, reason in unreadable.items()})


def _walk(root: Path) -> Tuple[List[str], Dict[str, int]]:
    """Paths of photos below `root`, with forward slashes, and how many other files of each extension there are."""
    paths: List[str] = []
    others: Counter[str] = Counter()
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            suffix = Path(name).suffix.lower()
            if suffix and suffix in IMAGE_SUFFIXES:
                paths.append(Path(folder, name).relative_to(root).as_posix())
            else:
                others[suffix] += 1
    return paths, others


def _stem(path: str) -> str:
    return path[:-len(Path(path).suffix)]


def read_names(path: PathLike) -> List[str]:
    """Names of a file, one a line.

    Raises:
        DataError: the file is missing or empty, or a line is no name or one that is there already.
    """
    names: Dict[str, str] = {}
    for number, line in read_lines(path, "It holds the names, one a line"):
        where = f"{path}:{number}"
        name = listed_name(where, line)
        if name.lower() in names:
            raise DataError(f"{where}: {shorten(name)} is there already; keep one of them")
        names[name.lower()] = name
    if not names:
        raise DataError(f"{path}: the file is empty; write a name a line")
    for name in names:
        for one in filter(names.__contains__, singular_candidates(name)):
            print(f"note: {path} has {shorten(names[one])} and {shorten(names[name])}; to captions they are one word")
    return list(names.values())


def read_labels(path: PathLike, classes: Sequence[str], image_ids: Sequence[str],
                unreadable: Mapping[str, str]) -> Labels:
    """Read true labels from a CSV: the photo, then the classes in it, in as many cells, or rows, as one likes.

    Args:
        path: the table, with or without a head. A photo is its path below the folder, or its name where no other photo
            has it; with or without extension. A row of the photo alone says that it shows none of the classes.
        classes: the names.
        image_ids: the photos.
        unreadable: image id to the reason of those that cannot be read.

    Raises:
        DataError: the file is missing, or a row names an unknown class, or a photo that is unknown or cannot be read.
    """
    index = {name.lower(): number for number, name in enumerate(classes)}
    photo_of = _photo_names([*image_ids, *unreadable])
    labels: Labels = {}
    lines = list(read_lines(path))
    delimiter = max(",;\t", key="".join(line for _, line in lines[:2]).count)
    rows = csv.reader((line for _, line in lines), delimiter=delimiter)
    for position, ((number, _), row) in enumerate(zip(lines, rows)):
        cells = [cell.strip() for cell in row]
        if position == 0 and cells[0].lower() in _PHOTO_HEADS:
            continue
        image_id = photo_of.get(cells[0]) or photo_of.get(_stem(cells[0]) if Path(cells[0]).suffix else "")
        if image_id is None:
            raise DataError(f"{path}:{number}: {shorten(cells[0])} is none of the photos (or the name of several); "
                            "write its path below the folder, or remove the row")
        if image_id in unreadable:
            raise DataError(f"{path}:{number}: {unreadable[image_id]}; or remove the row")
        found = labels.setdefault(image_id, [])
        for name in filter(None, cells[1:]):
            if name.lower() not in index:
                raise DataError(f"{path}:{number}: {shorten(name)} is none of the {counted(len(classes), 'class')}; a "
                                "row is the photo, then a class a cell")
            if index[name.lower()] not in found:
                found.append(index[name.lower()])
    if not labels:
        raise DataError(f"{path}: the file labels no photo; write rows like `beach.jpg,dog,person`")
    return {image_id: sorted(found) for image_id, found in labels.items()}


def _photo_names(image_ids: Sequence[str]) -> Dict[str, str]:
    """Whatever a photo may be called to its id: the id, and its last part where that is one photo's alone."""
    last = Counter(image_id.rsplit("/", 1)[-1] for image_id in image_ids)
    names = {image_id.rsplit("/", 1)[-1]: image_id for image_id in image_ids if last[image_id.rsplit("/", 1)[-1]] == 1}
    return {**names, **{image_id: image_id for image_id in image_ids}}


def split_photos(image_ids: Sequence[str], labels: Optional[Labels], test_share: float,
                 seed: int) -> Tuple[List[str], List[str]]:
    """Training and test photos, in their order.

    Test photos are drawn from those with labels, so that they can be measured by; without labels, from all. At least
    one photo goes to either side.

    Args:
        image_ids: the photos.
        labels: true labels, or None where there are none.
        test_share: the part of the photos they are drawn from.
        seed: of the draw.

    Raises:
        DataError: there are too few photos.
    """
    pool = [image_id for image_id in image_ids if labels is None or image_id in labels]
    if len(image_ids) < 2:
        raise DataError(f"{len(image_ids)} photo: one for training and one for the test are the least")
    count = min(max(round(test_share * len(pool)), 1), len(image_ids) - 1)
    test = {pool[row] for row in np.random.default_rng(seed).permutation(len(pool))[:count]}
    return [image_id for image_id in image_ids if image_id not in test], sorted(test)


def as_split(image_ids: Sequence[str], labels: Optional[Labels]) -> Split:
    """The photos with their labels; none where nobody gave them any."""
    return Split(list(image_ids), [(labels or {}).get(image_id, []) for image_id in image_ids])


def describe(path: Path, photos: PathLike, classes: Sequence[str], backgrounds: Optional[Sequence[str]],
             unlabelled: bool) -> Dict[str, Any]:
    """The description of a folder of photos.

    Args:
        path: the file that it is for; the folder is written relative to it.
        photos: the folder.
        classes: the names.
        backgrounds: the names; None for those of VOC and COCO, less the classes.
        unlabelled: whether the test split is without labels.
    """
    if backgrounds is None:
        known = {name.lower() for name in classes}
        backgrounds = [name for name in VOC_COCO_BACKGROUNDS if name not in known]
    folder = Path(os.path.relpath(photos, path.parent)).as_posix()
    return {"name": path.stem, "classes": list(classes), "backgrounds": list(backgrounds), "synonyms": {},
            "prompt_words": {}, "train_img_root": folder, "train_split_file": "train_cls.txt", "val_img_root": folder,
            "val_split_file": "test_cls.txt", "unlabelled_test": unlabelled}


def own_splits(spec: DatasetSpec, labels_file: Optional[PathLike], test_share: float, seed: int,
               progress: bool = False) -> Tuple[Dict[str, Split], List[str]]:
    """The splits of a description's photos, by the file that each goes to, and what was left out.

    Where training and test photos lie in one folder, it is divided; in two folders, each is a split.

    Raises:
        DataError: the photos or the labels are at fault, or there are no labels and the description expects some.
    """
    if labels_file is None and not spec.unlabelled_test:
        raise DataError("--labels is missing: give a CSV of true labels, or say \"unlabelled_test\": true in the "
                        "description")
    photos = find_photos(spec.train_img_root, progress=progress)
    divided = os.path.abspath(spec.train_img_root) == os.path.abspath(spec.val_img_root)
    test_photos = photos if divided else find_photos(spec.val_img_root, progress=progress)
    labels = None
    if labels_file is not None:
        labels = read_labels(labels_file, spec.classes, sorted({*photos.image_ids, *test_photos.image_ids}),
                             {**photos.unreadable, **test_photos.unreadable})
    if divided:
        train, test = split_photos(photos.image_ids, labels, test_share, seed)
    else:
        train = photos.image_ids
        test = [image_id for image_id in test_photos.image_ids if labels is None or image_id in labels]
    left_out = photos.left_out + ([] if divided else test_photos.left_out)
    return {spec.train_split_file: as_split(train, labels), spec.val_split_file: as_split(test, labels)}, left_out
