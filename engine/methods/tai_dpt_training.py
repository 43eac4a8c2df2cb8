"""TaI-DPT: dual prompts trained on the captions of a dataset, tested on images."""
from __future__ import annotations

import math
from itertools import zip_longest
from typing import List, NamedTuple, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

import clip
from clip.model import CLIP
from datasets.captions.io import load_captions
from datasets.captions.pseudo_labels import load_prompt_labels
from datasets.files import DataError
from engine.evaluation.evaluation_set import EvaluationSet, Scored
from engine.features.extraction import FeatureSource, extract_features
from engine.features.feature_set import FeatureSet
from engine.training.checkpoint import Checkpoint, load_weights
from engine.training.training_labels import label_folder
from models.baselines.tai_dpt import Content, DualPrompts, class_scores, pair_ranking_loss, text_content

WARMUP_FACTOR = 0.1
"""Of the learning rate in the first epoch, as the authors have it."""

TEXT_BYTES = 2**31
"""Memory for the embeddings of the training texts; VOC's take 1.4 GB, COCO's would take 20."""


class LabelledTexts(NamedTuple):
    """Texts in place of images."""

    tokens: Tensor
    """(t, context length)."""
    positive: Tensor
    """(t, C) bool, the classes that a text names; every text names one."""


def load_texts(test: EvaluationSet, image_ids: Sequence[str]) -> LabelledTexts:
    """The captions of the training images with the classes that the filter found in them.

    A text is what a prompt was answered about an image: the caption and the re-caption, whose categories the label
    files merge. Texts that name no class are left out.

    Raises:
        DataError: captions or labels are missing, or lack an image; or no text names a class.
    """
    args, spec = test.args, test.spec
    captions = load_captions(args.caption_root, spec.name)
    missing = [image_id for image_id in image_ids if image_id not in captions]
    if missing:
        raise DataError(f"{args.caption_root}/{spec.name}: {len(missing)} training images have no captions, the first "
                        f"is {missing[0]!r}; caption them, or take them out of the split file")
    labels = load_prompt_labels(label_folder(args, spec), image_ids, spec.categories)
    texts: List[str] = []
    named: List[List[int]] = []
    for image_id, lists in zip(image_ids, labels):
        answers = captions[image_id]
        num_first = captions.num_first(image_id)
        pairs = zip_longest(answers[:num_first], answers[num_first:], fillvalue="")
        for (first, again), categories in zip(pairs, lists):
            classes = [category for category in categories if category < test.num_classes]
            if classes:
                texts.append(". ".join(part.strip(" .") for part in (first, again) if part.strip(" .")))
                named.append(classes)
    if not texts:
        raise DataError(f"{args.caption_root}/{spec.name}: no caption names a class; filter them again")
    print(f"TaI-DPT: {len(texts):,} of {sum(map(len, labels)):,} texts name a class")
    positive = torch.zeros(len(texts), test.num_classes, dtype=torch.bool)
    for row, classes in zip(positive, named):
        row[classes] = True
    return LabelledTexts(clip.tokenize(texts, test.clip_model.context_length, truncate=True), positive)


class TextBank:
    """What the training texts hold by the frozen CLIP: encoded once where that fits into memory, else in every epoch.

    Args:
        clip_model: the frozen CLIP.
        tokens: (t, context length).
        batch_size: texts a pass of the encoder.
        budget: bytes for the embeddings, which are kept in fp16.
    """

    def __init__(self, clip_model: CLIP, tokens: Tensor, batch_size: int, budget: int = TEXT_BYTES) -> None:
        self.clip_model = clip_model
        self.tokens = tokens
        self._lengths = tokens.argmax(dim=-1) + 1
        self._kept: List[Tensor] = []
        if int(self._lengths.sum()) * clip_model.embed_dim * 2 <= budget:
            for rows in tqdm(torch.arange(len(tokens)).split(batch_size), desc="texts", unit="batch"):
                local = self._encode(rows).local_embeddings.half().cpu()
                self._kept += [text[:length].clone() for text, length in zip(local, self._lengths[rows].tolist())]

    def __getitem__(self, rows: Tensor) -> Content:
        """The content of some texts, in their order, on the device of CLIP."""
        if not self._kept:
            return self._encode(rows)
        lengths = self._lengths[rows]
        local = pad_sequence([self._kept[row] for row in rows.tolist()], batch_first=True).float()
        ends = local[torch.arange(len(rows)), lengths - 1]
        valid = torch.arange(local.shape[1]) < lengths[:, None]
        device = self.clip_model.text_projection.device
        return Content(ends.to(device), local.to(device), valid.to(device))

    def _encode(self, rows: Tensor) -> Content:
        return text_content(self.clip_model, self.tokens[rows].to(self.clip_model.text_projection.device))


class TaIDPTTraining:
    """Training of the contexts by SGD on the ranking loss of both scores; a `Training` of `baseline_training.py`."""

    def __init__(self, test: EvaluationSet, train_ids: Sequence[str]) -> None:
        self.test, self.args = test, test.args
        self.skipped: List[str] = []
        self.texts = load_texts(test, train_ids)
        self.data = [self.texts.tokens, self.texts.positive]
        self.bank = TextBank(test.clip_model, self.texts.tokens, self.args.encode_batch_size)
        self.model = DualPrompts(test.clip_model, test.spec.prompt_names(test.spec.classes), self.args.num_context)
        self.optimizer = torch.optim.SGD(self.model.parameters(), self.args.lr, momentum=0.9,
                                         weight_decay=self.args.weight_decay)
        self.test_store = extract_features(test.encoder, test.images, "test", self.args)
        self.test_globals = self.test_store.plain_globals()

    def __len__(self) -> int:
        return len(self.texts.tokens)

    def train_one_epoch(self, epoch: int) -> float:
        """One pass over the texts; the mean loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.args.lr, epoch, self.args.cosine_epochs)
        generator = torch.Generator().manual_seed(self.args.seed * 100_003 + epoch)
        total = 0.0
        for rows in torch.randperm(len(self), generator=generator).split(self.args.batch_size):
            scores = class_scores(self.model(self.test.clip_model), self.bank[rows])
            positive = self.texts.positive[rows].to(self.test.device)
            loss = (pair_ranking_loss(scores.global_scores, positive)
                    + pair_ranking_loss(scores.local_scores, positive))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach()) * len(rows)
        return total / len(self)

    def score_test_images(self) -> Scored:
        """Merged scores of the test images."""
        return Scored.by_midpoint(_score_images(self.test, self.model, self.test_store))


def learning_rate(base: float, epoch: int, cosine_epochs: int) -> float:
    """A warm-up epoch at a tenth, then a cosine to zero over `cosine_epochs` epochs in all; epochs count from 1."""
    if epoch == 1:
        return base * WARMUP_FACTOR
    return base * (1 + math.cos(math.pi * min((epoch - 1) / cosine_epochs, 1.0))) / 2


def tai_dpt_scores(test: EvaluationSet, trained: Checkpoint) -> Tensor:
    """Merged scores of the test images with the contexts of a checkpoint, (n, C)."""
    model = DualPrompts(test.clip_model, test.spec.prompt_names(test.spec.classes), test.args.num_context)
    load_weights(model, trained, test.args.checkpoint)
    return _score_images(test, model, extract_features(test.encoder, test.images, "test", test.args))


@torch.no_grad()
def _score_images(test: EvaluationSet, model: DualPrompts, store: FeatureSource) -> Tensor:
    class_embeddings = model(test.clip_model)
    scores = []
    for batch in FeatureSet([store], test.targets).batches(test.args.encode_batch_size):
        content = Content(batch.features.global_embeddings[:, 0].to(test.device),
                          batch.features.patch_embeddings.to(test.device))
        scores.append(class_scores(class_embeddings, content).merged.cpu())
    return torch.cat(scores)
