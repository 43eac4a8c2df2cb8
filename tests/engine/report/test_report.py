"""report.html: one file that opens from disk, and says what the run's files say."""
from __future__ import annotations

import argparse
import base64
import io
import json
import re
import shutil
import xml.etree.ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import pytest
from PIL import Image

from datasets.captions.io import caption_paths
from datasets.files import DataError
from datasets.registry import get_dataset
from datasets.split_file import read_split_file
from engine.report.run_report import write_report
from engine.results.finished_runs import collect_runs
from engine.training.checkpoint import load_checkpoint
from tests.engine.training.test_training import train

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and keeps pictures, addresses and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open_tags: List[str] = []
        self.pictures: List[Dict[str, str]] = []
        self.addresses: List[str] = []
        self.chips: List[Tuple[str, str]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open_tags

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag != "script"
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.pictures.append(attributes)
        if attributes.get("class", "").startswith("chip "):
            self.chips.append((attributes["class"].split()[1], ""))
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open_tags and self.open_tags[-1] == "span" and self.chips and not self.chips[-1][1]:
            self.chips[-1] = (self.chips[-1][0], data)


@pytest.fixture(scope="module")
def captioned_world(tiny_world, tmp_path_factory):
    """The tiny world with caption files beside its labels; one caption tries to be HTML."""
    root = tmp_path_factory.mktemp("captions")
    shutil.copytree(tiny_world.root / "caption", root / "caption")
    for kind, path in zip(("first", "again"), caption_paths(root / "caption", "voc2007")):
        path.write_text(json.dumps({f"train_{number:03d}": [f"{kind} {number} <b>&amp; {prompt}" for prompt in range(6)]
                                    for number in range(20)}))
    flags = list(tiny_world.flags)
    flags[flags.index("--caption_root") + 1] = str(root / "caption")
    return tiny_world._replace(flags=flags)


@pytest.fixture(scope="module")
def folder(captioned_world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    for seed in (0, 1):
        for flags in ([], ["--no_reso", "--config", folder / "config.json"]):
            place = folder.joinpath(*["seed_1"] * seed, *["no_reso"] * bool(flags))
            train(captioned_world, place, "--seed", seed, *flags)
    train(captioned_world, folder / "something_else", "--k", "2", "--epochs", "1")
    return folder


def args_of(folder: Path) -> argparse.Namespace:
    return argparse.Namespace(**load_checkpoint(folder / "checkpoint.pth")["args"])


@pytest.fixture(scope="module")
def page(folder) -> Page:
    path = write_report(folder, args_of(folder))
    assert path == folder / "report.html"
    return Page(path)


def test_page_needs_nothing_but_itself(page, folder):
    assert page.addresses and all(address.startswith("data:image/") for address in page.addresses)
    assert "url(" not in (folder / "report.html").read_text(encoding="utf-8")
    for picture in page.pictures:
        kind, data = re.fullmatch(r"data:image/(jpeg|svg\+xml);base64,(.+)", picture["src"]).groups()
        content = base64.b64decode(data)
        if kind == "jpeg":
            Image.open(io.BytesIO(content)).load()
        else:
            xml.etree.ElementTree.fromstring(content)
        assert len(picture["alt"]) > 8


def test_page_tells_the_numbers_of_the_runs(page, folder):
    groups = {(group.settings["no_reso"], group.settings["k"]): group for group in collect_runs([folder]).groups}
    for group, key in ((groups[False, 4], "last_mAP"), (groups[True, 4], "last_mAP"), (groups[False, 4], "best_mAP"),
                       (groups[False, 4], "zero_shot_mAP")):
        mean, std, count = group.statistic(key)
        assert f"{mean:.1f} ± {std:.1f}" in page.text if std else f"{mean:.1f}" in page.text
    assert "20 training images" in page.text and "12 test images" in page.text and "seeds 0, 1" in page.text


def test_every_part_is_there(page, folder):
    for part in ("What went in", "Captions become labels", "mAP per epoch", "Class by class", "The table",
                 "Two masked views", "Where it looks", "The graph", "Small objects"):
        assert part in page.text, part
    crops = len(json.loads((folder / "reso" / "index.json").read_text()))
    assert f"{crops:,} crops" in page.text
    assert sum("similarity map" in picture["alt"] for picture in page.pictures) == 4 * 5


def test_dots_of_an_image_lie_on_one_axis(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    for image in text.split('<div class="triple">')[1:]:
        lists = re.findall(r'<div class="dots">(.*?)</div></div>', image.split("</section>")[0], re.DOTALL)
        axes = {tuple(map(int, re.findall(r"<span>(-?\d+)</span>", dots.rpartition('class="ends"')[2])))
                for dots in lists}
        assert len(lists) == 3 and len(axes) == 1
        (low, high), = axes
        for dots in lists:
            for place, value in re.findall(r'left:(-?\d+)%"></i></div><span>(-?[\d.]+)<', dots):
                rounding = 0.5 + 5 / (high - low)
                assert int(place) == pytest.approx(100 * (float(value) - low) / (high - low), abs=rounding)


def test_captions_are_text(page):
    assert "first 1 <b>&amp; 0" in page.text and "again 1 <b>&amp; 5" in page.text


def test_chips_set_pseudo_labels_against_the_truth(page, captioned_world):
    classes = get_dataset("voc2007").classes
    split = read_split_file(captioned_world.path("--train_split_file"), 20)
    scores = json.loads((captioned_world.path("--caption_root") / "voc2007" / "train_label_scores.json").read_text())
    expected = []
    for row in (1, 5, 8, 11, 15, 18):  # the middles of six equal parts of 20
        score = scores[split.image_ids[row]]
        named, true = {c for c in range(20) if score[c] >= 0.5}, set(split.labels[row])
        for kind, found in (("hit ✓", named & true), ("extra +", named - true), ("missed –", true - named)):
            kind, mark = kind.split()
            expected += [(kind, f"{mark} {classes[c]} {np.float32(score[c]):.2f}") for c in found]
    shown = [chip for chip in page.chips[4:] if chip[0] != "place"]  # the first four are the legend
    assert sorted(shown) == sorted(expected)


def test_page_of_a_single_run(captioned_world, tmp_path):
    folder = train(captioned_world, tmp_path / "run", "--no_reso", "--no_backgrounds", "--epochs", "2")
    text = Page(write_report(folder, args_of(folder))).text
    assert "Small objects" not in text and "0 backgrounds" not in text and "±" not in text


def test_unfinished_run_has_no_page(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(DataError, match="its run is not finished"):
        write_report(tmp_path / "run", args_of(folder))
