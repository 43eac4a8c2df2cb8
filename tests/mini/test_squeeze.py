"""The mini CLIP with its features squeezed to a real CLIP's cosines."""
from __future__ import annotations

import warnings
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import clip
from datasets.files import DataError
from datasets.registry import get_dataset
from mini.clip_training import squeeze
from mini.clip_training.squeeze import Cosines, Features
from tests.conftest import REPOSITORY

WEIGHTS = REPOSITORY / get_dataset("mini").model_path


class Squeezed(NamedTuple):
    """A squeezed file, and what both CLIPs make of scenes that it was not fitted to."""

    path: Path
    before: Features
    after: Features


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Squeezed]:
    path = tmp_path_factory.mktemp("squeezed") / "deeper" / "mini.safetensors"
    squeeze.main(WEIGHTS, path)
    plain, _ = clip.load(WEIGHTS, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its activation is told
        model, _ = clip.load(path, device="cpu")
    assert model.architecture == plain.architecture
    images = squeeze.render_images(plain.visual.input_resolution, range(500, 560))
    yield Squeezed(path, squeeze.encode(plain, images), squeeze.encode(model, images))


def test_cosines_are_counted_by_hand() -> None:
    images, texts = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [3.0, 4.0]])
    measured = squeeze.measure_cosines(images, texts)
    deviations = [0.4 / 2**0.5, 0.8 / 2**0.5]  # of 1 and 0.6, and of 0 and 0.8
    assert measured == pytest.approx(Cosines(0.6, sum(deviations) / 2, 0.6, 0.0))


def near_a_real_clip(cosines: Cosines, tolerance: float) -> bool:
    wanted = (squeeze.IMAGE_TEXT, squeeze.SPREAD, squeeze.TEXT_TEXT)
    return all(abs(value - target) < tolerance * target for value, target in zip(cosines, wanted))


def test_means_are_moved_until_the_cosines_are_those_of_a_real_clip() -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(50, 32), 3 * torch.randn(12, 32)
    images[:, :2] = texts[:, :2] = 0
    first, second = torch.eye(32)[:2]
    image_mean, text_mean = squeeze.fit_means(images, texts, first, second)
    moved = squeeze.measure_cosines(images - images.mean(0) + image_mean, texts - texts.mean(0) + text_mean)
    assert near_a_real_clip(moved, 1e-3)


def test_squeezed_features_have_a_real_clips_cosines_on_new_scenes(squeezed: Squeezed) -> None:
    before, after = (squeeze.measure_cosines(part.images, part.texts) for part in (squeezed.before, squeezed.after))
    assert near_a_real_clip(after, 0.1)
    assert not near_a_real_clip(before, 0.1)
    assert after.image_image > 0.5


def test_all_images_and_patches_move_by_one_vector_and_all_texts_by_another(squeezed: Squeezed) -> None:
    before, after = squeezed.before, squeezed.after
    of_images, of_patches, of_texts = (one - other for one, other in zip(after, before))

    def differs(shifts: Tensor, shift: Tensor) -> float:
        return ((shifts - shift).norm(dim=-1).max() / shift.norm()).item()

    assert differs(of_images, of_images[0]) < 1e-3
    assert differs(of_patches, of_images[0]) < 1e-3
    assert differs(of_texts, of_texts[0]) < 1e-3


def test_the_order_of_images_stays_nearly_that_of_features_without_their_mean(squeezed: Squeezed) -> None:
    texts = squeezed.before.texts - squeezed.before.texts.mean(dim=0)
    expected = (squeezed.before.images - squeezed.before.images.mean(dim=0)) @ texts.T
    cosines = (torch.nn.functional.normalize(squeezed.after.images, dim=-1)
               @ torch.nn.functional.normalize(squeezed.after.texts, dim=-1).T)
    for wanted, measured in zip(expected.T, cosines.T):
        assert torch.corrcoef(torch.stack([wanted, measured]))[0, 1] > 0.95


def test_the_file_is_the_shipped_one_but_for_two_biases(squeezed: Squeezed) -> None:
    with safe_open(WEIGHTS, "pt") as shipped, safe_open(squeezed.path, "pt") as written:
        assert written.metadata() == shipped.metadata()
        names = set(shipped.keys())
        assert set(written.keys()) == names
        changed = {name for name in names if not torch.equal(shipped.get_tensor(name), written.get_tensor(name))}
    assert changed == {"visual.ln_post.bias", "ln_final.bias"}


def test_weights_are_not_squeezed_into_themselves() -> None:
    before = WEIGHTS.read_bytes()
    with pytest.raises(DataError, match="choose another --output"):
        squeeze.squeeze(WEIGHTS, WEIGHTS.parent / "." / WEIGHTS.name)
    assert WEIGHTS.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squeeze, "render_images", lambda side: torch.randn(8, 3, side, side))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/mini\.safetensors: cannot be written"):
        squeeze.squeeze(WEIGHTS, tmp_path / "file" / "mini.safetensors")
