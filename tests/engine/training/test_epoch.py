"""One epoch on six images: its order, its loss, its rate, and where it goes on after a stop."""
from __future__ import annotations

import argparse
import signal
from typing import Dict, List, Optional

import pytest
import torch

from datasets.files import DataError
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.features.feature_set import FeatureSet
from engine.process.signals import Stopped, stop_on_signals
from engine.training import epoch as training
from engine.training.build_model import build_model
from engine.training.checkpoint import Progress
from engine.training.epoch import train_one_epoch
from models.losses import pseudo_label_loss
from models.optimizer import build_optimizer

CPU = torch.device("cpu")


class Store:
    """Random features of six images."""

    def __len__(self) -> int:
        return 6

    def read(self, rows, pinned=False):
        generator = torch.Generator().manual_seed(0)
        return {"patch_embeddings": torch.randn(6, 4, 8, generator=generator)[torch.as_tensor(rows)],
                "global_embeddings": torch.randn(6, 3, 8, generator=generator)[torch.as_tensor(rows)]}


class FakeRun:
    """What an epoch asks of its run; keeps what is saved."""

    def __init__(self, next_epoch: int = 1, progress: Optional[Progress] = None, save_is_due: bool = False) -> None:
        self.next_epoch, self.progress, self.save_is_due = next_epoch, progress or Progress(), save_is_due
        self.saved: List[Progress] = []

    def save_within_epoch(self, progress, model, optimizer) -> None:
        assert len(optimizer.state) == len(list(model.parameters())) and isinstance(progress.loss, torch.Tensor)
        self.saved.append(progress)


class Training:
    """A model on the six images, whose targets tell which image a batch holds."""

    def __init__(self, *given: object) -> None:
        self.args: argparse.Namespace = parse_args(get_args_parser("voc2007", None), [
            "--batch_size", "4", "--epochs", "2", *map(str, given)])
        torch.manual_seed(0)
        self.model = build_model(self.args, torch.randn(3, 8), torch.eye(3), 2)
        self.optimizer = build_optimizer(self.model, self.args)
        self.targets = torch.arange(1.0, 7)[:, None].expand(6, 3) / 10
        self.data = FeatureSet([Store()], self.targets, list("abcdef"))

    def epoch(self, run: FakeRun) -> training.Trained:
        return train_one_epoch(self.model, self.data, self.optimizer, self.args, CPU, run)


@pytest.fixture
def seen(monkeypatch) -> Dict[str, list]:
    """The images, losses and rates of the batches of later epochs."""
    noted: Dict[str, list] = {"images": [], "losses": [], "rates": []}
    set_rate = training.set_learning_rate

    def loss_of(logits, targets, kind):
        loss = pseudo_label_loss(logits, targets, kind)
        noted["images"].append((targets[:, 0] * 10).round().int().tolist())
        noted["losses"].append(loss.item())
        return loss

    def rate_of(optimizer, args, done):
        set_rate(optimizer, args, done)
        noted["rates"].append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(training, "pseudo_label_loss", loss_of)
    monkeypatch.setattr(training, "set_learning_rate", rate_of)
    return noted


def test_every_epoch_and_every_seed_has_an_order_of_its_own(seen):
    for seed, number in ((0, 1), (0, 1), (0, 2), (1, 1)):
        Training("--seed", seed).epoch(FakeRun(number))
    assert [len(images) for images in seen["images"]] == [4, 2] * 4
    orders = [tuple(seen["images"][2 * i] + seen["images"][2 * i + 1]) for i in range(4)]
    assert orders[0] == orders[1] and len(set(orders)) == 3
    assert all(sorted(order) == [1, 2, 3, 4, 5, 6] for order in orders)


def test_the_loss_is_the_mean_over_the_images_and_the_rate_falls_within_the_epoch(seen):
    trained = Training("--lr_schedule", "cosine", "--lr", "0.1").epoch(FakeRun(2))
    assert trained.images == 6 and trained.loss == pytest.approx((4 * seen["losses"][0] + 2 * seen["losses"][1]) / 6)
    assert seen["rates"] == pytest.approx([0.05, 0.1 * (1 - 2**-0.5) / 2])  # epochs 1 and 1.5 of 2


@pytest.mark.parametrize("loss", ["bce", "ranking"])
def test_each_batch_is_a_step_down_its_own_gradient(seen, loss):
    asked = Training("--loss", loss)
    asked.epoch(FakeRun())
    other = Training("--loss", loss)
    for images in seen["images"]:
        rows = [image - 1 for image in images]
        features = other.data.features(torch.tensor(rows).numpy())
        other.optimizer.zero_grad()
        logits = other.model(features.patch_embeddings, features.global_embeddings[:, 1:]).logits
        pseudo_label_loss(logits, other.targets[rows], loss).backward()
        other.optimizer.step()
    for one, two in zip(asked.model.parameters(), other.model.parameters()):
        assert torch.equal(one, two)
    assert asked.model.training


def test_products_in_bf16_change_the_loss_by_their_rounding(seen):
    trained = {precision: Training("--step_precision", precision) for precision in ("fp32", "bf16")}
    full, half = (training.epoch(FakeRun()).loss for training in trained.values())
    assert full != half == pytest.approx(full, rel=0.02)
    assert all(weight.dtype == weight.grad.dtype == torch.float32 for weight in trained["bf16"].model.parameters())


def test_an_epoch_goes_on_behind_the_batches_that_are_done(seen):
    whole, parts = Training(), Training()
    expected, saving = whole.epoch(FakeRun()).loss, FakeRun(save_is_due=True)
    parts.epoch(saving)
    assert [(progress.batches, progress.loss.shape) for progress in saving.saved] == [(1, ()), (2, ())]
    assert float(saving.saved[1].loss) / 6 == pytest.approx(expected)
    seen["images"].clear()
    rest = Training().epoch(FakeRun(progress=Progress(1, torch.tensor(24.0))))
    assert [len(images) for images in seen["images"]] == [2] and rest.images == 2
    assert rest.loss == pytest.approx((24 + 2 * seen["losses"][-1]) / 6)
    nothing_left = Training().epoch(FakeRun(progress=Progress(2, torch.tensor(30.0))))
    assert (nothing_left.loss, nothing_left.images) == (5.0, 0)


def test_a_signal_lets_the_batch_end_and_saves(monkeypatch):
    asked, run = Training("--batch_size", 2), FakeRun()
    monkeypatch.setattr(training, "any_process", lambda received: run.next_epoch == 1)
    with pytest.raises(Stopped) as stopped, stop_on_signals():
        asked.epoch(run)
    assert [progress.batches for progress in run.saved] == [1] and stopped.value.signal == signal.SIGTERM


def test_losses_are_looked_at_before_a_save_and_at_the_end(monkeypatch):
    looked = []
    monkeypatch.setattr(training, "_check_finite", lambda model, batches, data, epoch: looked.append(
        (epoch, [rows.tolist() for rows, _ in batches])))
    asked = Training("--batch_size", 1)
    asked.epoch(FakeRun(3))
    assert [(epoch, len(batches)) for epoch, batches in looked] == [(3, 1)] * 6
    assert sorted(rows[0] for _, batches in looked for rows in batches[0:1]) == list(range(6))


def test_on_an_accelerator_losses_are_looked_at_now_and_then_before_a_save_and_at_the_end(monkeypatch):
    assert [training.check_interval(torch.device(name)) for name in ("cpu", "cuda")] == [1, training.CHECK_BATCHES]
    looked: List[int] = []
    monkeypatch.setattr(training, "check_interval", lambda device: 4)
    monkeypatch.setattr(training, "_check_finite", lambda model, batches, data, epoch: looked.append(len(batches)))
    Training("--batch_size", 1).epoch(FakeRun())
    assert looked == [4, 2]
    looked.clear()
    Training("--batch_size", 1).epoch(FakeRun(save_is_due=True))
    assert looked == [1] * 6


def test_a_loss_that_is_not_finite_names_the_images_of_its_own_batch():
    asked = Training()
    batches = [(torch.tensor([0, 1]), torch.tensor(1.0)), (torch.tensor([2, 3]), torch.tensor(torch.inf)),
               (torch.tensor([4, 5]), torch.tensor(torch.nan))]
    with pytest.raises(DataError, match="epoch 7: the loss is inf; .*batch: c d$"):
        training._check_finite(asked.model, batches, asked.data, 7)
    asked.data.image_ids = []
    with pytest.raises(DataError, match="epoch 7: the loss is nan; .*batch: 4 5$"):
        training._check_finite(asked.model, batches[2:], asked.data, 7)


def test_a_weight_that_is_not_finite_names_the_last_batch():
    asked = Training("--lr", "1e30", "--weight_decay", "1e10")
    with pytest.raises(DataError, match="epoch 1: .*batch: [a-f]( [a-f]){3}$"):
        asked.epoch(FakeRun())
