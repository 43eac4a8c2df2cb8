"""The threshold of tags: what evaluation and tagging make of it."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from engine.evaluation.evaluation_set import Scored
from tests.engine.training.test_training import log, run_script


def test_tags_reach_the_threshold():
    logits = Scored(torch.tensor([[0.0, -1.0, 2.0]]), are_logits=True)
    assert logits.tags(0.5).tolist() == [[True, False, True]] and logits.tags(None).tolist() == [[False, False, True]]
    assert logits.tags(0.2).tolist() == [[True, True, True]]
    scores = Scored(torch.tensor([[0.0, 0.5, 0.9]]), are_logits=False)
    assert scores.tags(0.5).tolist() == [[False, True, True]] and scores.tags(None).tolist() == [[False, True, True]]
    assert scores.tags(0.6).tolist() == [[False, False, True]]


@pytest.fixture(scope="module")
def finished(tiny_world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("threshold") / "run"
    run_script("train_voc07", *tiny_world.flags, "--output_dir", folder, "--epochs", 2, "--no_reso")
    return folder


def evaluate(capsys, *flags):
    """The lines that eval.py prints at last: threshold, measures of tags, mAP."""
    capsys.readouterr()
    run_script("eval", *flags)
    threshold, tags, _, mean = capsys.readouterr().out.strip().splitlines()[-4:]
    return threshold, tags, mean


def measures(record) -> str:
    return "  ".join(f"{letter}{name} {record[f'{letter}{name}']:.2f}" for letter in "OC" for name in ("P", "R", "F1"))


def test_evaluation_tags_by_the_checkpoints_threshold(finished, capsys):
    record, result = log(finished)[-1], json.loads((finished / "result.json").read_text())
    assert 0 < record["threshold"] < 1 and result["threshold"] == record["threshold"]
    assert (result["last_OF1"], result["last_CF1"]) == (record["OF1"], record["CF1"])
    said, tags, _ = evaluate(capsys, "--checkpoint", finished / "checkpoint.pth")
    assert said == f"tags from a score of {record['threshold']:.4g} on, the checkpoint's"
    assert tags == measures(record)


def test_threshold_can_be_given(finished, tiny_world, tmp_path, capsys):
    everything = evaluate(capsys, "--checkpoint", finished / "checkpoint.pth", "--threshold", 0)
    assert everything[0] == "tags from a score of 0 on, as given" and "OR 100.00" in everything[1]
    run_script("eval", "--checkpoint", finished / "checkpoint.pth", "--threshold", 0, "--output_dir", tmp_path,
               "--image", tiny_world.root / "val" / "val_000.jpg")
    tags = next(line for line in capsys.readouterr().out.splitlines() if "val_000.jpg: " in line)
    assert len(tags.split(", ")) == 20


def test_photos_are_tagged_by_the_checkpoints_threshold(finished, tiny_world, tmp_path, capsys):
    run_script("eval", "--checkpoint", finished / "checkpoint.pth", "--output_dir", tmp_path,
               "--image", tiny_world.root / "val" / "val_000.jpg")
    lines = capsys.readouterr().out.splitlines()
    tags = next(line for line in lines if "val_000.jpg: " in line).split(": ")[1].split(", ")
    scores = {" ".join(line.split()[:-1]): float(line.split()[-1]) for line in lines
              if line.split() and line.split()[-1].startswith("0.") and not line.startswith(("background", "tags"))}
    assert tags[0] in scores
    assert all((name in tags) == (score >= log(finished)[-1]["threshold"]) for name, score in scores.items())


def test_a_checkpoint_without_a_threshold_decides_by_sign_and_says_so(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "old")
    path = tmp_path / "old" / "checkpoint.pth"
    checkpoint = torch.load(path, weights_only=True)
    for record in checkpoint["history"]:
        del record["threshold"]
    torch.save(checkpoint, path)
    said, tags, _ = evaluate(capsys, "--checkpoint", path)
    assert said == "the checkpoint has no threshold for tags; give one as --threshold"
    assert tags == evaluate(capsys, "--checkpoint", path, "--threshold", 0.5)[1] != measures(log(finished)[-1])


@pytest.mark.parametrize("method", ["clip", "tagclip", "cdul"])
def test_methods_without_training_take_it_from_training_images(tiny_world, tmp_path, capsys, method):
    flags = ["--method", method, *tiny_world.flags, "--output_dir", tmp_path]
    found = evaluate(capsys, *flags)
    assert found[0].startswith("tags from a score of ") and "found on 20 training images" in found[0]
    threshold = json.loads((tmp_path / "result.json").read_text())["threshold"]
    assert evaluate(capsys, *flags, "--threshold", threshold)[1:] == found[1:]
    without = evaluate(capsys, *flags, "--caption_root", tmp_path / "nowhere")
    assert "no threshold" in without[0] and without[1] != found[1] and without[2] == found[2]
    assert json.loads((tmp_path / "result.json").read_text())["threshold"] is None


def test_true_labels_of_training_images_change_no_threshold(tiny_world, tmp_path, capsys):
    ids = [line.split()[0] for line in tiny_world.path("--train_split_file").read_text().splitlines()]
    (tmp_path / "other.txt").write_text("".join(f"{image_id} 7\n" for image_id in ids))
    flags = ["--method", "clip", *tiny_world.flags, "--output_dir", tmp_path]
    assert evaluate(capsys, *flags) == evaluate(capsys, *flags, "--train_split_file", tmp_path / "other.txt")
