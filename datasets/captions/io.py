"""Caption files: `<caption_root>/<dataset>/<dataset>_captions.json` and `..._re_captions.json`."""
from __future__ import annotations

from pathlib import Path
from typing import Dict, List, NamedTuple

from datasets.captions.prompts import NUM_PROMPTS
from datasets.files import DataError, PathLike, read_json
from datasets.registry import how_to_caption

Captions = Dict[str, List[str]]
"""Image id to its captions."""


class CaptionPaths(NamedTuple):
    """Where the two caption files of a dataset lie."""

    first: Path
    re: Path


def caption_paths(caption_root: PathLike, dataset: str) -> CaptionPaths:
    """The paths of a dataset's caption files in the authors' layout."""
    folder = Path(caption_root) / dataset
    return CaptionPaths(folder / f"{dataset}_captions.json", folder / f"{dataset}_re_captions.json")


def read_caption_file(path: PathLike, missing: str = "") -> Captions:
    """Read one caption file: `{image_id: [six strings]}`. Ids lose the trailing dot of the authors' files.

    Args:
        path: the file.
        missing: what the user can do when the file is not there.

    Raises:
        DataError: the file is missing, is no JSON, or an image has anything but six strings.
    """
    content = read_json(path, missing)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object that maps image ids to lists of {NUM_PROMPTS} captions, "
                        f"found {_json_kind(content)}")
    captions: Captions = {}
    for key, texts in content.items():
        if not isinstance(texts, list):
            raise DataError(f"{path}: image {key!r} has {_json_kind(texts)} in place of {NUM_PROMPTS} captions")
        if len(texts) != NUM_PROMPTS:
            raise DataError(f"{path}: image {key!r} has {len(texts)} captions, expected {NUM_PROMPTS}, one a prompt; "
                            "caption the image again")
        for number, text in enumerate(texts, 1):
            if not isinstance(text, str):
                raise DataError(f"{path}: caption {number} of image {key!r} is {_json_kind(text)}, expected a string")
        image_id = key[:-1] if key.endswith(".") else key
        if image_id in captions:
            raise DataError(f"{path}: image {image_id!r} is listed twice, with and without a trailing dot; keep one")
        captions[image_id] = texts
    if not captions:
        raise DataError(f"{path}: holds no image; caption the images first")
    return captions


def load_captions(caption_root: PathLike, dataset: str) -> Captions:
    """The twelve captions of every image of a dataset: six first captions, then six re-captions.

    Both files must hold the same images: a half-finished captioning run must not pass as a finished one.

    Raises:
        DataError: a file is missing or malformed, or an image is in only one of the two.
    """
    paths = caption_paths(caption_root, dataset)
    hint = f"Get it with {how_to_caption(dataset)}; or give its folder as --caption_root"
    first = read_caption_file(paths.first, hint)
    re_captions = read_caption_file(paths.re, hint)
    for path, only, other in ((paths.re, first, re_captions), (paths.first, re_captions, first)):
        missing = only.keys() - other.keys()
        if missing:
            raise DataError(f"{path}: {len(missing)} of {len(only)} images are not in this file, the first is "
                            f"{min(missing)!r}; finish the captioning run")
    return {image_id: texts + re_captions[image_id] for image_id, texts in first.items()}


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}.get(type(value), "a number")
