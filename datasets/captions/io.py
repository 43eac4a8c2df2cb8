"""The captions of a dataset: `<caption_root>/<dataset>/<dataset>_captions.*` and `..._re_captions.*`."""
from __future__ import annotations

from pathlib import Path
from typing import Container, Dict, List, NamedTuple, Optional

from datasets.captions.own_files import FORMATS, read_any_captions
from datasets.captions.prompts import NUM_PROMPTS
from datasets.files import DataError, PathLike, counted
from datasets.registry import DATASETS, DatasetSpec, how_to_caption
from datasets.split_file import split_ids

Captions = Dict[str, List[str]]
"""Image id to its captions."""


class CaptionPaths(NamedTuple):
    """Where the two caption files of a dataset lie."""

    first: Path
    re: Path


class CaptionSet(Captions):
    """Image id to all captions of the image: the first captions, then as many re-captions where there are any.

    Args:
        first: the first captions, one to any number an image.
        re_captions: of the same images, as many for each.
    """

    def __init__(self, first: Captions, re_captions: Optional[Captions] = None) -> None:
        super().__init__(first if re_captions is None else
                         {image_id: texts + re_captions[image_id] for image_id, texts in first.items()})
        self.has_re_captions = re_captions is not None

    def num_first(self, image_id: str) -> int:
        """How many of the image's captions are first captions."""
        return len(self[image_id]) // (2 if self.has_re_captions else 1)


def caption_paths(caption_root: PathLike, dataset: str) -> CaptionPaths:
    """The paths of a dataset's caption files in the authors' layout."""
    folder = Path(caption_root) / dataset
    return CaptionPaths(folder / f"{dataset}_captions.json", folder / f"{dataset}_re_captions.json")


def find_captions(caption_root: PathLike, dataset: str) -> Optional[Path]:
    """The file of a dataset's first captions in whichever format; None where there is none.

    Raises:
        DataError: there is more than one.
    """
    return _find(caption_paths(caption_root, dataset).first)


def load_captions(caption_root: PathLike, dataset: str, image_ids: Container[str] = ()) -> CaptionSet:
    """All captions of every image of a dataset; `image_ids` are those of its split files, see `read_any_captions`.

    Re-captions are optional, except in the six-prompt layout (JSON, six captions an image) of a dataset that comes with
    the code or beside the journal of a captioning run: a half-finished run must not pass as a finished one.

    Raises:
        DataError: a file is missing or malformed, there are two formats of it, or first captions and re-captions
            are not of the same images and as many for each.
    """
    paths = caption_paths(caption_root, dataset)
    hint = (f"Get it with {how_to_caption(dataset)}; or give its folder as --caption_root, or write captions of your "
            "own as docs/captions.md describes")
    path, re_path = _find(paths.first) or paths.first, _find(paths.re)
    if dataset not in DATASETS:
        hint = f"{', '.join(FORMATS[1:])} would do as well. {hint}"
    first = read_any_captions(path, hint, image_ids)
    if re_path is None:
        if not _needs_re_captions(path, dataset, first):
            return CaptionSet(first)
        re_path = paths.re
    re_captions = read_any_captions(re_path, hint, image_ids)
    for other_path, only, other in ((re_path, first, re_captions), (path, re_captions, first)):
        missing = only.keys() - other.keys()
        if missing:
            raise DataError(f"{other_path}: {len(missing)} of {counted(len(only), 'image')} missing from this file, "
                            f"the first is {min(missing)!r}; finish the captioning run")
    for image_id, texts in first.items():
        if len(texts) != len(re_captions[image_id]):
            raise DataError(f"{re_path}: image {image_id!r} has {len(re_captions[image_id])} re-captions, but "
                            f"{counted(len(texts), 'caption')} in {path.name}; caption the image again")
    return CaptionSet(first, re_captions)


def load_dataset_captions(caption_root: PathLike, spec: DatasetSpec) -> CaptionSet:
    """`load_captions` with the ids that the dataset's split files have."""
    return load_captions(caption_root, spec.name, set().union(*split_ids(spec)))


def _needs_re_captions(path: Path, dataset: str, first: Captions) -> bool:
    made_here = dataset in DATASETS or any(path.parent.glob(f"{dataset}_captions.shard*.jsonl"))
    return made_here and path.suffix == ".json" and {len(texts) for texts in first.values()} == {NUM_PROMPTS}


def _find(path: Path) -> Optional[Path]:
    found = [path.with_suffix(suffix) for suffix in FORMATS if path.with_suffix(suffix).exists()]
    if len(found) > 1:
        raise DataError(f"{found[0]}: {found[1].name} is there as well; keep one of them")
    return found[0] if found else None
