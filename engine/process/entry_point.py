"""What every script does around its main function."""
from __future__ import annotations

import errno
import sys
from typing import Callable

from datasets.files import DataError
from engine.process.signals import Stopped, stop_on_signals

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)


def run_main(main: Callable[[], object]) -> None:
    """Run a script's main function.

    An error that the user can mend is one line and exit status 2, a full disk among them; Ctrl-C ends with 130 and
    SIGTERM with 143 once everything is saved.
    """
    try:
        with stop_on_signals():
            main()
    except Stopped as stop:
        print(f"stopped by {stop.signal.name}; the same command goes on from what is saved", file=sys.stderr)
        sys.exit(stop.code)
    except DataError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}cannot be written ({error.strerror}); make room or choose another folder. What was complete is "
              "unharmed: the same command goes on from there")
    except ValueError as error:
        from clip import WeightsError  # torch takes seconds to import, and not every script needs it
        if not isinstance(error, WeightsError):
            raise
        _fail(str(error))


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
