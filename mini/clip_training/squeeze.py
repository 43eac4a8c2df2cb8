"""Squeezes the features of the mini CLIP to the cosines of a real CLIP: another world for the same method.

    python -m mini.clip_training.squeeze --output pretrained_models/mini_squeezed.safetensors
    python train_mini.py --model_path pretrained_models/mini_squeezed.safetensors --output_dir runs/squeezed

The images of a real CLIP lie in a narrow cone, its texts in another, and all cosines between the two are small and
nearly equal. Those of the mini CLIP are spread out. Both encoders end in a layer norm and a projection, so a change of
the norm's bias adds one vector to all images and patches, or to all texts, and nothing else: two such vectors make the
cones. They point where features differ least, so that what tells features apart stays as it was.
"""
from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, NamedTuple, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip import CLIP, load, tokenize
from clip.weight_files import atomic_path
from datasets.files import DataError
from datasets.flag_parser import FlagParser
from datasets.names import prompt_name
from datasets.registry import get_dataset
from engine.features.text_embeddings import load_templates
from engine.process.entry_point import run_main
from mini.clip_training.batches import to_tensor
from mini.scenes import render_scene

NUM_SCENES = 200
SCENES_SEED = 7
IMAGE_BIAS, TEXT_BIAS = "visual.ln_post.bias", "ln_final.bias"
_COST_OF_BIAS = 1e-5
_ROUNDS, _HALVINGS = 4, 50


class Cosines(NamedTuple):
    """How images and prompts of classes lie to each other."""

    image_text: float
    """Mean over all images and classes."""
    spread: float
    """Standard deviation over the classes, mean over the images."""
    text_text: float
    """Mean over all pairs of classes."""
    image_image: float
    """Mean over all pairs of images."""


IMAGE_TEXT, SPREAD, TEXT_TEXT = 0.22, 0.025, 0.81
"""Of real CLIPs on VOC's 20 classes: the middle of their range, 0.15 to 0.30; measured for RN50x64 on 586 photos of
VOC2012; measured for ViT-B/16's prompts. Between images there is no target: two vectors do not meet four."""


class Features(NamedTuple):
    """What the mini CLIP makes of some scenes and of its classes' prompts, not normalised."""

    images: Tensor
    """(n, D)"""
    patches: Tensor
    """(n, N, D)"""
    texts: Tensor
    """(C, D)"""


def render_images(side: int, indices: Sequence[int] = range(NUM_SCENES)) -> Tensor:
    """Some of the scenes that the mini CLIP was not trained on, (n, 3, side, side), normalised; the same each time."""
    scenes = [Image.fromarray(render_scene(SCENES_SEED, "clip_held_out", index).pixels) for index in indices]
    pixels = np.stack([np.asarray(scene.resize((side, side), Image.Resampling.BICUBIC)) for scene in scenes])
    return to_tensor(torch.from_numpy(pixels).permute(0, 3, 1, 2))


@torch.no_grad()
def encode(model: CLIP, images: Tensor) -> Features:
    """Features of images, (n, 3, H, W), and of the classes of the embedded world."""
    dense = model.encode_image_dense(images)
    prompts = [template.format(prompt_name(name)) for template in load_templates("single")
               for name in get_dataset("mini").classes]
    return Features(dense.global_embedding, dense.patch_embeddings, model.encode_text(tokenize(prompts)))


def measure_cosines(images: Tensor, texts: Tensor) -> Cosines:
    """The cosines of images (n, D) and texts (C, D)."""
    images, texts = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    between = images @ texts.T
    return Cosines(between.mean().item(), between.std(dim=1).mean().item(), _mean_of_pairs(texts),
                   _mean_of_pairs(images))


def _mean_of_pairs(vectors: Tensor) -> float:
    count = len(vectors)
    return ((vectors.sum(dim=0).square().sum() - vectors.square().sum()) / (count * (count - 1))).item()


def quiet_directions(model: CLIP, features: Features) -> Tuple[Tensor, Tensor]:
    """Two orthogonal unit vectors, (D,), along which features differ least and which biases of some size can reach."""
    projections = [projection.double() for projection in (model.visual.proj, model.text_projection)]
    differences = torch.stack([_covariance(part.flatten(0, -2).double()) for part in features]).sum(dim=0)
    biases = torch.stack([torch.linalg.pinv(projection.T @ projection) for projection in projections]).sum(dim=0)
    vectors = torch.linalg.eigh(differences + _COST_OF_BIAS * biases).eigenvectors
    return vectors[:, 0].float(), vectors[:, 1].float()


def _covariance(vectors: Tensor) -> Tensor:
    covariance = torch.cov(vectors.T)
    return covariance / covariance.trace()


def fit_means(images: Tensor, texts: Tensor, first: Tensor, second: Tensor) -> Tuple[Tensor, Tensor]:
    """Where the means of images (n, D) and of texts (C, D) must move for the cosines of a real CLIP, (D,) each.

    The texts' length is decided by the cosines between texts, then the images' by the spread and the angle between both
    by the mean cosine, in turns, since the last two depend a little on each other.

    Args:
        images: of some scenes.
        texts: of the classes.
        first: a direction of `quiet_directions`; the images' mean gets it.
        second: the other one; the texts' mean lies in the plane of both.
    """
    images, texts = images - images.mean(dim=0), texts - texts.mean(dim=0)
    longest = 100 * images.norm(dim=1).mean().item()

    def towards(overlap: float) -> Tensor:
        return overlap * first + (1 - overlap**2) ** 0.5 * second

    def cosines(length: float, text_length: float, overlap: float) -> Cosines:
        return measure_cosines(images + length * first, texts + text_length * towards(overlap))

    def length_for(overlap: float) -> float:
        return _bisect(lambda length: -cosines(length, text_length, overlap).spread, -SPREAD, longest)

    def overlap_for(length: float) -> float:
        return _bisect(lambda overlap: cosines(length, text_length, overlap).image_text, IMAGE_TEXT, 1.0)

    text_length = _bisect(lambda length: cosines(0, length, 0).text_text, TEXT_TEXT, longest)
    overlap = IMAGE_TEXT
    for _ in range(_ROUNDS):
        overlap = overlap_for(length_for(overlap))
    return length_for(overlap) * first, text_length * towards(overlap)


def _bisect(rising: Callable[[float], float], wanted: float, high: float) -> float:
    """Where a rising function of [0, high] has the wanted value."""
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


def squeezed_biases(model: CLIP, features: Features) -> Dict[str, Tensor]:
    """The biases of both last layer norms, by name, that bring the cosines to a real CLIP's."""
    image_mean, text_mean = fit_means(features.images, features.texts, *quiet_directions(model, features))
    shifts = {IMAGE_BIAS: (model.visual.ln_post.bias, model.visual.proj, image_mean - features.images.mean(dim=0)),
              TEXT_BIAS: (model.ln_final.bias, model.text_projection, text_mean - features.texts.mean(dim=0))}
    return {name: (bias.double() + torch.linalg.lstsq(projection.double().T, shift.double()).solution).float()
            for name, (bias, projection, shift) in shifts.items()}


def squeeze(weights: Path, output: Path) -> Tuple[Cosines, Cosines]:
    """Write the squeezed weights, and return the cosines before and after.

    Args:
        weights: of the mini CLIP.
        output: gets the same tensors and metadata but for two biases, in fp32.

    Raises:
        DataError: `output` is `weights`, or cannot be written.
    """
    if output.resolve() == weights.resolve():
        raise DataError(f"{output}: the weights that come with the code; choose another --output")
    model, _ = load(weights, device="cpu")
    images = render_images(model.visual.input_resolution)
    features = encode(model, images)
    biases = squeezed_biases(model, features)
    with safe_open(weights, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    try:
        with atomic_path(output) as temporary:
            save_file({**tensors, **biases}, temporary, metadata)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error}); choose another --output") from None
    squeezed, _ = load(output, device="cpu")
    after = encode(squeezed, images)
    return measure_cosines(features.images, features.texts), measure_cosines(after.images, after.texts)


def main(weights: Path, output: Path) -> None:
    """Squeeze, and print the cosines before and after."""
    measured = squeeze(weights, output)
    print("mean cosine   image-text, its deviation in an image, text-text, image-image")
    for name, cosines in zip(("as trained", "squeezed"), measured):
        print(f"{name:12}  " + "  ".join(f"{value:.3f}" for value in cosines))
    print(f"written to {output}; scripts take it by --model_path")


if __name__ == "__main__":
    parser = FlagParser(__doc__, "python -m mini.clip_training.squeeze")
    parser.add_argument("--output", type=Path, required=True, help="file of the squeezed weights")
    options = parser.parse_args()
    run_main(lambda: main(Path(get_dataset("mini").model_path), options.output))
