"""Batches that become smaller where memory runs out."""
from __future__ import annotations

from typing import Callable, List, Optional, Sequence, TypeVar

import torch

from datasets.files import DataError
from datasets.progress import say_beside_bar

Item = TypeVar("Item")
Result = TypeVar("Result")


class HalvingBatches:
    """Runs a function over slices of a sequence; where memory runs out, the slices are halved from then on."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.limit: Optional[int] = None
        """Items a slice; None while everything has fitted."""

    def run(self, function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> List[Result]:
        """The results of `function` for all `items`, in order; it gives one result an item.

        Raises:
            DataError: there is not enough memory for one item.
        """
        results: List[Result] = []
        while len(results) < len(items):
            part = items[len(results):][:self.limit]
            try:
                results += function(part)
                continue
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            # Only here, with the error and the tensors of its frames gone, can memory be given back.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(part) == 1:
                raise DataError(f"out of memory with 1 {self.unit} at a time; take a smaller --model_type or a lower "
                                "--precision, or free the device")
            self.limit = len(part) // 2
            say_beside_bar(f"Out of memory with {len(part)} {self.unit}s at a time; going on with {self.limit}")
        return results


def _is_out_of_memory(error: RuntimeError) -> bool:
    return any(sign in str(error) for sign in ("out of memory", "ALLOC_FAILED", "can't allocate memory"))
