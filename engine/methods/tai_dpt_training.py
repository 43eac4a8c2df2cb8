"""TaI-DPT: dual prompts trained on the captions of a dataset, tested on images."""
from __future__ import annotations

import math
from itertools import zip_longest
from typing import List, NamedTuple, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import clip
from clip.model import CLIP
from datasets.captions.io import load_dataset_captions
from datasets.captions.pseudo_labels import load_prompt_labels
from datasets.files import DataError, counted
from datasets.progress import bar, say
from engine.evaluation.evaluation_set import EvaluationSet, Scored
from engine.features.extraction import FeatureSource, extract_features
from engine.features.feature_set import FeatureSet
from engine.features.text_embeddings import load_templates
from engine.process.distributed import sum_gradients, sum_over_processes, world
from engine.training.checkpoint import Checkpoint, load_weights
from engine.training.training_labels import label_folder
from models.baselines.tai_dpt import (
    TEXT_SCALE,
    Content,
    DualPrompts,
    class_scores,
    pair_ranking_loss,
    text_content,
)

WARMUP_LR = 1e-5
"""Learning rate of the first epoch, as the authors have it."""

DEFAULT_TEXTS = 9
"""How often "a photo of a CLASS." is a training text, beside ImageNet's templates, as the authors have it."""

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
    files merge. Texts that name no class are left out. The `template_texts` of the classes follow.

    Raises:
        DataError: captions or labels are missing, or lack an image; or no text names a class.
    """
    args, spec = test.args, test.spec
    captions = load_dataset_captions(args.caption_root, spec)
    missing = [image_id for image_id in image_ids if image_id not in captions]
    if missing:
        raise DataError(f"{args.caption_root}/{spec.name}: {counted(len(missing), 'training image')} without "
                        f"captions, the first is {missing[0]!r}; caption them, or take them out of the split file")
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
    say(f"TaI-DPT: {len(texts):,} of {sum(map(len, labels)):,} texts name a class")
    for row, word in enumerate(spec.prompt_names(spec.classes)):
        templates = template_texts(word)
        texts += templates
        named += [[row]] * len(templates)
    positive = torch.zeros(len(texts), test.num_classes, dtype=torch.bool)
    for row, classes in zip(positive, named):
        row[classes] = True
    return LabelledTexts(clip.tokenize(texts, test.clip_model.context_length, truncate=True), positive)


def template_texts(word: str) -> List[str]:
    """Texts that name one class alone, in the authors' numbers: the plain template nine times and ImageNet's 80."""
    templates = load_templates("single") * DEFAULT_TEXTS + load_templates("imagenet")
    return [template.format(word) for template in templates]


class TextBank:
    """What texts hold by the frozen CLIP: encoded once where that fits into memory, else in every epoch.

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
            batches = torch.arange(len(tokens)).split(batch_size)
            for rows in bar("texts", "batch", len(batches), over=batches):
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
    """Training of the contexts by SGD on the ranking loss of both scores; a `Training` of `baseline_training.py`.

    Of several processes each holds every so many-th text, and adds to each batch what its own texts contribute.
    """

    def __init__(self, test: EvaluationSet, train_ids: Sequence[str]) -> None:
        self.test, self.args = test, test.args
        self.skipped: List[str] = []
        self.texts = load_texts(test, train_ids)
        self.data = [self.texts.tokens, self.texts.positive]
        own = self.texts.tokens[world().rank::world().size]
        self.bank = TextBank(test.clip_model, own, self.args.encode_batch_size)
        self.model = DualPrompts(test.clip_model, test.spec.prompt_names(test.spec.classes), self.args.num_context)
        self.optimizer = torch.optim.SGD(self.model.parameters(), self.args.lr, momentum=0.9,
                                         weight_decay=self.args.weight_decay)

    def __len__(self) -> int:
        return len(self.texts.tokens)

    def train_one_epoch(self, epoch: int) -> float:
        """One pass over the texts; the mean loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.args.lr, epoch, self.args.cosine_epochs)
        generator = torch.Generator().manual_seed(self.args.seed * 100_003 + epoch)
        total = 0.0
        rank, size = world()
        batches = torch.randperm(len(self), generator=generator).split(self.args.batch_size)
        for batch in bar(f"epoch {epoch}", "batch", len(batches), over=batches, keep=False):
            rows = batch[batch % size == rank]
            loss = self._loss(rows) * (len(rows) / len(batch))
            self.optimizer.zero_grad()
            loss.backward()
            loss = sum_gradients(self.model.parameters(), loss)
            self.optimizer.step()
            total += float(loss) * len(batch)
        return total / len(self)

    def _loss(self, rows: Tensor) -> Tensor:
        """Mean loss of some of this process's texts, 0 of none."""
        if not len(rows):
            return 0 * self.model.contexts.sum()
        scores = class_scores(self.model(self.test.clip_model), self.bank[rows // world().size], TEXT_SCALE)
        positive = self.texts.positive[rows].to(self.test.device)
        return pair_ranking_loss(scores.global_scores, positive) + pair_ranking_loss(scores.local_scores, positive)

    def encode(self, images: EvaluationSet, what: str) -> FeatureSource:
        """See `Training`."""
        return extract_features(images.encoder, images.images, what, self.args)

    def score(self, encoded: FeatureSource) -> Scored:
        """See `Training`: merged scores."""
        return Scored(_score_images(self.test, self.model, encoded), are_logits=False)

    def test_globals(self) -> Tensor:
        """See `Training`."""
        return self.encode(self.test, "test").plain_globals()


def learning_rate(base: float, epoch: int, cosine_epochs: int) -> float:
    """A warm-up epoch, then a cosine from `base` to zero over `cosine_epochs` epochs in all; epochs count from 1."""
    if epoch == 1:
        return WARMUP_LR
    return base * (1 + math.cos(math.pi * min((epoch - 1) / cosine_epochs, 1.0))) / 2


def tai_dpt_scores(test: EvaluationSet, trained: Checkpoint) -> Tensor:
    """Merged scores of the test images with the contexts of a checkpoint, (n, C)."""
    model = DualPrompts(test.clip_model, test.spec.prompt_names(test.spec.classes), test.args.num_context)
    load_weights(model, trained, test.args.checkpoint)
    return _score_images(test, model, extract_features(test.encoder, test.images, "test", test.args))


@torch.no_grad()
def _score_images(test: EvaluationSet, model: DualPrompts, store: FeatureSource) -> Tensor:
    class_embeddings = model(test.clip_model)
    data = FeatureSet([store], torch.zeros(len(store), 0))
    scores = torch.zeros(len(store), test.num_classes, device=test.device)
    batch_size = test.args.encode_batch_size
    for batch in bar("scoring", "batch", data.num_batches(batch_size, world()), keep=False,
                     over=data.batches(batch_size, device=test.device, world=world())):
        content = Content(batch.features.global_embeddings[:, 0], batch.features.patch_embeddings)
        scores[batch.rows[0]:batch.rows[-1] + 1] = class_scores(class_embeddings, content, test.args.image_scale).merged
    return sum_over_processes(scores).cpu()
