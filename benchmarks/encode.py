"""The frozen encoder against transformers and open_clip, and against its own matrix products.

    python -m benchmarks.encode [--model_path ViT-B-16.pt] [--batch_size 32] [--rounds 7] [--compile] [--device cuda]

All run in one process, in turns, on the same weights (random ones where none are given: they take as long). The
peers are left out where they are not installed; benchmarks/requirements.txt names them.
"""
from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any, Callable, Dict, List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

import clip
from benchmarks.timing import Times, machine, ratio, side_by_side, table
from clip.model import CLIP, Architecture
from datasets.flag_parser import FlagParser
from engine.process.distributed import get_device
from models.encoder import PRECISIONS, CLIPEncoder

Contestants = Dict[str, Callable[[], Any]]


def load_clip(path: Optional[str], device: torch.device) -> CLIP:
    """The weights of `path`, or a random ViT-B/16."""
    if path:
        return clip.load(path, device)[0]
    torch.manual_seed(0)
    return clip.build_model(CLIP(Architecture()).state_dict()).to(device)


def autocast(run: Callable[[], object], precision: str, device: torch.device) -> Callable[[], object]:
    """`run` with matrix products in some precision."""
    def with_precision() -> object:
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            return run()

    return with_precision


def transformers_clip(model: CLIP) -> Any:
    """transformers' CLIPModel with SDPA and our weights. Raises ImportError where it is not installed."""
    from transformers import CLIPConfig, CLIPModel

    visual = model.visual
    width, layers = visual.proj.shape[0], len(visual.transformer.blocks)
    config = CLIPConfig(projection_dim=model.embed_dim, vision_config={
        "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
        "num_attention_heads": width // 64, "image_size": visual.input_resolution, "patch_size": visual.patch_size,
        "hidden_act": "quick_gelu", "projection_dim": model.embed_dim})
    config._attn_implementation = "sdpa"
    peer = CLIPModel(config).eval().requires_grad_(False)
    ours = visual.state_dict()
    renamed = {"embeddings.class_embedding": ours["class_embedding"],
               "embeddings.patch_embedding.weight": ours["conv1.weight"],
               "embeddings.position_embedding.weight": ours["positional_embedding"]}
    for name, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        renamed.update({f"{theirs}.{part}": ours[f"{name}.{part}"] for part in ("weight", "bias")})
    for layer in range(layers):
        block, there = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for name, theirs in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("attn.out_proj", "self_attn.out_proj"),
                             ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
            renamed.update({f"{there}{theirs}.{part}": ours[f"{block}{name}.{part}"] for part in ("weight", "bias")})
        for part in ("weight", "bias"):
            for name, values in zip("qkv", ours[f"{block}attn.in_proj_{part}"].chunk(3)):
                renamed[f"{there}self_attn.{name}_proj.{part}"] = values
    missing, unexpected = peer.vision_model.load_state_dict(renamed, strict=False)
    assert not unexpected and all(name.endswith("position_ids") for name in missing), (missing, unexpected)
    peer.visual_projection.weight.data = ours["proj"].T.contiguous()
    return peer


def open_clip_clip(model: CLIP) -> Any:
    """open_clip's CLIP with our weights. Raises ImportError where it is not installed."""
    from open_clip.openai import build_model_from_openai_state_dict

    state_dict = {name: value.clone() for name, value in model.state_dict().items()}
    peer = build_model_from_openai_state_dict(state_dict, cast_dtype=torch.float32).float().eval().requires_grad_(False)
    peer.visual.load_state_dict(model.visual.state_dict())  # building rounds to fp16
    return peer


def peers(model: CLIP, images: Tensor) -> Contestants:
    """The global embeddings of `images` by each peer that is installed; they are checked against ours."""
    expected = model.encode_image(images)
    found: Contestants = {}
    try:
        theirs = transformers_clip(model).to(images.device)
        found["transformers"] = lambda: theirs.visual_projection(theirs.vision_model(images).pooler_output)
    except ImportError:
        print("transformers is not installed: left out")
    try:
        other = open_clip_clip(model).to(images.device)
        found["open_clip"] = lambda: other.encode_image(images)
    except ImportError:
        print("open_clip is not installed: left out")
    for name, run in found.items():
        assert F.cosine_similarity(run(), expected, dim=-1).min() > 0.9999, f"{name} computes something else"
    return found


def products(model: CLIP, batch_size: int, tokens: int, dtype: torch.dtype) -> Callable[[], object]:
    """The matrix products of `encode_image_dense` alone, on buffers that are there already."""
    visual = model.visual
    device, width = visual.proj.device, visual.proj.shape[0]
    rows, patches, heads = batch_size * tokens, batch_size * (tokens - 1), width // 64

    def buffer(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    def pair(count: int, inner: int, outer: int) -> Callable[[], Tensor]:
        left, right, out = buffer(count, inner), buffer(inner, outer), buffer(count, outer)
        return lambda: torch.mm(left, right, out=out)

    query, key, value = (buffer(batch_size, heads, tokens, 64) for _ in range(3))
    block = [pair(rows, width, 3 * width), lambda: F.scaled_dot_product_attention(query, key, value),
             pair(rows, width, width), pair(rows, width, 4 * width), pair(rows, 4 * width, width)]
    ends = [pair(patches, 3 * visual.patch_size ** 2, width), pair(patches, width, width), pair(patches, width, width),
            pair(patches, width, 4 * width), pair(patches, 4 * width, width), pair(patches, width, model.embed_dim)]
    every = block * (len(visual.transformer.blocks) - 1) + ends
    return lambda: [product() for product in every]


def images_of(model: CLIP, batch_size: int, side: int) -> Tensor:
    """Random images on the model's device."""
    return torch.randn(batch_size, 3, side, side, device=model.visual.proj.device)


def compare_with_peers(model: CLIP, args: argparse.Namespace, device: torch.device) -> str:
    """Images a second of each, by precision."""
    images = images_of(model, args.batch_size, model.visual.input_resolution)
    parts = []
    for precision in args.precisions:
        contestants = {"ours, global embedding": lambda: model.encode_image(images),
                       "ours, global, patches and attention": lambda: model.encode_image_dense(images),
                       **peers(model, images)}
        times = side_by_side({name: autocast(run, precision, device) for name, run in contestants.items()},
                             args.rounds, device)
        parts += [(precision, name, f"{args.batch_size / statistics.median(times[name]):.2f}",
                   f"{ratio(times, name, 'ours, global, patches and attention'):.2f}") for name in contestants]
    return table(("precision", "one pass", "images/s", "time / ours (dense)"), parts)


def compare_precisions(model: CLIP, args: argparse.Namespace, device: torch.device) -> str:
    """fp32 against half precision, eager and compiled, each beside its matrix products alone."""
    side = model.visual.input_resolution
    images = images_of(model, args.batch_size, side)
    tokens = (side // model.visual.patch_size) ** 2 + 1
    contestants: Contestants = {}
    for precision in args.precisions:
        contestants[precision] = autocast(lambda: model.encode_image_dense(images), precision, device)
        contestants[f"{precision} products"] = products(model, args.batch_size, tokens, PRECISIONS[precision])
        if args.compile:
            compiled = torch.compile(model.encode_image_dense)
            contestants[f"{precision} compiled"] = autocast(partial(compiled, images), precision, device)
    times = side_by_side(contestants, args.rounds, device)
    rows = []
    for precision in args.precisions:
        for name in [precision] + [f"{precision} compiled"] * args.compile:
            rows.append((name, f"{args.batch_size / statistics.median(times[name]):.2f}",
                         f"{ratio(times, 'fp32', name):.2f}",
                         f"{ratio(times, 'fp32 products', f'{precision} products'):.2f}",
                         f"{ratio(times, f'{precision} products', name):.0%}"))
    header = ("dense pass", "images/s", "speed / fp32", "the same of products alone", "share of products' speed")
    return table(header, rows)


def compare_masks(model: CLIP, args: argparse.Namespace, device: torch.device) -> str:
    """The triple (P, g_H, g_Hc) in passes of the plain global embedding."""
    images = images_of(model, args.batch_size, model.visual.input_resolution)
    encoders = {mode: CLIPEncoder(model, mask_mode=mode) for mode in ("pixel", "token")}
    times = side_by_side({"pass": partial(model.encode_image, images),
                          **{mode: partial(encoder, images) for mode, encoder in encoders.items()}},
                         args.rounds, device)
    return table(("--mask_mode", "images/s", "passes"), [
        (mode, f"{args.batch_size / statistics.median(times[mode]):.2f}", f"{ratio(times, mode, 'pass'):.2f}")
        for mode in encoders])


def grow_resolution(model: CLIP, args: argparse.Namespace, device: torch.device, sides: List[int]) -> str:
    """Cost of a dense pass by the images' side."""
    batch_size = max(args.batch_size // 4, 1)
    inputs = {str(side): images_of(model, batch_size, side) for side in sides}
    times: Times = side_by_side({name: partial(model.encode_image_dense, images)
                                 for name, images in inputs.items()}, args.rounds, device)
    patches = {name: int(name) ** 2 // model.visual.patch_size ** 2 for name in inputs}
    first = str(sides[0])
    return table(("side", "patches", "images/s", "time / first", "time a patch / first"), [
        (name, str(patches[name]), f"{batch_size / statistics.median(times[name]):.2f}",
         f"{ratio(times, name, first):.2f}", f"{ratio(times, name, first) * patches[first] / patches[name]:.2f}")
        for name in inputs])


def main(argv: Optional[List[str]] = None) -> str:
    parser = FlagParser(__doc__)
    parser.add_argument("--model_path", help="default: random weights of a ViT-B/16")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    device = get_device(args.device)
    model = load_clip(args.model_path, device)
    with torch.no_grad():
        return f"""### Encoder

{machine(device)}, batches of {args.batch_size}, medians of {args.rounds} rounds in turns

{compare_with_peers(model, args, device)}
{compare_precisions(model, args, device)}
{compare_masks(model, args, device)}
{grow_resolution(model, args, device, [224, 336, 448])}"""


if __name__ == "__main__":
    print(main())
