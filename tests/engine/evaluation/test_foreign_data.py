"""A checkpoint on data that it was not trained for: another split is named, other categories are refused."""
from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from datasets.registry import get_dataset
from tests.engine.training.test_training import run_script, train


@pytest.fixture(scope="module")
def run(tiny_world, tmp_path_factory) -> Path:
    return train(tiny_world, tmp_path_factory.mktemp("foreign") / "run", "--epochs", 1, "--no_reso")


@pytest.mark.parametrize("dataset", ["mini", "coco2014", "nuswide"])
@pytest.mark.parametrize("mode", [[], ["--figure", "per_class"], ["--method", "clip"]])
def test_other_categories_are_refused(run, capsys, dataset, mode):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        run_script("eval", "--checkpoint", run / "checkpoint.pth", "--dataset", dataset, *mode)
    message, = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert message.startswith(f"error: {run / 'checkpoint.pth'}: trained for the 44 categories of voc2007, which are "
                              f"not those of {dataset}")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_another_dataset_of_the_same_categories_is_read_and_named(tiny_world, run, tmp_path, monkeypatch, capsys):
    """VOC2012's own images and labels, not those of the run, and a table beside that of the run's own split."""
    run_script("eval", "--checkpoint", run / "checkpoint.pth")
    own = (run / "per_class_bac_gcn.csv").read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_script("eval", "--checkpoint", run / "checkpoint.pth", "--dataset", "voc2012")
    assert stop.value.code == 2 and "imageset/voc2012/val_cls.txt: no such file" in capsys.readouterr().err

    spec = get_dataset("voc2012")
    shutil.copytree(tiny_world.root / "train", spec.val_img_root)
    Path(spec.val_split_file).parent.mkdir(parents=True)
    Path(spec.val_split_file).write_text("train_000 0\ntrain_001 1 2\ntrain_002 0 1\n")
    run_script("eval", "--checkpoint", run / "checkpoint.pth", "--dataset", "voc2012")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == "3 test images of imageset/voc2012/val_cls.txt, VOC2012 (segmentation train / val); trained " \
                        "on voc2007"
    with open(run / "per_class_bac_gcn_on_voc2012_val_cls.csv", newline="") as file:
        assert [int(row["positives"]) for row in csv.DictReader(file)][:4] == [2, 2, 1, 0]
    assert (run / "per_class_bac_gcn.csv").read_bytes() == own


def test_another_split_goes_where_it_is_told(tiny_world, run, tmp_path, capsys):
    (tmp_path / "few.txt").write_text("val_000 0\nval_001 1\n")
    run_script("eval", "--checkpoint", run / "checkpoint.pth", "--val_split_file", tmp_path / "few.txt", "--output_dir",
               tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "per_class_bac_gcn_on_voc2007_few.csv", "scores_on_voc2007_few.npz"}
    assert f"2 test images of {tmp_path / 'few.txt'}" in capsys.readouterr().out
