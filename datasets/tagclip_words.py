"""The words of TagCLIP's published rows, where there are some: facts, in tagclip_words.json."""
from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Optional, Tuple

from datasets.files import read_json


def published_words(dataset: str) -> Optional[Tuple[str, ...]]:
    """What TagCLIP's authors put into their prompts for a dataset: words for its classes, then backgrounds of theirs.

    Args:
        dataset: its name in the registry.

    Returns:
        Words as the authors write them ("pottedplant"); None for a dataset of which they publish no row.
    """
    rows = read_json(Path(str(resources.files("datasets").joinpath("tagclip_words.json"))))["rows"]
    return next((tuple(row["classes"] + row["backgrounds"]) for row in rows if dataset in row["datasets"]), None)
