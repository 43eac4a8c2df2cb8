"""CDUL: pseudo-labels from images and their snippets, and the alternating training on them."""
from __future__ import annotations

import argparse
import os
from typing import Callable, Dict, Iterator, Optional, Protocol, Sequence, Tuple

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from clip.model import CLIP
from datasets.files import DataError
from datasets.images import image_transform, read_image
from datasets.progress import bar, is_quiet
from datasets.split_file import ImageList
from engine.evaluation.evaluation_set import EvaluationSet, Scored
from engine.features.readable_images import readable
from engine.features.stored_rows import stored_rows
from engine.process.distributed import ALONE, World, gather, main_first, sum_gradients, world
from engine.training.checkpoint import Checkpoint, load_weights
from models.baselines.batch_norm import share_batch_norm
from models.baselines.cdul import CDUL, SNIPPETS, FrozenCLIPHead, ImageNetResNet101, bernoulli_kl, initial_labels
from models.encoder import weights_digest


class Views(Dataset):
    """Item i is image i and its snippets, (1 + snippets, 3, R, R): the image itself, then 3 x 3 parts row by row."""

    def __init__(self, images: ImageList) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = read_image(self.images.path(index))
        xs, ys = ([round(side * part / SNIPPETS) for part in range(SNIPPETS + 1)] for side in image.size)
        boxes = [(left, top, right, bottom) for top, bottom in zip(ys, ys[1:]) for left, right in zip(xs, xs[1:])]
        return torch.stack([self.images.transform(view) for view in (image, *map(image.crop, boxes))])


def encode_views(clip_model: CLIP, images: ImageList, what: str, args: argparse.Namespace) -> Tensor:
    """Global embeddings of images and their snippets, (n, 10, D), computed once and kept under `--feature_root`."""
    device = next(clip_model.parameters()).device
    views = Views(images)

    @torch.no_grad()
    def compute(rows: range, advance: Callable[[int], object]) -> Tensor:
        loader = DataLoader(Subset(views, rows), max(args.encode_batch_size // (SNIPPETS**2 + 1), 1),
                            num_workers=min(args.num_workers, os.cpu_count() or 1))
        embeddings = []
        for batch in loader:
            encoded = clip_model.encode_image(batch.flatten(0, 1).to(device))
            embeddings.append(encoded.view(*batch.shape[:2], -1).cpu())
            advance(len(batch))
        return torch.cat(embeddings)

    meta = {"views": SNIPPETS, "weights": weights_digest(clip_model.visual), "transform": repr(images.transform)}
    return stored_rows(compute, images, (SNIPPETS**2 + 1, clip_model.embed_dim), "float16", f"views ({what})", meta,
                       args)


def cdul_initial_scores(test: EvaluationSet) -> Tensor:
    """The initialisation as a predictor: its labels of the test images, (n, C)."""
    views = encode_views(test.clip_model, test.images, "test", test.args)
    return initial_labels(views, test.class_embeddings(), test.args.zeta)


class Inputs(Protocol):
    """What a classifier reads, by rows."""

    def __len__(self) -> int: ...

    def batches(self, batches: Sequence[Tensor], generator: Optional[torch.Generator] = None,
                world: World = ALONE) -> Iterator[Tuple[Tensor, Tensor]]:
        """Rows and inputs of a process's share of each batch of rows; a generator asks for augmentation.

        Of a batch smaller than the number of processes some have no row.
        """


class EmbeddingInputs:
    """Global embeddings (n, D), for the frozen-CLIP head. There is no augmentation."""

    def __init__(self, embeddings: Tensor) -> None:
        self.embeddings = embeddings

    def __len__(self) -> int:
        return len(self.embeddings)

    def batches(self, batches: Sequence[Tensor], generator: Optional[torch.Generator] = None,
                world: World = ALONE) -> Iterator[Tuple[Tensor, Tensor]]:
        """See `Inputs`."""
        for batch in batches:
            rows = batch[world.rank::world.size]
            yield rows, self.embeddings[rows]


class ImageInputs:
    """Images squashed to `--image_size`, for the ResNet. Augmentation flips every other image, at random."""

    def __init__(self, images: ImageList, args: argparse.Namespace) -> None:
        self.images = images.with_transform(image_transform(args.image_size))
        self.size = args.image_size
        self.num_workers = min(args.num_workers, os.cpu_count() or 1)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batches: Sequence[Tensor], generator: Optional[torch.Generator] = None,
                world: World = ALONE) -> Iterator[Tuple[Tensor, Tensor]]:
        """See `Inputs`."""
        shares = [batch[world.rank::world.size] for batch in batches]
        loader = iter(DataLoader(self.images, batch_sampler=[rows.tolist() for rows in shares if len(rows)],
                                 num_workers=self.num_workers))
        for batch, rows in zip(batches, shares):
            images = next(loader)[0] if len(rows) else torch.zeros(0, 3, self.size, self.size)
            if generator is not None:  # drawn here for the whole batch: neither workers nor processes change it
                flipped = (torch.rand(len(batch), generator=generator) < 0.5)[world.rank::world.size]
                images[flipped] = images[flipped].flip(-1)
            yield rows, images


class CDULTraining:
    """The alternating training; see `engine.methods.baseline_training.Training`.

    An epoch trains the network on the labels. After it, from epoch `--warmup_epochs` on, the labels are refined by
    the network's predictions of all training images. Of several processes each has a share of every batch; the labels
    are the same in all.
    """

    def __init__(self, test: EvaluationSet, train_ids: Sequence[str]) -> None:
        self.test, self.args, self.device = test, test.args, test.device
        train_images, self.skipped = readable(train_ids, self.args.train_img_root, self.args)
        train_images = train_images.with_transform(test.images.transform)
        self.data = [train_images]
        train_views = encode_views(test.clip_model, train_images, "train", self.args)
        text_embeddings = test.class_embeddings()
        labels = initial_labels(train_views, text_embeddings, self.args.zeta)
        self.train_inputs: Inputs
        classifier: nn.Module
        if self.args.backbone == "clip":
            classifier = FrozenCLIPHead(text_embeddings)
            classifier.calibrate(train_views[:, 0], labels)
            self.train_inputs = EmbeddingInputs(train_views[:, 0])
        else:
            with main_first():  # which downloads them
                weights = imagenet_weights(self.args.resnet_weights)
            classifier = ImageNetResNet101(test.num_classes, weights)
            if world().size > 1:
                share_batch_norm(classifier)
            self.train_inputs = ImageInputs(train_images, self.args)
        self.model = CDUL(classifier, labels, self.args.psi_sigma).to(self.device)
        self.optimizer = torch.optim.AdamW(classifier.parameters(), self.args.lr, weight_decay=self.args.weight_decay)

    def __len__(self) -> int:
        return len(self.train_inputs)

    def train_one_epoch(self, epoch: int) -> float:
        """Both halves of an epoch; the mean KL divergence of the first."""
        generator = torch.Generator().manual_seed(self.args.seed * 100_003 + epoch)
        order = torch.randperm(len(self), generator=generator)
        labels, total = self.model.labels, 0.0
        self.model.train()
        batches = order.split(self.args.batch_size)
        shares = self.train_inputs.batches(batches, generator, world())
        shown = bar(f"epoch {epoch}", "batch", len(batches), over=batches, keep=False)
        for batch, (rows, inputs) in zip(shown, shares):
            logits = self.model.classifier(inputs.to(self.device))
            share = len(rows) / len(batch)
            loss = share * bernoulli_kl(labels[rows.to(self.device)], logits) if len(rows) else logits.sum()
            self.optimizer.zero_grad()
            loss.backward()
            loss = sum_gradients(self.model.classifier.parameters(), loss)
            self.optimizer.step()
            total += float(loss) * len(batch)
        if epoch >= self.args.warmup_epochs:
            self.model.refine_labels(predict(self.model.classifier, self.train_inputs, self.args, self.device)
                                     .to(self.device))
        return total / len(self)

    def encode(self, images: EvaluationSet, what: str) -> Inputs:
        """See `Training`."""
        return classifier_inputs(images, what)

    def score(self, encoded: Inputs) -> Scored:
        """See `Training`: the classifier's logits."""
        return Scored(predict(self.model.classifier, encoded, self.args, self.device), are_logits=True)

    def test_globals(self) -> Tensor:
        """See `Training`."""
        return encode_views(self.test.clip_model, self.test.images, "test", self.args)[:, 0]


def classifier_inputs(images: EvaluationSet, what: str) -> Inputs:
    """What the classifier of `--backbone` reads of some images."""
    if images.args.backbone == "clip":
        return EmbeddingInputs(encode_views(images.clip_model, images.images, what, images.args)[:, 0])
    return ImageInputs(images.images, images.args)


@torch.no_grad()
def predict(classifier: nn.Module, inputs: Inputs, args: argparse.Namespace, device: torch.device) -> Tensor:
    """Logits of all inputs in order, (n, C), on the CPU. Several processes share the batches."""
    classifier.eval()
    rank, size = world()
    own = torch.arange(len(inputs)).split(args.batch_size)[rank::size]
    parts = [(int(rows[0]), classifier(batch.to(device)).cpu())
             for rows, batch in bar("scoring", "batch", len(own), over=inputs.batches(own), keep=False)]
    return torch.cat([logits for _, logits in sorted(gather(parts), key=lambda part: part[0])])


def imagenet_weights(path: Optional[str]) -> Dict[str, Tensor]:
    """torchvision's ImageNet weights of a ResNet-101: from a file, or downloaded once into torch's cache.

    Raises:
        DataError: they cannot be downloaded, or the file is not a state dict of tensors.
    """
    weights = torchvision.models.ResNet101_Weights.IMAGENET1K_V1
    try:
        if path is None:
            return weights.get_state_dict(progress=not is_quiet(), check_hash=True)
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # no network, no file, a damaged archive
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise DataError(f"{path or weights.url}: the weights cannot be read ({reason}); fetch {weights.url} and give "
                        "the file as --resnet_weights") from None
    expected = torchvision.models.resnet101().state_dict()
    if not isinstance(state_dict, dict) or {k: v.shape for k, v in expected.items()} != {
            k: getattr(v, "shape", None) for k, v in state_dict.items()}:
        raise DataError(f"{path}: not torchvision's resnet101; fetch {weights.url}")
    return state_dict


def cdul_logits(test: EvaluationSet, trained: Checkpoint) -> Tensor:
    """Logits of the images by the classifier of a checkpoint, (n, C)."""
    args = test.args
    classifier: nn.Module = (FrozenCLIPHead(test.class_embeddings()) if args.backbone == "clip"
                             else ImageNetResNet101(test.num_classes))
    prefix = "classifier."
    weights = {name[len(prefix):]: value for name, value in trained["model"].items() if name.startswith(prefix)}
    load_weights(classifier, {"model": weights}, args.checkpoint)
    return predict(classifier.to(test.device), classifier_inputs(test, "test"), args, test.device)
