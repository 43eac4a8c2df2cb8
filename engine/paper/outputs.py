"""What a reproduction ends with: tables, the curves, a page, and an archive to share."""
from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Iterator, List, Sequence

from datasets.files import atomic_write
from engine.paper.findings import FOUND
from engine.paper.methods import FULL
from engine.paper.paper_page import write_page
from engine.paper.request import RECORD, PaperRequest
from engine.paper.waypoints import Finding
from engine.pictures.figure_data import save_curves
from engine.results.paper_tables import TABLE_OF_STUDY, write_table

SHARED = ("config.json", "result.json", "log.txt", "per_class_*.csv", "*.md", "*.tex")
"""Files below the runs that go into the archive; images and checkpoints do not."""


def write_outputs(request: PaperRequest, findings: Sequence[Finding]) -> List[Path]:
    """Write what is made of finished runs, anew each time, as it takes seconds.

    Args:
        request: what was reproduced.
        findings: the numbers beside what to expect.

    Returns:
        The page and the archive.
    """
    tables, studies = request.folder / "tables", request.runs / Path(FULL).parent
    for kind in ("main", "f1"):
        write_table(kind, [request.runs], tables)
    for study in request.args.studies:
        if study not in request.args.skip:
            write_table(TABLE_OF_STUDY[study], [studies], tables)
    curves = [folder for folder in (request.runs / FULL, studies / "no_reso") if folder.is_dir()]
    if curves:
        save_curves(curves, request.folder / "figures")
    return [write_page(request, findings), write_archive(request)]


def write_archive(request: PaperRequest) -> Path:
    """Pack configurations, logs, results and tables into NAME.zip: what others need to check the numbers."""
    path = request.folder / f"{request.folder.name}.zip"
    with atomic_write(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in shared_files(request):
            archive.write(member, Path(request.folder.name) / member.relative_to(request.folder))
    return path


def shared_files(request: PaperRequest) -> Iterator[Path]:
    """The files that go into the archive, in the order of their names."""
    folder = request.folder
    found = {folder / RECORD, folder / FOUND, *folder.glob("logs/*.log"), *folder.glob("tables/*")}
    for pattern in SHARED:
        found.update(request.runs.rglob(pattern))
    return iter(sorted(path for path in found if path.is_file()))
