"""Result tables on the screen."""
from __future__ import annotations

from typing import Any, Dict, Sequence

from datasets.registry import DatasetSpec


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Align the columns: those of `left` to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) if column in left else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths))).rstrip()
             for row in [header, ["-" * width for width in widths], *rows]]
    return "\n".join(lines)


def results_table(spec: DatasetSpec, result: Dict[str, Any]) -> str:
    """A run's mAP beside the paper's. The last epoch is the headline; the best one was chosen on the test images.

    Args:
        spec: the dataset.
        result: the run's result.json.
    """
    rows = [(method, f"{value:.1f}", "as the authors report it") for method, value in spec.paper_map.items()]
    rows.append(("CLIP zero-shot (ours)", f"{result['zero_shot_mAP']:.2f}", "same weights and images"))
    rows.append(("BAC-GCN (ours, last)", f"{result['last_mAP']:.2f}", f"epoch {result['epochs']}"))
    rows.append(("BAC-GCN (ours, best)", f"{result['best_mAP']:.2f}",
                 f"epoch {result['best_epoch']}, chosen on the test images"))
    if result["zoom_mAP"] is not None:
        rows.append(("BAC-GCN (ours, last) + zoom", f"{result['zoom_mAP']:.2f}", "extension, not in the paper"))
    return f"{spec.title}, CLIP weights {result['weights']}\n" + format_table(("method", "mAP", ""), rows, left=(0, 2))
