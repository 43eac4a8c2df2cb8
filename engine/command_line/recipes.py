"""Recipes: which defaults the flags of BAC-GCN have. Flags that are given win, and a recipe has a name of its own."""
from __future__ import annotations

from typing import Any, Dict, NamedTuple


class Recipe(NamedTuple):
    """A named set of defaults."""

    title: str
    """Of the method in tables, figures and reports: numbers of two recipes never stand in one row."""
    flags: Dict[str, Any]
    """Flags of a train script, where their defaults differ from the paper's."""


RECIPES: Dict[str, Recipe] = {
    "paper": Recipe("BAC-GCN", {}),
    "plus": Recipe("BAC-GCN+", {
        "resolution": 192, "no_masked_globals": True, "no_reso": True, "lr_schedule": "cosine"}),
}
"""`--recipe`: "paper" is all that the paper states, "plus" ours; docs/recipes.md says how it was chosen."""
