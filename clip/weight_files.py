"""Weight files to tensors: OpenAI's TorchScript archives, state dicts, safetensors. No file's code is ever run."""
from __future__ import annotations

import json
import os
import pickle
import re
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, Union

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clip.architecture import WeightsError

PathLike = Union[str, "os.PathLike[str]"]

STORAGE_TYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}
TOKEN_TABLE = "token_embedding.weight"
TOKEN_ROWS = "token_embedding.rows"
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.", "clip.", "clip_model.")
INDEX_SUFFIX = ".index.json"


def read_state_dict(path: PathLike) -> dict[str, Tensor]:
    """Read the tensors of a weight file, or of all files that an index of transformers names, on the CPU.

    The extension does not matter. Wrappers of checkpoints (`state_dict`, ...) and prefixes that all names share
    (`module.`, ...) are taken off.

    Raises:
        WeightsError: without the path, which `load` adds.
    """
    path = Path(path)
    try:
        if path.name.endswith(INDEX_SUFFIX):
            shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
            tensors = {key: value for shard in shards for key, value in _read_file(path.with_name(shard)).items()}
        else:
            tensors = _read_file(path)
        return _without_prefixes(tensors)
    except WeightsError:
        raise
    except OSError as error:
        where = f"{Path(error.filename).name} " if error.filename and Path(error.filename) != path else ""
        raise WeightsError(f"{where}cannot be read ({error.strerror or error})") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(_explain_pickle(error)) from None
    except Exception as error:  # a damaged file can make its parser fail in any way
        reason = str(error).strip().split("\n")[0]
        raise WeightsError(f"truncated, damaged or no weight file ({reason}); get it again") from None


def _read_file(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise WeightsError("the file is empty; get it again")
    if head[8:] == b"{":  # after the length of the JSON header
        return _read_safetensors(path)
    if is_torchscript(path):
        return _read_torchscript(path)
    return _unwrap(torch.load(path, map_location="cpu", weights_only=True))


def _explain_pickle(error: pickle.UnpicklingError) -> str:
    forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
    if forbidden:
        return f"refused: reading it would run {forbidden[1]}; a weight file needs tensors only"
    return "truncated, damaged or no weight file; get it again"


def _unwrap(content: Any, where: str = "") -> dict[str, Tensor]:
    """State dict of a checkpoint, perhaps under one of `WRAPPERS`, within one another too."""
    wrappers = [key for key in WRAPPERS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)]
    if len(wrappers) > 1:
        raise WeightsError(f"holds weights under {' and '.join(map(repr, wrappers))}; save one of them alone")
    if wrappers:
        return _unwrap(content[wrappers[0]], f"{where}{wrappers[0]}.")
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError("holds no state dict (names to tensors), neither on top nor under "
                           f"{', '.join(map(repr, WRAPPERS))}")
    for key, value in content.items():
        if not isinstance(key, str):
            raise WeightsError(f"{where}{key} is no name of a tensor; save a state dict")
        if not isinstance(value, Tensor):
            raise WeightsError(f"{where}{key} is no tensor but {type(value).__name__}; save the tensors alone")
    return dict(content)


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        others = [name for name in tensors if not name.startswith(prefix)]
        if not others:
            return _without_prefixes({name[len(prefix):]: value for name, value in tensors.items()})
        if len(others) < len(tensors):
            raise WeightsError(f"holds {others[0]} beside a model under '{prefix}'; save the tensors of "
                               f"'{prefix}' alone")
    return tensors


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive with a TorchScript program in it, as OpenAI's are."""
    if not zipfile.is_zipfile(path):
        return False
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
        """What stands for a class or function that the file names; raises WeightsError for what is no tensor."""
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


def save_compact(state_dict: Mapping[str, Tensor], path: PathLike, used_token_ids: Iterable[int], seed: int,
                 activation: str = "quick_gelu") -> None:
    """Write a CLIP as safetensors that holds only the used rows of its token table.

    `load` fills the other rows with normal random numbers of `seed` and of the used rows' standard deviation: texts
    of used tokens are encoded as before, others by untrained rows. The file has the tensors of the state dict, with
    `token_embedding.weight` cut to the rows whose ids are in `token_embedding.rows`, and the metadata
    `token_embedding_seed`, `token_embedding_std`, `vocab_size` and `activation`.
    """
    table = state_dict[TOKEN_TABLE]
    rows = torch.tensor(sorted(set(used_token_ids)), dtype=torch.int64)
    tensors = {key: value.contiguous() for key, value in state_dict.items()}
    tensors[TOKEN_ROWS], tensors[TOKEN_TABLE] = rows, table[rows].contiguous()
    std = table[rows].float().std(correction=0).item()
    metadata = {"token_embedding_seed": str(seed), "token_embedding_std": repr(std), "vocab_size": str(len(table)),
                "activation": activation}
    with atomic_path(Path(path)) as temporary:
        save_file(tensors, temporary, metadata)


def compact_activation(path: PathLike) -> str | None:
    """The activation of a CLIP that `save_compact` wrote; None for every other file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Files that are older than the entry are of the only activation that there was.
            return metadata.get("activation", "quick_gelu") if TOKEN_ROWS in file.keys() else None  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


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
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # safetensors makes files private; weights are for sharing
        os.replace(temporary, path)
