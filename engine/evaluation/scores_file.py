"""scores.npz: the scores of every test image, for analysis and ensembles."""
from __future__ import annotations

import zipfile
from typing import List, NamedTuple, Optional, Sequence

import numpy as np
from torch import Tensor

from datasets.files import DataError, PathLike, atomic_write, counted


class ScoresFile(NamedTuple):
    """What scores.npz holds; the arrays have these names."""

    ids: List[str]
    """Image ids in the order of the split file."""
    classes: List[str]
    """The C names in index order."""
    scores: np.ndarray
    """(n, C) float32, as they are ranked for the mAP: logits of BAC-GCN and CDUL, else scores on a method's scale."""
    targets: Optional[np.ndarray]
    """(n, C) uint8 true labels, 0 or 1; None, and left out of the file, where there are none."""


def save_scores(path: PathLike, ids: Sequence[str], classes: Sequence[str], scores: Tensor,
                targets: Optional[Tensor]) -> None:
    """Write the scores of n images for C classes, (n, C), and their true labels where there are some."""
    arrays = {"ids": np.array(ids, dtype=str), "classes": np.array(classes, dtype=str),
              "scores": scores.float().cpu().numpy()}
    if targets is not None:
        arrays["targets"] = targets.cpu().numpy().astype(np.uint8)
    with atomic_write(path, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_scores(path: PathLike) -> ScoresFile:
    """Read what `save_scores` wrote.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        ids, classes, scores = (arrays[name] for name in ("ids", "classes", "scores"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `eval.py` writes it where it evaluates") from None
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a scores.npz of eval.py ({type(error).__name__}); evaluate again") from None
    targets = arrays.get("targets")
    if scores.shape != (len(ids), len(classes)) or (targets is not None and targets.shape != scores.shape):
        raise DataError(f"{path}: {counted(len(ids), 'id')} and {counted(len(classes), 'class')}, but scores "
                        f"{scores.shape}; evaluate again")
    return ScoresFile(ids.tolist(), classes.tolist(), scores, targets)
