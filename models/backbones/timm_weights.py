"""Networks of timm with their weights: timm's own, or those of a file."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from datasets.files import DataError, shorten
from datasets.progress import others_bars


def load_timm(name: str, path: Optional[str]) -> Any:
    """The network that timm calls `name`, frozen.

    Args:
        name: timm's.
        path: a state dict; None for the weights that timm downloads.

    Raises:
        DataError: timm is missing or too old, has no such network, or the weights cannot be had or do not fit.
    """
    try:
        import timm
        version = tuple(map(int, timm.__version__.split(".")[:2]))
    except ImportError:
        version = (0, 0)
    if version < (1, 0):
        have = f"timm {timm.__version__} is too old" if version > (0, 0) else "timm is missing"
        raise DataError(f"--encoder timm:{name}: {have}; pip install 'timm>=1.0', in an environment without LAVIS, "
                        "which needs an older one")
    if not timm.is_model(name):
        raise DataError(f"--encoder timm:{name}: timm {timm.__version__} has no such network; timm.list_models() lists "
                        "those that it has")
    try:
        with others_bars():
            model = timm.create_model(name, pretrained=path is None)
    except Exception as error:  # whatever a download can end in
        raise DataError(f"--encoder timm:{name}: its weights cannot be had ({str(error).splitlines()[0]}); give a file "
                        "of them by --model_path") from None
    if path is not None:
        load_renamed(model, path)
    return model.eval().requires_grad_(False)


def load_renamed(model: nn.Module, path: str) -> None:
    """Load a state dict under the network's own names, or under those of another port of the same network.

    In another port, as EfficientNet-PyTorch is of timm's EfficientNets, the tensors come in the same order with the
    same shapes and the same last parts of their names.

    Raises:
        DataError: the file is missing or damaged, or is of another network.
    """
    own, found = model.state_dict(), _read_state(path)
    if set(own) <= set(found):
        found = {name: found[name] for name in own}
    elif _layout(own) == _layout(found):
        found = dict(zip(own, found.values()))
    try:
        model.load_state_dict(found)
    except RuntimeError as error:
        reason = shorten(str(error).splitlines()[-1].strip())
        raise DataError(f"{path}: not the weights of this network ({reason}); check --encoder") from None


def _layout(state: Dict[str, Tensor]) -> List[Tuple[str, Tuple[int, ...]]]:
    return [(name.rpartition(".")[2], tuple(value.shape)) for name, value in state.items()]


def _read_state(path: str) -> Dict[str, Tensor]:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file of weights; give a state dict, or leave --model_path out to have timm's")
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise DataError(f"{path}: not a readable state dict ({type(error).__name__}); give a .safetensors file or one "
                        "of torch.save that holds tensors alone") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: not a state dict of tensors; save model.state_dict()")
    return state
