"""A GPU against the processor, in what it computes and in what it takes; `benchmarks/gpu.sh` runs it.

    python -m benchmarks.gpu --device cuda
    python -m benchmarks.gpu --device cpu --tiny

Checks come first and end it where they fail: the frozen encoder in every precision, a training step, and a run that
goes on on another device. Then rates: the encoder by batch size beside its peers and beside the products that the card
does at best, decoding, an epoch from memory, and the captioning loop on random parts.
"""
from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor

from benchmarks.encode import Contestants, autocast, peers, products
from benchmarks.step import Step
from benchmarks.timing import machine, side_by_side, table
from clip.model import CLIP, Architecture
from datasets.files import DataError
from datasets.flag_parser import FlagParser
from datasets.images import image_transform, read_image
from engine.process.distributed import get_device
from engine.process.entry_point import run_main
from models.encoder import PRECISIONS, CLIPEncoder, Features

CPU = torch.device("cpu")

LEAST_COSINE = {"fp32": 0.99999, "TF32": 0.9999, "bf16": 0.99, "fp16": 0.9999}
"""Between embeddings on the device and those of the processor in fp32."""

FLOPS_OF_A_PATCH_TOKEN = 24
"""Products of a transformer block, in multiples of the squared width, without attention's own."""


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Matrix products of fp32 in TF32, or not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def random_clip(tiny: bool) -> CLIP:
    """A ViT-B/16 of random weights, or a small one."""
    torch.manual_seed(0)
    small = Architecture(embed_dim=64, image_resolution=64, vision_width=128, vision_layers=2, text_width=64,
                         text_layers=1)
    return CLIP(small if tiny else Architecture()).eval().requires_grad_(False)


def check_encoder(model: CLIP, device: torch.device) -> str:
    """The triple (P, g_H, g_Hc) in every precision against the processor's in fp32.

    Raises:
        DataError: a cosine is below `LEAST_COSINE`.
    """
    side = model.visual.input_resolution
    images = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected = CLIPEncoder(model.to(CPU))(images)
    on_device = model.to(device)
    rows = []
    for name, least in LEAST_COSINE.items():
        with tf32(name == "TF32"):
            encoder = CLIPEncoder(on_device, precision=name if name in PRECISIONS else "fp32")
            found = encoder(images.to(device))
        cosines = [float(F.cosine_similarity(ours.float().cpu(), theirs.float(), dim=-1).min())
                   for ours, theirs in zip(found, expected)]
        rows.append((name, *(f"{cosine:.6f}" for cosine in cosines)))
        if min(cosines) < least:
            raise DataError(f"the encoder in {name} on {device}: a cosine of {min(cosines):.6f} to the processor's")
    return table(("precision", "least cosine of patches", "of globals"), rows)


def check_training(device: torch.device, batch_size: int) -> str:
    """Two steps on the processor, on the device, and one on each with the state handed over as a checkpoint is.

    Raises:
        DataError: the losses of the second step differ by more than a thousandth.
    """
    losses: Dict[str, float] = {}
    same = Step(44, batch_size, CPU)
    for name, places in (("processor", (CPU, CPU)), ("device", (device, device)),
                         ("device, then processor", (device, CPU)), ("processor, then device", (CPU, device))):
        first, second = (Step(44, batch_size, place) for place in places)
        for step, place in zip((first, second), places):  # a device has random numbers of its own
            step.features = Features(*(values.to(place) for values in same.features))
            step.targets = same.targets.to(place)
        first.whole()
        saved = io.BytesIO()
        torch.save({"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}, saved)
        saved.seek(0)
        state = torch.load(saved, map_location="cpu", weights_only=True)
        second.model.load_state_dict(state["model"])
        second.optimizer.load_state_dict(state["optimizer"])
        second.whole()
        losses[name] = float(second.forward())
    if max(losses.values()) / min(losses.values()) > 1.001:
        raise DataError(f"training on {device}: losses after two steps are {losses}")
    return table(("two steps on", "loss after them"), [(name, f"{loss:.6f}") for name, loss in losses.items()])


def best_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations a second of one large product, multiplications and additions counted apart."""
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = side_by_side({"product": lambda: left @ right}, 5, device)
    return 2 * side ** 3 / statistics.median(times["product"])


def operations(model: CLIP) -> float:
    """Of the products of one dense pass, for one image."""
    visual = model.visual
    width, blocks = visual.proj.shape[0], len(visual.transformer.blocks)
    tokens = (visual.input_resolution // visual.patch_size) ** 2 + 1
    per_token = FLOPS_OF_A_PATCH_TOKEN * width ** 2 + 4 * tokens * width
    return tokens * (blocks * per_token + 2 * width * (3 * visual.patch_size ** 2 + model.embed_dim))


def encoder_rates(model: CLIP, device: torch.device, batch_sizes: List[int], precisions: List[str], side: int) -> str:
    """Images a second by batch size and precision, the share of the card's best products, and the fastest peer."""
    rows, size = [], model.visual.input_resolution
    tokens = (size // model.visual.patch_size) ** 2 + 1
    for precision in precisions:
        best = best_rate(device, PRECISIONS[precision], side)
        for batch_size in batch_sizes:
            images = torch.randn(batch_size, 3, size, size, device=device)
            contestants: Contestants = {"ours": partial(model.encode_image_dense, images), **peers(model, images)}
            contestants = {name: autocast(run, precision, device) for name, run in contestants.items()}
            contestants["products"] = products(model, batch_size, tokens, PRECISIONS[precision])
            times = {name: statistics.median(values)
                     for name, values in side_by_side(contestants, 3, device).items()}
            others = {name: seconds for name, seconds in times.items() if name not in ("ours", "products")}
            fastest = min(others, key=others.get, default=None)  # type: ignore[arg-type]
            rate = batch_size / times["ours"]
            rows.append((precision, str(batch_size), f"{rate:.1f}", f"{rate * operations(model) / best:.0%}",
                         f"{times['products'] / times['ours']:.0%}",
                         f"{fastest} {batch_size / others[fastest]:.1f}" if fastest else "none is installed"))
    return table(("precision", "batch", "images/s, dense", "share of the best product's rate",
                  "share of its own products' speed", "fastest peer, images/s"), rows)


def decoding_rates(device: torch.device, count: int, threads: int) -> str:
    """Files to tensors of the encoder's size a second: PIL as we do, torchvision's decoder, the GPU's."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    transform = image_transform(224)
    rows: List[Tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.jpg" for number in range(count)]
        for path in paths:
            Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)

        def torchvision_decode(path: Path, place: torch.device) -> Tensor:
            data = torchvision.io.read_file(str(path))
            image = torchvision.io.decode_jpeg(data, torchvision.io.ImageReadMode.RGB, device=place)
            return F.interpolate(image[None].float(), (224, 224), mode="bicubic", antialias=True)

        decoders: Dict[str, Callable[[Path], Tensor]] = {
            "PIL, ours": lambda path: transform(read_image(path, transform.min_side)),
            "torchvision": lambda path: torchvision_decode(path, CPU)}
        if device.type == "cuda":
            decoders["the GPU's decoder"] = lambda path: torchvision_decode(path, device)
        with ThreadPoolExecutor(threads) as pool:
            for name, decode in decoders.items():
                try:
                    decode(paths[0])
                    start = time.perf_counter()
                    list(pool.map(decode, paths))
                    rows.append((name, f"{count / (time.perf_counter() - start):.0f}"))
                except RuntimeError as error:
                    rows.append((name, str(error).splitlines()[0][:60]))
    return table((f"decoder, {threads} threads", "images/s"), rows)


def epoch_rates(device: torch.device, batch_size: int, rounds: int) -> str:
    """Training from features that are packed in memory: copy to the device and step."""
    step = Step(104, batch_size, device)
    packed = torch.randn(4 * batch_size, *step.features.patch_embeddings.shape[1:]).half()
    if device.type == "cuda":
        packed = packed.pin_memory()

    def copied() -> None:
        rows = torch.randperm(len(packed))[:batch_size]
        step.features = step.features._replace(patch_embeddings=packed[rows].to(device, non_blocking=True).float())
        step.whole()

    times = side_by_side({"step": step.whole, "rows of the store and step": copied}, rounds, device)
    return table(("training, 104 categories", "images/s"), [
        (name, f"{batch_size / statistics.median(values):.0f}") for name, values in times.items()])


def captioning_rate(device: torch.device, count: int) -> str:
    """Images a second of the captioning loop over tiny random parts of BLIP-2: what the loop itself costs."""
    from models.captioners.load_captioner import load_captioner
    from tests.captions.tiny_blip2 import available_backend, lavis_captioner, write_transformers_model

    backend = available_backend()
    if backend is None or backend == "lavis" and device.type != "cpu":
        return "Captioning: left out, no transformers with BLIP-2 is installed.\n"
    with tempfile.TemporaryDirectory() as folder:
        captioner = lavis_captioner(Path(folder)) if backend == "lavis" else load_captioner(
            "transformers", str(write_transformers_model(Path(folder))), device)
        picture = captioner.transform(Image.new("RGB", (64, 64), (90, 120, 40)))

        def caption() -> None:
            captioner.answer(captioner.encode([picture] * count), [["a photo of"] * 6] * count)

        times = side_by_side({"caption": caption}, 2, device)
    return table(("captioning, tiny parts", "images/s"),
                 [(f"six questions, batches of {count}", f"{count / statistics.median(times['caption']):.1f}")])


def main() -> None:
    parser = FlagParser(__doc__)
    parser.add_argument("--device", help="cuda, cuda:1 or cpu (default: cuda where there is one)")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try this out on a processor")
    args = parser.parse_args()
    print(report(get_device(args.device), args))


def report(device: torch.device, args: argparse.Namespace) -> str:
    """All of it, as Markdown."""
    model, tiny = random_clip(args.tiny), args.tiny
    threads = min(os.cpu_count() or 1, 16)
    with torch.no_grad():
        parts = [check_encoder(model, device), check_training(device, 8 if tiny else 64)]
        parts.append(encoder_rates(model, device, [2, 4] if tiny else [64, 256, 1024],
                                   ["fp32", "bf16"] if tiny else list(PRECISIONS), 256 if tiny else 8192))
        parts.append(decoding_rates(device, 16 if tiny else 2000, threads))
        parts.append(epoch_rates(device, 8 if tiny else 64, 3 if tiny else 20))
        parts.append(captioning_rate(device, 2 if tiny else 32))
    sizes = "tiny sizes, which say nothing of speed" if tiny else "a ViT-B/16"
    return f"### GPU\n\n{machine(device)}, {sizes}\n\n" + "\n".join(parts)


if __name__ == "__main__":
    run_main(main)
