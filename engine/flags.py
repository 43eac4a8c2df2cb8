"""Types of flags, and the check of flags that a file holds."""
from __future__ import annotations

import argparse
import math
from typing import Any, Dict

from datasets.files import DataError, PathLike, shorten


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


def share(text: str) -> float:
    """A number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return float(text)


def check_flags(path: PathLike, values: Any, parser: argparse.ArgumentParser) -> Dict[str, Any]:
    """Make sure that flags read from a file could have been given on the command line.

    Args:
        path: the file, for the message.
        values: what it holds.
        parser: the command line.

    Raises:
        DataError: they are not the flags of this version, or a value is none of its flag's.
    """
    actions = {action.dest: action for action in parser._actions}
    if not isinstance(values, dict) or not set(values) <= set(actions):
        raise DataError(f"{path}: not from a run of this version (other flags); train anew")
    for flag, value in values.items():
        if not _fits(actions[flag], value):
            raise DataError(f"{path}: {shorten(str(value))} is no value of --{flag}; repair it or train anew")
    return values


def _fits(action: argparse.Action, value: Any) -> bool:
    if action.nargs == 0:  # a switch
        return isinstance(value, bool)
    if value is None:
        return action.default is None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return False
    if action.choices is not None:
        return value in action.choices
    try:
        return (action.type or str)(str(value)) == value  # type: ignore[operator]
    except (ValueError, OverflowError, argparse.ArgumentTypeError):
        return False
