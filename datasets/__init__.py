"""Images, names, split files and labels of the datasets."""
import os
import sys

if "IPython" not in sys.modules:  # a notebook's shell hands its backend on, and matplotlib refuses to start without it
    os.environ.pop("MPLBACKEND", None)
