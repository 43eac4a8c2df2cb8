"""Several processes train and evaluate the baselines as one does."""
from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Dict, List

import pytest
import torch
import torchvision
from torchvision.models.resnet import BasicBlock, ResNet

from engine.features import store_writer, stored_rows
from engine.methods import tai_dpt_training
from tests.engine.forked import run_together
from tests.engine.training.test_distributed import log, weights
from tests.engine.training.test_training import run_script

SHORT = ["--epochs", "2", "--warmup_epochs", "1", "--lr", "0.0001"]


def small_resnet(**options: object) -> ResNet:
    """Half as deep as the smallest of torchvision's."""
    return ResNet(BasicBlock, [1, 1, 1, 1])


def run_all(folder: Path, flags: List[str]) -> None:
    """Train and evaluate with a small ResNet and few texts, the chunks so small that both processes get some."""
    torchvision.models.resnet101 = small_resnet
    tai_dpt_training.template_texts = lambda word: [f"one {word}"]
    store_writer.CHUNK_ROWS = stored_rows.CHUNK_ROWS = 4

    def run(script: str, name: str, *own: str) -> None:
        run_script(script, *flags, "--output_dir", folder / name, *own)

    run("train_voc07", "head", "--method", "cdul", "--backbone", "clip", "--batch_size", "8", *SHORT)
    run("train_voc07", "resnet", "--method", "cdul", "--batch_size", "19", "--image_size", "64", "--resnet_weights",
        str(folder / "resnet.pth"), *SHORT)
    run("train_voc07", "tai_dpt", "--method", "tai_dpt", "--epochs", "2")
    for method in ("clip", "tagclip", "cdul"):
        run("eval", method, "--method", method, "--prompts", "single")
    run("eval", "live", "--method", "tagclip", "--no_feature_store", "--prompts", "single")
    run_script("eval", "--checkpoint", folder / "resnet" / "checkpoint.pth")


@pytest.fixture(scope="module")
def outputs(tiny_world, tmp_path_factory) -> Dict[int, Path]:
    """Folders of the same runs in one and in two processes."""
    captions = tmp_path_factory.mktemp("captions")
    shutil.copytree(tiny_world.path("--caption_root"), captions, dirs_exist_ok=True)
    for file in ("voc2007_captions", "voc2007_re_captions"):
        texts = {f"train_{image:03d}": [f"answer {prompt} of {image}" for prompt in range(6)] for image in range(20)}
        (captions / "voc2007" / f"{file}.json").write_text(json.dumps(texts))
    folders = {}
    for processes in (1, 2):
        folder = folders[processes] = tmp_path_factory.mktemp(f"processes_{processes}")
        torch.manual_seed(0)
        torch.save(small_resnet().state_dict(), folder / "resnet.pth")
        flags = list(tiny_world.flags)
        flags[flags.index("--feature_root") + 1] = str(folder / "features")
        flags[flags.index("--caption_root") + 1] = str(captions)
        printed = run_together(processes, partial(run_all, folder, flags), folder)
        assert printed.count("everything is in") == 3
        (folder / "last_line.txt").write_text(printed.splitlines()[-1])
    return folders


@pytest.mark.parametrize("name", ["head", "resnet", "tai_dpt"])
def test_two_processes_train_as_one(outputs, name):
    rounding = 10 if name == "resnet" else 1  # batch norm makes more of it, layer by layer
    one, two = (log(outputs[processes] / name) for processes in (1, 2))
    for ours, theirs in zip(one, two):
        assert ours["images"] == theirs["images"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4 * rounding)
        for measure, margin in (("mAP", 0.05), ("OF1", 0.05), ("threshold", 1e-3)):
            assert ours[measure] == pytest.approx(theirs[measure], abs=margin * rounding), measure
    ours, theirs = (weights(outputs[processes] / name) for processes in (1, 2))
    assert ours.keys() == theirs.keys()
    for key in ours:  # on the mean: Adam makes whole steps of gradients that are nothing but rounding
        size, difference = (float(values.float().abs().mean()) for values in (ours[key], ours[key] - theirs[key]))
        # What is trained moves by 2e-4 in these four steps; statistics of a batch are whole activations.
        assert difference < (5e-3 if "running" in key else 1e-4) * (1 + size), key


@pytest.mark.parametrize("name", ["clip", "tagclip", "cdul", "live"])
def test_two_processes_score_as_one(outputs, name):
    one, two = (json.loads((outputs[processes] / name / "result.json").read_text()) for processes in (1, 2))
    assert one == pytest.approx(two) and one["threshold"] is not None


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_repeats_the_last_map_of_the_log(outputs, processes):
    assert (outputs[processes] / "last_line.txt").read_text() == f"mAP {log(outputs[processes] / 'resnet')[-1]['mAP']}"
