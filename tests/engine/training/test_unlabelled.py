"""A test split without labels: refused, or on purpose, and then without any mAP."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.files import DataError
from engine.results.finished_runs import collect_runs, read_run
from engine.results.tables import NO_MAP
from tests.conftest import save_labels
from tests.engine.training.test_training import run_script

SHORT = ["--epochs", "2", "--reso_epoch", "2", "--batch_size", "8", "--epsilon", "0.15"]


@pytest.fixture(scope="module")
def described(tiny_world, tmp_path_factory) -> Path:
    """A description of the tiny world's photos under three classes of its own, without test labels."""
    root = tmp_path_factory.mktemp("described")
    for part in ("train", "val"):
        ids = [line.split()[0] for line in (tiny_world.root / f"{part}_cls.txt").read_text().splitlines()]
        (root / f"{part}_cls.txt").write_text("\n".join(ids) + "\n")
        if part == "train":
            save_labels(root / "caption" / "own", ids, ["dog", "theremin", "owl", "grass"])
    path = root / "own.json"
    path.write_text(json.dumps({
        "classes": ["dog", "theremin", "owl"], "backgrounds": ["grass"],
        "train_img_root": str(tiny_world.root / "train"),
        "val_img_root": str(tiny_world.root / "val"), "val_split_file": "val_cls.txt", "unlabelled_test": True,
        "model_path": str(tiny_world.root / "tiny.pt")}))
    return path


def flags(path: Path):
    return ["--dataset", path, "--caption_root", path.parent / "caption", "--feature_root", path.parent / "features",
            "--num_workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def finished(described) -> Path:
    folder = described.parent / "run"
    run_script("train_custom", *flags(described), *SHORT, "--output_dir", folder)
    return folder


def test_a_run_without_test_labels_has_everything_but_an_map(finished, described, capsys):
    records = [json.loads(line, parse_constant=pytest.fail) for line in (finished / "log.txt").read_text().splitlines()]
    assert len(records) == 2 and all(np.isfinite(record["loss"]) and "mAP" not in record for record in records)
    result = json.loads((finished / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["dataset"] == "own" and {name for name, value in result.items() if name.endswith("mAP")
                                           and value is not None} == set()
    assert (finished / "checkpoint.pth").exists() and not (finished / "best.pth").exists()
    run_script("train_custom", *flags(described), *SHORT, "--output_dir", finished)  # goes on from its own checkpoint
    assert NO_MAP in capsys.readouterr().out


def test_an_evaluation_without_test_labels_counts_tags(finished, capsys):
    run_script("eval", "--checkpoint", finished / "checkpoint.pth")
    printed = capsys.readouterr().out
    assert printed.strip().endswith(NO_MAP) and "tagged, of 12" in printed and "nan" not in printed.lower()
    assert not list(finished.glob("per_class_*.csv"))
    with np.load(finished / "scores.npz") as scores:
        assert scores["scores"].shape == (12, 3) and "targets" not in scores


def test_a_checkpoint_finds_its_description_in_another_folder_by_dataset(finished, described, tmp_path, monkeypatch,
                                                                         capsys):
    checkpoint = torch.load(finished / "checkpoint.pth", weights_only=True)
    checkpoint["args"].update(dataset="imageset/own.json", val_img_root="gone", val_split_file="gone.txt")
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_script("eval", "--checkpoint", "checkpoint.pth")
    assert stop.value.code == 2 and capsys.readouterr().err.strip().endswith(
        "checkpoint.pth was trained on this description, so give its path by --dataset")
    run_script("eval", "--checkpoint", "checkpoint.pth", "--dataset", described)
    assert "tagged, of 12" in capsys.readouterr().out


def test_a_table_leaves_such_a_run_out_and_says_why(finished):
    assert read_run(finished) is not None
    with pytest.raises(DataError, match=NO_MAP):
        collect_runs([finished])


def test_labels_make_an_map_of_the_same_description(finished, described, tmp_path, capsys):
    ids = (described.parent / "val_cls.txt").read_text().split()
    (tmp_path / "labelled.txt").write_text("".join(f"{image_id} {row % 3}\n" for row, image_id in enumerate(ids)))
    run_script("eval", "--method", "clip", *flags(described)[:2], *flags(described)[4:],
               "--val_split_file", tmp_path / "labelled.txt", "--output_dir", tmp_path / "clip")
    assert capsys.readouterr().out.splitlines()[-1].startswith("mAP ")
    (tmp_path / "few.txt").write_text(f"{ids[0]} 1\n{ids[1]}\n")
    run_script("eval", "--method", "clip", *flags(described)[:2], *flags(described)[4:],
               "--val_split_file", tmp_path / "few.txt", "--output_dir", tmp_path / "few")
    assert "1 test image with a label, of 1 of 3 classes" in capsys.readouterr().out
    assert json.loads((tmp_path / "clip" / "result.json").read_text())["last_mAP"] > 0


@pytest.mark.parametrize("script", ["train_voc07", "eval"])
def test_a_split_without_labels_is_refused_where_labels_are_claimed(tiny_world, tmp_path, capsys, script):
    (tmp_path / "unlabelled.txt").write_text("val_000\nval_001\n")
    asked = [*tiny_world.flags, "--val_split_file", tmp_path / "unlabelled.txt", "--output_dir", tmp_path / "run"]
    if script == "eval":
        asked = ["--method", "clip", *asked[:asked.index("--caption_root")], *asked[asked.index("--caption_root") + 2:]]
    with pytest.raises(SystemExit) as stop:
        run_script(script, *asked)
    assert stop.value.code == 2 and not (tmp_path / "run").exists()
    assert "no image has a label" in capsys.readouterr().err


def test_a_dataset_must_be_named(capsys):
    with pytest.raises(SystemExit) as stop:
        run_script("train_custom")
    assert stop.value.code == 2 and "--dataset is missing: voc2007" in capsys.readouterr().err


def test_the_authors_voc2012_command_gets_its_working_form(capsys):
    with pytest.raises(SystemExit) as stop:
        run_script("train_v12", "--train_img_root", "data/voc2012/VOC2012_train_val", "--train_split_file",
                   "imageset/voc2007/trainval_cls.txt", "--val_img_root", "data/voc2012/VOC2012_test",
                   "--val_split_file", "imageset/voc2007/test_cls.txt")
    assert stop.value.code == 2 and capsys.readouterr().err.strip().endswith(
        "give --train_img_root data/voc2012/VOC2012_train_val --train_split_file imageset/voc2012/train_cls.txt "
        "--val_img_root data/voc2012/VOC2012_train_val --val_split_file imageset/voc2012/val_cls.txt")
