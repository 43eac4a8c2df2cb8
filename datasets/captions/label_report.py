"""`--stage report`: how good the labels are, which words the lexicon lacks, and what the graph looks like."""
from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

from datasets.captions.io import load_dataset_captions
from datasets.captions.labels import CoOccurrence, count_co_occurrence, merge_prompts, read_captions, unnamed_classes
from datasets.captions.prompts import QUESTION_STEMS
from datasets.captions.scores import score_images
from datasets.files import DataError, PathLike, counted
from datasets.filter.grammar import FUNCTION_WORDS, PUNCTUATION, tokenise
from datasets.filter.lexicon import load_lexicon
from datasets.filter.matcher import CategoryMatcher
from datasets.plotting import graph_figure, save_figure
from datasets.progress import bar
from datasets.registry import DatasetSpec
from datasets.split_file import read_split_file

GRAPH_FIGURE = "adjacency"
"""Stem of the picture's files, beside the label files."""

MIN_EDGE_LISTS = 10
"""Lists that must name a category before the probabilities given it count as edges."""


class Edge(NamedTuple):
    """P(category given other), over the (image, prompt) lists that name `other`."""

    category: int
    other: int
    probability: float
    lists: int


class Quality(NamedTuple):
    """Labels or scores against true labels. Percent; AP is NaN for a class without a positive image."""

    average_precision: np.ndarray
    threshold: float
    """The one threshold of all classes that gives the best F1."""
    precision: float
    recall: float
    f1: float

    @property
    def mean_ap(self) -> float:
        """Mean over the classes with a positive image."""
        return float(np.nanmean(self.average_precision))


def report(spec: DatasetSpec, caption_root: PathLike, output_root: PathLike, truth: Sequence[PathLike], top: int,
           synonym_root: PathLike) -> None:
    """Filter the captions in memory, print the report, and draw the adjacency into `<output_root>/<dataset>/`.

    Args:
        spec: the dataset.
        caption_root: holds its caption files.
        output_root: gets the picture.
        truth: split files with true labels; without any, there is no word on quality.
        top: how many words and edges to list.
        synonym_root: the folder of the synonym files.

    Raises:
        DataError: a file is missing or malformed, or the split files name none of the images.
    """
    matcher = CategoryMatcher(load_lexicon(spec, synonym_root), find_unclaimed=True)
    captions = load_dataset_captions(caption_root, spec)
    print(f"{spec.title}: {counted(len(captions), 'image')}, {counted(sum(map(len, captions.values())), 'caption')}")
    read = read_captions(captions, matcher, words=bool(truth))
    del captions  # the texts are the largest thing in memory, and all is read
    labels = merge_prompts(read)
    co_occurrence = count_co_occurrence(labels, len(spec.categories))
    if truth:
        print()
        targets, rows = _read_truth(truth, list(labels), len(spec.classes))
        scored = score_images(read, len(spec.categories))[rows]  # first: it takes the most memory
        scores = measure(scored, targets, "measuring scores")
        votes = np.zeros((len(labels), len(spec.categories)))
        for row, lists in enumerate(labels.values()):
            for named in lists:
                votes[row, named] += 1 / len(lists)
        _print_quality(spec, targets, measure(votes[rows], targets, "measuring votes"), scores)
    words = content_words(read.unclaimed)
    print("\nwords without a category that come with a class; list under its synonyms those that mean it")
    for index, name in enumerate(spec.classes):
        print(f"  {name}: {', '.join(telling_words(read.companions.get(index, Counter()), words)) or '-'}")
    print(unnamed_classes(spec.classes, co_occurrence.counts), end="")
    print(f"\nmost frequent words that no category claims (captions)\n  {_columns(words.most_common(top))}")
    print("\nstrongest edges: P(i given j), and the lists that name j")
    edges = strongest_edges(co_occurrence, top)
    if not edges:
        print(f"  none: no category is named {MIN_EDGE_LISTS} times beside another")
    for edge in edges:
        print(f"  {edge.probability:.2f}  {spec.categories[edge.category]} given {spec.categories[edge.other]} "
              f"({edge.lists:,})")
    paths = save_figure(graph_figure(adjacency(co_occurrence), spec.categories, len(spec.classes)),
                        Path(output_root) / spec.name / GRAPH_FIGURE)
    print(f"\nadjacency drawn: {', '.join(map(str, paths))}")


def measure(scores: np.ndarray, targets: np.ndarray, what: str = "measuring") -> Quality:
    """Measure scores (images, >= C) against true labels (images, C), by all-point AP.

    Args:
        scores: of all categories.
        targets: of the classes.
        what: for the progress bar.
    """
    scores = scores[:, :targets.shape[1]]
    positive = targets.any(axis=0)
    ap = np.array([100 * average_precision_score(targets[:, index], scores[:, index]) if positive[index] else np.nan
                   for index in bar(what, "class", targets.shape[1], over=range(targets.shape[1]))])
    precision, recall, thresholds = precision_recall_curve(targets.ravel(), scores.ravel())
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
    best = int(np.argmax(f1[:-1]))
    return Quality(ap, float(thresholds[best]), *(100 * float(curve[best]) for curve in (precision, recall, f1)))


def adjacency(co_occurrence: CoOccurrence) -> np.ndarray:
    """(O, O), [i, j] = P(i given j), unit diagonal (paper Fig. 2)."""
    matrix = np.array(co_occurrence.together, dtype=float) / np.maximum(co_occurrence.counts, 1)
    np.fill_diagonal(matrix, 1)
    return matrix


def strongest_edges(co_occurrence: CoOccurrence, top: int) -> List[Edge]:
    """The largest P(i given j) between different categories, j named often enough."""
    matrix = adjacency(co_occurrence)
    categories = range(len(matrix))
    edges = [Edge(i, j, float(matrix[i, j]), co_occurrence.counts[j]) for i in categories for j in categories
             if i != j and co_occurrence.counts[j] >= MIN_EDGE_LISTS and matrix[i, j] > 0]
    return sorted(edges, key=lambda edge: (-edge.probability, -edge.lists))[:top]


def telling_words(companions: Counter[str], words: Counter[str], top: int = 5) -> List[str]:
    """The words that come with a class rather than without it, rare ones behind.

    Args:
        companions: how many captions that name the class hold each word.
        words: how many captions hold each word, of those that may be listed.
        top: how many to give.
    """
    share = {word: count / (words[word] + MIN_EDGE_LISTS) for word, count in companions.items() if word in words}
    return sorted(share, key=lambda word: (-share[word], word))[:top]


def content_words(words: Counter[str]) -> Counter[str]:
    """Without function words, the words of the six questions, numbers and single letters."""
    ignored = FUNCTION_WORDS | PUNCTUATION | {word for stem in QUESTION_STEMS for word in tokenise(stem)}
    ignored |= {"question", "answer", "excluding"}
    return Counter({word: count for word, count in words.items()
                    if word not in ignored and len(word) > 1 and not word.isdigit()})


def _read_truth(paths: Sequence[PathLike], image_ids: Sequence[str], num_classes: int) -> Tuple[np.ndarray, List[int]]:
    """True labels (n, C) of the captioned images that the split files name, and the rows of these images."""
    position = {image_id: row for row, image_id in enumerate(image_ids)}
    targets, rows = [], []
    for path in paths:
        split = read_split_file(path, num_classes)
        for image_id, labels in zip(split.image_ids, split.labels):
            if image_id in position:
                rows.append(position[image_id])
                targets.append(np.isin(np.arange(num_classes), labels))
    if not rows:
        raise DataError(f"{paths[0]}: names none of the {len(image_ids):,} captioned images, the first of which is "
                        f"{image_ids[0]!r}; give the split file of the captioned split")
    return np.array(targets), rows


def _print_quality(spec: DatasetSpec, targets: np.ndarray, votes: Quality, scores: Quality) -> None:
    print(f"label quality on {counted(len(targets), 'image')} (AP in percent)")
    width = max(map(len, spec.classes))
    print(f"  {'class':{width}}  images   votes  scores")
    for name, positives, vote_ap, score_ap in zip(spec.classes, targets.sum(axis=0), votes.average_precision,
                                                  scores.average_precision):
        print(f"  {name:{width}}  {positives:6d}  {_percent(vote_ap)}  {_percent(score_ap)}")
    print(f"  {'mean':{width}}  {'':6}  {_percent(votes.mean_ap)}  {_percent(scores.mean_ap)}")
    for name, quality in (("votes", votes), ("scores", scores)):
        print(f"  {name} at the best threshold, {quality.threshold:.2f}: precision {quality.precision:.1f}, "
              f"recall {quality.recall:.1f}, F1 {quality.f1:.1f}")


def _percent(value: float) -> str:
    return "    - " if np.isnan(value) else f"{value:6.1f}"


def _columns(words: Sequence[Tuple[str, int]], columns: int = 5) -> str:
    cells = [f"{word} {count}" for word, count in words]
    return "\n  ".join("".join(f"{cell:24}" for cell in cells[start:start + columns]).rstrip()
                       for start in range(0, len(cells), columns))
