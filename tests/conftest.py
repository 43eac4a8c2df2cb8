"""A world of a dozen small images for tests: photos, split files, label files and a tiny random CLIP."""
from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from clip.model import CLIP, Architecture
from datasets.captions import filter_captions
from datasets.registry import get_dataset

# Coverage counts nothing in forked processes, and its tracing would take them half of their time.
os.register_at_fork(after_in_child=lambda: sys.settrace(None))

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture
def speaking() -> Iterator[None]:
    """A test that asks for quiet ends in it: the tests behind it are to speak again."""
    logger = logging.getLogger("bac_gcn")
    before = logger.disabled
    logger.disabled = False
    yield
    logger.disabled = before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real captions, photos and labels, where the machine has them."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the development data is not beside this checkout")
    return SHARED / "data"


@pytest.fixture(scope="session")
def voc2007_labels(shared_data, tmp_path_factory) -> Path:
    """A caption root with the labels of the authors' captions, which take seconds to make; not to be written to."""
    root = tmp_path_factory.mktemp("voc2007_labels")
    filter_captions(get_dataset("voc2007"), shared_data / "caption", root)
    return root


class TinyWorld(NamedTuple):
    """Paths of a data tree for `--dataset voc2007`."""

    root: Path
    flags: List[str]
    """The data flags of a train script."""

    def path(self, flag: str) -> Path:
        return Path(self.flags[self.flags.index(flag) + 1])


def save_tiny_clip(path: Path) -> None:
    torch.manual_seed(0)
    model = CLIP(Architecture(embed_dim=32, image_resolution=64, patch_size=16, vision_width=64, vision_layers=2,
                              text_width=64, text_layers=1))
    torch.save(model.state_dict(), path)


def save_labels(folder: Path, image_ids: List[str], categories: List[str]) -> None:
    """Random label files as `caption.py --stage filter` writes them."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    lists = {image_id: [sorted(set(generator.integers(0, len(categories), 3).tolist())) for _ in range(6)]
             for image_id in image_ids}
    counts: Dict[str, int] = {}
    pairs: Dict[str, Dict[str, int]] = {}
    for names in ([categories[label] for label in labels] for entry in lists.values() for labels in entry):
        for name in names:
            counts[name] = counts.get(name, 0) + 1
            for other in names:
                if other != name:
                    row = pairs.setdefault(name, {})
                    row[other] = row.get(other, 0) + 1
    scores = {image_id: generator.random(len(categories)).round(3).tolist() for image_id in image_ids}
    for name, value in (("train_label_dictionary", lists), ("train_count_dict", counts),
                        ("train_co_occurrence_counts", pairs), ("train_label_scores", scores)):
        (folder / f"{name}.json").write_text(json.dumps(value))


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory) -> TinyWorld:
    root = tmp_path_factory.mktemp("tiny_world")
    spec = get_dataset("voc2007")
    generator = np.random.default_rng(1)
    for split, count in (("train", 20), ("val", 12)):
        (root / split).mkdir()
        lines = []
        for number in range(count):
            image_id = f"{split}_{number:03d}"
            pixels = generator.integers(0, 256, (8, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((100, 80)).save(root / split / f"{image_id}.jpg")
            labels = generator.choice(20, 3, replace=False)
            lines.append(" ".join([image_id, *map(str, sorted(labels))]))
        (root / f"{split}_cls.txt").write_text("\n".join(lines) + "\n")
    save_tiny_clip(root / "tiny.pt")
    save_labels(root / "caption" / "voc2007", [f"train_{number:03d}" for number in range(20)], list(spec.categories))
    return TinyWorld(root, [
        "--dataset", "voc2007", "--train_img_root", str(root / "train"), "--train_split_file",
        str(root / "train_cls.txt"), "--val_img_root", str(root / "val"), "--val_split_file", str(root / "val_cls.txt"),
        "--model_path", str(root / "tiny.pt"), "--caption_root", str(root / "caption"),
        "--feature_root", str(root / "features"), "--num_workers", "0", "--device", "cpu"])
