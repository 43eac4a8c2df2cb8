"""Captions from any captioner: JSON, JSON lines or CSV, any number of captions for a photo."""
from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Container, Dict, Iterator, List, Mapping, Tuple

from datasets.files import DataError, counted, read_json, read_lines, shorten

FORMATS = (".json", ".jsonl", ".csv")
"""Suffixes of the files that are read, in the order of search."""

IMAGE_KEYS = ("image_id", "image", "photo", "id", "file_name", "filename", "file", "path")
CAPTION_KEYS = ("captions", "caption", "text")
"""Names of the fields of a record or the columns of a table, the first that is there counts."""

_IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))


def read_any_captions(path: Path, missing: str = "", image_ids: Container[str] = ()) -> Dict[str, List[str]]:
    """Read a caption file: image id to its captions, in the order of the file.

    JSON: `{"image": ["caption", ...]}` or `{"image": "caption"}`, or a list of records. JSON lines: a record a line.
    CSV: a header, and a row for each caption or each image. A record or a row names its image in one of `IMAGE_KEYS`
    and its captions in one of `CAPTION_KEYS` (in CSV also `caption1`, `caption_2`, ...); an image may have several.
    Images are ids or file names: the suffix of an image file goes, and the trailing dot of the authors' ids.

    Args:
        path: the file.
        missing: what the user can do when it is not there; ends the error message.
        image_ids: ids that are known; of photos that differ in the suffix alone they have it, and keep it.

    Raises:
        DataError: the file is missing, no such file, holds no image, or an image has no caption or something else.
    """
    captions: Dict[str, List[str]] = {}
    keys: Dict[str, str] = {}
    places: Dict[str, str] = {}
    for place, key, texts in _ENTRIES[path.suffix](path, missing):
        image_id = image_id_of(key, image_ids)
        places.setdefault(image_id, place)
        if keys.setdefault(image_id, key) != key:
            raise DataError(f"{place}: image {image_id!r} is listed twice, as {shorten(keys[image_id])} and as "
                            f"{shorten(key)}; keep one")
        captions.setdefault(image_id, []).extend(_texts(place, key, texts))
    if not captions:
        raise DataError(f"{path}: holds no image; caption the images first")
    empty = [image_id for image_id, texts in captions.items() if not texts]
    if empty:
        raise DataError(f"{places[empty[0]]}: {counted(len(empty), 'image')} without a caption, the first is "
                        f"{shorten(empty[0])}; caption them, or take them out")
    return captions


def image_id_of(name: str, image_ids: Container[str] = ()) -> str:
    """The id of an image that a caption file names by its id or its file; `image_ids` are ids as they are."""
    name = name.replace("\\", "/")
    name = name[2:] if name.startswith("./") else name
    if name in image_ids:
        return name
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and (not suffix or f".{suffix.lower()}" in _IMAGE_SUFFIXES) else name


def _texts(place: str, key: str, texts: Any) -> List[str]:
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list):
        raise DataError(f"{place}: image {shorten(key)} has {json_kind(texts)} in place of captions")
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"{place}: caption {number} of image {shorten(key)} is {json_kind(text)}, expected a "
                            "string")
    return texts


def _json_entries(path: Path, missing: str) -> Iterator[Tuple[str, str, Any]]:
    content = read_json(path, missing)
    if isinstance(content, dict):
        for key, texts in content.items():
            yield str(path), key, texts
    elif isinstance(content, list):
        for number, record in enumerate(content, 1):
            yield _record(f"{path}: record {number}", record)
    else:
        raise DataError(f"{path}: expected an object that maps image ids to lists of captions, found "
                        f"{json_kind(content)}")


def _json_lines(path: Path, missing: str) -> Iterator[Tuple[str, str, Any]]:
    for number, line in read_lines(path, missing):
        place = f"{path}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError(f"{place}: not valid JSON; write one record a line") from None
        yield _record(place, record)


def _record(place: str, record: Any) -> Tuple[str, str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"{place}: expected an object such as {{\"image\": ..., \"captions\": [...]}}, found "
                        f"{json_kind(record)}")
    key = record[_key(place, record, IMAGE_KEYS)]
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise DataError(f"{place}: the image is {json_kind(key)}, expected an id or a file name")
    return place, str(key), record[_key(place, record, CAPTION_KEYS)]


def _key(place: str, record: Mapping[str, Any], keys: Tuple[str, ...]) -> str:
    for key in keys:
        if key in record:
            return key
    raise DataError(f"{place}: has none of {', '.join(keys)}; name one of its fields so")


def _csv_rows(path: Path, missing: str) -> Iterator[Tuple[str, str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            file.seek(0)
            rows = csv.DictReader(file, delimiter=delimiter, strict=True)
            columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
            image = columns[_key(str(path), columns, IMAGE_KEYS)]
            numbered = [name for column, name in columns.items()
                        if column.startswith("caption") and column[len("caption"):].lstrip("_ ").isdigit()]
            texts = numbered or [columns[_key(str(path), columns, CAPTION_KEYS)]]
            for row in rows:
                place = f"{path}:{rows.line_num}"
                if not row[image]:
                    raise DataError(f"{place}: names no image")
                if None in row:
                    raise DataError(f"{place}: has more cells than the header; put captions with a {delimiter!r} in "
                                    "quotes")
                yield place, row[image].strip(), [row[name].strip() for name in texts if (row[name] or "").strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. {missing}".rstrip()) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None


_ENTRIES = {".json": _json_entries, ".jsonl": _json_lines, ".csv": _csv_rows}


def json_kind(value: object) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    return {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}.get(type(value), "a number")
