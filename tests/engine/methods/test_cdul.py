"""CDUL's initialisation, refinement and classifiers against answers worked out by hand or by other means."""
from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

import clip
from clip.model import CLIP, Architecture
from datasets.images import image_transform
from datasets.split_file import ImageList
from engine.features.frozen_clip import clip_name
from engine.methods.cdul_training import ImageInputs, Views
from engine.process.distributed import ALONE, World
from models.baselines.cdul import (
    CDUL,
    IMAGENET_MEAN,
    IMAGENET_STD,
    FrozenCLIPHead,
    ImageNetResNet101,
    bernoulli_kl,
    initial_labels,
    uncertainty,
)
from tests.engine.training.test_training import assert_same_weights, log, run_script, weights


def direction(probability: float) -> torch.Tensor:
    """A vector in the plane whose softmax(100 cos) over the two axes gives the first axis this probability."""
    # cos - sin = sqrt(2) sin(pi/4 - angle) = logit / 100
    logit = math.log(probability / (1 - probability)) / 100
    angle = math.pi / 4 - math.asin(logit / math.sqrt(2))
    return 3 * torch.tensor([math.cos(angle), math.sin(angle)])


@pytest.mark.parametrize("whole, snippets, zeta, expected", [
    (0.6, [0.2, 0.9, 0.5], 0.7, (0.6 + 0.9) / 2),  # the best snippet reaches zeta
    (0.6, [0.2, 0.4, 0.5], 0.7, (0.6 + 0.2) / 2),  # none does: the worst one counts
    (0.1, [0.2, 0.4, 0.5], 0.1, (0.1 + 0.5) / 2),
])
def test_initial_labels(whole, snippets, zeta, expected):
    views = torch.stack([direction(probability) for probability in [whole, *snippets]])[None]
    label = initial_labels(views, torch.eye(2), zeta)[0, 0]
    assert float(label) == pytest.approx(expected, abs=1e-4)


def test_each_class_is_aggregated_on_its_own():
    views = torch.stack([direction(probability) for probability in (0.5, 0.9, 0.2)])[None]
    labels = initial_labels(views, torch.eye(2), zeta=0.85)[0]
    # Class 0: best 0.9 reaches zeta. Class 1: best 1 - 0.2 = 0.8 does not, worst 1 - 0.9 = 0.1.
    torch.testing.assert_close(labels, torch.tensor([0.7, 0.3]), atol=1e-4, rtol=0)


def test_kl_is_that_of_bernoulli_distributions():
    labels, logits = torch.rand(4, 3), torch.randn(4, 3)
    expected = torch.distributions.kl_divergence(torch.distributions.Bernoulli(labels),
                                                 torch.distributions.Bernoulli(logits=logits)).mean()
    torch.testing.assert_close(bernoulli_kl(labels, logits), expected)
    assert float(bernoulli_kl(torch.tensor([[0.0, 1.0]]), torch.tensor([[-60.0, 60.0]]))) == pytest.approx(0, abs=1e-6)


def test_refinement_is_a_gradient_step_of_the_latent_labels():
    labels, logits = torch.tensor([[0.3, 0.5, 0.9]]), torch.tensor([[2.0, -1.0, 0.5]])
    model = CDUL(torch.nn.Identity(), labels, sigma=0.2)
    y = labels.double().requires_grad_()
    p = torch.sigmoid(logits.double())
    (y * (y / p).log() + (1 - y) * ((1 - y) / (1 - p)).log()).sum().backward()
    psi = [math.exp(-0.5 * (value / 0.2) ** 2) for value in (-0.2, 0.0, 0.4)]
    expected = torch.logit(labels.double()) - torch.tensor([psi]) * y.grad
    model.refine_labels(logits)
    torch.testing.assert_close(model.latent, expected.float(), atol=1e-5, rtol=1e-5)
    assert float(model.labels[0, 1]) == pytest.approx(float(p[0, 1])), "the most uncertain label takes the prediction"


def test_certain_labels_stay_and_no_label_overshoots():
    labels = torch.linspace(0.001, 0.999, 101)[None]
    logits = torch.full_like(labels, 3.0)
    model = CDUL(torch.nn.Identity(), labels, sigma=0.1)
    model.refine_labels(logits)
    before, after = torch.logit(labels), model.latent
    assert ((after - before) * (logits - after) >= -1e-4).all()
    assert (after - before).abs()[0, [0, -1]].max() < 1e-3
    assert uncertainty(torch.tensor(0.5), 0.1) == 1


def test_head_starts_as_clip_and_calibrated():
    text, embeddings, labels = torch.randn(5, 8), torch.randn(20, 8), torch.rand(20, 5)
    head = FrozenCLIPHead(text, logit_scale=7.0)
    cosines = torch.stack([torch.cosine_similarity(embeddings, row[None]) for row in text], dim=1)
    torch.testing.assert_close(head(embeddings), 7 * cosines)
    head.calibrate(embeddings, labels)
    torch.testing.assert_close(torch.sigmoid(head(embeddings).mean(dim=0)), labels.mean(dim=0))


def test_resnet_reads_what_clip_reads():
    torch.manual_seed(0)
    reference = torchvision.models.resnet101().eval()
    model = ImageNetResNet101(3, reference.state_dict()).eval()
    pixels = torch.rand(1, 3, 64, 64)
    as_clip = torchvision.transforms.functional.normalize(pixels, clip.MEAN, clip.STD)
    as_imagenet = torchvision.transforms.functional.normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)
    reference.fc = model.network.fc
    torch.testing.assert_close(model(as_clip), reference(as_imagenet), atol=1e-3, rtol=1e-3)
    assert model(as_clip).shape == (1, 3)


@pytest.fixture
def striped(tmp_path):
    """A 90 x 60 image of nine tiles with a colour of their own."""
    image = Image.new("RGB", (90, 60))
    for number in range(9):
        y, x = divmod(number, 3)
        image.paste((number * 25, 0, 0), (x * 30, y * 20, x * 30 + 30, y * 20 + 20))
    image.save(tmp_path / "a.png")
    return tmp_path


def test_views_are_the_image_and_its_nine_parts_row_by_row(striped):
    views = Views(ImageList(striped, ["a"], image_transform(32)))[0]
    assert views.shape == (10, 3, 32, 32)
    red = (views[:, 0] * clip.STD[0] + clip.MEAN[0]) * 255
    assert [round(float(view.mean())) for view in red[1:]] == [number * 25 for number in range(9)]
    assert red[1:].amax(dim=(1, 2)) == pytest.approx(red[1:].amin(dim=(1, 2)).tolist(), abs=0.1)
    assert float(red[0].max() - red[0].min()) > 150


@pytest.mark.parametrize("width, patch, resolution, expected", [
    (768, 16, 224, "ViT-B/16"), (1024, 14, 336, "ViT-L/14@336px"), (64, 16, 64, "my_clip")])
def test_clip_is_named_by_the_sizes_of_its_weights(width, patch, resolution, expected):
    architecture = Architecture(vision_width=width, patch_size=patch, image_resolution=resolution, vision_layers=1,
                                text_width=64, text_layers=1, vocab_size=8)
    assert clip_name(Namespace(model_path="weights/my_clip.pt"), CLIP(architecture)) == expected


def test_flips_depend_on_the_generator_alone(tmp_path):
    names = [f"{number}" for number in range(8)]
    for name in names:
        image = Image.new("RGB", (32, 32))
        image.paste((255, 255, 255), (0, 0, 16, 32))
        image.save(tmp_path / f"{name}.png")
    args = type("Flags", (), {"image_size": 32, "num_workers": 0})
    inputs = ImageInputs(ImageList(tmp_path, names), args)

    def left_is_white(generator, place=ALONE):
        return [bool(image[0, 0, 0] > 0) for _, batch in inputs.batches(torch.arange(8).split(3), generator, place)
                for image in batch]

    first = left_is_white(torch.Generator().manual_seed(0))
    assert first == left_is_white(torch.Generator().manual_seed(0)) and set(first) == {True, False}
    assert all(left_is_white(None))
    shares = [left_is_white(torch.Generator().manual_seed(0), World(rank, 4)) for rank in range(4)]
    # Batches of 3, 3 and 2 images: the fourth process has none of them, the third none of the last.
    assert shares == [[first[0], first[3], first[6]], [first[1], first[4], first[7]], [first[2], first[5]], []]


EPOCHS = ["--epochs", "3", "--warmup_epochs", "2", "--batch_size", "8"]


def train_cdul(world, output_dir: Path, *flags) -> Path:
    run_script("train_voc07", "--method", "cdul", *world.flags, "--output_dir", output_dir, *EPOCHS, *flags)
    return output_dir


@pytest.fixture(scope="module")
def port(tiny_world, tmp_path_factory) -> Path:
    return train_cdul(tiny_world, tmp_path_factory.mktemp("cdul") / "port", "--backbone", "clip")


def test_port_is_named_as_one_and_refines_labels_after_the_warm_up(tiny_world, port, tmp_path, capsys):
    result = json.loads((port / "result.json").read_text())
    assert result["method"] == "cdul" and "port" in result["title"] and "frozen-CLIP" in result["title"]
    assert log(port)[1]["loss"] < log(port)[0]["loss"]
    warm = train_cdul(tiny_world, tmp_path / "warm", "--backbone", "clip", "--epochs", "1")
    assert "CDUL port" in capsys.readouterr().out
    changed = weights(port)["latent"] - weights(warm)["latent"]
    assert weights(warm)["latent"].shape == (20, 20) and changed.abs().max() > 1e-3


def test_port_goes_on_where_it_stopped(tiny_world, port, tmp_path):
    folder = train_cdul(tiny_world, tmp_path / "run", "--backbone", "clip", "--epochs", "2")
    train_cdul(tiny_world, folder, "--backbone", "clip")
    assert log(folder) == log(port)
    assert_same_weights(folder, port)


def test_true_labels_of_training_images_change_nothing(tiny_world, port, tmp_path):
    ids = [line.split()[0] for line in tiny_world.path("--train_split_file").read_text().splitlines()]
    (tmp_path / "other.txt").write_text("".join(f"{image_id} 7\n" for image_id in ids))
    run = train_cdul(tiny_world, tmp_path / "run", "--backbone", "clip", "--train_split_file", tmp_path / "other.txt")
    assert_same_weights(run, port)


def test_eval_reproduces_the_log_and_scores_by_the_initialisation(tiny_world, port, tmp_path, capsys):
    run_script("eval", "--checkpoint", port / "checkpoint.pth")
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"mAP {log(port)[-1]['mAP']}"
    flags = [flag for flag in tiny_world.flags if flag not in ("--caption_root", str(tiny_world.root / "caption"))]
    run_script("eval", "--method", "cdul", *flags, "--output_dir", tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["title"] == "CDUL initialisation"
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"mAP {result['last_mAP']}"
    assert result["last_mAP"] != log(port)[-1]["mAP"]


def test_resnet_trains_from_a_weight_file_and_evaluates(tiny_world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torchvision.models, "resnet101", torchvision.models.resnet18)  # the checkpoints are a tenth
    initial = torchvision.models.resnet101().state_dict()
    torch.save(initial, tmp_path / "resnet.pth")
    run = train_cdul(tiny_world, tmp_path / "run", "--resnet_weights", tmp_path / "resnet.pth", "--image_size", 32)
    assert json.loads((run / "result.json").read_text())["title"] == "CDUL (labels by tiny)"
    trained = weights(run)["classifier.network.conv1.weight"]
    assert 0 < (trained - initial["conv1.weight"]).abs().max() < 0.01, "it starts from the file"
    capsys.readouterr()
    run_script("eval", "--checkpoint", run / "checkpoint.pth")
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"mAP {log(run)[-1]['mAP']}"


@pytest.mark.parametrize("content, expected", [(None, "cannot be read"),
                                               ({"fc.bias": torch.zeros(2)}, "not torchvision")])
def test_wrong_resnet_weights_are_one_line(tiny_world, tmp_path, capsys, content, expected):
    path = tmp_path / "weights.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(SystemExit) as stop:
        train_cdul(tiny_world, tmp_path / "run", "--resnet_weights", path)
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and str(path) in message and expected in message


def test_what_a_baseline_cannot_do_is_refused(tiny_world, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train_cdul(tiny_world, tmp_path / "run", "--backbone", "clip", "--zoom", 2)
    assert "--zoom does nothing with --method cdul" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
