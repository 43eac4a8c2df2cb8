"""BAC-GCN+ on real photos with the authors' captions."""
from __future__ import annotations

import pytest

from datasets.files import DataError
from engine.training.run import Run
from tests.engine.training.test_training import assert_same_weights, log, run_script


def test_plus_runs_on_real_photos_and_goes_on_after_a_stop(shared_data, voc2007_labels, tiny_world, tmp_path,
                                                           monkeypatch):
    photos, command = shared_data / "voc2007_photos", ["--recipe", "plus", "--labels", "fused", "--epochs", 3]
    for part, split in (("train", "trainval"), ("val", "test")):
        lines = (photos / f"{split}_cls.txt").read_text().splitlines()[:24]
        (tmp_path / f"{part}.txt").write_text("\n".join(lines) + "\n")
        command += [f"--{part}_img_root", photos / "JPEGImages", f"--{part}_split_file", tmp_path / f"{part}.txt"]
    command += ["--caption_root", voc2007_labels, "--model_path", tiny_world.path("--model_path"),
                "--feature_root", tmp_path / "features", "--num_workers", 0, "--device", "cpu", "--output_dir"]
    run_script("train_voc07", *command, tmp_path / "whole")
    finish_epoch = Run.finish_epoch

    def stop_after_it(*args) -> None:
        finish_epoch(*args)
        raise DataError("stopped")

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Run, "finish_epoch", stop_after_it)
        run_script("train_voc07", *command, tmp_path / "stopped")
    assert len(log(tmp_path / "stopped")) == 1
    run_script("train_voc07", *command, tmp_path / "stopped")
    assert log(tmp_path / "stopped") == log(tmp_path / "whole")
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")
