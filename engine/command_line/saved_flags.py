"""Flags that a file holds: checked, and completed where the file is older than a flag."""
from __future__ import annotations

import argparse
from typing import Any, Dict

from datasets.files import DataError, PathLike, shorten


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
