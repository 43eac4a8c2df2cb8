"""The command line parser of every script."""
from __future__ import annotations

import argparse
from typing import NoReturn, Optional, Sequence, Set

from datasets.progress import keep_quiet


class _Quiet(argparse.Action):
    """Acts as soon as it is read, as `--help` does, and leaves nothing among the flags: it is no part of a run."""

    def __call__(self, *args: object, **options: object) -> None:
        keep_quiet()


class _Help(argparse.RawDescriptionHelpFormatter):
    """Adds its default to the help of every flag that has one and does not name it itself."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        named = action.help is None or "default:" in action.help
        if named or action.nargs == 0 or action.default is None:  # a switch is off
            return action.help
        return f"{action.help} (default: %(default)s)"


class FlagParser(argparse.ArgumentParser):
    """Takes no abbreviations, says what is wrong in one line, knows `--quiet`, and tells every default.

    Args:
        description: shown by `--help` as it is.
        prog: the command, where it is not the name of the script.
    """

    def __init__(self, description: Optional[str] = None, prog: Optional[str] = None) -> None:
        super().__init__(prog, usage="%(prog)s [--FLAG VALUE ...]", description=description, formatter_class=_Help,
                         allow_abbrev=False)
        self.add_argument("--quiet", action=_Quiet, nargs=0, default=argparse.SUPPRESS,
                          help="no bars and no lines on the way, only results and errors")

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line that says the way to `--help`."""
        if "--local-rank" in message or "--local_rank" in message:
            message = "python -m torch.distributed.launch is not supported; start the script with torchrun"
        command = self.prog if self.prog.startswith("python") else f"python {self.prog}"
        self.exit(2, f"error: {message}; `{command} --help` lists the flags\n")

    def typed(self, argv: Optional[Sequence[str]] = None) -> Set[str]:
        """Names of the flags that stand on the command line itself, whatever the defaults are."""
        absent = object()
        names = {action.dest for action in self._actions}
        given = self.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, absent)))
        return {name for name, value in vars(given).items() if value is not absent}
