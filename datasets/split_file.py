"""Split files (one image a line, `image_id class class ...`) and the images that they name.

An id with spaces stands in double quotes: `"my trip/IMG 3" 0 7`.

Labels and images are read by different functions on purpose: training takes `read_image_ids` and `ImageList`, which
never see a label; evaluation takes `read_split_file`.
"""
from __future__ import annotations

import copy
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from datasets.files import DataError, FileState, PathLike, atomic_write, look_up, read_lines, shorten
from datasets.progress import bar
from datasets.registry import DATASETS, IMAGE_SUFFIXES, DatasetSpec, find_layout, guess_dataset, possible_stems

if TYPE_CHECKING:  # torch takes seconds and 700 MB, and whoever reads labels alone does without it
    import torch
    from torch.utils.data import Dataset
else:
    Dataset = object  # torch's loader asks for no more than a length and items

VARIANTS = {
    "main_": "--split_source main",
    "difficult_negative_": "--difficult negative",
    "labelled_": "--unlabelled drop",
}
"""What the name of a split file starts with when the builder was given these flags."""

_INTEGER = re.compile(r"-?[0-9]{1,9}")
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]+(?:[./][A-Za-z0-9_-]+)*")  # nearly all ids


class Split(NamedTuple):
    """The images of one split with their true labels: for evaluation and analysis, never for training."""

    image_ids: List[str]
    labels: List[List[int]]
    """Class indices of each image, in the order of the file, each once."""

    def targets(self, num_classes: int) -> torch.Tensor:
        """The labels as a multi-hot float tensor (n, C)."""
        import torch

        targets = torch.zeros(len(self.labels), num_classes)
        rows = [row for row, classes in enumerate(self.labels) for _ in classes]
        targets[rows, [label for classes in self.labels for label in classes]] = 1
        return targets

    def only(self, image_ids: Sequence[str]) -> Split:
        """The part of the split that is in `image_ids`, in the order of the file."""
        wanted = set(image_ids)
        rows = [row for row, image_id in enumerate(self.image_ids) if image_id in wanted]
        return Split([self.image_ids[row] for row in rows], [self.labels[row] for row in rows])


def read_split_file(path: PathLike, num_classes: int) -> Split:
    """Read image ids and labels; an image without a label is a line with the id alone.

    Raises:
        DataError: no such file (the message says what builds it), not UTF-8, empty; or, with its line: a label that
            is no class number below `num_classes`, an id that comes twice or leaves the image folder.
    """
    image_ids, labels = [], []
    for number, image_id, rest in _read_lines(path):
        image_ids.append(image_id)
        labels.append(_parse_labels(f"{path}:{number}", image_id, rest, num_classes))
    return Split(image_ids, labels)


def read_image_ids(path: PathLike) -> List[str]:
    """Read only the first field of every line: whatever stands in the label columns changes nothing.

    Raises:
        DataError: as `read_split_file`, less the labels.
    """
    return [image_id for _, image_id, _ in _read_lines(path)]


def split_ids(spec: DatasetSpec) -> Tuple[List[str], List[str]]:
    """Training and test ids of a dataset's own split files; none of a file that is not there."""
    train_ids, test_ids = (read_image_ids(path) if os.path.exists(path) else []
                           for path in (spec.train_split_file, spec.val_split_file))
    return train_ids, test_ids


def write_split_file(path: PathLike, split: Split) -> None:
    """Write a split file that `read_split_file` reads back as it was.

    Raises:
        DataError: an id cannot stand in a split file, or comes twice.
    """
    for image_id in split.image_ids:
        check_image_id(str(path), image_id)
    if len(set(split.image_ids)) < len(split.image_ids):
        image_id = Counter(split.image_ids).most_common(1)[0][0]
        raise DataError(f"{path}: image id {shorten(image_id)} comes twice; the original lists name it twice")
    with atomic_write(path) as file:
        for image_id, classes in zip(split.image_ids, split.labels):
            written = f'"{image_id}"' if " " in image_id else image_id
            file.write(" ".join([written, *map(str, classes)]) + "\n")


def _read_lines(path: PathLike) -> Iterator[Tuple[int, str, str]]:
    """(line number from 1, image id, the rest) of every line that is not blank."""
    advice = f"Build it with `{_build_command(path)}`"
    first_line: Dict[str, int] = {}
    for number, line in read_lines(path, missing=advice):
        where = f"{path}:{number}"
        image_id, rest = _split_id(where, line.replace("\t", " "))
        check_image_id(where, image_id)
        if image_id in first_line:
            raise DataError(f"{where}: image id {shorten(image_id)} stands on line {first_line[image_id]} already; "
                            "remove one of them")
        first_line[image_id] = number
        yield number, image_id, rest
    if not first_line:
        raise DataError(f"{path}: the file names no image. {advice}")


def _split_id(where: str, line: str) -> Tuple[str, str]:
    """The id at the start of a line, and what follows it."""
    if not line.startswith('"'):
        image_id, _, rest = line.partition(" ")
        return image_id, rest
    image_id, closing, rest = line[1:].partition('"')
    if not closing or rest[:1].strip():
        raise DataError(f'{where}: an id in double quotes ends at the next one; write "my photo" 0 7')
    return image_id, rest


def _parse_labels(where: str, image_id: str, rest: str, num_classes: int) -> List[int]:
    labels: Dict[int, None] = {}  # a set that keeps the order
    for field in rest.split(" "):
        if not field:
            continue
        if not _INTEGER.fullmatch(field):
            raise DataError(f"{where}: {shorten(field)} after image id {shorten(image_id)} is no class number "
                            "(an id ends at the first space; put one that holds spaces in double quotes)")
        label = int(field)
        if not 0 <= label < num_classes:
            raise DataError(f"{where}: class {label} of image {shorten(image_id)} is not one of 0 to "
                            f"{num_classes - 1}; is this the split file of another dataset?")
        labels[label] = None
    return list(labels)


def check_image_id(where: str, image_id: str) -> None:
    """Refuse an id that cannot stand in a split file or that leads out of the image folder.

    Args:
        where: the file, and the line if there is one; begins the error message.
        image_id: the id.

    Raises:
        DataError: with the reason.
    """
    if _PLAIN_ID.fullmatch(image_id):
        return
    if not image_id or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", image_id):
        fault = "is empty or holds a control character; rename the image"
    elif image_id != image_id.strip(" ") or image_id.startswith('"') or (" " in image_id and '"' in image_id):
        fault = "begins or ends with a space, or holds a double quote; rename the image"
    elif "\\" in image_id:
        fault = "holds a backslash; write folders with a forward slash"
    elif image_id.startswith("/") or re.match("[A-Za-z]:", image_id) or ".." in image_id.split("/"):
        fault = "leads out of the image folder; write it relative to that folder"
    else:
        return
    raise DataError(f"{where}: image id {shorten(image_id)} {fault}")


def _build_command(path: PathLike) -> str:
    """The command that builds the split file `path`."""
    spec, path = guess_dataset(path), Path(path)
    if spec is None:
        return f"python -m datasets.build --dataset {{{','.join(DATASETS)} or a description}}"
    flags = [flag for prefix, flag in VARIANTS.items() if prefix in path.name]
    if path.parent.name == spec.name and path.parent.parent != Path(spec.train_split_file).parent.parent:
        flags.append(f"--output_root {path.parent.parent}")
    return " ".join([spec.get_split_files, *flags])


LOOK_UP_THREADS = 8
"""Files that are looked up at the same time: a network file system takes its time for each."""


def _as_it_is(image: Any) -> Any:
    return image


class ImageList(Dataset):
    """The images of a split, without labels: item `i` is `(transform(image), i)`.

    Args:
        img_root: the folder of the images, or a folder above it as archives unpack (VOCdevkit/VOC2007/JPEGImages).
        image_ids: ids as in the split file: file names without extension, with folders where they have some.
        transform: from the RGB PIL image to what the data loader stacks; by default the image as it is.

    Raises:
        DataError: no such folder, or none of the first images is in it. Items raise it for an image that is missing
            or cannot be read, see `read_image`.
    """

    def __init__(self, img_root: PathLike, image_ids: Sequence[str],
                 transform: Callable[[Any], Any] = _as_it_is) -> None:
        self.image_ids = list(image_ids)
        self.transform = transform
        self.folder, self._suffix = find_layout(Path(img_root), self.image_ids)
        self._files: Optional[List[Optional[FileState]]] = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Tuple[Any, int]:
        from datasets.images import read_image

        min_side = getattr(self.transform, "min_side", None)
        return self.transform(read_image(self.path(index), min_side)), index

    def with_transform(self, transform: Callable[[Any], Any]) -> ImageList:
        """The same images, seen through another transform."""
        images = copy.copy(self)
        images.transform = transform
        return images

    def only(self, image_ids: Sequence[str]) -> ImageList:
        """Some of the images, in the order of `image_ids`; what was looked up of them is kept."""
        images = copy.copy(self)
        images.image_ids = list(image_ids)
        if self._files is not None:
            file_of = dict(zip(self.image_ids, self._files))
            images._files = [file_of[image_id] for image_id in image_ids]
        return images

    def files(self) -> Sequence[Optional[FileState]]:
        """The file of every image or None; the disk is asked once, one `stat` an image where all have one extension."""
        if self._files is None:
            parts = [range(len(self))[start:start + 1000] for start in range(0, len(self), 1000)]
            with ThreadPoolExecutor(LOOK_UP_THREADS) as pool:
                found = pool.map(lambda part: list(map(self._look_up, part)), parts)
                shown = bar("looking up images", "thousand", len(parts), over=found)
                self._files = [file for part in shown for file in part]
        return self._files

    def _look_up(self, index: int) -> Optional[FileState]:
        image_id = self.image_ids[index]
        found = look_up(f"{self.folder}{os.sep}{image_id}{self._suffix}")
        if found is None:  # in a folder of mixed extensions
            others = (look_up(f"{self.folder}{os.sep}{stem}{suffix}")
                      for stem in possible_stems(image_id) for suffix in IMAGE_SUFFIXES)
            found = next(filter(None, others), None)
        return found

    def file(self, index: int) -> FileState:
        """The file of image `index`.

        Raises:
            DataError: there is none.
        """
        found = self._look_up(index) if self._files is None else self._files[index]
        if found is not None:
            return found
        image_id = self.image_ids[index]
        raise DataError(f"{self.folder / (image_id + self._suffix)}: no such image (id {shorten(image_id)}); add it, "
                        "remove the id from the split file, or pass --skip_unreadable")

    def path(self, index: int) -> Path:
        """The path of `file`."""
        return Path(self.file(index).path)


def find_unreadable(images: ImageList, workers: int = 4, progress: bool = False) -> List[Tuple[str, str]]:
    """Decode every image once, before the long work starts.

    Args:
        images: the images.
        workers: threads that decode.
        progress: show a progress bar.

    Returns:
        `(image id, reason)` of each image that is missing or cannot be read, in order; the reason names the file.
    """
    from datasets.images import check_images

    unreadable, paths, indices = {}, [], []
    for index, file in enumerate(images.files()):
        try:
            paths.append((file or images.file(index)).path)
            indices.append(index)
        except DataError as error:
            unreadable[index] = str(error)
    for position, reason in check_images(paths, workers, progress):
        unreadable[indices[position]] = reason
    return [(images.image_ids[index], unreadable[index]) for index in sorted(unreadable)]
