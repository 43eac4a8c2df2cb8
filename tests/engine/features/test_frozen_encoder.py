"""`--encoder`: a run on a network of timm from flags to tables, where a timm that is young enough is installed."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from datasets.registry import get_dataset
from engine.results.tables import results_table
from tests.engine.training.test_training import assert_same_weights, log, run_script

timm = pytest.importorskip("timm", minversion="1.0")

NETWORK = "timm:test_efficientnet"


@pytest.fixture(scope="module")
def flags(tiny_world, tmp_path_factory):
    """Of a run on a tiny random network."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model(NETWORK.partition(":")[2]).state_dict(), path)
    return [*tiny_world.flags, "--encoder", NETWORK, "--model_path", str(path), "--encoder_dim", "12", "--resolution",
            "96", "--epochs", "2", "--reso_epoch", "2", "--epsilon", "0.9", "--gamma", "0.5"]


@pytest.fixture(scope="module")
def finished(flags, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run_script("train_voc07", *flags, "--output_dir", folder)
    return folder


def test_a_run_is_named_after_its_network(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["title"] == "BAC-GCN on test_efficientnet" and result["weights"] == "tiny.safetensors"
    assert result["zero_shot_title"] == "Caption prototypes on test_efficientnet, no training"
    args = json.loads((finished / "config.json").read_text())["args"]
    assert args["kernel_start"] == "captions" and args["no_masked_globals"]
    kept = torch.load(finished / "checkpoint.pth", weights_only=True)["encoder"]
    assert kept["components"].shape[1] == kept["start"].shape[1] == 12
    assert log(finished)[1]["images"] > 20, "crops join"
    printed = results_table(get_dataset("voc2007"), result)
    assert printed.startswith("VOC2007 (trainval / test), weights tiny.safetensors") and "authors" not in printed


def test_a_stopped_run_goes_on_and_true_labels_change_nothing(tiny_world, flags, finished, tmp_path):
    lines = tiny_world.path("--train_split_file").read_text().splitlines()
    (tmp_path / "shuffled.txt").write_text("".join(f"{line.split()[0]} 3\n" for line in lines))
    command = [*flags, "--train_split_file", tmp_path / "shuffled.txt", "--output_dir", tmp_path / "run"]
    run_script("train_voc07", *command, "--epochs", 1)
    run_script("train_voc07", *command)
    assert_same_weights(tmp_path / "run", finished)


def test_an_evaluation_reads_all_from_the_checkpoint(tiny_world, finished, tmp_path, capsys):
    checkpoint = finished / "checkpoint.pth"
    run_script("eval", "--checkpoint", checkpoint, "--feature_root", tmp_path, "--train_img_root", tmp_path / "gone")
    assert f"mAP {log(finished)[-1]['mAP']}" in capsys.readouterr().out
    run_script("eval", "--checkpoint", checkpoint, "--image", tiny_world.root / "val" / "val_000.jpg", "--json",
               tmp_path / "tags.json")
    assert "BAC-GCN on test_efficientnet, tiny.safetensors" in (tmp_path / "tags.json").read_text()
    run_script("eval", "--table", "main", "--runs", finished, "--output_dir", tmp_path)
    table = (tmp_path / "main.md").read_text()
    assert "| BAC-GCN on test_efficientnet" in table and "CLIP zero-shot" not in table
    run_script("eval", "--figure", "per_class", "--checkpoint", checkpoint, "--output_dir", tmp_path)


@pytest.mark.parametrize(("more", "message"), [
    (["--kernel_start", "both"], "--kernel_start both: timm:test_efficientnet embeds no text"),
    (["--method", "cdul"], "--encoder does nothing with --method cdul"),
    (["--prompts", "ensemble"], "--prompts does nothing with --encoder timm:test_efficientnet"),
    (["--masked_globals"], "has no [cls] token"),
    (["--encoder", "timm:no_such_network"], "has no such network"),
    (["--encoder", "timm:test_resnet"], "not the weights of this network"),
    (["--encoder", "timm"], "'timm' is unknown"),
    (["--k", "50"], "makes 9 patches of an image"),
])
def test_what_does_not_fit_is_one_line(flags, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        run_script("train_voc07", *flags, *more, "--output_dir", tmp_path / "run")
    assert message in capsys.readouterr().err


def test_a_run_does_not_go_on_with_another_projection(flags, finished, capsys):
    with pytest.raises(SystemExit):
        run_script("train_voc07", *flags, "--encoder_seed", "1", "--output_dir", finished)
    assert "made with --encoder_seed 0, not 1" in capsys.readouterr().err


def test_words_are_refused(finished, capsys):
    with pytest.raises(SystemExit):
        run_script("eval", "--checkpoint", finished / "checkpoint.pth", "--method", "clip")
    assert "compares images with words, and timm:test_efficientnet embeds none" in capsys.readouterr().err


def test_fused_labels_random_projections_and_plus_run_too(flags, tmp_path):
    run_script("train_voc07", *flags, "--recipe", "plus", "--reso", "--labels", "fused", "--encoder_reduction",
               "random", "--output_dir", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["title"] == "BAC-GCN+ on test_efficientnet"
