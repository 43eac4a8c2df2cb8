"""The page of a reproduction: report.html, one file that opens from disk."""
from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from string import Template
from typing import List, Optional, Sequence

from PIL import Image

from datasets.files import atomic_write
from engine.paper.methods import DRAWN, FULL
from engine.paper.request import PaperRequest
from engine.paper.waypoints import Finding, hint_text, shown
from engine.pictures.drawings import fit
from engine.pictures.page_style import page_style
from engine.report import html
from engine.results.finished_runs import Collection, RunGroup, collect_runs
from engine.results.paper_tables import TABLE_OF_STUDY, TABLES, main_table
from engine.results.published_results import published_maps
from engine.results.runs_table import f1_table
from engine.results.tables import Number

PICTURE = 1400
"""Pixels of a figure's longer side."""

_ALT = {"curves": "mAP after every epoch",
        "per_class": "average precision of every class, beside CLIP zero-shot",
        "masks": "test photos, their two masked views, and CLIP's highest logits of each",
        "maps": "similarity maps of the highest classes and backgrounds over test photos",
        "graph": "matrix of the probabilities of all classes and backgrounds given each other"}


def write_page(request: PaperRequest, findings: Sequence[Finding]) -> Path:
    """Write `report.html` into the output folder.

    Args:
        request: what was reproduced.
        findings: the numbers beside what to expect.

    Returns:
        The page's path.
    """
    rooms = Path(__file__).parents[1]
    template = Template((rooms / "report" / "report.html").read_text(encoding="utf-8"))
    collection = collect_runs([request.runs])
    page = template.substitute(
        style=page_style(rooms / "report" / "report.css"), title=escape(f"{request.spec.title}: the paper's tables"),
        summary=_summary(request, findings), tiles=_tiles(request, collection),
        sections="\n".join((_results(request, collection), _waypoints(findings), _studies(request),
                            _figures(request))),
        footer=f"Every number is in the folders below <code>{escape(str(request.runs))}</code>; the archive beside "
               "this page has configurations, logs, results and tables, without images and checkpoints.")
    path = request.folder / "report.html"
    with atomic_write(path) as file:
        file.write(page)
    return path


def _summary(request: PaperRequest, findings: Sequence[Finding]) -> str:
    far = [finding for finding in findings if not finding.is_near]
    agreement = ("All numbers that something is known of are as expected." if not far else
                 f"{len(far)} of {len(findings)} numbers are far from what to expect; what is usually wrong stands "
                 "beside them.")
    quick = " This was a quick run: the trained numbers say nothing." if request.args.quick else ""
    seeds = "one seed" if len(request.seeds) == 1 else f"{len(request.seeds)} seeds"
    return f"All methods on the same images with the same CLIP, {seeds}. {agreement}{quick}"


def _tiles(request: PaperRequest, collection: Collection) -> str:
    published = published_maps(request.spec.name)
    tiles = []
    for folder, title in (("clip/softmax", "CLIP zero-shot"), ("sparc", "SPARC"), (FULL, "BAC-GCN"),
                          ("bac_gcn_plus", "BAC-GCN+, ours")):
        group = _group_in(request.runs / folder, collection)
        statistic = group.statistic("last_mAP") if group else None
        if statistic is not None:
            paper = f"; the paper has {published[title]:.1f}" if title in published else ""
            tiles.append(f'<div class="tile{" main" if folder == FULL else ""}"><b>{Number(statistic, digits=1)}</b>'
                         f"<small>mAP of {escape(title)} on the test images{paper}</small></div>")
    return "".join(tiles)


def _group_in(folder: Path, collection: Collection) -> Optional[RunGroup]:
    """The group of the runs in a folder or just below it."""
    return next((group for group in collection.groups for run in group.runs
                 if folder in (run.folder, run.folder.parent)), None)


def _results(request: PaperRequest, collection: Collection) -> str:
    return "\n".join((
        html.section("Results", "mAP in percent on the test images, the paper's numbers beside ours.",
                     html.results_table(main_table(collection))),
        html.section("Tags", "F1 in percent of the tags on the test images: over all pairs of image and class (OF1), "
                     "and over the classes' means (CF1).", html.results_table(f1_table(collection)))))


def _waypoints(findings: Sequence[Finding]) -> str:
    rows: List[str] = []
    for finding in findings:
        waypoint = finding.waypoint
        margin = f" ± {waypoint.tolerance:g}" if waypoint.tolerance else ""
        mark = '<span class="chip hit">✓</span>' if finding.is_near else '<span class="chip extra">far</span>'
        found, expected = escape(shown(finding.found)), escape(shown(finding.expected) + margin)
        rows.append(f"<tr><td>{mark}</td><td>{escape(waypoint.title)}</td><td class=number>{found}</td>"
                    f'<td class=number>{expected}</td><td class="soft">{escape(waypoint.source)}</td></tr>')
        hints = [f"<b>likely:</b> {escape(hint_text(hint))}" for hint in finding.likely]
        hints += [f"or: {escape(hint_text(hint))}" for hint in finding.possible]
        if hints:
            rows.append(f'<tr><td></td><td colspan="4" class="soft">{"<br>".join(hints)}</td></tr>')
    head = ('<tr><th scope=col aria-label="near or far"></th><th scope=col>number</th><th scope=col class=number>found'
            "</th><th scope=col class=number>expected</th><th scope=col>known from</th></tr>")
    return html.section("Waypoints", "After each step, the number found beside the one to expect.",
                        f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>')


def _studies(request: PaperRequest) -> str:
    sections = []
    for study in request.args.studies:
        if study not in request.args.skip:
            table = TABLES[TABLE_OF_STUDY[study]](collect_runs([request.runs / Path(FULL).parent]))
            sections.append(html.section(table.title, "One change at a time, the other flags as they are.",
                                         html.table(table)))
    return "\n".join(sections)


def _figures(request: PaperRequest) -> str:
    cells = [html.figure(_picture(path), _ALT[name], escape(_ALT[name]), "chart")
             for name in ("curves", *DRAWN) for path in [request.folder / "figures" / f"{name}.png"] if path.exists()]
    if not cells:
        return ""
    return html.section("Figures", "As PDF beside this page; of the first seed but for the curves, on the first test "
                        "images, which nobody picked.", "".join(cells))


def _picture(path: Path) -> str:
    """A figure as a data address."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        fit(image.convert("RGB"), PICTURE).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
