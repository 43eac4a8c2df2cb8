"""The steps of the methods: what is evaluated, trained, studied and drawn, each by the script that does it alone."""
from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from datasets.files import DataError
from engine.command_line.method_flags import RECIPES
from engine.command_line.train_flags import default_flags, train_script
from engine.evaluation.threshold import NUM_IMAGES
from engine.features.feature_store import store_arrays
from engine.features.frozen_clip import ENCODER_FLAGS
from engine.methods.cdul_training import SNIPPETS
from engine.paper.inputs import SPLITS, split_sizes
from engine.paper.request import QUICK_EPOCHS, PaperRequest
from engine.paper.steps import NO_WORK, Step, Store, Task, Work
from engine.results.finished_runs import read_run
from engine.results.paper_tables import TABLE_OF_STUDY
from engine.results.studies import REFERENCE, Variant, variants

FULL = f"bac_gcn/{REFERENCE}"
"""Folder of the paper's method below the runs: where ablate.py looks for the runs that variants are compared with."""

DRAWN = ("masks", "maps", "graph", "per_class")
"""Figures that are drawn from the first seed's checkpoint."""

_ZERO_SHOT = {
    "softmax": ("softmax, one prompt", []),
    "ensemble": ("softmax, prompt ensemble", ["--prompts", "ensemble"]),
    "raw": ("raw cosine, one prompt", ["--raw_cosine"]),
    "raw_ensemble": ("raw cosine, prompt ensemble", ["--raw_cosine", "--prompts", "ensemble"]),
    "standardised": ("standardised cosine, prompt ensemble", ["--standardise", "--prompts", "ensemble"]),
}
"""Folder to title and flags of each way to rank by CLIP alone."""

_TEXTS_AN_IMAGE = 6
_SAMPLE = "sample"
"""The training images that the threshold of tags is found on, encoded by themselves."""
_TESTED = ("val", _SAMPLE)
"""What an evaluation without training looks at."""


class Sizes:
    """What the steps' costs depend on; the defaults are ViT-B/16's.

    Args:
        request: what is reproduced.
        embed_dim: D, width of CLIP's joint space.
        patch_size: of its image encoder, in pixels.
        resolution: of its input.
    """

    def __init__(self, request: PaperRequest, embed_dim: int = 512, patch_size: int = 16,
                 resolution: int = 224) -> None:
        self.request, self.images = request, split_sizes(request)
        self.images[_SAMPLE] = min(self.images["train"], NUM_IMAGES)
        self.embed_dim, self.patch_size, self.resolution = embed_dim, patch_size, resolution

    def features(self, changed: Optional[Mapping[str, object]] = None,
                 splits: Sequence[str] = SPLITS) -> Tuple[Store, ...]:
        """The feature stores of some splits, where some of a run's flags are changed, and those of its tiles."""
        flags: Dict[str, Any] = {}
        changed = changed or {}
        for flag in (*ENCODER_FLAGS, "tiles", "small_tiles"):
            flags[flag] = changed.get(flag, getattr(self.request.train_args, flag))
        tiles = {"": flags.pop("tiles") ** 2, "small ": flags.pop("small_tiles") ** 2}
        side = flags["resolution"] or self.resolution
        patches, dtype = (side // self.patch_size) ** 2, self.request.train_args.patch_dtype
        pass_cost = (side / self.resolution) ** 2
        encoder = sorted(flags.items(), key=str)
        stores = [
            Store(f"{split} {encoder}", count,
                  sum(array.nbytes for array in store_arrays(count, patches, self.embed_dim, dtype).values()),
                  (3 if flags["mask_mode"] == "pixel" else 2) * pass_cost)
            for split, count in ((split, self.images[split]) for split in splits)]
        stores += [Store(f"{split} {count} {size}tiles {encoder}", self.images[split],
                         self.images[split] * count * self.embed_dim * 2, count * pass_cost)
                   for split in splits for size, count in tiles.items() if count]
        return tuple(stores)

    def views(self, splits: Sequence[str]) -> Tuple[Store, ...]:
        """CDUL's embeddings of images and their snippets, of some splits."""
        views = SNIPPETS ** 2 + 1
        return tuple(Store(f"{split} views", count, count * views * self.embed_dim * 2, views)
                     for split, count in ((split, self.images[split]) for split in splits))


def method_steps(request: PaperRequest, sizes: Optional[Sizes] = None) -> List[Step]:
    """All methods, the training-free ones first, then the studies and the figures.

    Args:
        request: what is reproduced.
        sizes: what their costs depend on, where a plan wants to know them.

    Raises:
        DataError: `--skip` names none of them.
    """
    sizes = sizes or Sizes(request)
    tested = sizes.features(splits=_TESTED)
    steps = [
        Step("zero_shot", "CLIP zero-shot", [
            _evaluation(request, f"clip/{name}", title, "clip", flags, tested)
            for name, (title, flags) in _ZERO_SHOT.items()]),
        Step("tagclip", "TagCLIP", [_evaluation(request, "tagclip", "TagCLIP", "tagclip", (), (),
                                                Work(tagclip=sizes.images["val"] + sizes.images[_SAMPLE]))]),
        Step("sparc", "SPARC", [_evaluation(request, "sparc", "SPARC", "sparc", (), tested)]),
        Step("cdul_initial", "CDUL's initialisation", [
            _evaluation(request, "cdul_initial", "initialisation", "cdul", (), sizes.views(_TESTED))]),
        Step("cdul_port", "CDUL, a head on the frozen CLIP", _trainings(
            request, "cdul_clip", ["--method", "cdul", "--backbone", "clip", *request.quick()], "cdul",
            sizes.views((*SPLITS, _SAMPLE)))),
        *([] if request.spec.name == "mini" else [_cdul_as_published(request, sizes)]),
        Step("tai_dpt", "TaI-DPT, port to ViT", _trainings(
            request, "tai_dpt", ["--method", "tai_dpt", *request.quick()], "tai_dpt", tested,
            Work(texts=_TEXTS_AN_IMAGE * sizes.images["train"]))),
        Step("bac_gcn", "BAC-GCN", _trainings(
            request, FULL, request.quick("--reso_epoch", str(QUICK_EPOCHS)), "bac_gcn", sizes.features(),
            _training_work(request, sizes))),
        Step("bac_gcn_plus", "BAC-GCN+, ours", _trainings(
            request, "bac_gcn_plus", ["--recipe", "plus", *request.quick()], "bac_gcn",
            sizes.features(RECIPES["plus"].flags), _training_work(request, sizes))),
    ]
    steps += [Step(study, f"Study: {study}", [_study(request, study, sizes)]) for study in request.args.studies]
    steps.append(Step("figures", "Figures", [_figure(request, figure) for figure in DRAWN]))
    names = [step.name for step in steps]
    unknown = [name for name in request.args.skip if name not in (*names, "cdul")]
    if unknown:
        raise DataError(f"--skip {unknown[0]}: no such step; there are {', '.join(names)}")
    return [step for step in steps if step.name not in request.args.skip]


def _cdul_as_published(request: PaperRequest, sizes: Sizes) -> Step:
    """CDUL's ResNet-101. Its weights are a download, and the embedded world needs none, so it has no such step."""
    epochs = QUICK_EPOCHS if request.args.quick else default_flags(request.args.dataset, "cdul", "resnet101")["epochs"]
    return Step("cdul", "CDUL, ImageNet ResNet-101", _trainings(
        request, "cdul", ["--method", "cdul", *request.quick()], "cdul", sizes.views(SPLITS),
        Work(resnet=epochs * sizes.images["train"])))


def _training_work(request: PaperRequest, sizes: Sizes, runs: int = 1) -> Work:
    epochs = QUICK_EPOCHS if request.args.quick else request.train_args.epochs
    return Work(train=runs * epochs * sizes.images["train"])


def _evaluation(request: PaperRequest, name: str, title: str, method: str, flags: Sequence[str],
                stores: Tuple[Store, ...], work: Work = NO_WORK) -> Task:
    folder = request.runs / name
    command = ("eval.py", "--method", method, *request.flags(method), *flags, "--output_dir", str(folder))
    return Task(title, command, (folder / "result.json").exists, distributed=True, stores=stores, work=work)


def _trainings(request: PaperRequest, name: str, flags: Sequence[str], method: str, stores: Tuple[Store, ...],
               work: Work = NO_WORK) -> List[Task]:
    """A run of each seed, in NAME/seed_N."""
    script = paper_script(request.spec.name)
    tasks = []
    for seed in request.seeds:
        folder = request.runs / name / f"seed_{seed}"
        command = (script, *request.flags(method), *flags, "--seed", str(seed), "--output_dir", str(folder))
        tasks.append(Task(f"seed {seed}", command, partial(is_finished, folder), distributed=True, stores=stores,
                          work=work))
    return tasks


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a run of all its epochs."""
    return read_run(folder) is not None


def paper_script(dataset: str) -> str:
    """The train script of a dataset. The embedded world's own also trains a control, which the study has."""
    return "train_custom.py" if dataset == "mini" else train_script(dataset)


def _study(request: PaperRequest, study: str, sizes: Sizes) -> Task:
    folder = request.runs / Path(FULL).parent
    command = ("ablate.py", "--study", study, "--seeds", str(len(request.seeds)), "--output_dir", str(folder),
               *request.flags("bac_gcn"), *request.quick("--reso_epoch", str(QUICK_EPOCHS)))
    stores = [store for variant in variants(study) for store in sizes.features(variant.flags)]
    runs = len(variants(study)) * len(request.seeds)
    return Task(f"{len(variants(study))} variants at most", command, lambda: _study_is_done(request, study, folder),
                distributed=True, stores=tuple(stores), work=_training_work(request, sizes, runs))


def _study_is_done(request: PaperRequest, study: str, folder: Path) -> bool:
    """Whether its table is there, which comes last, and every variant that is there has a run of each seed."""
    if not (folder / f"{TABLE_OF_STUDY[study]}.md").exists():
        return False
    return all(is_finished(folder / variant.name / f"seed_{seed}")
               for variant in _made(study, folder) for seed in request.seeds)


def _made(study: str, folder: Path) -> List[Variant]:
    """The variants of a study that have a folder: the others do nothing with the flags of all runs."""
    return [variant for variant in variants(study) if (folder / variant.name).is_dir()]


def _figure(request: PaperRequest, figure: str) -> Task:
    checkpoint, folder = request.runs / FULL / "seed_0" / "checkpoint.pth", request.folder / "figures"
    command = ("eval.py", "--figure", figure, "--checkpoint", str(checkpoint), "--output_dir", str(folder))
    return Task(figure, command, (folder / f"{figure}.png").exists)
