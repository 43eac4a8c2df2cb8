"""SPARC on a test split, by the statistics of its unlabelled images; these are kept, and score single photos."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import CLIP
from datasets.captions.pseudo_labels import load_counts
from datasets.files import DataError, PathLike, atomic_write, counted, read_lines, shorten
from datasets.registry import DatasetSpec
from engine.evaluation.evaluation_set import EvaluationSet
from engine.features.extraction import extract_features
from engine.features.text_embeddings import encode_words
from engine.process.distributed import is_main
from engine.training.training_labels import label_folder
from models.baselines.sparc import (
    Compound,
    Cosines,
    Statistics,
    estimate,
    graph_compounds,
    sparc_scores,
)
from models.encoder import weights_digest
from models.graph import caption_graph

PAIRS, TRIPLES = 10, 10
"""Most compound prompts a class of two and of three classes, from the caption graph (our choice)."""

STATISTICS_FILE = "sparc_statistics.npz"


class Sparc:
    """SPARC's prompts for a frozen CLIP.

    Args:
        clip_model: the frozen CLIP.
        spec: the dataset, with C classes and the words that stand for them in a prompt.
        compounds: the classes that each compound prompt names.
        prompts: of the single prompts' ensemble; compounds and the scale of an image take the single template.
    """

    def __init__(self, clip_model: CLIP, spec: DatasetSpec, compounds: Sequence[Compound], prompts: str) -> None:
        self.classes = list(spec.classes)
        self.words = spec.prompt_names(spec.classes)
        self.compounds = list(compounds)
        self.prompts = prompts
        self.weights = weights_digest(clip_model)
        named = [join_names([self.words[index] for index in compound]) for compound in compounds]
        self._texts = [encode_words(clip_model, self.words, prompts), encode_words(clip_model, self.words),
                       encode_words(clip_model, named) if named else torch.zeros(0, clip_model.embed_dim)]

    def cosines(self, global_embeddings: Tensor) -> Cosines:
        """Cosines of images to all prompts, from their (n, D) global embeddings."""
        images = F.normalize(global_embeddings.float().cpu(), dim=-1)
        return Cosines(*((images @ text.cpu().T).double().numpy() for text in self._texts))

    def scores(self, global_embeddings: Tensor, statistics: Statistics) -> Tensor:
        """(n, C) scores of images, from their (n, D) global embeddings."""
        return torch.from_numpy(sparc_scores(self.cosines(global_embeddings), self.compounds, statistics))

    def save(self, path: PathLike, statistics: Statistics) -> None:
        """Keep statistics, and what they belong to."""
        with atomic_write(path, "wb") as file:
            np.savez(file, **statistics._asdict(), classes=self.classes, words=self.words, prompts=self.prompts,
                     weights=self.weights, compounds=[" ".join(map(str, compound)) for compound in self.compounds])


def load_sparc(path: PathLike, clip_model: CLIP, spec: DatasetSpec) -> Tuple[Sparc, Statistics]:
    """The prompts and the statistics that `Sparc.save` kept.

    Raises:
        DataError: the file is missing or damaged, or of other classes, other words for them or other CLIP weights.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: np.asarray(kept[name]) for name in kept.files}
        statistics = Statistics(*(arrays[name].astype(np.float64) for name in Statistics._fields))
        compounds = [tuple(map(int, text.split())) for text in arrays["compounds"].tolist()]
        found, prompts, weights = arrays["classes"].tolist(), str(arrays["prompts"]), str(arrays["weights"])
        _check_shapes(statistics, compounds, len(found))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `eval.py --method sparc` on a test split leaves it") from None
    except Exception as error:  # a damaged archive fails in many ways
        raise DataError(f"{path}: not the statistics of SPARC ({type(error).__name__}); make them again with "
                        "`eval.py --method sparc`") from None
    sparc = Sparc(clip_model, spec, compounds, prompts) if found == list(spec.classes) else None
    if sparc is None or arrays.get("words", np.array(sparc.words)).tolist() != sparc.words:
        raise DataError(f"{path}: statistics of {counted(len(found), 'class')} with other names or prompt_words; "
                        "choose their --dataset, or make them again")
    if weights != sparc.weights:
        raise DataError(f"{path}: statistics of other CLIP weights than --model_path; make them again")
    return sparc, statistics


def _check_shapes(statistics: Statistics, compounds: Sequence[Compound], num_classes: int) -> None:
    named = [sum(category in compound for compound in compounds) for category in range(num_classes)]
    expected = ((num_classes,), (num_classes,), (len(compounds),), (len(compounds),),
                (num_classes, max(named, default=0) + 1))
    if tuple(array.shape for array in statistics) != expected or not all(map(np.all, map(np.isfinite, statistics))) \
            or not all(0 <= index < num_classes for compound in compounds for index in compound):
        raise ValueError("the arrays do not fit each other")


def sparc_test_scores(test: EvaluationSet) -> Tensor:
    """Scores of the test images, (n, C), by their own statistics, which are kept, or by those of `--statistics`."""
    args = test.args
    embeddings = extract_features(test.encoder, test.images, "test", args).plain_globals()
    if args.statistics:
        sparc, statistics = load_sparc(args.statistics, test.clip_model, test.spec)
        return sparc.scores(embeddings, statistics)
    sparc = Sparc(test.clip_model, test.spec, find_compounds(args, test.spec), args.prompts)
    statistics = estimate(sparc.cosines(embeddings), sparc.compounds)
    if is_main():
        sparc.save(Path(args.output_dir) / STATISTICS_FILE, statistics)
    return sparc.scores(embeddings, statistics)


def find_compounds(args: argparse.Namespace, spec: DatasetSpec) -> List[Compound]:
    """The compounds of `--compounds`, or those of the caption graph under `--caption_root`.

    Raises:
        DataError: the file is missing or names what is no class; or there are no captions.
    """
    if args.compounds:
        return read_compounds(args.compounds, spec.classes)
    counts, together = load_counts(label_folder(args, spec), spec.categories)
    graph = caption_graph(counts, together)[:len(spec.classes), :len(spec.classes)]
    return graph_compounds(graph.numpy(), PAIRS, TRIPLES)


def read_compounds(path: PathLike, classes: Sequence[str]) -> List[Compound]:
    """Compounds of a file with the names of two or more classes a line, separated by commas.

    Raises:
        DataError: the file is missing, or a line is not of this kind.
    """
    index = {name: position for position, name in enumerate(classes)}
    found: List[Compound] = []
    form = "It takes a line a compound, as in `cat, sofa`."
    for number, line in read_lines(path, form):
        names = [name.strip() for name in line.split(",")]
        unknown = [name for name in names if name not in index]
        if unknown:
            raise DataError(f"{path}:{number}: {shorten(unknown[0])} is no class of this dataset")
        compound = tuple(sorted({index[name] for name in names}))
        if len(compound) < 2:
            raise DataError(f"{path}:{number}: names one class; a compound names two or more, separated by commas")
        found.append(compound)
    if not found:
        raise DataError(f"{path}: names no compound. {form}")
    return sorted(set(found))


def join_names(names: Sequence[str]) -> str:
    """"cat and sofa", "cat, dog and sofa"."""
    return f"{', '.join(names[:-1])} and {names[-1]}"
