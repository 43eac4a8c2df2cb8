"""What papers report of the datasets, with where each number comes from."""
from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Dict, List, NamedTuple

from datasets.files import read_json


class Published(NamedTuple):
    """One method's published results."""

    method: str
    setting: str
    """Network and what else sets it apart."""
    source: str
    mAP: Dict[str, float]
    """In percent, by name of the dataset."""


def published_results() -> List[Published]:
    """All that is known, in the order of tables."""
    path = Path(str(resources.files("engine.results").joinpath("published_results.json")))
    return [Published(**entry) for entry in read_json(path)]


def published_maps(dataset: str) -> Dict[str, float]:
    """mAP in percent by method; empty for a dataset of which nothing is published, such as a user's own."""
    return {entry.method: entry.mAP[dataset] for entry in published_results() if dataset in entry.mAP}


def sources_note(methods: List[str]) -> str:
    """A sentence on the published numbers of some methods."""
    entries = [f"{entry.method} ({entry.setting}): {entry.source}" for entry in published_results()
               if entry.method in methods]
    return "Paper: " + "; ".join(entries) + "."
