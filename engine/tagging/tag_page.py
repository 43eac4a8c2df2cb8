"""`--html`: a page to look through photos by their tags."""
from __future__ import annotations

import base64
import hashlib
import json
import os
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Dict
from urllib.parse import quote

import matplotlib
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.files import PathLike, make_folder
from datasets.plotting import HEAT
from engine.pictures.page_style import page_style
from engine.tagging.photo_files import printable
from engine.tagging.photo_loader import Thumbnail
from engine.tagging.tag_files import TagFile
from engine.tagging.tagged_photo import TaggedPhoto, TagRun

SHOWN = 5
"""Classes that the page knows of a photo where it has fewer tags: the best of the others join them."""

LARGEST_MAP = 32
"""Rows or columns of a map on the page; TagCLIP's maps of large photos have more, and are averaged."""

_HERE = Path(__file__).parent


def html_page(path: PathLike, run: TagRun, link_thumbnails: bool) -> TagFile:
    """One page that opens from disk and asks the network for nothing.

    Args:
        path: the page.
        run: what holds for all photos.
        link_thumbnails: put the small pictures into the folder PAGE_thumbnails beside the page, named by their
            content, instead of into the page.
    """
    path = Path(path)
    folder = path.with_name(path.stem + "_thumbnails") if link_thumbnails else None
    template = (_HERE / "tag_page.html").read_text(encoding="utf-8")
    parts = {"title": "Photos by tag", "summary": escape(run.title), "rule": escape(run.rule),
             "style": page_style(_HERE / "tag_page.css"), "script": (_HERE / "tag_page.js").read_text(encoding="utf-8")}
    before, after = (Template(part).substitute(parts) for part in template.split("$photos"))

    def entry(photo: TaggedPhoto) -> str:
        assert photo.thumbnail is not None, "the page needs thumbnails"
        source = _linked(photo.thumbnail, folder) if folder else _embedded(photo.thumbnail)
        return (f'<script type="application/json" class="photo" data-thumbnail="{escape(source)}">'
                f"{_json(_record(photo, run, path.parent))}</script>\n")

    def foot() -> str:
        colours = (matplotlib.colormaps[HEAT](range(256))[:, :3] * 255).round().astype(int).tolist()
        common = {"classes": run.classes, "colours": colours,
                  "unreadable": [printable(reason) for _, reason in run.unreadable]}
        return f'<script type="application/json" id="run">{_json(common)}</script>\n{after}'

    return TagFile(str(path), before, entry, foot)


def _record(photo: TaggedPhoto, run: TagRun, page_folder: Path) -> Dict[str, Any]:
    """What the page knows of a photo. Scores come highest first, with the maps as bytes, row by row."""
    assert photo.thumbnail is not None
    scores = photo.result.scores[:run.num_classes]
    best = scores.topk(min(max(SHOWN, len(photo.tags)), len(scores))).indices.tolist()
    rows = photo.tags + [row for row in best if row not in photo.tags][:max(0, SHOWN - len(photo.tags))]
    maps = map_bytes(photo.result.maps[rows])
    return {"name": printable(photo.path), "address": _address(photo.path, page_folder),
            "size": [photo.thumbnail.width, photo.thumbnail.height], "grid": list(maps.shape[1:]),
            "scores": [{"class": row, "score": round(float(scores[row]), 4), "tag": row in photo.tags,
                        "map": base64.b64encode(values.numpy().tobytes()).decode()} for row, values in zip(rows, maps)]}


def map_bytes(maps: Tensor) -> Tensor:
    """(n, rows, columns) maps in 0..255, each from its least value to its greatest, at most `LARGEST_MAP` a side."""
    maps = maps.float()
    size = [min(side, LARGEST_MAP) for side in maps.shape[1:]]
    if list(maps.shape[1:]) != size:
        maps = F.interpolate(maps[None], size, mode="area")[0]
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return (255 * (maps - low) / (high - low).clamp(min=1e-12)).round().to(torch.uint8)


def _json(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _address(path: str, page_folder: Path) -> str:
    """The photo as the page links to it."""
    return quote(os.fsencode(os.path.relpath(os.path.abspath(path), os.path.abspath(page_folder))))


def _embedded(thumbnail: Thumbnail) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(thumbnail.jpeg).decode()


def _linked(thumbnail: Thumbnail, folder: Path) -> str:
    """Write the thumbnail, and its address as the page beside the folder has it."""
    name = hashlib.sha256(thumbnail.jpeg).hexdigest()[:20] + ".jpg"
    make_folder(folder)
    (folder / name).write_bytes(thumbnail.jpeg)
    return quote(f"{folder.name}/{name}")
