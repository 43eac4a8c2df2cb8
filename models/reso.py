"""ReSO: find small objects under the similarity maps, crop them, and train on the crops as extra images."""
from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from datasets.files import DataError, PathLike, atomic_write, read_json, shorten, write_json
from models.masks import min_max

CROP_LABELS = ("category", "image", "ignore")
INDEX_NAME = "index.json"

FOLDER_CROPS = 1000
"""Crops a folder: some file systems and most programs slow down with hundreds of thousands of files in one."""


class Region(NamedTuple):
    """A small object in one image of a batch."""

    image: int
    """Index in the batch."""
    category: int
    area: float
    """Share of the patches in T."""
    box: Tuple[float, float, float, float]
    """Left, top, right, bottom as shares of the image's sides."""


def small_regions(maps: Tensor, positive: Tensor, grid: Tuple[int, int], gamma: float, epsilon: float,
                  min_side: float) -> Iterator[Region]:
    """Regions T = {patches with min-max-normalised S_o > gamma} of the pseudo-positive classes with area < epsilon.

    The box is that of the connected part of T around the map's peak: a stray patch elsewhere would stretch the
    box over the image. It is widened about its centre to at least `min_side` of each side. Both are our choice.

    Args:
        maps: (B, O, N) similarity maps.
        positive: (B, C) bool with C <= O, the pseudo-positive classes.
        grid: rows and columns of the patch grid, rows * columns = N.
        gamma: threshold on the normalised map, in [0, 1].
        epsilon: a region is small below this share of the patches.
        min_side: least side of a box, as a share of the image's side.
    """
    rows, columns = grid
    normalised = min_max(maps[:, :positive.shape[1]])
    area = (normalised > gamma).float().mean(dim=-1)
    small = positive & (area > 0) & (area < epsilon)
    picked, areas = small.nonzero().tolist(), area[small].tolist()
    heights = normalised[small].view(-1, rows, columns).cpu().numpy()  # one copy from the device for the whole batch
    for (image, category), height, share in zip(picked, heights, areas):
        parts, _ = ndimage.label(height > gamma)
        y, x = ndimage.find_objects(parts)[parts.flat[height.argmax()] - 1]
        left, right = _widen(x.start / columns, x.stop / columns, min_side)
        top, bottom = _widen(y.start / rows, y.stop / rows, min_side)
        yield Region(image, category, share, (left, top, right, bottom))


def _widen(low: float, high: float, least: float) -> Tuple[float, float]:
    """The interval [low, high] about its centre at length `least` or more, moved to lie within [0, 1]."""
    length = max(high - low, min(least, 1.0))
    start = min(max((low + high - length) / 2, 0.0), 1.0 - length)
    return start, start + length


def expected_crops(gamma: float, positives: float) -> float:
    """Crops an image, before any is mined, of images with so many pseudo-positive classes.

    It is the share of those classes that gave one in 3,000 resampled rendered scenes with 4.7 of them, on a grid of
    8 x 8, after two epochs with the other flags at their defaults. Untrained maps gave up to three times as many; other
    images may give many more or less.
    """
    return positives * float(np.interp(gamma, (0.6, 0.7, 0.8, 0.85, 0.9, 0.95), (0.02, 0.05, 0.19, 0.36, 0.64, 0.9)))


def encode_crop(image: Image.Image, box: Sequence[float], size: int) -> bytes:
    """Cut `box` (shares of the sides) out of `image` and scale it to size x size: the bytes of a JPEG."""
    left, top, right, bottom = (share * side for share, side in zip(box, image.size * 2))
    crop = image.resize((size, size), Image.BICUBIC, box=(left, top, right, bottom))
    buffer = io.BytesIO()
    crop.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def save_crop(image: Image.Image, box: Sequence[float], size: int, path: PathLike) -> None:
    """Write what `encode_crop` makes. It may stay in the system's memory for a while: sync before the index."""
    with atomic_write(path, "wb", durable=False) as file:
        file.write(encode_crop(image, box, size))


def is_whole_crop(path: PathLike) -> bool:
    """Whether a crop is there to its end, which it may not be after the machine went down."""
    try:
        with Path(path).open("rb") as file:
            file.seek(-2, io.SEEK_END)
            return file.read() == b"\xff\xd9"  # how every JPEG ends
    except OSError:  # it is missing, or empty
        return False


class Crop(NamedTuple):
    """One line of the index file of a crop folder."""

    file: str
    """Name of the crop, without extension: FOLDER/NAME, in folders of `FOLDER_CROPS`; in earlier versions NAME."""
    image_id: str
    category: int
    area: float
    box: List[float]


def write_index(folder: PathLike, crops: Sequence[Crop]) -> None:
    """Write the index last: a folder that has it holds all of its crops."""
    write_json(Path(folder) / INDEX_NAME, [crop._asdict() for crop in crops], indent=1)


def read_index(folder: PathLike) -> List[Crop]:
    """Read a crop folder's index.

    Raises:
        DataError: the index is missing or is not one.
    """
    path, again = Path(folder) / INDEX_NAME, "delete the folder to mine the crops again"
    entries = read_json(path, missing=f"{again.capitalize()}.")
    if not isinstance(entries, list):
        raise DataError(f"{path}: not an index of crops; {again}")
    for number, entry in enumerate(entries):
        fault = _crop_fault(entry)
        if fault:
            raise DataError(f"{path}: crop {number}: {fault}; {again}")
    return [Crop(**entry) for entry in entries]


_CROP_NAME = re.compile(r"(?:[0-9]+/)?[^/\\\x00-\x1f]+")


def _crop_fault(entry: Any) -> Optional[str]:
    """What is wrong with an entry of the index, if anything."""
    if not isinstance(entry, dict) or set(entry) != set(Crop._fields):
        return f"not the entry of a crop ({', '.join(Crop._fields)})"
    if not isinstance(entry["file"], str) or not _CROP_NAME.fullmatch(entry["file"]):
        return f"file {shorten(str(entry['file']))} is no plain name"
    if not isinstance(entry["image_id"], str):
        return f"{shorten(str(entry['image_id']))} is no image id"
    if type(entry["category"]) is not int or entry["category"] < 0:
        return f"{shorten(str(entry['category']))} is no category"
    shares = [entry["area"], *entry["box"]] if isinstance(entry["box"], list) else []
    if len(shares) != 5 or not all(type(share) in (int, float) and 0 <= share <= 1 for share in shares):
        return "area and box are not shares in 0..1"
    return None


def crop_targets(targets: Tensor, category: Tensor, num_classes: int, labels: str, positive: float = 0.5) -> Tensor:
    """Targets of crops.

    Args:
        targets: (n, O) targets of the images that the crops were cut from.
        category: (n,) the class that each crop was cut for.
        num_classes: C.
        positive: a class whose target reaches it is a positive.
        labels: "image" keeps the image's targets; "category" clears every class but the crop's own. Backgrounds
            keep their targets, as the scene goes on behind the object. "ignore" makes the other positives of the image
            unknown (NaN), since the crop may or may not show them. Our choice.
    """
    targets = targets.clone()
    classes, rows = targets[:, :num_classes], torch.arange(len(targets))
    own = targets[rows, category]
    if labels == "category":
        classes.zero_()
    elif labels == "ignore":
        classes[classes >= positive] = torch.nan
    targets[rows, category] = own
    return targets
