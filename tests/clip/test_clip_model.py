"""CLIP against a slow, literal transformer; `test_clip_parity.py` sets it beside other libraries."""
from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import normalize

import clip
from clip.transformer import quick_gelu

SMALL = clip.Architecture(
    embed_dim=48, image_resolution=32, patch_size=8, vision_width=128, vision_layers=3,
    context_length=16, vocab_size=100, text_width=128, text_layers=2,
)


def random_clip(architecture: clip.Architecture) -> clip.CLIP:
    """A CLIP in which no bias is zero and no scale is one, so that a forgotten one shows."""
    pool = torch.randn(1_000_003, generator=torch.Generator().manual_seed(3))  # repeated: new numbers are slow
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in clip.CLIP(architecture).state_dict().items()}
    state_dict = {}
    for key, shape in shapes.items():
        noise = pool.repeat(shape.numel() // len(pool) + 1)[: shape.numel()].view(shape)
        if len(shape) > 1:
            state_dict[key] = noise * shape[1:].numel() ** -0.5
        else:
            state_dict[key] = 0.1 * noise + (key.endswith("weight") or key == "logit_scale")
    return clip.build_model(state_dict)


@pytest.fixture(scope="module")
def model() -> clip.CLIP:
    return random_clip(SMALL)


def random_images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


# --- Against a literal transformer with additive masks -------------------------------------------------------------

class SlowVision:
    """The image encoder spelled out, with an additive mask (B or 1, L, L) for every block."""

    def __init__(self, model: clip.CLIP) -> None:
        self.weights = {key[len("visual."):]: value for key, value in model.state_dict().items()
                        if key.startswith("visual.")}
        self.layers = SMALL.vision_layers

    def __call__(self, images: Tensor, masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Projected tokens (B, L, D) and attention weights (layers, B, L, L)."""
        w, p = self.weights, SMALL.patch_size
        batch, _, height, width = images.shape
        patches = images.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 1, 4, 5).reshape(batch, -1, 3 * p * p)
        x = patches @ w["conv1.weight"].flatten(1).T
        x = torch.cat([w["class_embedding"].expand(batch, 1, -1), x], dim=1)
        grid = bilinear(w["positional_embedding"][1:], 4, height // p, width // p)
        x = self.norm(x + torch.cat([w["positional_embedding"][:1], grid]), "ln_pre")
        attentions = []
        for layer, mask in enumerate(masks):
            x, attention = self.block(x, f"transformer.resblocks.{layer}", mask)
            attentions.append(attention)
        return self.norm(x, "ln_post") @ w["proj"], torch.stack(attentions)

    def block(self, x: Tensor, name: str, mask: Tensor) -> tuple[Tensor, Tensor]:
        w = self.weights
        qkv = self.norm(x, f"{name}.ln_1") @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]
        mixed, attentions = [], []
        for q, k, v in zip(*(part.split(64, dim=-1) for part in qkv.chunk(3, dim=-1))):
            logits = q @ k.transpose(1, 2) / math.sqrt(64) + mask
            attentions.append(logits.softmax(dim=-1))
            mixed.append(attentions[-1] @ v)
        x = x + torch.cat(mixed, dim=-1) @ w[f"{name}.attn.out_proj.weight"].T + w[f"{name}.attn.out_proj.bias"]
        hidden = self.norm(x, f"{name}.ln_2") @ w[f"{name}.mlp.c_fc.weight"].T + w[f"{name}.mlp.c_fc.bias"]
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        x = x + hidden @ w[f"{name}.mlp.c_proj.weight"].T + w[f"{name}.mlp.c_proj.bias"]
        return x, torch.stack(attentions).mean(dim=0)

    def norm(self, x: Tensor, name: str) -> Tensor:
        x = x - x.mean(dim=-1, keepdim=True)
        x = x / (x.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def bilinear(grid: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """Resize a (side * side, W) grid, pixel centres at half integers: (rows * columns, W)."""

    def axis(size: int) -> np.ndarray:
        weights = np.zeros((size, side), dtype=np.float32)
        for index in range(size):
            position = min(max((index + 0.5) * side / size - 0.5, 0), side - 1)
            low = int(position)
            weights[index, low] += 1 - (position - low)
            weights[index, min(low + 1, side - 1)] += position - low
        return weights

    resized = np.einsum("ri,cj,ijw->rcw", axis(rows), axis(columns), grid.numpy().reshape(side, side, -1))
    return torch.from_numpy(resized.reshape(rows * columns, -1))


def no_masks(tokens: int) -> list[Tensor]:
    return [torch.zeros(1, tokens, tokens) for _ in range(SMALL.vision_layers)]


def self_only_masks(tokens: int) -> list[Tensor]:
    """-100 off the diagonal of the last block; [cls] stays free."""
    masks = no_masks(tokens)
    masks[-1] = -100 * (1 - torch.eye(tokens))[None]
    masks[-1][:, 0] = 0
    return masks


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (24, 56), (8, 8)], ids=str)
@torch.no_grad()
def test_dense_features_equal_a_masked_slow_pass(model: clip.CLIP, size: tuple[int, int]) -> None:
    images = random_images(2, 3, *size)
    patches = size[0] * size[1] // 64
    tokens, _ = SlowVision(model)(images, self_only_masks(patches + 1))
    plain_tokens, attentions = SlowVision(model)(images, no_masks(patches + 1))
    dense = model.encode_image_dense(images)
    close(dense.global_embedding, plain_tokens[:, 0])
    close(dense.patch_embeddings, tokens[:, 1:])
    for layer in (0, 1, 2, -1, -3):
        close(model.encode_image_dense(images, attention_layer=layer).cls_attention, attentions[layer][:, 0, 1:])
    plain = model.encode_image_dense(images, self_only=False)
    close(plain.global_embedding, plain_tokens[:, 0])
    close(plain.patch_embeddings, plain_tokens[:, 1:])
    close(plain.cls_attention, dense.cls_attention)
    every_layer = model.encode_image_attentions(images)
    close(every_layer.patch_embeddings, dense.patch_embeddings)
    close(every_layer.attentions, attentions)
    close(model.encode_image(images), dense.global_embedding)


@torch.no_grad()
def test_patch_mask_hides_patches_from_cls_in_every_block(model: clip.CLIP) -> None:
    images = random_images(2, 3, 32, 40)
    patch_mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(2)) < 0.4
    patch_mask[1] = False  # [cls] is left with itself
    masks = [mask.repeat(2, 1, 1) for mask in no_masks(21)]
    for mask in masks:
        mask[:, 0, 1:].masked_fill_(~patch_mask, -torch.inf)
    close(model.encode_image(images, patch_mask=patch_mask), SlowVision(model)(images, masks)[0][:, 0])
    close(model.encode_image(images, patch_mask=torch.ones(2, 20, dtype=torch.bool)), model.encode_image(images))


@torch.no_grad()
def test_dropped_patches_are_as_if_nobody_saw_them(model: clip.CLIP) -> None:
    images = random_images(2, 3, 32, 40)
    order = torch.stack([torch.randperm(20, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)])
    for keep in (order[:, :6], order[:, 6:]):  # two complementary parts of different sizes
        masks = [torch.full((2, 21, 21), -torch.inf) for _ in range(SMALL.vision_layers)]
        for mask in masks:
            mask[:, :, 0] = 0
            for image in range(2):
                mask[image][:, keep[image] + 1] = 0
        close(model.encode_image(images, keep=keep), SlowVision(model)(images, masks)[0][:, 0])
    close(model.encode_image(images, keep=order), model.encode_image(images))


@pytest.mark.parametrize("size", [(32, 32), (24, 56)], ids=str)
@torch.no_grad()
def test_another_normalisation_of_images_goes_into_the_weights(model: clip.CLIP, size: tuple[int, int]) -> None:
    pixels = random_images(2, 3, *size).sigmoid()
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.6, 0.7)
    adapted = copy.deepcopy(model)
    adapted.visual.take_openai_normalisation(mean, std)
    theirs, ours = normalize(pixels, list(mean), list(std)), normalize(pixels, list(clip.MEAN), list(clip.STD))
    close(adapted.encode_image_dense(ours).patch_embeddings, model.encode_image_dense(theirs).patch_embeddings)
    close(adapted.encode_image(ours), model.encode_image(theirs))


def test_errors_say_what_is_wrong(model: clip.CLIP) -> None:
    with pytest.raises(ValueError, match="32 x 36 pixels.*patch size 8"):
        model.encode_image(random_images(1, 3, 32, 36))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        model.encode_image_dense(random_images(3, 32, 32))
    with pytest.raises(ValueError, match="out of range for 3 layers"):
        model.encode_image_dense(random_images(1, 3, 32, 32), attention_layer=3)
    with pytest.raises(ValueError, match="exclude each other"):
        model.encode_image(random_images(1, 3, 32, 32), torch.ones(1, 16, dtype=torch.bool), torch.zeros(1, 1).long())
    with pytest.raises(ValueError, match="17 tokens do not fit the context length 16"):
        model.encode_token_embeddings(torch.zeros(1, 17, 128))


def test_frozen_and_in_eval_mode_yet_prompts_can_be_learned(model: clip.CLIP) -> None:
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    prompts = torch.zeros(1, 16, 128, requires_grad=True)
    model.encode_token_embeddings(prompts)[:, 10].sum().backward()
    assert prompts.grad[0, :11].abs().amin(dim=1).gt(0).all()
    assert prompts.grad[0, 11:].abs().max() == 0, "text attends only to what comes before"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quick_gelu_needs_no_memory_unless_it_must_give_a_gradient(dtype: torch.dtype) -> None:
    values = random_images(3, 1000).to(dtype)
    overwritten = values.clone()
    assert quick_gelu(overwritten).data_ptr() == overwritten.data_ptr()
    asked = values.clone().requires_grad_()
    kept = quick_gelu(asked * 1)
    assert torch.equal(kept, overwritten), "to the bit"
    assert torch.allclose(kept, values * torch.sigmoid(1.702 * values), atol=1e-6 if dtype == torch.float32 else 0.03)
    kept.sum().backward()
    assert asked.grad is not None and asked.grad.abs().gt(0).any()


def test_sizes_are_inferred(model: clip.CLIP) -> None:
    assert clip.Architecture.of(model.state_dict()) == SMALL
    assert (model.visual.patch_size, model.visual.input_resolution, model.embed_dim) == (8, 32, 48)
    assert model.visual.transformer.resblocks[0].attn.heads == 2
    assert model.dtype == torch.float32


def test_build_model_leaves_the_callers_tensors_alone(model: clip.CLIP) -> None:
    state_dict = {key: value.clone() for key, value in model.state_dict().items()}
    built = clip.build_model(state_dict)
    built.logit_scale.fill_(0)
    assert torch.equal(state_dict["logit_scale"], model.logit_scale)


@torch.no_grad()
def test_bfloat16_stays_near(model: clip.CLIP) -> None:
    images = random_images(2, 3, 32, 32)
    exact = model.encode_image_dense(images)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.encode_image_dense(images)
    for name in ("global_embedding", "patch_embeddings"):
        cosine = torch.cosine_similarity(getattr(exact, name), getattr(rough, name).float(), dim=-1)
        assert cosine.min() > 0.999
    close(rough.cls_attention.float().sum(dim=-1).lt(1).float(), torch.ones(2))
