"""Weight files of every format, good and bad; names, downloads and preprocessing."""
from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Callable, Dict

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import clip
from clip import clip as loading

pytestmark = pytest.mark.filterwarnings("ignore::clip.WeightsWarning")  # its rule has tests of its own

StateDict = Dict[str, Tensor]
SMALL = clip.Architecture(
    embed_dim=16, image_resolution=16, patch_size=8, vision_width=64, vision_layers=2,
    context_length=8, vocab_size=49408, text_width=64, text_layers=1,
)


@pytest.fixture(scope="module")
def half_weights() -> StateDict:
    torch.manual_seed(0)
    return {key: value.half() for key, value in clip.CLIP(SMALL).state_dict().items()}


class Branch(nn.Module):
    """A module tree made of names; attributes of other types stand for what real archives hold besides."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [1, 2]
        self.label = "ViT"

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sizes[0]


def write_torchscript(state_dict: StateDict, path: Path) -> None:
    root = Branch()
    for key, value in state_dict.items():
        *parents, name = key.split(".")
        module = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, Branch())
            module = module.get_submodule(parent)
        module.register_parameter(name, nn.Parameter(value))
    for name, size in (("input_resolution", 16), ("context_length", 8), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(size))
    in_memory = io.BytesIO()  # written to a full disk, torch.jit.save would end the process, and all tests with it
    torch.jit.save(torch.jit.script(root.eval()), in_memory)
    path.write_bytes(in_memory.getvalue())


WRITERS: dict[str, Callable[[StateDict, Path], object]] = {
    "torchscript.pt": write_torchscript,
    "plain.pt": torch.save,
    "old_layout.pth": lambda weights, path: torch.save(weights, path, _use_new_zipfile_serialization=False),
    "checkpoint.pth": lambda weights, path: torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in weights.items()}}, path),
    "weights.safetensors": save_file,
    "compact.safetensors": lambda weights, path: clip.save_compact(weights, path, range(49408), seed=0),
}


@pytest.fixture(scope="module")
def files(half_weights: StateDict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for name, write in WRITERS.items():
        write(half_weights, folder / name)
    return folder


def refusal(path: Path) -> str:
    """The message of the error that loading must raise: one line that starts with the file."""
    with pytest.raises(clip.WeightsError) as caught:
        clip.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


# --- Good files ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", WRITERS)
def test_every_format_loads_to_the_same_fp32_model(files: Path, half_weights: StateDict, name: str) -> None:
    model, preprocess = clip.load(files / name)
    loaded = model.state_dict()
    assert loaded.keys() == half_weights.keys()
    for key, value in half_weights.items():
        assert loaded[key].dtype == torch.float32
        assert torch.equal(loaded[key], value.float()), key
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.encode_image(preprocess(Image.new("RGB", (40, 30)))[None]).shape == (1, 16)


def test_the_archive_is_real_torchscript(files: Path, half_weights: StateDict) -> None:
    state_dict = torch.jit.load(str(files / "torchscript.pt")).state_dict()
    assert set(state_dict) == {*half_weights, "input_resolution", "context_length", "vocab_size"}
    assert state_dict["visual.proj"].dtype == torch.float16


def test_extension_does_not_matter(files: Path, tmp_path: Path) -> None:
    for name in ("torchscript.pt", "weights.safetensors"):
        path = tmp_path / "weights.bin"
        path.write_bytes((files / name).read_bytes())
        clip.load(path)


def test_compact_table_keeps_used_rows_and_refills_the_rest_alike(half_weights: StateDict, tmp_path: Path) -> None:
    tokens = clip.tokenize(["a dog", "potted plant"], context_length=8)
    path = tmp_path / "tiny.safetensors"
    clip.save_compact(half_weights, path, tokens.flatten().tolist(), seed=7)
    used = load_file(path)["token_embedding.rows"]
    assert used.tolist() == sorted(set(tokens.flatten().tolist()))
    assert path.stat().st_size < 1_000_000 < 49408 * 64 * 2
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode, "as readable as any other file"

    first, _ = clip.load(path)
    second, _ = clip.load(path)
    full = clip.build_model(half_weights)
    assert torch.equal(first.encode_text(tokens), full.encode_text(tokens))
    table = first.token_embedding.weight
    assert table.shape == (49408, 64)
    assert torch.equal(table, second.token_embedding.weight)
    others = torch.ones(49408, dtype=torch.bool)
    others[used] = False
    assert table[others].std().item() == pytest.approx(full.token_embedding.weight[used].std().item(), rel=0.02)
    assert not torch.equal(table[others], full.token_embedding.weight[others])


# --- Bad files -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", WRITERS)
def test_truncated_files_are_refused(files: Path, tmp_path: Path, name: str) -> None:
    whole = (files / name).read_bytes()
    path = tmp_path / name
    for length in (0, 1, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        message = refusal(path)
        assert "get it again" in message, length


def test_a_flipped_bit_in_an_archive_is_noticed(files: Path, tmp_path: Path) -> None:
    damaged = bytearray((files / "torchscript.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path = tmp_path / "damaged.pt"
    path.write_bytes(damaged)
    assert "CRC" in refusal(path)


class Attack:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["pickle", "torch.save", "old torch.save", "torchscript"])
def test_a_pickle_that_runs_code_is_refused(files: Path, tmp_path: Path, form: str) -> None:
    attack, path = Attack(tmp_path / "broken_in"), tmp_path / "weights.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(attack, protocol=2))
    elif form == "torchscript":
        with zipfile.ZipFile(files / "torchscript.pt") as good, zipfile.ZipFile(path, "w") as bad:
            for name in good.namelist():
                bad.writestr(name, pickle.dumps(attack, 2) if name.endswith("/data.pkl") else good.read(name))
    else:
        torch.save({"visual.proj": attack}, path, _use_new_zipfile_serialization=form == "torch.save")
    assert re.search(r"refused: .*\bmkdir\b", refusal(path))
    assert not attack.folder.exists()


def changed(weights: StateDict, **changes: Tensor | None) -> StateDict:
    """Weights with tensors replaced, added, or (None) removed; `__` stands for a dot in a name."""
    result = dict(weights)
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del result[key]
        else:
            result[key] = value
    return result


@pytest.mark.parametrize(("changes", "reason"), [
    ({"visual__layer1__0__conv1__weight": torch.zeros(2)}, "a CLIP ResNet"),
    ({"vision_model__post_layernorm__weight": torch.zeros(2)}, "the text encoder is missing; save the whole CLIPModel"),
    ({"visual__proj": torch.full((64, 16), torch.nan)}, "visual.proj holds NaN"),
    ({"logit_scale": torch.tensor(torch.inf)}, "logit_scale holds NaN or infinite"),
    ({"text_projection": None}, "not a CLIP: text_projection is missing"),
    ({"ln_final__bias": None}, "missing: ln_final.bias"),
    ({"head__weight": torch.zeros(2)}, "unexpected: head.weight"),
    ({"ln_final__bias": torch.zeros(3)}, r"wrong shape: ln_final.bias \(3,\) instead of \(64,\)"),
    ({"ln_final__bias": torch.zeros(64, dtype=torch.int8)}, "not floating point: ln_final.bias"),
    ({"visual__conv1__weight": torch.zeros(100, 3, 8, 8)}, "width 100 is no multiple of the head width 64"),
    ({"visual__positional_embedding": torch.zeros(6, 64)}, "6 positions are not"),
    ({"visual__conv1__weight": torch.zeros(64)}, "wrong number of dimensions"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_unfit_weights_are_refused_with_the_reason(
    half_weights: StateDict, tmp_path: Path, changes: dict[str, Tensor | None], reason: str,
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(changed(half_weights, **changes), path)
    assert re.search(reason, refusal(path))


def test_blocks_missing_altogether_are_refused(half_weights: StateDict) -> None:
    with pytest.raises(clip.WeightsError, match=r"visual\.transformer\.resblocks\.\* is missing"):
        clip.build_model({key: value for key, value in half_weights.items() if "visual.transformer" not in key})


def test_files_without_a_state_dict_are_refused(half_weights: StateDict, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save([1, 2], path)
    assert "no state dict" in refusal(path)
    torch.save({"epoch": 3}, path)
    assert "no state dict" in refusal(path)
    path.write_text("<html>404</html>\n")
    assert "no weight file" in refusal(path)
    save_file(changed(half_weights, token_embedding__rows=torch.arange(49408)), path)
    assert "without the metadata" in refusal(path)
    metadata = {"token_embedding_seed": "1", "token_embedding_std": "1", "vocab_size": "49408"}
    save_file(changed(half_weights, token_embedding__rows=torch.arange(3)), path, metadata)
    assert "3 row ids for 49408 rows" in refusal(path)


def test_missing_files_come_with_a_remedy(tmp_path: Path) -> None:
    assert re.search(r"curl -L --create-dirs -o \S+ https://\S+/ViT-B-16\.pt$", refusal(tmp_path / "ViT-B-16.pt"))
    assert "ViT-L/14@336px" in refusal(tmp_path / "vit.pt")
    assert "a folder" in refusal(tmp_path)


# --- Names and downloads -------------------------------------------------------------------------------------------

@pytest.fixture
def release(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file served as the release ViT-B/16, in a folder named by its hash."""
    content = (files / "torchscript.pt").read_bytes()
    served = tmp_path / "served" / hashlib.sha256(content).hexdigest() / "ViT-B-16.pt"
    served.parent.mkdir(parents=True)
    served.write_bytes(content)
    monkeypatch.setitem(loading.URLS, "ViT-B/16", served.as_uri())
    return served


def test_names_are_openais() -> None:
    assert clip.available_models() == ["ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"]
    assert all(re.search(r"/[0-9a-f]{64}/ViT-[\w-]+\.pt$", url) for url in loading.URLS.values())


def test_a_name_is_downloaded_once_with_progress(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "cache" / "clip"
    model, _ = clip.load("ViT-B/16", download_root=root)
    assert "ViT-B-16.pt: 100%" in capsys.readouterr().err
    assert [path.name for path in root.iterdir()] == ["ViT-B-16.pt"]
    release.unlink()
    again, _ = clip.load("ViT-B/16", download_root=root)
    assert torch.equal(again.visual.proj, model.visual.proj)


def test_the_default_folder_is_openais(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    clip.load("ViT-B/16")
    assert (tmp_path / ".cache/clip/ViT-B-16.pt").is_file()


def test_a_damaged_copy_is_fetched_again(release: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cache" / "ViT-B-16.pt"
    copy.parent.mkdir()
    copy.write_bytes(release.read_bytes()[:1000])
    clip.load("ViT-B/16", download_root=copy.parent)
    assert copy.read_bytes() == release.read_bytes()


def test_a_wrong_hash_leaves_nothing_behind(release: Path, tmp_path: Path) -> None:
    release.write_bytes(release.read_bytes()[:-1])
    with pytest.raises(clip.WeightsError, match=r"ViT-B-16\.pt: .*wrong SHA-256"):
        clip.load("ViT-B/16", download_root=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_no_connection_says_where_to_put_the_file(release: Path, tmp_path: Path) -> None:
    release.unlink()
    with pytest.raises(clip.WeightsError, match=r"download failed .*fetch it by hand to \S+/cache/ViT-B-16\.pt$"):
        clip.load("ViT-B/16", download_root=tmp_path / "cache")


# --- Preprocessing -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P"])
def test_preprocessing_is_resize_crop_normalise(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    expected = image.resize((33, 20), Image.Resampling.BICUBIC)  # 50 * 20 / 30, rounded down
    expected = np.asarray(expected.crop((6, 0, 26, 20)).convert("RGB"), dtype=np.float32) / 255
    expected = (expected - np.array(clip.MEAN, np.float32)) / np.array(clip.STD, np.float32)
    actual = clip.preprocess(20)(image)
    np.testing.assert_allclose(actual.numpy(), expected.transpose(2, 0, 1), atol=1e-6)
