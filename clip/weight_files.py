"""Weight files to tensors: OpenAI's TorchScript archives, state dicts, safetensors. No file's code is ever run."""
from __future__ import annotations

import os
import pickle
import re
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, Union

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip.model import WeightsError

PathLike = Union[str, "os.PathLike[str]"]

STORAGE_TYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}
TOKEN_TABLE = "token_embedding.weight"
TOKEN_ROWS = "token_embedding.rows"


def read_state_dict(path: PathLike) -> dict[str, Tensor]:
    """Read the tensors of a weight file on the CPU, whatever its extension.

    Raises:
        WeightsError: without the path, which `load` adds.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if not head:
            raise WeightsError("the file is empty; get it again")
        if head[8:] == b"{":  # after the length of the JSON header
            return _read_safetensors(path)
        if head.startswith(b"PK") and _is_torchscript(path):
            return _read_torchscript(path)
        return _unwrap(torch.load(path, map_location="cpu", weights_only=True))
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(_explain_pickle(error)) from None
    except Exception as error:  # a damaged file can make its parser fail in any way
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"truncated, damaged or no weight file ({reason}); get it again") from None


def _explain_pickle(error: pickle.UnpicklingError) -> str:
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:
        return f"refused: reading it would run {forbidden[1]}; a weight file needs tensors only"
    return "truncated, damaged or no weight file; get it again"


def _unwrap(content: Any) -> dict[str, Tensor]:
    """State dict of a checkpoint: perhaps under `state_dict`, perhaps with the prefix of data parallelism."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError("holds no state dict (names to tensors), neither on top nor under 'state_dict'")
    return {key[len("module."):] if key.startswith("module.") else key: value for key, value in content.items()}


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    """Tensors of a TorchScript archive without its code: modules become plain holders of their attributes.

    `torch.jit.load` would compile the program in the archive, and `torch.load(weights_only=True)` refuses archives
    with a program. But the tensors lie beside it, in the layout of `torch.save`.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/constants.pkl"))[: -len("constants.pkl")]
        with archive.open(f"{root}data.pkl") as file:
            module = _TensorUnpickler(file, lambda key: archive.read(f"{root}data/{key}")).load()
    return dict(_named_tensors(module))


class _Module:
    """Stands for any class of the archive; unpickling fills its `__dict__`."""


class _TensorUnpickler(pickle.Unpickler):
    """Unpickler that knows tensors and holders of attributes, and refuses every other name."""

    def __init__(self, file: Any, read_storage: Callable[[str], bytes]) -> None:
        super().__init__(file)
        self._read_storage = read_storage
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):  # backward hooks of a tensor: always empty
            return dict
        if module == "torch" and name in STORAGE_TYPES:
            return STORAGE_TYPES[name]
        if module == "torch.jit._pickle":  # typed lists and type tags: their first argument is the value
            return _first
        raise WeightsError(f"refused: reading it would run {module}.{name}; a weight file needs tensors only")

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage, as a flat tensor, from ("storage", type, key, device, elements)."""
        _, dtype, key, _, _ = pid
        if key not in self._storages:
            self._storages[key] = torch.frombuffer(bytearray(self._read_storage(key)), dtype=dtype)
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _named_tensors(module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _named_tensors(value, f"{prefix}{name}.")


def save_compact(state_dict: Mapping[str, Tensor], path: PathLike, used_token_ids: Iterable[int], seed: int) -> None:
    """Write a CLIP as safetensors that holds only the used rows of its token table.

    `load` fills the other rows with normal random numbers of `seed` and of the used rows' standard deviation: texts
    of used tokens are encoded as before, others by untrained rows. The file has the tensors of the state dict, with
    `token_embedding.weight` cut to the rows whose ids are in `token_embedding.rows`, and the metadata
    `token_embedding_seed`, `token_embedding_std` and `vocab_size`.
    """
    table = state_dict[TOKEN_TABLE]
    rows = torch.tensor(sorted(set(used_token_ids)), dtype=torch.int64)
    tensors = {key: value.contiguous() for key, value in state_dict.items()}
    tensors[TOKEN_ROWS], tensors[TOKEN_TABLE] = rows, table[rows].contiguous()
    std = table[rows].float().std(correction=0).item()
    metadata = {"token_embedding_seed": str(seed), "token_embedding_std": repr(std), "vocab_size": str(len(table))}
    with atomic_path(Path(path)) as temporary:
        save_file(tensors, temporary, metadata)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    if TOKEN_ROWS in tensors:
        tensors[TOKEN_TABLE] = _full_token_table(tensors.pop(TOKEN_ROWS), tensors[TOKEN_TABLE], metadata)
    return tensors


def _full_token_table(rows: Tensor, used: Tensor, metadata: Mapping[str, str]) -> Tensor:
    try:
        seed, vocab_size = int(metadata["token_embedding_seed"]), int(metadata["vocab_size"])
        std = float(metadata["token_embedding_std"])
    except KeyError as error:
        raise WeightsError(f"compact token table without the metadata {error.args[0]}; write it again") from None
    if rows.shape != used.shape[:1]:
        raise WeightsError(f"{len(rows)} row ids for {len(used)} rows of the token table; write it again")
    generator = torch.Generator().manual_seed(seed)
    table = torch.empty(vocab_size, used.shape[1]).normal_(0, std, generator=generator)
    table[rows] = used.float()
    return table


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
