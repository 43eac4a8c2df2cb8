"""Names and files to a frozen model and its preprocessing; downloads."""
from __future__ import annotations

import hashlib
import os
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, Callable
from urllib.parse import urlparse

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from tqdm import tqdm

from clip.model import CLIP, WeightsError, build_model
from clip.weight_files import PathLike, atomic_path, read_state_dict

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

RELEASES = {  # name: SHA-256 (the folder in the URL) and file
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "ViT-B/16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "ViT-L/14@336px": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
}
URLS = {name: f"https://openaipublic.azureedge.net/clip/models/{file}" for name, file in RELEASES.items()}

Preprocess = Callable[[Image.Image], Tensor]


def available_models() -> list[str]:
    """Names that `load` can download."""
    return list(URLS)


def load(
    name_or_path: PathLike, device: str | torch.device = "cpu", download_root: PathLike | None = None,
) -> tuple[CLIP, Preprocess]:
    """Load a frozen CLIP in fp32 (use `torch.autocast` for less) and the preprocessing of its images.

    Args:
        name_or_path: one of `available_models()`, downloaded once and checked by its SHA-256; or a file: OpenAI's
            TorchScript archive, a state dict saved by `torch.save`, or safetensors.
        device: where the model goes.
        download_root: folder for downloads, `~/.cache/clip` by default.

    Raises:
        WeightsError: the file is missing, damaged, not a CLIP ViT, or would have to run code to be read.
    """
    name = os.fspath(name_or_path)
    path = download(URLS[name], download_root or Path("~/.cache/clip").expanduser()) if name in URLS else Path(name)
    if not path.is_file():
        raise WeightsError(f"{path}: {_how_to_get(path)}")
    try:
        model = build_model(read_state_dict(path))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    return model.to(device), preprocess(model.visual.input_resolution)


def preprocess(resolution: int) -> Preprocess:
    """OpenAI's preprocessing: shorter side to `resolution` (bicubic), centre crop, RGB, normalise; (3, R, R) fp32."""
    return transforms.Compose([
        transforms.Resize(resolution, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(resolution),
        _to_rgb,
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _how_to_get(path: Path) -> str:
    if path.is_dir():
        return "a folder; give the weight file in it"
    url = next((url for url in URLS.values() if url.endswith(f"/{path.name}")), None)
    if url is None:
        return f"no such file, and no name of a released model ({', '.join(URLS)})"
    return f"no such file; get it with: curl -L --create-dirs -o {path} {url}"


def download(url: str, root: PathLike) -> Path:
    """Fetch a file whose URL names its SHA-256 as the last folder, unless `root` holds it already.

    The file appears under its name only once it is complete and its hash is right.

    Raises:
        WeightsError: no connection, or what came has another hash.
    """
    *_, expected, name = urlparse(url).path.split("/")
    path = Path(root) / name
    if path.is_file() and _sha256(path) == expected:
        return path
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            with urllib.request.urlopen(url, timeout=60) as response:
                _copy_with_progress(response, file, name)
            file.flush()
            if _sha256(temporary) != expected:
                raise WeightsError(f"{url}: the download has the wrong SHA-256 and was thrown away; try again")
    except (OSError, HTTPException) as error:
        raise WeightsError(f"{url}: download failed ({error}); fetch it by hand to {path}") from None
    return path


def _copy_with_progress(response: Any, file: BinaryIO, name: str) -> None:
    length = response.headers.get("Content-Length")
    with tqdm(total=int(length) if length else None, desc=name, unit="B", unit_scale=True, unit_divisor=1024) as bar:
        for chunk in iter(lambda: response.read(1 << 20), b""):
            file.write(chunk)
            bar.update(len(chunk))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
