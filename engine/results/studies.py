"""The ablations: which variants of the method are compared, under which flags and names."""
from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

REFERENCE = "full"
"""Name of the method as it is, beside which the variants stand."""


class Variant(NamedTuple):
    """One change to the method."""

    name: str
    """Of its folder."""
    title: str
    """In tables."""
    flags: Dict[str, Any]
    """Flags of the train script, and their values."""


COMPONENTS = (
    Variant("no_reso", "without ReSO (same epochs, no crops)", {"no_reso": True}),
    Variant("no_masked_globals", "one plain global instead of g_H and g_Hc", {"no_masked_globals": True}),
    Variant("pixel_masks", "masked patches painted black, not left out", {"mask_mode": "pixel"}),
    Variant("token_masks", "masked patches left out, not painted black", {"mask_mode": "token"}),
    Variant("no_backgrounds", "without backgrounds", {"no_backgrounds": True}),
    Variant("no_class_background_edges", "without class-background edges", {"no_class_background_edges": True}),
    Variant("no_edges", "GCN without edges", {"adjacency": "identity"}),
    Variant("learned_edges", "GCN with learned edges", {"adjacency": "learned"}),
    Variant("no_gcn", "without the GCN", {"no_gcn": True}),
    Variant("frozen_kernel", "kernel kept where it starts", {"frozen_kernel": True}),
    Variant("local_logits", "local logits alone", {"logits": "local"}),
    Variant("global_logits", "global logits alone", {"logits": "global"}),
)
"""One component less, or another way to do it, at a time."""

CHOICES = (
    Variant("labels_fused", "labels of captions and CLIP together", {"labels": "fused"}),
    Variant("labels_votes", "votes of the six prompts as labels", {"labels": "votes"}),
    Variant("labels_hard", "labels of 0 and 1", {"labels": "hard"}),
    Variant("asymmetric_loss", "asymmetric loss", {"loss": "asymmetric"}),
    Variant("ranking_loss", "ranking loss", {"loss": "ranking"}),
    Variant("full_attention", "patches of CLIP's own last block", {"patch_attention": "full"}),
    Variant("earlier_attention", "H by the last layer but one", {"attention_layer": -2}),
    Variant("mask_threshold", "H by a threshold, not a share", {"mask_threshold": 0.5}),
    Variant("edge_threshold", "no edges below 0.2", {"edge_threshold": 0.2}),
    Variant("weak_global_edges", "global-local edges of 0.1", {"global_edge": 0.1}),
    Variant("symmetric", "symmetric normalisation", {"normalisation": "symmetric"}),
    Variant("not_normalised", "no normalisation", {"normalisation": "none"}),
    Variant("depth_1", "one graph convolution", {"gcn_depth": 1}),
    Variant("depth_3", "three graph convolutions", {"gcn_depth": 3}),
    Variant("width_64", "64 wide between the graph convolutions", {"gcn_width": 64}),
    Variant("relu", "ReLU between the graph convolutions", {"gcn_activation": "relu"}),
    Variant("sage", "GraphSAGE layers", {"gcn_layer": "sage"}),
    Variant("no_residual", "no residual around the GCN", {"no_residual": True}),
    Variant("logit_scale_30", "logit scale from 30", {"logit_scale": 30.0}),
    Variant("image_labels", "crops with all labels of their image", {"crop_labels": "image"}),
    Variant("ignored_labels", "crops without a loss for the image's other labels", {"crop_labels": "ignore"}),
    Variant("fewer_positives", "crops of classes from a label of 0.8 on", {"positive_threshold": 0.8}),
    Variant("resolution_192", "images at 192 px", {"resolution": 192}),
    Variant("resolution_256", "images at 256 px", {"resolution": 256}),
    Variant("tiles", "tiles of the images, too", {"tiles": 3}),
    Variant("small_tiles", "tiles of a third of the sides, too", {"small_tiles": 4}),
    Variant("caption_start", "kernel started at what captions show", {"kernel_start": "captions"}),
    Variant("both_start", "kernel started at prompt and captions", {"kernel_start": "both"}),
    Variant("half_self", "nodes keep half of themselves (ML-GCN's re-weighting)", {"self_share": 0.5}),
    Variant("most_self", "nodes keep 0.8 of themselves", {"self_share": 0.8}),
    Variant("fitted_start", "scale and biases start fitted to the labels", {"logit_start": "fitted"}),
    Variant("cosine", "learning rate along a cosine", {"lr_schedule": "cosine"}),
    Variant("warmup", "two epochs of warm-up", {"lr_warmup": 2.0}),
    Variant("slower", "a third of the learning rate", {"lr": 3e-4}),
    Variant("faster", "three times the learning rate", {"lr": 3e-3}),
)
"""What the paper leaves open, apart from `COMPONENTS` and `HYPERPARAMETERS`: another value at a time."""


class Sweep(NamedTuple):
    """The values of one hyperparameter."""

    title: str
    values: Tuple[float, ...]


HYPERPARAMETERS = {
    "k": Sweep("K, patches averaged per category", (1, 2, 4, 8, 16)),
    "mask_share": Sweep("mask share, part of the patches in H", (0.05, 0.15, 0.3, 0.5)),
    "gamma": Sweep("gamma, threshold of a ReSO region", (0.5, 0.6, 0.7, 0.8, 0.9)),
    "epsilon": Sweep("epsilon, area below which a region is small", (0.05, 0.1, 0.2, 0.4)),
}
"""One value at a time, the others at their defaults."""

STUDIES = ("components", "choices", "hyper")

_LISTED = {"components": COMPONENTS, "choices": CHOICES}


def variants(study: str) -> List[Variant]:
    """The variants of a study, without the reference."""
    if study in _LISTED:
        return list(_LISTED[study])
    return [Variant(f"{flag}_{value:g}", f"{sweep.title}: {value:g}", {flag: value})
            for flag, sweep in HYPERPARAMETERS.items() for value in sweep.values]


def variant_of(flags: Dict[str, Any]) -> Optional[Variant]:
    """The component or the choice that makes just this difference, or None."""
    return next((variant for variant in COMPONENTS + CHOICES if variant.flags == flags), None)


def study_of(flags: Dict[str, Any]) -> Optional[str]:
    """The study that a difference belongs to, or None; any value of a hyperparameter belongs to its sweep."""
    if len(flags) == 1 and next(iter(flags)) in HYPERPARAMETERS:
        return "hyper"
    variant = variant_of(flags)
    return next((study for study, listed in _LISTED.items() if variant in listed), None)
