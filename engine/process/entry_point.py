"""What every script does around its main function."""
from __future__ import annotations

import io
import sys
from typing import Callable, Optional

from datasets.files import DataError, why_unwritten
from engine.process.signals import Stopped, stop_on_signals


def run_main(main: Callable[[], object]) -> None:
    """Run a script's main function.

    An error that the user can mend is one line and exit status 2, a full disk among them; Ctrl-C ends with 130 and
    SIGTERM with 143 once everything is saved. A terminal that lacks a letter gets a question mark.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with stop_on_signals():
            main()
    except Stopped as stop:
        print(f"stopped by {stop.signal.name}; the same command goes on from what is saved", file=sys.stderr)
        sys.exit(stop.code)
    except DataError as error:
        _fail(str(error))
    except OSError as error:
        reason = why_unwritten(error)
        if reason is None:
            raise
        _fail(reason)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed in {sys.prefix}; `pip install -r requirements.txt` has it")
    except ValueError as error:
        from clip import WeightsError  # torch takes seconds to import, and not every script needs it
        if not isinstance(error, WeightsError):
            raise
        _fail(str(error))
    except RuntimeError as error:
        advice = _advice(error)
        if advice is None:
            raise
        _fail(advice)


def _advice(error: RuntimeError) -> Optional[str]:
    """What to do about an error of torch that the user can mend; None for all others."""
    if "DataLoader worker" in str(error):
        return ("a process that decodes images was killed, for want of memory perhaps; the same command goes on, with "
                "fewer of them by --num_workers (0 decodes in the main process)")
    if any(words in str(error) for words in ("Connection closed by peer", "Connection reset by peer")):  # of gloo
        return ("another process of this run has ended, for a reason that it says itself, or was killed; the same "
                "command goes on from what is saved")
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        reason = str(error).strip().splitlines()[0]
        return f"--compile: the encoder cannot be compiled ({reason}); install a C++ compiler, or leave --compile out"
    return None


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
