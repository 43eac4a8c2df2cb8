"""One epoch of training on stored features."""
from __future__ import annotations

import argparse
import signal
from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor

from datasets.files import DataError
from datasets.progress import bar
from engine.features.feature_set import FeatureSet
from engine.process.distributed import any_process, sum_gradients, world
from engine.process.signals import held_signals
from engine.training.checkpoint import Progress
from engine.training.prediction import model_inputs
from engine.training.run import Run
from models.bac_gcn import BACGCN
from models.encoder import PRECISIONS
from models.losses import pseudo_label_loss
from models.optimizer import set_learning_rate


class Trained(NamedTuple):
    """What came of an epoch."""

    loss: float
    """Its mean loss."""
    images: int
    """Those trained on by this process and its peers: fewer than the set holds where a stopped epoch went on."""


def train_one_epoch(model: BACGCN, data: FeatureSet, optimizer: torch.optim.Optimizer, args: argparse.Namespace,
                    device: torch.device, run: Run) -> Trained:
    """One pass over the training set, or the rest of it where the run stopped within the epoch.

    The order depends on the seed and the epoch alone. A stop signal waits for the end of its batch; then the run is
    saved and stops. So it is every minute, without the stop.

    Raises:
        DataError: a loss or a weight is not finite; names the images of the batch.
    """
    model.train()
    generator = torch.Generator().manual_seed(args.seed * 100_003 + run.next_epoch)
    done, total = run.progress.batches, run.progress.loss.to(device)
    unchecked: List[Tuple[Tensor, Tensor]] = []
    interval = check_interval(device)
    last = -(-len(data) // args.batch_size)
    stopping = False
    before = min(done * args.batch_size, len(data))
    with held_signals() as received, bar(f"epoch {run.next_epoch}", "image", len(data), before, keep=False) as shown:
        for batch in data.batches(args.batch_size, generator, done, device, world()):
            inputs = model_inputs(batch.features, not args.no_masked_globals, device)
            with torch.autocast(device.type, PRECISIONS[args.step_precision], enabled=args.step_precision != "fp32"):
                logits = model(*inputs).logits
            loss = batch.share * pseudo_label_loss(logits.float(), batch.targets, args.loss)
            set_learning_rate(optimizer, args, run.next_epoch - 1 + done / last)
            optimizer.zero_grad()
            loss.backward()
            loss = sum_gradients(model.parameters(), loss)
            optimizer.step()
            done, total = done + 1, total + loss * len(batch.whole)
            shown.update(len(batch.whole))
            unchecked.append((batch.whole, loss))
            stopping = any_process(bool(received))
            if stopping:
                break
            save = run.save_is_due
            if save or done == last or len(unchecked) == interval:
                _check_finite(model, unchecked, data, run.next_epoch)
                unchecked.clear()
            if save:
                run.save_within_epoch(Progress(done, total.cpu()), model, optimizer)
        if stopping:
            if not received:  # the signal went to another process
                received.append(signal.SIGTERM)
            _check_finite(model, unchecked, data, run.next_epoch)
            run.save_within_epoch(Progress(done, total.cpu()), model, optimizer)
    return Trained(float(total) / len(data), len(data) - before)


CHECK_BATCHES = 16
"""Batches between two looks at the losses on an accelerator."""


def check_interval(device: torch.device) -> int:
    """Batches between two looks at the losses; an accelerator has to wait for each look."""
    return 1 if device.type == "cpu" else CHECK_BATCHES


def _check_finite(model: BACGCN, batches: List[Tuple[Tensor, Tensor]], data: FeatureSet, epoch: int) -> None:
    """Raise DataError if a loss of the (rows, loss) `batches`, or a weight after the last of them, is not finite."""
    if not batches:
        return
    losses = torch.stack([loss for _, loss in batches]).cpu()
    bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if not bad and all(torch.isfinite(weight).all() for weight in model.parameters()):
        return
    first = bad[0] if bad else -1
    rows, what = batches[first][0], f"the loss is {float(losses[first])}" if bad else "a weight is no longer finite"
    names = " ".join(data.image_ids[row] if data.image_ids else str(row) for row in rows.tolist())
    raise DataError(f"epoch {epoch}: {what}; nothing of it is saved. Lower --lr, or look at the captions and images of "
                    f"this batch: {names}")
