"""What a run starts from: one whose rate is next to nothing ends where its flags, captions and CLIP put it."""
from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from datasets.registry import get_dataset
from datasets.split_file import ImageList, read_image_ids
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.features.extraction import extract_features
from engine.features.feature_set import FeatureSet
from engine.features.frozen_clip import build_encoder, load_clip
from engine.features.text_embeddings import encode_words
from engine.training.build_model import build_model, start_embeddings
from engine.training.prediction import calibrate, model_inputs, predict, untrained_scores
from models.encoder import Features
from models.gcn import GraphSAGE
from models.kernel import KERNEL_STARTS
from tests.engine.training.test_training import run_script, weights

CPU = torch.device("cpu")
OWN = ["--prompts", "ensemble", "--logit_scale", "7", "--global_edge", "0.3", "--gcn_width", "24", "--k", "2",
       "--edge_threshold", "0.2", "--normalisation", "none"]


@pytest.fixture(scope="module")
def untrained(tiny_world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "untrained"
    run_script("train_voc07", *tiny_world.flags, "--output_dir", folder, "--epochs", 1, "--no_reso", "--lr", "1e-12",
               "--weight_decay", 0, *OWN)
    return folder


@pytest.fixture(scope="module")
def args(tiny_world) -> argparse.Namespace:
    return parse_args(get_args_parser("voc2007", None), [*tiny_world.flags, *OWN])


def test_kernel_and_classifier_are_the_prompts_and_scale_and_width_the_flags(untrained, args):
    names = get_dataset("voc2007").prompt_names(get_dataset("voc2007").categories)
    text = encode_words(load_clip(args, CPU), names, "ensemble")
    saved = weights(untrained)
    torch.testing.assert_close(saved["kernel.weight"], text)
    torch.testing.assert_close(saved["classifier"], text)
    assert saved["log_scale"].exp().item() == pytest.approx(7)
    assert saved["gcn.layers.0.weight"].shape == (24, 32) and saved["gcn.layers.1.weight"].shape == (32, 24)


def test_row_i_of_the_adjacency_weighs_what_node_i_receives_by_the_counts_of_the_captions(untrained, tiny_world):
    folder, names = tiny_world.root / "caption" / "voc2007", get_dataset("voc2007").categories
    counts = json.loads((folder / "train_count_dict.json").read_text())
    pairs = json.loads((folder / "train_co_occurrence_counts.json").read_text())
    adjacency = weights(untrained)["gcn.adjacency"]
    size = 2 + len(names)
    expected = torch.eye(size)
    expected[:2, 2:] = expected[2:, :2] = 0.3
    for i, receiver in enumerate(names):
        for j, given in enumerate(names):
            if i != j and counts.get(given):
                probability = pairs.get(receiver, {}).get(given, 0) / counts[given]
                expected[2 + i, 2 + j] = probability if probability >= 0.2 else 0
    torch.testing.assert_close(adjacency, expected)
    assert not torch.allclose(adjacency, adjacency.T)


def test_the_mean_logit_of_a_category_starts_at_the_log_odds_of_its_labels(untrained, tiny_world, args):
    spec, clip_model = get_dataset("voc2007"), load_clip(args, CPU)
    encoder, ids = build_encoder(args, clip_model), read_image_ids(args.train_split_file)
    store = extract_features(encoder, ImageList(args.train_img_root, ids, encoder.transform), "train", args)
    saved = weights(untrained)
    model = build_model(args, saved["classifier"], torch.eye(len(spec.categories)), len(spec.classes))
    model.load_state_dict(saved)
    scores = json.loads((tiny_world.root / "caption" / "voc2007" / "train_label_scores.json").read_text())
    mean = torch.tensor([scores[image_id] for image_id in ids]).mean(dim=0)
    logits = predict(model, FeatureSet([store], torch.zeros(len(ids), 1)), args, CPU)
    torch.testing.assert_close(logits.mean(dim=0), torch.logit(mean, eps=1e-3), atol=1e-4, rtol=0)


def test_flags_of_the_model_reach_it():
    def model(*given):
        torch.manual_seed(0)
        asked = parse_args(get_args_parser("voc2007", None), list(map(str, given)))
        return build_model(asked, F.one_hot(torch.arange(4), 8).float(), graph, num_classes=3)

    graph = torch.tensor([[1.0, 0.5, 0.1, 0.2], [0.4, 1, 0, 0], [0.3, 0, 1, 0.6], [0.1, 0, 0.7, 1]])
    plain = model("--normalisation", "none")
    assert plain.gcn.adjacency[2:, 2:].equal(graph) and plain.gcn.adjacency[0].tolist() == [1, 0, 1, 1, 1, 1]
    assert plain.gcn.layers[0].out_features == 8 and len(plain.gcn.layers) == 2 and plain.kernel.k == 4
    assert model("--normalisation", "none", "--no_class_background_edges").gcn.adjacency[4].tolist() == [
        1, 1, pytest.approx(0.3), 0, 1, 0]
    assert model("--no_masked_globals").gcn.adjacency.shape == (5, 5)
    assert model("--adjacency", "identity").gcn.adjacency.equal(torch.eye(6))
    assert model("--adjacency", "learned").gcn.adjacency.requires_grad
    assert not plain.gcn.adjacency.requires_grad
    assert model("--self_share", 0.8).gcn.adjacency.diagonal().tolist() == pytest.approx([0.8] * 6)
    deep = model("--gcn_depth", 3, "--gcn_width", 5, "--gcn_activation", "relu", "--no_residual", "--k", 3)
    assert [layer.out_features for layer in deep.gcn.layers] == [5, 5, 8] and deep.kernel.k == 3
    assert deep.gcn.activation is F.relu and not deep.gcn.residual and plain.gcn.residual
    assert isinstance(model("--gcn_layer", "sage").gcn.layers[0], GraphSAGE)
    assert model().gcn.adjacency.sum(dim=1).tolist() == pytest.approx([1] * 6)  # rows are normalised by default
    assert model("--no_gcn").gcn is None
    assert model("--logits", "local").parts == "local" and plain.parts == "both"
    assert not model("--frozen_kernel").kernel.weight.requires_grad and plain.kernel.weight.requires_grad
    assert model("--logit_scale", 3).log_scale.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("start", KERNEL_STARTS)
def test_a_run_starts_at_text_or_at_what_captions_show_and_without_text_somewhere(start):
    class Images:
        def __len__(self):
            return 5

        def plain_globals(self):
            return torch.randn(5, 8, generator=torch.Generator().manual_seed(1))

    asked, text = argparse.Namespace(kernel_start=start), torch.eye(3, 8) + 0.5
    data = FeatureSet([Images()], torch.tensor([[1.0, 0.5, 0.0]] * 2 + [[0.0, 0.2, 0.0]] * 3))
    expected = text if start == "text" else KERNEL_STARTS[start](text, Images().plain_globals(), data.targets)
    torch.testing.assert_close(start_embeddings(asked, text, data), expected)
    without = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(start_embeddings(asked, None, data),
                               KERNEL_STARTS[start](without, Images().plain_globals(), data.targets))


def test_the_model_reads_the_two_masked_globals_or_the_plain_one():
    features = Features(torch.zeros(2, 4, 3), torch.arange(6.0).view(1, 3, 2))
    assert model_inputs(features, True, CPU).global_embeddings.tolist() == [[[2.0, 3.0], [4.0, 5.0]]]
    assert model_inputs(features, False, CPU).global_embeddings.tolist() == [[[0.0, 1.0]]]
    assert model_inputs(features, True, CPU).tile_embeddings is None
    with_tiles = model_inputs(Features(torch.zeros(2, 4, 3), torch.arange(10.0).view(1, 5, 2)), True, CPU)
    assert with_tiles.global_embeddings.tolist() == [[[2.0, 3.0], [4.0, 5.0]]]
    assert with_tiles.tile_embeddings.tolist() == [[[6.0, 7.0], [8.0, 9.0]]]


class SixImages:
    """A store of random features."""

    def __len__(self):
        return 6

    def read(self, rows, pinned=False):
        generator = torch.Generator().manual_seed(0)
        return {"patch_embeddings": torch.randn(6, 4, 8, generator=generator)[torch.as_tensor(rows)],
                "global_embeddings": torch.randn(6, 3, 8, generator=generator)[torch.as_tensor(rows)]}


def test_a_fitted_start_is_that_of_the_training_images_and_their_labels():
    asked = parse_args(get_args_parser("voc2007", None), ["--no_gcn", "--logit_start", "fitted"])
    data, fitted = FeatureSet([SixImages()], torch.rand(6, 3, generator=torch.Generator().manual_seed(1))), []
    for fit in (lambda model: calibrate(model, data, asked, CPU),
                lambda model: model.fit_start(predict(model, data, asked, CPU), data.targets)):
        model = build_model(asked, torch.eye(3, 8), torch.eye(3), 3)
        fit(model)
        fitted.append([model.log_scale.item(), *model.bias.tolist()])
    assert fitted[0] == fitted[1] and fitted[0][0] != pytest.approx(math.log(10))


def test_scores_without_training_are_probabilities_of_clip_and_cosines_of_other_networks():
    globals_, starts = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.5, 0.0], [0.0, 2.0]])
    of_clip = untrained_scores(globals_, starts, argparse.Namespace(encoder="clip"))
    torch.testing.assert_close(of_clip, torch.tensor([[-20.0, 0.0]]).softmax(dim=1))
    assert untrained_scores(globals_, starts, argparse.Namespace(encoder="timm:resnet50")).tolist() == [
        pytest.approx([0.6, 0.8])]


def test_calibration_on_a_sample_is_of_all_classes_where_the_split_is_sorted_by_class():
    asked = parse_args(get_args_parser("voc2007", None), ["--no_gcn", "--batch_size", "3"])
    torch.manual_seed(0)
    text = torch.randn(3, 8)
    targets = torch.tensor([[0.9, 0.1, 0.5]] * 3 + [[0.1, 0.7, 0.3]] * 3)
    model = build_model(asked, text, torch.eye(3), 3)
    calibrate(model, FeatureSet([SixImages()], targets), asked, CPU, sample=4)
    logits = predict(model, FeatureSet([SixImages()], targets), asked, CPU)[[0, 1, 3, 4]]
    torch.testing.assert_close(logits.mean(dim=0).sigmoid(), torch.tensor([0.5, 0.4, 0.4]))
