"""The train scripts and eval.py from the command line's point of view, on a tiny world."""
from __future__ import annotations

import ast
import csv
import difflib
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from datasets.registry import DATASETS
from tests.conftest import REPOSITORY

TRAIN_SCRIPTS = {"train_voc07": "voc2007", "train_v12": "voc2012", "train_c14": "coco2014", "train_nus": "nuswide",
                 "train_mini": "mini", "train_custom": None}
SHORT = ["--epochs", "4", "--batch_size", "8"]
RESO = ["--reso_epoch", "3", "--epsilon", "0.15"]  # some forty crops of the twenty images


def run_script(name: str, *flags) -> None:
    """Run a script's main function in this process with a command line."""
    argv, sys.argv = sys.argv, [name, *map(str, flags)]
    try:
        runpy.run_path(str(REPOSITORY / f"{name}.py"), run_name="__main__")
    finally:
        sys.argv = argv


def train(world, output_dir: Path, *flags) -> Path:
    reso = [] if "--no_reso" in flags else RESO
    run_script("train_voc07", *world.flags, "--output_dir", output_dir, *SHORT, *reso, *flags)
    return output_dir


def weights(folder: Path, name: str = "checkpoint.pth"):
    return torch.load(folder / name, weights_only=True)["model"]


def assert_same_weights(one: Path, other: Path) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def log(folder: Path):
    return [{key: value for key, value in json.loads(line).items() if "second" not in key}
            for line in (folder / "log.txt").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tiny_world, tmp_path_factory) -> Path:
    return train(tiny_world, tmp_path_factory.mktemp("runs") / "finished")


def test_run_leaves_every_output(finished):
    records = [json.loads(line) for line in (finished / "log.txt").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert {"loss", "mAP", "seconds", "images_per_second", "evaluation_seconds", "OF1", "CF1"} <= set(records[0])
    assert ["mining_seconds" in record and "encoding_seconds" in record for record in records] == [
        False, False, True, False], "crops are cut and encoded before the third epoch"
    config = json.loads((finished / "config.json").read_text())
    assert config["args"]["k"] == 4 and re.fullmatch(r"[0-9a-f]{40}(-dirty)?", config["git_revision"])
    assert len(config["weights_sha256"]) == 64
    index = json.loads((finished / "reso" / "index.json").read_text())
    assert index and all((finished / "reso" / f"{crop['file']}.jpg").exists() for crop in index)
    assert not (finished / "reso" / "features").exists(), "no other run can use them"
    assert records[1]["images"] == 20 and records[2]["images"] == 20 + len(index)
    assert list((finished / "tensorboard").glob("events*"))
    best = torch.load(finished / "best.pth", weights_only=True)
    assert best["history"][-1]["mAP"] == max(record["mAP"] for record in records)


def test_training_moves_the_model_and_lowers_the_loss(finished):
    records = log(finished)
    assert records[1]["loss"] < records[0]["loss"]
    assert weights(finished)["gcn.layers.1.weight"].abs().sum() > 0, "it starts at zero"


def test_same_seed_gives_the_same_run(tiny_world, finished, tmp_path):
    again = train(tiny_world, tmp_path / "again")
    assert log(again) == log(finished)
    assert_same_weights(again, finished)
    other = train(tiny_world, tmp_path / "other", "--seed", "1")
    assert log(other) != log(finished)


@pytest.mark.parametrize("flags", [[], ["--labels", "fused", "--zoom", 2],
                                   ["--recipe", "plus", "--reso", "--resolution", 64]])  # of its 192
def test_true_labels_of_training_images_change_nothing(tiny_world, finished, tmp_path, flags):
    lines = tiny_world.path("--train_split_file").read_text().splitlines()
    shuffled = [f"{line.split()[0]} {' '.join(other.split()[1:])}" for line, other in zip(lines, lines[1:] + lines[:1])]
    assert shuffled != lines
    (tmp_path / "shuffled.txt").write_text("\n".join(shuffled) + "\n")
    expected = train(tiny_world, tmp_path / "true", *flags) if flags else finished
    run = train(tiny_world, tmp_path / "run", *flags, "--train_split_file", tmp_path / "shuffled.txt")
    assert_same_weights(run, expected)


def test_crops_may_be_bounded_until_they_are_mined(tiny_world, tmp_path, capsys):
    folder = train(tiny_world, tmp_path / "run", "--epochs", 2)
    train(tiny_world, folder, "--epochs", 3, "--max_crops", 3)
    assert [record["images"] for record in log(folder)] == [20, 20, 23]
    with pytest.raises(SystemExit):
        train(tiny_world, folder, "--max_crops", 5)
    assert "made with --max_crops 3, not 5" in capsys.readouterr().err


@pytest.mark.parametrize("stopped_after", [1, 2, 3])
def test_run_goes_on_where_it_stopped(tiny_world, finished, tmp_path, stopped_after):
    folder = train(tiny_world, tmp_path / "run", "--epochs", stopped_after, "--keep_crop_features")
    assert len(log(folder)) == stopped_after
    assert len(list(folder.glob("reso/features/*/store.json"))) == (stopped_after == 3)
    train(tiny_world, folder)
    assert log(folder) == log(finished)
    assert_same_weights(folder, finished)


def test_quiet_leaves_out_all_but_the_results(tiny_world, tmp_path, capsys, speaking):
    train(tiny_world, tmp_path / "loud", "--epochs", 1)
    loud = capsys.readouterr()
    assert "epoch  1  loss" in loud.out
    train(tiny_world, tmp_path / "quiet", "--epochs", 1, "--quiet")
    quiet = capsys.readouterr()
    results = loud.out[loud.out.index("epoch  1"):].replace("loud", "quiet").splitlines()[1:]
    assert quiet.out.splitlines() == results and len(results) > 3 and "%" not in quiet.err
    assert "quiet" not in json.loads((tmp_path / "quiet" / "config.json").read_text())["args"]


def test_resume_from_another_folder(tiny_world, finished, tmp_path):
    first = train(tiny_world, tmp_path / "first", "--epochs", 3)
    second = train(tiny_world, tmp_path / "second", "--resume", first / "checkpoint.pth")
    assert_same_weights(second, finished)
    assert log(second) == log(finished)


def test_another_configuration_does_not_mix_with_a_finished_run(tiny_world, tmp_path, capsys):
    folder = train(tiny_world, tmp_path / "run", "--epochs", 1)
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, folder, "--lr", "0.1")
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--lr" in message and "--overwrite" in message
    train(tiny_world, folder, "--lr", "0.1", "--epochs", 1, "--overwrite")
    assert json.loads((folder / "config.json").read_text())["args"]["lr"] == 0.1


def test_a_checkpoint_is_no_config(finished, capsys):
    with pytest.raises(SystemExit):
        run_script("train_voc07", "--config", finished / "checkpoint.pth")
    assert "checkpoint.pth: a checkpoint; give the config.json beside it" in capsys.readouterr().err


def test_run_from_anothers_config(tiny_world, tmp_path):
    first = train(tiny_world, tmp_path / "first", "--k", "2", "--epochs", 2)
    run_script("train_voc07", "--config", first / "config.json", "--output_dir", tmp_path / "second")
    assert_same_weights(first, tmp_path / "second")


def test_eval_reproduces_the_last_line_of_the_log(tiny_world, finished, tmp_path, capsys):
    run_script("eval", "--checkpoint", finished / "checkpoint.pth", "--feature_root", tmp_path / "fresh")
    last_line = capsys.readouterr().out.strip().splitlines()[-1]
    assert last_line == f"mAP {log(finished)[-1]['mAP']}"
    with open(finished / "per_class_bac_gcn.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(DATASETS["voc2007"].classes)


def test_eval_zero_shot(tiny_world, tmp_path, capsys):
    flags = [flag for flag in tiny_world.flags if flag not in ("--caption_root", str(tiny_world.root / "caption"))]
    run_script("eval", "--method", "clip", *flags, "--output_dir", tmp_path)
    assert re.fullmatch(r"mAP \d+\.\d+", capsys.readouterr().out.strip().splitlines()[-1])


ABLATIONS = ["--no_backgrounds", "--no_gcn", "--no_masked_globals", "--logits local", "--logits global",
             "--adjacency identity", "--adjacency learned", "--frozen_kernel", "--k 1", "--mask_share 0.5",
             "--mask_mode token", "--precision bf16", "--patch_dtype int8", "--step_precision bf16",
             "--mask_threshold 0.3", "--attention_layer 0", "--gamma 0.9", "--loss asymmetric", "--loss ranking",
             "--labels hard", "--labels votes", "--labels fused", "--no_reso", "--edge_threshold 0.5",
             "--normalisation symmetric",
             "--no_class_background_edges", "--gcn_depth 1", "--crop_labels image", "--no_residual",
             "--gcn_activation relu", "--patch_attention full"]


TWO_EPOCHS = ["--reso_epoch", "2", "--epochs", "2"]


@pytest.fixture(scope="module")
def two_epochs(tiny_world, tmp_path_factory) -> Path:
    return train(tiny_world, tmp_path_factory.mktemp("runs") / "two_epochs", *TWO_EPOCHS)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_trains_and_changes_the_run(tiny_world, two_epochs, tmp_path, ablation):
    short = ["--epochs", "2"] if ablation == "--no_reso" else TWO_EPOCHS
    run = train(tiny_world, tmp_path / "run", *short, *ablation.split())
    assert log(run) != log(two_epochs)
    run_script("eval", "--checkpoint", run / "checkpoint.pth")


def test_train_scripts_share_one_main():
    mains = {}
    for script, dataset in TRAIN_SCRIPTS.items():
        source = (REPOSITORY / f"{script}.py").read_text()
        default = f'"{dataset}"' if dataset else "None"
        assert len(source.splitlines()) < (160 if script == "train_mini" else 120), script
        assert f"get_args_parser({default}, __doc__)" in source, script
        main, = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "main")
        mains[script] = ast.get_source_segment(source, main).splitlines()
    for script, lines in mains.items():
        changed = [line for line in difflib.unified_diff(mains["train_voc07"], lines, lineterm="", n=0) if line[:3]
                   not in ("---", "+++")]
        assert not changed, "\n".join([f"main of {script}.py differs from train_voc07.py's; make the change in all of "
                                       f"{', '.join(mains)}, or in the package that they call:", *changed])


@pytest.mark.parametrize("flag, value, expected", [
    ("--train_split_file", "nowhere.txt", "nowhere.txt: no such"),
    ("--model_path", "nowhere.pt", "nowhere.pt"),
    ("--train_img_root", "nowhere", "nowhere"),
    ("--caption_root", "nowhere", "caption.py --dataset voc2007 --stage fetch"),
])
def test_missing_input_is_one_line_that_says_what_to_do(tiny_world, tmp_path, capsys, flag, value, expected):
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, tmp_path / "run", flag, value)
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and expected in message


def test_zoom_adds_the_best_tile(tiny_world, finished, tmp_path, capsys):
    run_script("eval", "--checkpoint", finished / "checkpoint.pth", "--zoom", 2)
    zoomed_line = capsys.readouterr().out.strip().splitlines()[-1]
    run = train(tiny_world, tmp_path / "run", "--zoom", 2)
    result = json.loads((run / "result.json").read_text())
    assert zoomed_line == f"mAP {result['zoom_mAP']}"
    assert result["last_mAP"] == log(finished)[-1]["mAP"] != result["zoom_mAP"]
    assert "extension, not in the paper" in capsys.readouterr().out
