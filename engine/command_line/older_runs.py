"""Flags of earlier runs, which may lack flags that are younger than they are."""
from __future__ import annotations

from typing import Any, Dict

from engine.command_line.eval_flags import get_eval_parser
from engine.command_line.method_flags import BEFORE_FLAGS, EVAL_DEFAULTS, TRAINED_METHODS
from engine.command_line.train_flags import default_flags


def complete_flags(values: Dict[str, Any]) -> Dict[str, Any]:
    """The flags of a run, with the younger ones at the defaults of its dataset and method.

    What a run did before a flag was there is what the flag's default does, or what `BEFORE_FLAGS` says. Whatever reads
    flags from a file, a checkpoint, a table or a study, reads them through this.

    Args:
        values: flags from a config.json or a checkpoint, of a train script or (those without epochs) of `eval.py`.
    """
    if "epochs" not in values:
        defaults = vars(get_eval_parser(None).parse_args([]))
        method = values.get("method", "")
        return {**defaults, **EVAL_DEFAULTS.get(method, {}), **BEFORE_FLAGS.get(method, {}), **values}
    if values.get("method") not in TRAINED_METHODS or not isinstance(values.get("dataset"), str):
        return values
    defaults = default_flags(values["dataset"], values["method"], values.get("backbone"),
                             values.get("recipe", "paper"), values.get("encoder", "clip"))
    return {**defaults, **BEFORE_FLAGS.get(values["method"], {}), **values}
