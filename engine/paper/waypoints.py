"""What to expect after each step, with where that is known from; and what is usually wrong far from it."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from clip.clip import URLS
from datasets.build.command import PUBLISHED_SIZES
from datasets.files import read_json
from datasets.registry import DATASETS
from engine.results.published_results import published_maps

Value = Union[int, float, str]
"""A count, an mAP in percent, a digest, or a word."""

SHOWN_DIGITS = 8
"""Of the 64 of a digest in tables."""


@dataclass(frozen=True)
class Waypoint:
    """One number to compare with after a step."""

    step: str
    title: str
    source: str
    hints: Tuple[str, ...]
    """Names of what is usually wrong far from it, the likeliest first."""
    expected: Dict[str, Value]
    """By dataset."""
    measure: str = "mAP"
    """Name of the function that finds it."""
    runs: str = ""
    """For an mAP: folder of the run, or of the runs of several seeds, below the reproduction's runs."""
    tolerance: float = 0
    """What may lie between them."""
    trained: bool = False
    """Whether it is the number of a training."""
    elsewhere: str = ""
    """Name of the list in the code that knows what to expect of the other datasets."""

    def expected_for(self, dataset: str) -> Optional[Value]:
        """The number to expect on a dataset, None where nothing is known."""
        if dataset in self.expected or not self.elsewhere:
            return self.expected.get(dataset)
        return known_elsewhere(self.elsewhere, dataset)

    def is_near(self, found: Value, expected: Value) -> bool:
        """Whether the number found is as expected."""
        if isinstance(found, str) or isinstance(expected, str):
            return found == expected
        return abs(found - expected) <= self.tolerance + 1e-9


def known_elsewhere(name: str, dataset: str) -> Optional[Value]:
    """What the code knows already: "releases" (OpenAI's weights), "train_size", "test_size", "published METHOD"."""
    if dataset not in DATASETS:
        return None
    spec = DATASETS[dataset]
    if name == "releases":
        file = Path(spec.model_path).name
        return next((url.split("/")[-2] for url in URLS.values() if url.endswith(f"/{file}")), None)
    if name.startswith("published "):
        return published_maps(dataset).get(name.partition(" ")[2])
    path = spec.train_split_file if name == "train_size" else spec.val_split_file
    return PUBLISHED_SIZES.get(dataset, {}).get(Path(path).name.replace("_cls.txt", ""))


@lru_cache(maxsize=1)
def _read() -> Any:
    return read_json(Path(str(resources.files("engine.paper").joinpath("waypoints.json"))))


def waypoints(step: Optional[str] = None) -> List[Waypoint]:
    """All waypoints, or those of a step."""
    listed = [Waypoint(**{**entry, "hints": tuple(entry["hints"])}) for entry in _read()["waypoints"]]
    return [waypoint for waypoint in listed if step in (None, waypoint.step)]


def hint_text(name: str) -> str:
    """What a hint says."""
    return str(_read()["hints"][name])


def shown(value: Optional[Value]) -> str:
    """A value for people."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value[:SHOWN_DIGITS] if len(value) == 64 else value
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"


class Finding(NamedTuple):
    """A waypoint with what was found."""

    waypoint: Waypoint
    found: Value
    expected: Value
    likely: Tuple[str, ...] = ()
    """Hints for which something speaks; empty where it is near."""
    possible: Tuple[str, ...] = ()
    """Hints that nothing rules out."""

    @property
    def is_near(self) -> bool:
        """Whether it is as expected."""
        return self.waypoint.is_near(self.found, self.expected)

    def lines(self) -> List[str]:
        """For the screen: the comparison, and far from it what is usually wrong."""
        margin = f" ± {self.waypoint.tolerance:g}" if self.waypoint.tolerance else ""
        text = (f"{'ok  ' if self.is_near else 'FAR '}{self.waypoint.title}: found {shown(self.found)}, expected "
                f"{shown(self.expected)}{margin} ({self.waypoint.source})")
        if self.is_near:
            return [text]
        return [text, *(f"    likely: {hint_text(hint)}" for hint in self.likely),
                *(f"    or: {hint_text(hint)}" for hint in self.possible)]


def expectations_table() -> str:
    """Markdown: what to expect of each dataset after each step. docs/reproduce.md holds it."""
    rows: Dict[Tuple[str, str], Dict[str, str]] = {}
    sources: Dict[Tuple[str, str], Dict[str, None]] = {}
    for waypoint in waypoints():
        row = rows.setdefault((waypoint.step, waypoint.title), {})
        margin = f" ± {waypoint.tolerance:g}" if waypoint.tolerance else ""
        known = {dataset: waypoint.expected_for(dataset) for dataset in DATASETS}
        row.update({dataset: shown(value) + margin for dataset, value in known.items() if value is not None})
        sources.setdefault((waypoint.step, waypoint.title), {})[waypoint.source] = None
    header = ["step", "number", *DATASETS, "source"]
    lines = [header, ["---", "---", *["---:"] * len(DATASETS), "---"]]
    lines += [[step, title, *(row.get(dataset, "") for dataset in DATASETS), "; ".join(sources[step, title])]
              for (step, title), row in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    print(expectations_table())
