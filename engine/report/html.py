"""Pieces of a page: sections, pictures as data addresses, tables."""
from __future__ import annotations

import base64
import io
from html import escape
from typing import Any, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from datasets.plotting import paper_style
from engine.pictures.drawings import fit
from engine.results.tables import NOTHING, Number, Table

THUMBNAIL = 360
"""Pixels of a picture's longer side."""


def section(title: str, text: str, body: str) -> str:
    """A part of the page; `text` and `body` are HTML."""
    return f"<section><h2>{escape(title)}</h2>\n<p>{text}</p>\n{body}</section>"


def figure(source: str, alt: str, caption: str = "", kind: str = "") -> str:
    """A picture at the address `source`; `caption` is HTML."""
    caption = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="{kind}"><img alt="{escape(alt)}" src="{source}">{caption}</figure>'


def photo(pixels: np.ndarray) -> str:
    """(height, width, 3) of 0..255 as a data address: JPEG, at most `THUMBNAIL` pixels."""
    buffer = io.BytesIO()
    fit(Image.fromarray(pixels), THUMBNAIL).save(buffer, "JPEG", quality=86)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def chart(drawing: Figure) -> str:
    """A figure as a data address: vectors."""
    buffer = io.BytesIO()
    with paper_style():
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def table(content: Table) -> str:
    """A table with its notes; numbers stand to the right."""
    numeric = [any(isinstance(cell, Number) for cell in column) for column in zip(*content.rows)]

    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}{' class=number' if right else ''}>{escape(str(cell))}</{tag.split()[0]}>"
                                for cell, right in zip(cells, numeric)) + "</tr>"

    head, rows = line(content.header, "th scope=col"), "".join(line(row, "td") for row in content.rows)
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in content.notes)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>{notes}'


def results_table(content: Table) -> str:
    """The main table of one dataset, narrow enough for a phone: one CLIP's weights stand below it, not in a column."""
    weights = {str(row[1]) for row in content.rows} - {NOTHING}
    if len(weights) == 1:
        header = ("method", *(name.rpartition(": ")[2] if ": " in name else "mAP" for name in content.header[2:]))
        content = content._replace(header=header, rows=[row[:1] + row[2:] for row in content.rows],
                                   notes=(*content.notes, f"CLIP weights: {weights.pop()}."))
    return f'<div class="narrow">{table(content)}</div>'


def words(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return escape(", ".join(names)) if names else "none"
