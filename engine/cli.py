"""What every script does around its main function."""
from __future__ import annotations

import sys
from typing import Callable

from clip import WeightsError
from datasets.files import DataError


def run_main(main: Callable[[], object]) -> None:
    """Run a script's main function; an error that the user can mend is one line and exit status 2."""
    try:
        main()
    except (DataError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
