"""The numbers that a reproduction has found, set beside what to expect, and what speaks for which mistake."""
from __future__ import annotations

import hashlib
from pathlib import Path
from statistics import mean
from typing import Any, Callable, Dict, List, Optional

from datasets.captions.io import load_captions
from datasets.captions.pseudo_labels import load_targets
from datasets.files import read_json, write_json
from datasets.split_file import Split, read_image_ids, read_split_file
from engine.evaluation.metrics import average_precision, mean_ap
from engine.paper.inputs import published_size, split_file
from engine.paper.request import PaperRequest
from engine.paper.waypoints import Finding, Value, Waypoint, waypoints

FOUND = "waypoints.json"
"""In the output folder: all that was found."""


def compare(request: PaperRequest, step: str) -> List[Finding]:
    """What a finished step has found beside what to expect of it.

    Without a number to expect there is nothing to compare; nor are trainings by `--quick` compared.
    """
    findings = []
    for waypoint in waypoints(step):
        expected = _expected(request, waypoint)
        if expected is None or waypoint.trained and request.args.quick:
            continue
        found = MEASURES[waypoint.measure](request, waypoint)
        if found is not None:
            findings.append(explain(request, Finding(waypoint, found, expected)))
    return findings


def _expected(request: PaperRequest, waypoint: Waypoint) -> Optional[Value]:
    """A variant of the split files has images in numbers of its own."""
    if waypoint.elsewhere.endswith("_size") and request.spec.name not in waypoint.expected:
        return published_size(request, "train" if waypoint.elsewhere == "train_size" else "val")
    return waypoint.expected_for(request.spec.name)


def keep(request: PaperRequest, findings: List[Finding]) -> None:
    """Leave all findings for the page and the archive."""
    write_json(request.folder / FOUND, [
        {"step": finding.waypoint.step, "title": finding.waypoint.title, "found": finding.found,
         "expected": finding.expected, "tolerance": finding.waypoint.tolerance, "near": finding.is_near,
         "likely": finding.likely, "possible": finding.possible, "source": finding.waypoint.source}
        for finding in findings], indent=1)


# ---- what was found ---------------------------------------------------------------------------------------------

def _weights_sha256(request: PaperRequest, waypoint: Waypoint) -> Optional[str]:
    path = Path(request.train_args.model_path)
    if not path.is_file():  # a name on the hub, or a folder
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _truth(request: PaperRequest, split: str) -> Split:
    """True labels. Those of training images are read for this report alone; no training looks at them."""
    return read_split_file(split_file(request, split), len(request.spec.classes))


def _test_positives(request: PaperRequest, waypoint: Waypoint) -> int:
    return sum(map(len, _truth(request, "val").labels))


def _captioned(request: PaperRequest, waypoint: Waypoint) -> int:
    captions = load_captions(request.train_args.caption_root, request.spec.name)
    return sum(image_id in captions for image_id in read_image_ids(split_file(request, "train")))


def _label_quality(kind: str) -> Callable[[PaperRequest, Waypoint], Optional[float]]:
    def measure(request: PaperRequest, waypoint: Waypoint) -> Optional[float]:
        truth, classes = _truth(request, "train"), len(request.spec.classes)
        if not any(truth.labels):  # a file of bare ids trains as well
            return None
        folder = Path(request.train_args.caption_root) / request.spec.name
        labels = load_targets(folder, truth.image_ids, request.spec.categories, kind)[:, :classes]
        return mean_ap(average_precision(labels, truth.targets(classes)))

    return measure


def _run_results(request: PaperRequest, waypoint: Waypoint) -> List[Dict[str, Any]]:
    """result.json of the run, or of the run of each seed."""
    folder = request.runs / waypoint.runs
    paths = [folder / "result.json", *(folder / f"seed_{seed}" / "result.json" for seed in request.seeds)]
    return [read_json(path) for path in paths if path.exists()]


def _activation(request: PaperRequest, waypoint: Waypoint) -> Optional[str]:
    found = {str(result["activation"]) for result in _run_results(request, waypoint) if result.get("activation")}
    return " and ".join(sorted(found)) or None


def _map(request: PaperRequest, waypoint: Waypoint) -> Optional[float]:
    found = [result["last_mAP"] for result in _run_results(request, waypoint) if result["last_mAP"] is not None]
    return mean(found) if found else None


MEASURES: Dict[str, Callable[[PaperRequest, Waypoint], Optional[Value]]] = {
    "weights_sha256": _weights_sha256,
    "train_images": lambda request, waypoint: len(read_image_ids(split_file(request, "train"))),
    "test_images": lambda request, waypoint: len(read_image_ids(split_file(request, "val"))),
    "test_positives": _test_positives,
    "captioned_images": _captioned,
    "votes_mAP": _label_quality("votes"),
    "scores_mAP": _label_quality("scores"),
    "activation": _activation,
    "mAP": _map,
}
"""By the name that waypoints.json has."""


# ---- why it is far ----------------------------------------------------------------------------------------------

def explain(request: PaperRequest, finding: Finding) -> Finding:
    """Far from what to expect: the hints for which something speaks, then those that nothing rules out."""
    if finding.is_near:
        return finding
    judged = {hint: _EVIDENCE[hint](request, finding) if hint in _EVIDENCE else None
              for hint in finding.waypoint.hints}
    return finding._replace(likely=tuple(hint for hint, verdict in judged.items() if verdict),
                            possible=tuple(hint for hint, verdict in judged.items() if verdict is None))


def _split_is_wrong(request: PaperRequest, finding: Finding) -> Optional[bool]:
    """An mAP nearer to that of random scores, the share of positives, than to what to expect."""
    if finding.waypoint.measure != "mAP":
        return True if finding.waypoint.measure.endswith("_images") else None
    truth = _truth(request, "val")
    chance = 100 * sum(map(len, truth.labels)) / len(truth.labels) / len(request.spec.classes)
    assert not isinstance(finding.found, str) and not isinstance(finding.expected, str)
    return True if finding.found < (chance + finding.expected) / 2 else None


def _activation_is_wrong(request: PaperRequest, finding: Finding) -> Optional[bool]:
    """Whether the run computed with another activation than OpenAI's; ruled out for weights that are known."""
    activations = {result.get("activation") for result in _run_results(request, finding.waypoint)}
    if "gelu" in activations:
        return True
    return False if _weights_are_known(request) else None


def _weights_are_known(request: PaperRequest) -> bool:
    waypoint = next(waypoint for waypoint in waypoints("weights"))
    return _weights_sha256(request, waypoint) == waypoint.expected_for(request.spec.name)


VOC2007_EASY_POSITIVES = 7013
"""Of the VOC2007 test images without difficult objects, as in TaI-DPT's lists."""


def _difficult_is_negative(request: PaperRequest, finding: Finding) -> bool:
    """Whether the test split is VOC's without difficult objects, by its name or by its positives."""
    if not request.spec.name.startswith("voc"):
        return False
    return (split_file(request, "val").name.startswith("difficult_negative")
            or _test_positives(request, finding.waypoint) == VOC2007_EASY_POSITIVES)


_EVIDENCE: Dict[str, Callable[[PaperRequest, Finding], Optional[bool]]] = {
    "split": _split_is_wrong,
    "activation": _activation_is_wrong,
    "difficult": _difficult_is_negative,
    "weights": lambda request, finding: not _weights_are_known(request),
}
"""Whether something speaks for a hint (True), against it (False), or neither (None)."""
