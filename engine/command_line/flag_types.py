"""Types of flags, and the help that a table of choices gives."""
from __future__ import annotations

import argparse
import math
from typing import Any, Mapping

from datasets.registry import DATASETS, is_dataset


def count(text: str) -> int:
    """A whole number from 1 on."""
    return _at_least(1, int(text))


def natural(text: str) -> int:
    """A whole number from 0 on."""
    return _at_least(0, int(text))


def _at_least(least: int, number: int) -> int:
    if number < least:
        raise argparse.ArgumentTypeError(f"{number} is less than {least}")
    return number


def finite(text: str) -> float:
    """A number that is not NaN or infinite."""
    if not math.isfinite(float(text)):
        raise argparse.ArgumentTypeError(f"{text} is not finite")
    return float(text)


def positive(text: str) -> float:
    """A finite number above 0."""
    if finite(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return float(text)


def nonnegative(text: str) -> float:
    """A finite number from 0 on."""
    if finite(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return float(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return float(text)


def dataset_name(text: str) -> str:
    """The name of a dataset, or the path of a description, which is not read here."""
    if not is_dataset(text):
        raise argparse.ArgumentTypeError(f"{text!r} is unknown; choose {DATASET_HELP}")
    return text


DATASET_HELP = f"{', '.join(DATASETS)}, or the path of a description (docs/own-data.md)"
"""What `--dataset` takes, in words."""


def describe(table: Mapping[str, Any]) -> str:
    """What a table of choices says in `--help`: each choice with the first line of its docstring."""
    lines = ((name, (choice.__doc__ or "").splitlines()[0].rstrip(".")) for name, choice in table.items())
    return "; ".join(f"{name}: {_within(line)}" for name, line in lines).replace("%", "%%")


def _within(line: str) -> str:
    """A line as it goes on within a sentence; formulas and abbreviations stay as they are."""
    return line[:1].lower() + line[1:] if line[1:2].islower() else line
