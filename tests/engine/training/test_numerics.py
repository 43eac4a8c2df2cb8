"""Numbers at the edge: losses that are not finite, degenerate data, and what results may depend on."""
from __future__ import annotations

import argparse
import copy
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Sequence
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

import clip
from clip.model import Architecture
from datasets.files import DataError
from datasets.images import image_transform
from datasets.split_file import ImageList, read_image_ids
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.evaluation.metrics import summarise
from engine.features.extraction import extract_features
from engine.features.feature_set import FeatureSet
from engine.features.feature_store import PackedFeatures
from engine.training import epoch as training
from engine.training.build_model import build_model
from engine.training.checkpoint import Progress
from engine.training.epoch import train_one_epoch
from engine.training.prediction import calibrate, predict
from engine.training.run import Run
from models.encoder import CLIPEncoder
from models.graph import caption_graph
from tests.engine.training.test_training import log, train, weights

CPU = torch.device("cpu")
DIM = 16


class Features:
    """Random features of some images, in place of a store."""

    def __init__(self, rows: int, patches: int = 9) -> None:
        generator = torch.Generator().manual_seed(0)
        self.packed: PackedFeatures = {"patch_embeddings": torch.randn(rows, patches, DIM, generator=generator),
                                       "global_embeddings": torch.randn(rows, 3, DIM, generator=generator)}

    def __len__(self) -> int:
        return len(self.packed["patch_embeddings"])

    def read(self, rows: Sequence[int], pinned: bool = False) -> PackedFeatures:
        return {name: values[torch.as_tensor(np.asarray(rows))] for name, values in self.packed.items()}


def flags(tmp_path: Path, *given: str) -> argparse.Namespace:
    return parse_args(get_args_parser("voc2007", None), ["--output_dir", str(tmp_path / "run"), *given])


def train_two_epochs(args: argparse.Namespace, data: FeatureSet, graph: Tensor, num_classes: int) -> bool:
    """Train on `data`, check that everything stays finite, and tell whether the model has moved."""
    torch.manual_seed(0)
    model = build_model(args, torch.randn(len(graph), DIM), graph, num_classes)
    calibrate(model, data, args, CPU)
    before = model.classifier.clone()
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay)
    run = Run(args, [], {"weights_sha256": ""})
    for epoch in (1, 2):
        loss = train_one_epoch(model, data, optimizer, args, CPU, run).loss
        metrics = summarise(predict(model, data, args, CPU)[:, :num_classes], data.targets[:, :num_classes].round())
        run.finish_epoch({"epoch": epoch, "loss": loss, **metrics}, {"seconds": 1, "images_per_second": 1}, model,
                         optimizer)
        assert np.isfinite(loss)
    assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())
    return not torch.equal(model.classifier, before)


@pytest.mark.parametrize("loss", ["bce", "asymmetric", "ranking"])
@pytest.mark.parametrize("rows, targets, given", [
    pytest.param(7, "mixed", ["--batch_size", "64"], id="a set smaller than the batch"),
    pytest.param(5, "mixed", ["--batch_size", "1"], id="a batch of one"),
    pytest.param(1, "mixed", [], id="one image"),
    pytest.param(7, "mixed", ["--batch_size", "6"], id="a last batch of one"),
    pytest.param(6, "empty", [], id="no image has a positive"),
    pytest.param(6, "half empty", [], id="half of the images have no positive"),
    pytest.param(6, "full", [], id="all categories are positive"),
    pytest.param(6, "mixed", ["--k", "1000"], id="more patches asked for than there are"),
    pytest.param(6, "mixed", ["--global_edge", "0", "--normalisation", "symmetric"], id="isolated nodes, symmetric"),
    pytest.param(6, "mixed", ["--global_edge", "0", "--edge_threshold", "2"], id="all nodes isolated"),
])
def test_degenerate_data_trains(tmp_path, rows, targets, given, loss):
    values = torch.rand(rows, 5, generator=torch.Generator().manual_seed(1))
    values *= {"mixed": torch.ones(()), "full": torch.ones(()), "empty": torch.zeros(()),
               "half empty": (torch.arange(rows) % 2)[:, None]}[targets]
    if targets == "full":
        values[:] = 1
    counts = torch.tensor([4, 0, 2, 3, 0])  # two categories are never named: they have no edge
    pairs = torch.diag(counts)
    pairs[0, 2] = pairs[2, 0] = 1
    data = FeatureSet([Features(rows)], values)
    moved = train_two_epochs(flags(tmp_path, *given, "--loss", loss), data, caption_graph(counts, pairs), num_classes=3)
    no_pair_to_rank = loss == "ranking" and targets in ("empty", "full")
    assert moved != no_pair_to_rank


def test_a_resumed_epoch_counts_what_it_trains_on_itself(tmp_path, monkeypatch):
    args = flags(tmp_path, "--batch_size", "4")
    data = FeatureSet([Features(10)], torch.rand(10, 4))
    model = build_model(args, torch.randn(4, DIM), torch.eye(4), 3)
    optimizer = torch.optim.AdamW(model.parameters(), args.lr)
    run = Run(args, [], {"weights_sha256": ""})
    bars = []
    monkeypatch.setattr(training, "bar", lambda *words, **others: bars.append(words) or nullcontext(Mock()))
    run.progress = Progress(batches=2)
    assert train_one_epoch(model, data, optimizer, args, CPU, run).images == 2
    run.progress = Progress()
    assert train_one_epoch(model, data, optimizer, args, CPU, run).images == 10
    assert bars == [("epoch 1", "image", 10, 8), ("epoch 1", "image", 10, 0)]


def test_one_class_without_backgrounds_trains(tmp_path):
    data = FeatureSet([Features(6)], torch.tensor([[0.0], [1], [0], [1], [0.3], [0]]))
    assert train_two_epochs(flags(tmp_path, "--no_backgrounds"), data, torch.ones(1, 1), num_classes=1)


def test_one_patch_trains(tmp_path):
    data = FeatureSet([Features(6, patches=1)], torch.rand(6, 4))
    assert train_two_epochs(flags(tmp_path), data, torch.eye(4), num_classes=3)


def test_a_test_set_without_positives_has_no_map():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = summarise(torch.randn(4, 3), torch.zeros(4, 3))
    assert metrics == {}


def test_a_loss_that_is_not_finite_stops_with_the_images(tiny_world, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, tmp_path / "run", "--logit_scale", "3e38")
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: epoch 1: ") and "Lower --lr" in message
    named = message.split(": ")[-1].split()
    assert len(named) == 8 and set(named) < set(read_image_ids(tiny_world.path("--train_split_file")))
    assert not (tmp_path / "run" / "checkpoint.pth").exists()


def test_the_first_bad_batch_is_named_where_several_are_checked_at_once():
    data = FeatureSet([Features(6)], torch.zeros(6, 2), ["a", "b", "c", "d", "e", "f"])
    model = torch.nn.Linear(2, 2)
    batches = [(torch.tensor(rows), torch.tensor(loss)) for rows, loss in
               (([0, 1], 0.5), ([2, 5], float("inf")), ([3, 4], float("nan")))]
    with pytest.raises(DataError, match="epoch 3: the loss is inf.*batch: c f$"):
        training._check_finite(model, batches, data, 3)
    training._check_finite(model, batches[:1], data, 3)
    model.bias.data[0] = torch.nan
    with pytest.raises(DataError, match="a weight is no longer finite.*batch: a b$"):
        training._check_finite(model, batches[:1], data, 3)


def test_predictions_depend_on_the_batch_size_by_rounding_only(tmp_path):
    torch.manual_seed(0)
    data = FeatureSet([Features(30)], torch.zeros(30, 5))
    model = build_model(flags(tmp_path), torch.randn(5, DIM), torch.eye(5), num_classes=3)
    torch.nn.init.normal_(model.gcn.layers[-1].weight)
    whole = predict(model, data, flags(tmp_path, "--batch_size", "30"), CPU)
    for size in (1, 7, 29):
        parts = predict(model, data, flags(tmp_path, "--batch_size", str(size)), CPU)
        torch.testing.assert_close(parts, whole, rtol=0, atol=2e-5)


def test_training_does_not_depend_on_the_number_of_workers(tiny_world, tmp_path):
    runs = [train(tiny_world, tmp_path / workers, "--epochs", 2, "--feature_root", tmp_path / f"features_{workers}",
                  "--num_workers", workers) for workers in ("0", "2")]
    assert log(runs[0]) == log(runs[1])
    for name, value in weights(runs[0]).items():
        assert torch.equal(value, weights(runs[1])[name]), name


def test_stored_features_depend_on_the_batch_size_by_rounding_only(tiny_world, tmp_path):
    encoder = CLIPEncoder(clip.load(str(tiny_world.path("--model_path")))[0])
    images = ImageList(tiny_world.path("--train_img_root"), read_image_ids(tiny_world.path("--train_split_file")),
                       image_transform(64))
    stores = [extract_features(encoder, images, "train", flags(
        tmp_path, "--feature_root", str(tmp_path / size), "--encode_batch_size", size, "--num_workers", "0"))
        for size in ("1", "20")]
    rows = range(len(images))
    for one, other in zip(*(store[rows] for store in stores)):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-4)  # two steps of fp16


@pytest.mark.parametrize("dtype, least_cosine, most_apart", [(torch.float16, 0.9999, 0.02),
                                                             (torch.bfloat16, 0.999, 0.2)])
def test_half_precision_agrees_with_fp32(tmp_path, dtype, least_cosine, most_apart):
    """Embeddings of a 6-layer encoder by their cosine, and the final logits by their mean difference."""
    torch.manual_seed(0)
    full = clip.CLIP(Architecture(embed_dim=DIM, image_resolution=64, patch_size=16, vision_width=128, vision_layers=6,
                                  text_width=64, text_layers=1)).eval()
    images = torch.randn(8, 3, 64, 64)
    exact = CLIPEncoder(full, mask_mode="pixel")(images)
    rounded = CLIPEncoder(copy.deepcopy(full).to(dtype), mask_mode="pixel")(images.to(dtype))
    cosines = [torch.cosine_similarity(one, other.float(), dim=-1) for one, other in zip(exact, rounded)]
    assert cosines[0].min() > least_cosine and cosines[1][:, 0].min() > least_cosine
    assert cosines[1].min() > 0.9  # a patch at the edge of H may change sides
    model = build_model(flags(tmp_path), torch.randn(5, DIM), torch.eye(5), num_classes=3)
    torch.nn.init.normal_(model.gcn.layers[-1].weight, std=0.1)
    logits = [model(features.patch_embeddings.float(), features.global_embeddings[:, 1:].float()).logits
              for features in (exact, rounded)]
    apart = float((logits[0] - logits[1]).detach().abs().mean())
    assert apart < most_apart


def test_unreadable_images_stop_a_run_at_once_or_are_left_out(tiny_world, tmp_path, capsys):
    for kind in ("train", "val"):
        (tmp_path / kind).mkdir()
        for path in (tiny_world.root / kind).iterdir():
            (tmp_path / kind / path.name).write_bytes(path.read_bytes())
    (tmp_path / "train" / "train_003.jpg").write_bytes(b"")
    (tmp_path / "val" / "val_005.jpg").unlink()
    given = ["--train_img_root", tmp_path / "train", "--val_img_root", tmp_path / "val", "--feature_root",
             tmp_path / "features", "--epochs", 2]
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, tmp_path / "run", *given)
    streams = capsys.readouterr()
    assert stop.value.code == 2 and "1 of 20 images cannot be read" in streams.err.splitlines()[-1]
    assert "train_003.jpg: the file is empty" in streams.out and "--skip_unreadable" in streams.err
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["checked"], "no feature was computed"

    train(tiny_world, tmp_path / "run", *given, "--skip_unreadable")
    assert "'val_005': " in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["skipped_images"] == ["train_003", "val_005"]
    assert log(tmp_path / "run")[0]["images"] == 19
    (tmp_path / "val" / "val_005.jpg").write_bytes((tiny_world.root / "val" / "val_005.jpg").read_bytes())
    with pytest.raises(SystemExit):
        train(tiny_world, tmp_path / "run", *given, "--skip_unreadable", "--epochs", 3)
    assert "made with skipped_images" in capsys.readouterr().err
