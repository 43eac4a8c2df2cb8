"""Runs with --val_share and with what goes beyond the paper: no true label is read, and evaluation sees the same."""
from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.evaluation import held_out as held_out_module
from engine.evaluation.held_out import held_out_metrics, held_out_rows
from tests.engine.training.test_training import assert_same_weights, log, run_script, train

BEYOND = ["--epochs", "3", "--reso_epoch", "2", "--val_share", "0.3", "--kernel_start", "both", "--resolution", "32",
          "--self_share", "0.5", "--logit_start", "fitted", "--lr_warmup", "1", "--crop_labels", "ignore",
          "--epsilon", "0.4"]


@pytest.fixture(scope="module")
def run(tiny_world, tmp_path_factory) -> Path:
    return train(tiny_world, tmp_path_factory.mktemp("runs") / "beyond", *BEYOND)


def test_held_out_images_depend_on_their_ids_alone():
    ids = [f"image_{number}" for number in range(50)]
    held = {ids[row] for row in held_out_rows(ids, 0.2)}
    assert len(held) == 10 and held == {ids[::-1][row] for row in held_out_rows(ids[::-1], 0.2)}
    assert held < {ids[row] for row in held_out_rows(ids, 0.4)}


def test_run_says_how_held_out_images_fare(run):
    records = log(run)
    assert records[0]["images"] == 14 and records[1]["images"] > 14
    assert all(record["pseudo_loss"] > 0 and 0 < record[name] <= 100 for record in records
               for name in ("pseudo_mAP", "pseudo_AP"))
    result = json.loads((run / "result.json").read_text())
    assert all(result[name] == records[-1][name] for name in ("pseudo_mAP", "pseudo_AP"))
    best = max(records, key=lambda record: (record["pseudo_mAP"] + record["pseudo_AP"]) / 2)
    assert (result["best_epoch"], result["best_mAP"]) == (best["epoch"], best["mAP"])
    assert torch.load(run / "best.pth", weights_only=True)["epoch"] == best["epoch"]


def test_pseudo_ap_pools_the_pairs_of_all_classes(monkeypatch):
    """Both classes rank their two images right; between the positives stands the other class's negative."""
    logits = torch.tensor([[2.0, -1.0, 9.0], [1.0, -3.0, 9.0]])  # the last is a background's
    monkeypatch.setattr(held_out_module, "predict", lambda *_: logits)
    images = SimpleNamespace(targets=torch.tensor([[0.9, 0.5], [0.4, 0.0]]))
    metrics = held_out_metrics(SimpleNamespace(), images, argparse.Namespace(), torch.device("cpu"))
    assert metrics["pseudo_mAP"] == 100
    assert metrics["pseudo_AP"] == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_a_run_from_before_pseudo_ap_goes_on(tiny_world, run, tmp_path):
    """Its epochs are compared by pseudo_mAP, which all of them have."""
    folder = train(tiny_world, tmp_path / "run", *BEYOND[2:], "--epochs", 1)
    checkpoint = torch.load(folder / "checkpoint.pth", weights_only=True)
    record, = checkpoint["history"]
    del record["pseudo_AP"]
    record["pseudo_mAP"] = 100.0
    for name in ("checkpoint.pth", "best.pth"):
        torch.save(checkpoint, folder / name)
    (folder / "log.txt").write_text(json.dumps(record) + "\n")
    train(tiny_world, folder, *BEYOND)
    assert ["pseudo_AP" in line for line in log(folder)] == [False, True, True]
    assert log(folder)[1:] == log(run)[1:]
    assert torch.load(folder / "best.pth", weights_only=True)["epoch"] == 1
    result = json.loads((folder / "result.json").read_text())
    assert result["best_epoch"] == 1 and result["pseudo_AP"] == log(run)[-1]["pseudo_AP"]


def test_true_labels_of_training_images_change_nothing_beyond_the_paper(tiny_world, run, tmp_path):
    lines = tiny_world.path("--train_split_file").read_text().splitlines()
    (tmp_path / "unlabelled.txt").write_text("\n".join(line.split()[0] for line in lines) + "\n")
    other = train(tiny_world, tmp_path / "run", *BEYOND, "--train_split_file", tmp_path / "unlabelled.txt")
    assert_same_weights(other, run)
    assert log(other) == log(run)


def test_held_out_labels_are_the_same_whatever_a_run_trains_on(tiny_world, run, tmp_path):
    """The loss is against the scores of the held-out images, also where votes are trained on."""
    votes, scores = (train(tiny_world, tmp_path / labels, "--epochs", 1, "--val_share", "0.3", "--lr", "1e-9",
                           "--labels", labels) for labels in ("votes", "scores"))
    # Untrained, both rank alike but for the biases, which move no image within a class.
    assert log(votes)[0]["pseudo_mAP"] == pytest.approx(log(scores)[0]["pseudo_mAP"], abs=1e-3)


def test_evaluation_encodes_at_the_resolution_of_the_run(tiny_world, run, capsys):
    run_script("eval", *tiny_world.flags, "--checkpoint", run / "checkpoint.pth")
    assert f"mAP {log(run)[-1]['mAP']}" in capsys.readouterr().out


@pytest.mark.parametrize("flags, message", [
    (["--resolution", "40"], "no multiple of 16"), (["--val_share", "0.01"], "there is nothing to compare by"),
    (["--val_share", "1"], "nothing is left")])
def test_what_cannot_be_is_refused(tiny_world, tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, tmp_path / "run", *flags)
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_caption_prototypes_are_a_method_without_training(tiny_world, tmp_path, capsys):
    """Ranked by the cosine to what captions show, which no true label of a training image changes."""
    lines = tiny_world.path("--train_split_file").read_text().splitlines()
    (tmp_path / "unlabelled.txt").write_text("\n".join(line.split()[0] for line in lines) + "\n")
    printed = {}
    for name, flags in {"text": [], "captions": ["--prototypes", "captions"], "unlabelled": [
            "--prototypes", "captions", "--train_split_file", tmp_path / "unlabelled.txt"]}.items():
        own = ["--method", "clip", "--raw_cosine", "--output_dir", tmp_path / name]
        run_script("eval", *tiny_world.flags, *own, *flags)
        printed[name] = capsys.readouterr().out.splitlines()[-1]
    assert printed["captions"] == printed["unlabelled"] != printed["text"]
    assert json.loads((tmp_path / "captions" / "result.json").read_text())["title"].startswith("Caption prototypes")
