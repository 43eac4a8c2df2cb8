"""`python -m datasets.build`."""
import sys

from datasets.build.command import main

if __name__ == "__main__":
    sys.exit(main())
