"""Names, files and folders to a frozen model and its preprocessing: OpenAI's public API, and downloads."""
from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import urllib.request
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, Callable, Mapping
from urllib.parse import urlparse

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from tqdm import tqdm

from clip.architecture import MEAN, STD, WeightsError
from clip.configs import OPEN_CLIP_CONFIG, Config, find_config, is_transformers_clip
from clip.layouts import WHAT_WORKS, is_transformers, to_openai_names
from clip.model import CLIP, build_model
from clip.tokenizer import VOCABULARY_SIZE, tokenize
from clip.weight_files import (
    INDEX_SUFFIX,
    TOKEN_TABLE,
    PathLike,
    atomic_path,
    compact_activation,
    is_torchscript,
    read_state_dict,
)

__all__ = ["available_models", "load", "tokenize"]

RELEASES = {  # name: SHA-256 (the folder in the URL) and file
    "ViT-B/32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
    "ViT-B/16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
    "ViT-L/14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "ViT-L/14@336px": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
}
URLS = {name: f"https://openaipublic.azureedge.net/clip/models/{file}" for name, file in RELEASES.items()}

TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
"""A name with one of them is a file's and none of the hub's."""

Preprocess = Callable[[Image.Image], Tensor]


def available_models() -> list[str]:
    """Names that `load` can download."""
    return list(URLS)


class WeightsWarning(UserWarning):
    """What is assumed of weights that do not tell it. One line."""


def load(
    name: PathLike, device: str | torch.device | None = None, jit: bool = False, download_root: PathLike | None = None,
    activation: str | None = None,
) -> tuple[CLIP, Preprocess]:
    """Load a frozen CLIP in fp32 (use `torch.autocast` for less) and the preprocessing of its images.

    Args:
        name: one of `available_models()`, downloaded once and checked by its SHA-256; a name on Hugging Face's hub
            such as "openai/clip-vit-base-patch16"; or a file or folder of OpenAI, open_clip or transformers.
        device: where the model goes; by default the GPU where there is one.
        jit: False; there is no TorchScript program to run.
        download_root: folder for downloads, by default `~/.cache/clip` and the hub's own.
        activation: "quick_gelu" or "gelu"; by default what the configuration beside the weights says, and where there
            is none "quick_gelu", with a `WeightsWarning` unless the file is a release of OpenAI.

    Raises:
        WeightsError: the file is missing, damaged, not a CLIP ViT, or would have to run code to be read.
        ValueError: `jit` is asked for.
    """
    if jit:
        raise ValueError("jit=True: there is no TorchScript program to run; torch.compile the model instead")
    path = _locate(os.fspath(name), download_root)
    try:
        model = _build(path, activation)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device), preprocess(model.visual.input_resolution)


def _build(path: Path, activation: str | None) -> CLIP:
    tensors = read_state_dict(path)
    by_transformers = is_transformers(tensors)
    tensors = to_openai_names(tensors)
    table = tensors.get(TOKEN_TABLE)
    if table is not None and table.shape[:1] != (VOCABULARY_SIZE,):
        raise WeightsError(f"made for another tokenizer (its table of tokens is {tuple(table.shape)}, CLIP's has "
                           f"{VOCABULARY_SIZE} rows); {WHAT_WORKS}")
    known = "quick_gelu" if _is_release(path) else compact_activation(path)
    config = None if known else find_config(path.parent, by_transformers)
    if config:
        known = config.architecture.activation
    if known and activation not in (None, known):
        _warn(f"{path}: {activation}, as asked for, though {config.path.name if config else 'the file'} says {known}")
    if config:
        return _build_as_told(tensors, config, activation or config.architecture.activation)
    activation = activation or known
    model = build_model(tensors, activation or "quick_gelu")
    if activation is None:
        _warn(f"{path}: nothing tells its activation, so quick_gelu is assumed, OpenAI's, with heads of "
              f"{model.architecture.vision_head_width}. LAION's and DataComp's weights need gelu: say "
              f"--activation gelu, or put their {OPEN_CLIP_CONFIG} beside the file")
    return model


def _build_as_told(tensors: Mapping[str, Tensor], config: Config, activation: str) -> CLIP:
    told = dataclasses.replace(config.architecture, activation=activation)
    model = build_model(tensors, activation, told.vision_head_width, told.text_head_width)
    for field, value in dataclasses.asdict(model.architecture).items():
        if value != getattr(told, field):
            raise WeightsError(f"{config.path.name} beside it says {field} {getattr(told, field)}, the weights "
                               f"{value}; one of the two belongs to another model")
    if (config.mean, config.std) != (MEAN, STD):
        model.visual.take_openai_normalisation(config.mean, config.std)
    return model


def _warn(message: str) -> None:
    warnings.warn(message, WeightsWarning, stacklevel=4)  # at the call of `load`


def _is_release(path: Path) -> bool:
    """Whether a file is one of OpenAI's, wherever it lies; they are TorchScript archives."""
    return is_torchscript(path) and any(f"/{_sha256(path)}/" in url for url in URLS.values())


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


# --- Where the weights are ------------------------------------------------------------------------------------------

def _locate(name: str, download_root: PathLike | None) -> Path:
    """The weight file of a name, a file or a folder."""
    path = Path(name)
    if name in URLS:
        return download(URLS[name], download_root or Path("~/.cache/clip").expanduser())
    if path.is_dir():
        return _weights_in(path)
    if path.is_file():
        return path
    if re.fullmatch(r"RN\d+(x\d+)?", name):
        raise WeightsError(f"{name}: a CLIP ResNet, which has no patch tokens; {WHAT_WORKS}")
    hub_name = re.fullmatch(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)", name)
    if hub_name and path.suffix not in WEIGHT_SUFFIXES and not path.parent.is_dir():
        return _from_hub(hub_name[1], download_root)
    url = next((url for url in URLS.values() if url.endswith(f"/{path.name}")), None)
    if url is None:
        raise WeightsError(f"{name}: no such file or folder, and no name of a released model ({', '.join(URLS)})")
    raise WeightsError(f"{name}: no such file; get it with: curl -L --create-dirs -o {path} {url}")


def _weight_files(folder: Path) -> tuple[str, ...]:
    """Names of weight files in a folder, those of the library first that made it."""
    if (folder / OPEN_CLIP_CONFIG).is_file() and not is_transformers_clip(folder):
        return OPEN_CLIP_FILES + TRANSFORMERS_FILES
    return TRANSFORMERS_FILES + OPEN_CLIP_FILES


def _weights_in(folder: Path) -> Path:
    files = _weight_files(folder)
    paths = (folder / (name + suffix) for name in files for suffix in ("", INDEX_SUFFIX))
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise WeightsError(f"{folder}: a folder without {', '.join(files)}; give the weight file in it")
    return path


def _from_hub(name: str, cache: PathLike | None) -> Path:
    """The weight file of a model of Hugging Face's hub, in a folder with its configuration; fetched only once.

    Raises:
        WeightsError: huggingface_hub is not installed, or does not get such a model.
    """
    by_hand = f"hf download {name} --local-dir pretrained_models/{name.split('/')[1]}"
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise WeightsError(f"{name}: no such folder, and huggingface_hub, which fetches it, is not installed; get it "
                           f"with: pip install huggingface_hub && {by_hand}") from None
    cache = None if cache is None else os.fspath(cache)
    try:
        folder = Path(snapshot_download(name, allow_patterns=["*config.json"], cache_dir=cache))
        for file in _weight_files(folder):
            stem, suffix = file.split(".")
            snapshot_download(name, allow_patterns=[f"{file}*", f"{stem}-*-of-*.{suffix}"], cache_dir=cache)
            if (folder / file).is_file() or (folder / (file + INDEX_SUFFIX)).is_file():
                break
    except Exception as error:  # of the network, of the hub's answer, of the name
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"{name}: no such folder, and the hub did not send it ({type(error).__name__}: {reason}); "
                           f"where there is a connection, get it with: {by_hand}") from None
    return _weights_in(folder)


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
