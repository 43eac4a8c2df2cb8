"""The look that all pages share."""
from __future__ import annotations

from pathlib import Path


def page_style(own: Path) -> str:
    """The shared style sheet, light and dark, followed by a page's `own`."""
    return "".join(path.read_text(encoding="utf-8") for path in (Path(__file__).with_name("page_style.css"), own))
