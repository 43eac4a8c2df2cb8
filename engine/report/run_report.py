"""The page that sums a run up for a newcomer: report.html, one file that opens from disk."""
from __future__ import annotations

import argparse
from html import escape
from pathlib import Path
from string import Template

from datasets.files import PathLike, atomic_write
from engine.pictures.page_style import page_style
from engine.report.material import gather
from engine.report.report_sections import SECTIONS, summary, tiles

REPORT_NAME = "report.html"


def write_report(folder: PathLike, args: argparse.Namespace) -> Path:
    """Write `report.html` into a finished run's folder.

    The run may have a twin without ReSO below it, and both may have twins from other seeds: runs that differ in more
    than `--no_reso` and `--seed` from the folder's own are passed over.

    Args:
        folder: the output folder of the run that the pictures are made of.
        args: the flags of the run.

    Returns:
        The page's path.

    Raises:
        DataError: the run is not finished, or something it was made of is gone.
    """
    folder = Path(folder)
    material = gather(folder, args)
    template = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))
    spec = material.predictor.spec
    page = template.substitute(
        style=page_style(Path(__file__).with_name("report.css")),
        title=escape(f"{material.runs[0].title} on {spec.title}"),
        summary=summary(material), tiles=tiles(material),
        sections="\n".join(section(material) for section in SECTIONS), footer=_footer(folder))
    with atomic_write(folder / REPORT_NAME) as file:
        file.write(page)
    return folder / REPORT_NAME


def _footer(folder: Path) -> str:
    command = f"python eval.py --checkpoint {folder / 'checkpoint.pth'} --image photo.jpg"
    return (f"Tags and maps of your own photo: <code>{escape(command)}</code>. All flags, versions and the digest of "
            f"the weights are in <code>{escape(str(folder / 'config.json'))}</code>.")
