"""Runs a study: the method and its variants from several seeds, what is missing of them, and the table.

    python ablate.py --dataset mini --study components --seeds 3 --output_dir runs/ablation
    python ablate.py --dataset mini --study hyper --seeds 3 --output_dir runs/ablation --epochs 8
    python ablate.py --dataset mini --study choices --only sage cosine
    python ablate.py --dataset mini --study components --dry_run
    python ablate.py --dataset mini --select --grid k=2,4,8 lr=3e-4,1e-3
    python ablate.py --dataset mini --select --study choices --seeds 3

Flags that are not its own go to every run. The same command again skips the runs that are finished and goes on with
the one that was stopped; a study may grow by seeds or by the other study later.

With --select the variants of the study or of the grid are ranked without a true label, by the mean of pseudo_mAP and
pseudo_AP on training images that are held out (--val_share, 0.1 if not given), the better half trained on each time.
The flags of the first one are left in chosen.json, for --config of the train script.
"""
from __future__ import annotations

import argparse
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Callable, List, Optional, Sequence

from datasets.files import DataError, counted
from datasets.flag_parser import FlagParser
from datasets.progress import say
from datasets.registry import get_dataset
from engine.command_line.flag_types import DATASET_HELP, count, dataset_name
from engine.command_line.train_flags import get_args_parser, parse_args, train_script
from engine.command_line.unread_flags import drop_unread_tiles, why_unread
from engine.process.entry_point import run_main
from engine.results.finished_runs import changed_flags, format_flags, read_run, settings_of
from engine.results.paper_tables import TABLE_OF_STUDY, write_table
from engine.results.selection import (
    budgets,
    common_criterion,
    halve,
    measured,
    read_grid,
    selection_score,
    selection_table,
    write_chosen,
)
from engine.results.studies import REFERENCE, STUDIES, Variant, variants
from engine.training.run import Run
from engine.training.same_run import DATA_FLAGS

VAL_SHARE = 0.1
"""Of the training images, held out by `--select` where `--val_share` is not given."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study."""

    title: str
    args: argparse.Namespace

    @property
    def folder(self) -> Path:
        """Its output folder."""
        return Path(self.args.output_dir)

    def is_done(self) -> bool:
        """Whether the folder holds this run, finished. Of data that have moved or changed the train script is to judge.

        Raises:
            DataError: it holds a finished run with other settings, or of another dataset.
        """
        run = read_run(self.folder)
        if run is None:
            return False
        wanted = settings_of(vars(self.args))
        changed, others = changed_flags(wanted, run.settings), changed_flags(run.settings, wanted)
        if self.args.activation not in (None, run.result.get("activation") or "quick_gelu"):
            changed["activation"] = self.args.activation
        if changed or others:
            made = (f"without {format_flags(changed_flags(changed, run.args) or changed)}" if changed
                    else f"with {format_flags(others)}")
            raise DataError(f"{self.folder}: made {made}; choose another --output_dir, or delete the folder")
        if run.args["dataset"] != self.args.dataset:
            raise DataError(f"{self.folder}: made with --dataset {run.args['dataset']}; choose another --output_dir, "
                            "or delete the folder")
        finished = (self.folder / "result.json").stat().st_mtime
        splits = (Path(self.args.train_split_file), Path(self.args.val_split_file))
        return (all(run.args[flag] == vars(self.args)[flag] for flag in DATA_FLAGS)
                and all(not split.exists() or split.stat().st_mtime <= finished for split in splits))


def plan_study(dataset: str, study: str, seeds: int, output_dir: Path, flags: Sequence[str],
               only: Optional[Sequence[str]] = None) -> List[PlannedRun]:
    """All runs of a study, the reference first, seed by seed, so that a stopped study compares whole seeds.

    A variant that the flags leave without effect is left out, and said to be.

    Args:
        dataset: whose train script runs.
        study: one of `STUDIES`.
        seeds: how many of every variant, from `--seed` on.
        output_dir: gets VARIANT/seed_N.
        flags: further flags of the train script, for every run.
        only: names of variants, where the others are left out.
    """
    base = base_flags(dataset, flags)
    return [PlannedRun(variant.title, with_flags(base, variant, seed, output_dir / variant.name / f"seed_{seed}"))
            for seed in range(base.seed, base.seed + seeds) for variant in with_reference(study, base, only)]


def base_flags(dataset: str, flags: Sequence[str]) -> argparse.Namespace:
    """The flags of every run of a study."""
    parser = get_args_parser(dataset, None)
    parser.prog = train_script(dataset)
    base = parse_args(parser, ["--dataset", dataset, *flags])
    if base.method != "bac_gcn":
        raise DataError(f"--method {base.method}: the studies are of bac_gcn; train a baseline by {parser.prog}")
    return base


def with_reference(study: str, base: argparse.Namespace, only: Optional[Sequence[str]] = None) -> List[Variant]:
    """The method as the flags have it, then the variants that are none of it, or `only` those of these names.

    A variant that the flags leave without effect is left out, and said to be.

    Raises:
        DataError: the study has no variant of a name.
    """
    names = [variant.name for variant in variants(study)]
    unknown = [name for name in only or () if name not in names]
    if unknown:
        raise DataError(f"--only {unknown[0]}: no variant of --study {study}; there are {', '.join(names)}")
    chosen = []
    for variant in [variant for variant in variants(study) if only is None or variant.name in only]:
        unread = why_unread(argparse.Namespace(**{**vars(base), **variant.flags}), variant.flags.keys())
        if unread:
            print(f"left out: {variant.title} ({unread.reason})")
        elif any(vars(base)[flag] != value for flag, value in variant.flags.items()):
            chosen.append(variant)  # a hyperparameter's own value is the reference
    return [Variant(REFERENCE, "BAC-GCN as it is", {}), *chosen]


def with_flags(base: argparse.Namespace, variant: Variant, seed: int, folder: Path, **own: Any) -> argparse.Namespace:
    """The flags of one run of a variant."""
    args = argparse.Namespace(**{**vars(base), **variant.flags, "seed": seed, "output_dir": str(folder), **own})
    if not {"tiles", "small_tiles"} & set(variant.flags):
        drop_unread_tiles(args)
    return args


def select(base: argparse.Namespace, candidates: Sequence[Variant], seeds: int, output_dir: Path,
           train: Callable[[argparse.Namespace], Run]) -> str:
    """Rank variants by their held-out images with successive halving, leave the first one's flags, and say so.

    Args:
        base: flags of every run; `--epochs` are those of the last round.
        candidates: what is compared.
        seeds: how many runs of each, from `--seed` on.
        output_dir: gets VARIANT/seed_N and chosen.json. What is trained already is read, not trained again.
        train: `main` of the train script.
    """
    rounds, all_seeds = budgets(base.epochs, len(candidates)), range(base.seed, base.seed + seeds)

    def run_flags(variant: Variant, epochs: int, seed: int) -> argparse.Namespace:
        folder = output_dir / variant.name / f"seed_{seed}"
        args = with_flags(base, variant, seed, folder, epochs=epochs)
        if args.lr_schedule != "constant":  # with fewer epochs it is another schedule: such a run cannot go on
            args.output_dir = str(folder / f"{epochs}_epochs")
        return args

    def score(variant: Variant, epochs: int) -> float:
        return mean(run_score(variant, epochs, seed) for seed in all_seeds)

    def run_score(variant: Variant, epochs: int, seed: int) -> float:
        args = run_flags(variant, epochs, seed)
        if epochs not in measured(args.output_dir, vars(args)):
            say(f"\n{variant.title}, seed {seed}, {counted(epochs, 'epoch')}, in {args.output_dir}")
            train(args)
        return selection_score(measured(args.output_dir, vars(args))[epochs], criterion)

    # By what is there before anything is trained: all rounds and variants are compared by the same.
    runs = {args.output_dir: vars(args) for args in (
        run_flags(variant, epochs, seed) for variant in candidates for epochs in rounds for seed in all_seeds)}
    criterion = common_criterion(record for folder, settings in runs.items()
                                 for epoch, record in measured(folder, settings).items() if epoch in rounds)
    ranking = halve(candidates, rounds, score)
    best = ranking[0].variant
    chosen = write_chosen(output_dir, vars(with_flags(base, best, base.seed, output_dir)))
    table = selection_table(ranking, rounds, seeds, criterion).to_markdown()
    return (f"{table}\nchosen: {format_flags(best.flags) or best.title}\n"
            f"{train_script(base.dataset)} --config {chosen} trains with it")


def load_train(dataset: str) -> Callable[[argparse.Namespace], Run]:
    """`main` of the dataset's train script."""
    return runpy.run_path(str(Path(__file__).parent / train_script(dataset)))["main"]


def get_ablate_parser() -> FlagParser:
    """The sweep's own flags."""
    parser = FlagParser(__doc__, "python ablate.py")
    parser.add_argument("--dataset", type=dataset_name, required=True, help=DATASET_HELP)
    parser.add_argument("--study", choices=STUDIES, default="components",
                        help="parts of the method taken out, our choices beside others, or values of K, gamma, ...")
    parser.add_argument("--only", nargs="+", metavar="VARIANT",
                        help="of the study, only these variants, by the names of their folders (see --dry_run)")
    parser.add_argument("--seeds", type=count, default=1, help="runs of every variant, from --seed on")
    parser.add_argument("--output_dir", help="gets VARIANT/seed_N and the table (default: runs/ablation/DATASET)")
    parser.add_argument("--select", action="store_true", help="rank the variants without a true label (see above)")
    parser.add_argument("--grid", nargs="+", metavar="FLAG=VALUE,VALUE",
                        help="with --select: every combination of these values, in place of a study")
    parser.add_argument("--dry_run", action="store_true", help="only say what is done and what would run")
    return parser


def main(argv: List[str]) -> None:
    """Run what is missing of a study, then write its table."""
    args, flags = get_ablate_parser().parse_known_args(argv)
    kind = "selection" if args.select else "ablation"
    output_dir = Path(args.output_dir or f"runs/{kind}/{get_dataset(args.dataset).name}")
    if args.grid and (args.only or not args.select):
        raise DataError("--only is for a study; leave --grid or --only out" if args.only else
                        "--grid is ranked by --select; give both")
    if args.select:
        base = base_flags(args.dataset, flags)
        base.val_share = base.val_share or VAL_SHARE
        candidates = (read_grid(get_args_parser(args.dataset, None), args.grid) if args.grid
                      else with_reference(args.study, base, args.only))
        if args.dry_run:
            print("\n".join(f"{variant.name}  {format_flags(variant.flags)}" for variant in candidates))
            return
        print(select(base, candidates, args.seeds, output_dir, load_train(args.dataset)))
        return
    plan = plan_study(args.dataset, args.study, args.seeds, output_dir, flags, args.only)
    missing = [run for run in plan if not run.is_done()]
    print(f"{counted(len(plan), 'run')}, {len(plan) - len(missing)} of them done")
    if args.dry_run:
        for run in missing:
            print(f"missing: {run.folder}  ({run.title}, seed {run.args.seed})")
        return
    train = load_train(args.dataset)
    for number, run in enumerate(missing, start=1):
        say(f"\n[{number} of {len(missing)}] {run.title}, seed {run.args.seed}, in {run.folder}")
        train(run.args)
    print(f"\n{write_table(TABLE_OF_STUDY[args.study], [output_dir], output_dir)}")


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
