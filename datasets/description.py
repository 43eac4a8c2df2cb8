"""A dataset in one file: what it is, read from JSON that a user wrote or `datasets.build --photos` made."""
from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from datasets.files import DataError, PathLike, read_json, shorten
from datasets.names import prompt_name


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset. Image roots and split files are defaults of the command line flags of the same name."""

    name: str
    title: str
    classes: Tuple[str, ...]
    backgrounds: Tuple[str, ...]
    train_img_root: str
    train_split_file: str
    val_img_root: str
    val_split_file: str
    model_path: str = "pretrained_models/clip/ViT-B-16.pt"
    mask_mode: str = "pixel"
    """Default of `--mask_mode`; "pixel" is the paper's."""
    unlabelled_test: bool = False
    """Whether the test split may be without labels, on purpose."""
    synonyms: Optional[Mapping[str, Sequence[str]]] = None
    """Of a dataset that a description describes: category to words and "@concepts" that name it beside its own name.
    None: caption/DATASET_synonyms.json has them."""
    prompt_words: Mapping[str, str] = field(default_factory=dict)
    """Category to the words that stand for it in text prompts, where `datasets.names` does not say so."""
    get_split_files: str = ""
    """The command that makes the split files; ends the error message about a missing one."""
    get_images: str = ""
    """What fetches the images; ends the error message about a missing folder."""
    get_captions: str = ""
    """What fetches captions that somebody published; ends the error message about missing ones."""

    @property
    def categories(self) -> Tuple[str, ...]:
        """Classes, then backgrounds: the index order of labels, kernels and graph nodes. Length O = C + B."""
        return self.classes + self.backgrounds

    def prompt_names(self, categories: Sequence[str]) -> List[str]:
        """The words that stand for each of the categories in a text prompt."""
        return [self.prompt_words.get(category) or prompt_name(category) for category in categories]


SUFFIX = ".json"
"""What the path of a description ends in; `--dataset` tells it from a name by this."""

PATHS = ("train_img_root", "train_split_file", "val_img_root", "val_split_file", "model_path")
"""Keys that hold a path, relative to the description's folder."""

KEYS = ("name", "title", "classes", "backgrounds", "synonyms", "prompt_words", "unlabelled_test", *PATHS)
"""What a description may hold; `classes` and `train_img_root` it must."""

_TEXTS = ("name", "title", *PATHS)


def load_description(path: PathLike) -> DatasetSpec:
    """Read a description; docs/own-data.md says what it holds.

    Raises:
        DataError: the file is missing or no JSON, a key is unknown or missing, or a value does not fit.
    """
    advice = (f"Paths begin in the working folder, {os.getcwd()}. Make a description with `python -m datasets.build "
              "--photos FOLDER --classes FILE`, or by hand as docs/own-data.md describes")
    return parse_description(path, read_json(path, missing=advice))


def parse_description(path: PathLike, content: Any) -> DatasetSpec:
    """The dataset that the content of a description describes.

    Args:
        path: the file; its folder is where paths begin, and messages name it.
        content: what it holds.

    Raises:
        DataError: as `load_description`.
    """
    if not isinstance(content, dict):
        raise DataError(f"{path}: no JSON object at the top; docs/own-data.md shows a description")
    for key in content:
        if key not in KEYS:
            raise DataError(f"{path}: {shorten(key)} is no key of a description; there are {', '.join(KEYS)}")
    for key in ("classes", "train_img_root"):
        if key not in content:
            raise DataError(f"{path}: {key!r} is missing; docs/own-data.md shows a description")
    for key in _TEXTS:
        if key in content and (not isinstance(content[key], str) or not content[key].strip()):
            raise DataError(f"{path}: {key!r} is no text; write it in quotes")
    if not isinstance(content.get("unlabelled_test", False), bool):
        raise DataError(f"{path}: 'unlabelled_test' is {shorten(str(content['unlabelled_test']))}; write true or false")
    name = content.get("name", Path(path).stem)
    check_name(path, name)
    classes = _names(path, "classes", content["classes"])
    backgrounds = _names(path, "backgrounds", content.get("backgrounds", []))
    if not classes:
        raise DataError(f"{path}: 'classes' is empty; list at least one name")
    twice = [category for category, count in Counter(map(str.lower, classes + backgrounds)).items() if count > 1]
    if twice:
        raise DataError(f"{path}: {shorten(twice[0])} is named twice among classes and backgrounds; keep one")
    values = {"train_split_file": "train_cls.txt", "val_split_file": "test_cls.txt",
              "val_img_root": content["train_img_root"], **content}
    places = {key: os.path.normpath(Path(path).parent / values[key]) for key in PATHS if key in values}
    return DatasetSpec(
        name=name, title=str(content.get("title", name)), classes=classes, backgrounds=backgrounds,
        unlabelled_test=content.get("unlabelled_test", False),
        synonyms=_synonyms(path, content.get("synonyms", {}), classes + backgrounds),
        prompt_words=_prompt_words(path, content.get("prompt_words", {}), classes + backgrounds),
        get_split_files=f"python -m datasets.build --dataset {path}", **places)


def check_name(where: PathLike, name: str) -> None:
    """Raises DataError where a dataset cannot have the name, since folders are called after it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise DataError(f"{where}: the name {shorten(name)} becomes a folder's; take letters, digits, _ and -")


def _names(path: PathLike, key: str, value: Any) -> Tuple[str, ...]:
    if not isinstance(value, list):
        raise DataError(f"{path}: {key!r} is no list of names; write [\"dog\", \"fire hydrant\", ...]")
    for name in value:
        if not isinstance(name, str) or not any(letter.isalnum() for letter in name) or name != " ".join(name.split()):
            raise DataError(f"{path}: {shorten(str(name))} among {key!r} is no name; write words with single spaces")
    return tuple(value)


def _synonyms(path: PathLike, value: Any, categories: Sequence[str]) -> Dict[str, List[str]]:
    entries = _entries(path, "synonyms", value, categories)
    for category, words in entries.items():
        if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
            raise DataError(f"{path}: the synonyms of {category!r} are no list of words")
    return entries


def _prompt_words(path: PathLike, value: Any, categories: Sequence[str]) -> Dict[str, str]:
    entries = _entries(path, "prompt_words", value, categories)
    for category, words in entries.items():
        if not isinstance(words, str) or not words.strip():
            raise DataError(f"{path}: the prompt words of {category!r} are no text")
    return entries


def _entries(path: PathLike, key: str, value: Any, categories: Sequence[str]) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {key!r} is no object; write {{\"CATEGORY\": ...}}")
    for category in value:
        if category not in categories:
            raise DataError(f"{path}: {shorten(category)} in {key!r} is none of the classes and backgrounds")
    return value
