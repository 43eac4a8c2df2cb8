"""CDUL (Abdelfattah et al., ICCV 2023): pseudo-labels from a CLIP that looks at an image and its snippets, and a
classifier that is trained on them while they are refined by its predictions."""
from __future__ import annotations

from typing import Dict, Optional, Tuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import clip
from models.baselines.zero_shot import zero_shot_scores

SNIPPETS = 3
"""Snippets a side: an image is cut into 3 x 3."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def initial_labels(view_embeddings: Tensor, text_embeddings: Tensor, zeta: float) -> Tensor:
    """The initialisation: y = (p + a) / 2 from the global probabilities p and the aggregated local ones a.

    Probabilities are softmax(100 cos) over the classes. With alpha the maximum and beta the minimum of a class over
    the snippets, a = alpha where alpha >= zeta, else beta.

    Args:
        view_embeddings: (n, 1 + snippets, D), the whole image first.
        text_embeddings: (C, D).
        zeta: the threshold; the paper gives no value.

    Returns:
        (n, C) in 0..1.
    """
    probabilities = zero_shot_scores(view_embeddings, text_embeddings)
    whole, snippets = probabilities[:, 0], probabilities[:, 1:]
    alpha, beta = snippets.amax(dim=1), snippets.amin(dim=1)
    return (whole + torch.where(alpha >= zeta, alpha, beta)) / 2


def bernoulli_kl(labels: Tensor, logits: Tensor) -> Tensor:
    """KL(y || sigmoid(z)) of (B, C) soft labels y and logits z, mean over images and classes."""
    entropy = -(torch.xlogy(labels, labels) + torch.xlogy(1 - labels, 1 - labels)).mean()
    return F.binary_cross_entropy_with_logits(logits, labels) - entropy


def uncertainty(labels: Tensor, sigma: float) -> Tensor:
    """psi(y): a Gaussian around 0.5. Its peak is 1 (our choice), so that no step leads beyond the prediction."""
    return torch.exp(-0.5 * ((labels - 0.5) / sigma) ** 2)


class CDUL(nn.Module):
    """A classifier and the latent labels of the training images.

    Args:
        classifier: a batch of inputs to logits (B, C).
        labels: (n, C) initial labels in 0..1.
        sigma: width of psi; the paper gives no value.
    """

    latent: Tensor
    """(n, C), u: the log-odds of the current labels."""

    def __init__(self, classifier: nn.Module, labels: Tensor, sigma: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("latent", torch.logit(labels.double(), eps=1e-4).float())
        self.sigma = sigma

    @property
    def labels(self) -> Tensor:
        """(n, C) current labels y = sigmoid(u)."""
        return torch.sigmoid(self.latent)

    @torch.no_grad()
    def refine_labels(self, logits: Tensor) -> None:
        """u <- u - psi(y) dKL(y || p)/dy with p = sigmoid(z) of the network's logits z (n, C).

        The derivative is log(y / p) - log((1 - y) / (1 - p)) = u - z: uncertain labels move to the prediction,
        certain ones stay.
        """
        self.latent -= uncertainty(self.labels, self.sigma) * (self.latent - logits)


class FrozenCLIPHead(nn.Module):
    """The port: a linear classifier on a frozen CLIP's global embeddings, which starts as CLIP itself (our choice).

    Args:
        text_embeddings: (C, D).
        logit_scale: factor of the cosines at the start.
    """

    def __init__(self, text_embeddings: Tensor, logit_scale: float = 10.0) -> None:
        super().__init__()
        classes, dim = text_embeddings.shape
        self.linear = nn.Linear(dim, classes)
        with torch.no_grad():
            self.linear.weight.copy_(logit_scale * F.normalize(text_embeddings, dim=-1))
            self.linear.bias.zero_()

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits (B, C) of embeddings (B, D) of any length."""
        return self.linear(F.normalize(embeddings, dim=-1))

    @torch.no_grad()
    def calibrate(self, embeddings: Tensor, labels: Tensor) -> None:
        """Start where the mean logit of every class is the log-odds of its mean label (our choice)."""
        self.linear.bias.add_(torch.logit(labels.mean(dim=0), eps=1e-3) - self(embeddings).mean(dim=0))


class ImageNetResNet101(nn.Module):
    """torchvision's ResNet-101 with a new last layer, as in the paper.

    Args:
        num_classes: C.
        state_dict: torchvision's ImageNet weights; None leaves the network at random, for a checkpoint to be loaded.
    """

    def __init__(self, num_classes: int, state_dict: Optional[Dict[str, Tensor]] = None) -> None:
        super().__init__()
        self.network = torchvision.models.resnet101()
        if state_dict is not None:
            self.network.load_state_dict(state_dict)
        self.network.fc = nn.Linear(self.network.fc.in_features, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 3, H, W) that are normalised as CLIP's are."""
        pixels = images * _channels(clip.STD, images) + _channels(clip.MEAN, images)
        return self.network((pixels - _channels(IMAGENET_MEAN, images)) / _channels(IMAGENET_STD, images))


def _channels(values: Tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(1, 3, 1, 1)
