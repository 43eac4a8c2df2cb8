"""Tables: aligned text for the screen, and Markdown, LaTeX and CSV for papers."""
from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from datasets.registry import DatasetSpec
from engine.command_line.method_flags import untrained_title
from engine.results.published_results import published_maps

NOTHING = "-"
"""A cell for which nothing was reported or measured."""


class Statistic(NamedTuple):
    """A number over the seeds of an experiment."""

    mean: float
    std: Optional[float]
    """Sample standard deviation; None for one seed."""
    count: int  # type: ignore[assignment]  # it hides tuple.count

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic:
        """Of one value a seed."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


class Number(NamedTuple):
    """A cell with a measured number."""

    statistic: Statistic
    digits: int = 2
    signed: bool = False

    def __str__(self) -> str:
        mean, std, _ = self.statistic
        text = f"{mean:+.{self.digits}f}" if self.signed else f"{mean:.{self.digits}f}"
        return f"{text} ± {std:.{self.digits}f}" if std else text  # what no seed moves has no deviation to tell


Cell = Union[str, Number]


class Table(NamedTuple):
    """A table that can be written in three formats."""

    title: str
    header: Tuple[str, ...]
    rows: List[Tuple[Cell, ...]]
    notes: Tuple[str, ...] = ()
    """Sentences below it."""

    def to_markdown(self) -> str:
        """Markdown as GitHub reads it; the columns are aligned for readers of the plain text."""
        cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [self.header, *self.rows]]
        right = self._right_aligned()
        widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(right))]
        rule = ["-" * (width - 1) + (":" if is_right else "-") for width, is_right in zip(widths, right)]
        lines = ["| " + " | ".join(text.rjust(width) if is_right else text.ljust(width)
                                   for text, width, is_right in zip(row, widths, right)) + " |"
                 for row in [cells[0], rule, *cells[1:]]]
        return "\n".join([f"**{self.title}**", "", *lines, *(f"\n{note}" for note in self.notes)]) + "\n"

    def to_latex(self) -> str:
        """A `table` for the package booktabs."""
        alignment = "".join("r" if is_right else "l" for is_right in self._right_aligned())
        lines = ["    " + " & ".join(map(_latex, row)) + r" \\" for row in [self.header, *self.rows]]
        caption = " ".join(map(_latex, (f"{self.title}.", *self.notes)))
        return "\n".join([r"\begin{table}[t]", r"  \centering", rf"  \caption{{{caption}}}",
                          rf"  \begin{{tabular}}{{{alignment}}}", r"    \toprule", lines[0], r"    \midrule",
                          *lines[1:], r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]) + "\n"

    def to_csv(self) -> List[List[str]]:
        """Rows for a machine: a measured column becomes mean, standard deviation and number of seeds."""
        measured = [any(isinstance(row[column], Number) for row in self.rows) for column in range(len(self.header))]
        lines = [[name for column, is_measured in zip(self.header, measured) for name in
                  ([column, f"{column}: standard deviation", f"{column}: seeds"] if is_measured else [column])]]
        for row in self.rows:
            line: List[str] = []
            for cell, is_measured in zip(row, measured):
                if isinstance(cell, Number):
                    mean, std, count = cell.statistic
                    line += [f"{mean:.4f}", "" if std is None else f"{std:.4f}", str(count)]
                else:
                    line += ["" if cell == NOTHING else cell] + ["", ""] * is_measured
            lines.append(line)
        return lines

    def _right_aligned(self) -> List[bool]:
        """Columns of numbers."""
        return [all(isinstance(cell, Number) or cell == NOTHING or cell.replace(".", "", 1).isdigit()
                    for cell in column) for column in zip(*self.rows)]


_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$",
          "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"$|$",
          "<": "$<$", ">": "$>$"}


def _latex(cell: Cell) -> str:
    """Escaped for LaTeX; two hyphens stay two, as in a flag, and a number's hyphen is a minus."""
    if isinstance(cell, Number):
        return f"${cell}$".replace("±", r"\pm")
    return "".join(_LATEX.get(letter, letter) for letter in cell).replace("--", "-{}-")


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Align the columns: those of `left` to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) if column in left else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths))).rstrip()
             for row in [header, ["-" * width for width in widths], *rows]]
    return "\n".join(lines)


def weights_label(result: Dict[str, Any]) -> str:
    """The file name of the CLIP weights in a result.json, and their activation where it is not OpenAI's."""
    activation = result.get("activation") or "quick_gelu"  # the only one before it was recorded
    return result["weights"] + ("" if activation == "quick_gelu" else f", {activation}")


NO_MAP = "no mAP, as the test images have no labels"
"""What stands in place of numbers without test labels."""


def results_table(spec: DatasetSpec, result: Dict[str, Any]) -> str:
    """A run's mAP beside the paper's, where it stands on CLIP as they do. The last epoch is the headline; the best one
    was chosen on the test images, or with `--val_share` without a true label.

    Args:
        spec: the dataset.
        result: the run's result.json.
    """
    on_clip = result["zero_shot_title"] == untrained_title("clip")
    heading = f"{spec.title}, {'CLIP ' * on_clip}weights {weights_label(result)}"
    if result["last_mAP"] is None:
        return f"{heading}: {NO_MAP}"
    rows = [(method, f"{value:.1f}", "as the authors report it") for method, value in published_maps(spec.name).items()
            if on_clip]
    rows.append((f"{result['zero_shot_title']} (ours)", f"{result['zero_shot_mAP']:.2f}", "same weights and images"))
    title = result["title"]
    rows.append((f"{title} (ours, last)", f"{result['last_mAP']:.2f}", f"epoch {result['epochs']}"))
    held_out = result["pseudo_mAP"] is not None
    rows.append((f"{title} (ours, best)", f"{result['best_mAP']:.2f}", f"epoch {result['best_epoch']}, "
                 f"{'by the pseudo-labels of held-out training images' if held_out else 'chosen on the test images'}"))
    if held_out:
        rows += [(f"{title} (ours, last), {name}", f"{result[name]:.2f}", "held-out training images")
                 for name in ("pseudo_mAP", "pseudo_AP") if result.get(name) is not None]
    if result["zoom_mAP"] is not None:
        rows.append((f"{title} (ours, last) + zoom", f"{result['zoom_mAP']:.2f}", "extension, not in the paper"))
    return f"{heading}\n{format_table(('method', 'mAP', ''), rows, left=(0, 2))}"
