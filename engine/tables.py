"""Result tables on the screen."""
from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from datasets.registry import DatasetSpec


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths))).rstrip()
             for row in [header, ["-" * width for width in widths], *rows]]
    return "\n".join(lines)


def results_table(spec: DatasetSpec, weights: str, history: List[Dict[str, float]],
                  zero_shot: Optional[float] = None) -> str:
    """A run's mAP beside the paper's. The last epoch is the headline; the best one was chosen on the test images."""
    rows: List[Tuple[str, str, str]] = [(method, f"{value:.1f}", "as reported by the authors")
                                        for method, value in spec.paper_map.items()]
    if zero_shot is not None:
        rows.append(("CLIP zero-shot (ours)", f"{zero_shot:.2f}", "same weights and images"))
    last, best = history[-1], max(history, key=lambda record: record["mAP"])
    rows.append(("BAC-GCN (ours, last)", f"{last['mAP']:.2f}", f"epoch {last['epoch']}"))
    rows.append(("BAC-GCN (ours, best)", f"{best['mAP']:.2f}", f"epoch {best['epoch']}, chosen on the test images"))
    return f"{spec.title}, CLIP weights {weights}\n" + format_table(("method", "mAP", ""), rows)
