"""What `eval.py --image` does: score photos in batches, and write, print and draw their tags."""
from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Container, Dict, Iterator, List, Optional, Sequence
from typing import Counter as CounterType

from datasets.files import DataError, PathLike, counted
from datasets.images import read_image
from datasets.progress import bar, say, say_beside_bar
from engine.command_line.method_flags import method_title
from engine.features.frozen_clip import weights_name
from engine.pictures.drawings import maps_figure, top_scores
from engine.pictures.figure_data import SHOWN_BACKGROUNDS, map_photo, save
from engine.results.tables import format_table
from engine.tagging.photo_files import find_photos, printable
from engine.tagging.photo_loader import load_photos
from engine.tagging.scorers import Scorer, check_scorer, load_scorer
from engine.tagging.tag_files import TagFile, csv_file, json_file
from engine.tagging.tag_journal import TagJournal, stamp
from engine.tagging.tag_page import html_page
from engine.tagging.tagged_photo import TaggedPhoto, TagRun, tag_threshold
from engine.training.checkpoint import Checkpoint

FEW = 10
"""Up to so many photos are shown on the screen with all their numbers, and drawn, where no file is asked for."""

LISTED = 10
"""Classes whose scores are printed for a photo."""

_NOT_IN_TAGS = ("image", "num_workers", "device", "encode_batch_size")
"""Flags that a stopped run may change."""


def tag_photos(args: argparse.Namespace, trained: Optional[Checkpoint], folder: PathLike) -> None:
    """`--image`: tag photos and folders of photos.

    With `--csv`, `--json` or `--html` the tags go into these files; else they are printed, in full and with the maps
    as pictures for up to `FEW` photos, a line a photo for more. `--maps` draws the pictures in any case.

    Args:
        args: the flags of eval.py, on top of the run's where a checkpoint is given.
        trained: what `load_checkpoint` read, or None.
        folder: gets the pictures, tags_PHOTO.pdf and .png.

    Raises:
        DataError: flags do not go together, a photo or folder is not there, or none of the photos can be read.
    """
    check_scorer(args)
    paths = find_photos(args.image)
    for path in filter(None, (args.csv, args.json, args.html)):
        if os.path.exists(path) and any(os.path.samefile(path, photo) for photo in paths):
            raise DataError(f"{path}: one of the photos; give the file another name")
    to_files = bool(args.csv or args.json or args.html)
    in_full = not to_files and len(paths) <= FEW
    drawn = args.maps or in_full
    if args.categories and not drawn:
        raise DataError("--categories chooses the maps that are drawn; add --maps, or leave it out")
    scorer = load_scorer(args, trained)
    weights = weights_name(args.model_path)
    run = TagRun(f"{method_title(args, weights)}, {weights}", scorer.categories, scorer.num_classes,
                 tag_threshold(args, trained))
    draw = map_drawer(folder, paths, run, args.categories) if drawn else _ignore
    if to_files:
        write_tag_files(tag_files(args, run), paths, scorer, run, args, draw)
        return
    for photo in score_photos(paths, scorer, run, args):
        say_beside_bar((describe if in_full else one_line)(photo, run))
        draw(photo)
    _report_unreadable(paths, run)


def tag_files(args: argparse.Namespace, run: TagRun) -> List[TagFile]:
    """The files that `--csv`, `--json` and `--html` name."""
    files = []
    if args.csv:
        files.append(csv_file(args.csv, run))
    if args.json:
        files.append(json_file(args.json, run))
    if args.html:
        files.append(html_page(args.html, run, args.link_thumbnails))
    return files


def write_tag_files(files: Sequence[TagFile], paths: List[str], scorer: Scorer, run: TagRun, args: argparse.Namespace,
                    draw: Callable[[TaggedPhoto], None]) -> None:
    """Score the photos that the journal beside the first file lacks, then write all files and remove the journal."""
    journal = TagJournal(f"{files[0].path}.journal", _settings(args, scorer, run))
    if journal.dropped:
        say(f"{journal.path}: made with other flags, words or weights; starting over")
    finished = False
    try:
        for photo in score_photos(paths, scorer, run, args, journal):
            draw(photo)
            journal.add(photo.path, [file.entry(photo) for file in files])
        finished = len(run.unreadable) == len(paths)
        _report_unreadable(paths, run)
        for number, file in enumerate(files):
            file.write(journal.entries(paths, number))
        finished = True
    finally:
        journal.close(remove=finished)
    count = len(paths) - len(run.unreadable)
    for file in files:
        print(f"{file.path}: {count:,} photo{'s' * (count != 1)}, {-(-Path(file.path).stat().st_size // 1024):,} KiB")


def _settings(args: argparse.Namespace, scorer: Scorer, run: TagRun) -> Dict[str, Any]:
    """What the tags of a photo depend on, beside the photo."""
    flags = {name: str(value) for name, value in vars(args).items() if name not in _NOT_IN_TAGS}
    trained_on = [stamp(path) for path in (args.checkpoint, args.statistics) if path]
    return {"flags": flags, "trained": trained_on, "weights_sha256": scorer.weights_sha256(),
            "categories": list(run.categories), "rule": run.rule}


def _report_unreadable(paths: Sequence[str], run: TagRun) -> None:
    if len(run.unreadable) == len(paths):
        raise DataError(f"none of {counted(len(paths), 'photo')} can be read (listed above), so nothing is written")
    if run.unreadable:
        print(f"{len(run.unreadable):,} of {counted(len(paths), 'photo')} cannot be read (listed above)")


def score_photos(paths: List[str], scorer: Scorer, run: TagRun, args: argparse.Namespace,
                 known: Container[str] = ()) -> Iterator[TaggedPhoto]:
    """The photos that can be read, in order, with their tags; the others are printed, and join `run.unreadable`.

    Photos in `known` are passed over.
    """
    todo = [path for path in paths if path not in known]
    batches = load_photos(todo, scorer.transform, scorer.batch_size, args.num_workers, bool(args.html))
    with bar("tagging", "photo", len(paths), done=len(paths) - len(todo)) as progress:
        for batch in batches:
            results = {place: tags for places, images in batch.groups for place, tags in zip(places, scorer(images))}
            for place, photo in enumerate(batch.photos):
                path = todo[photo.row]
                if photo.fault:
                    run.unreadable.append((path, photo.fault))
                    say_beside_bar(printable(photo.fault))
                else:
                    yield run.tagged(path, results[place], photo.thumbnail)
                progress.update()


def describe(photo: TaggedPhoto, run: TagRun) -> str:
    """The tags of a photo, and its highest scores as a table."""
    scores, num_classes = photo.result.scores, run.num_classes
    listed = top_scores(scores[:num_classes], run.classes, num_classes, LISTED)
    scenery = top_scores(scores[num_classes:], run.categories[num_classes:], 0, SHOWN_BACKGROUNDS)
    text = (f"\n{printable(photo.path)}: {', '.join(run.classes[tag] for tag in photo.tags) or 'no tag'}\n"
            + format_table(("class", "score"), [(score.name, f"{score.value:.3f}") for score in listed]))
    if scenery:
        text += "\nbackground: " + ", ".join(f"{score.name} {score.value:.3f}" for score in scenery)
    return text


def one_line(photo: TaggedPhoto, run: TagRun) -> str:
    """The tags of a photo with their scores."""
    tags = (f"{run.classes[tag]} {photo.result.scores[tag]:.2f}" for tag in photo.tags)
    return f"{printable(photo.path)}: {', '.join(tags) or 'no tag'}"


def map_drawer(folder: PathLike, paths: Sequence[str], run: TagRun,
               names: Optional[List[str]]) -> Callable[[TaggedPhoto], None]:
    """What draws the similarity maps of a photo, tags_PHOTO.pdf and .png; photos of one name are numbered."""
    used: CounterType[str] = Counter()
    files: Dict[str, str] = {}
    for path in paths:
        stem = f"tags_{Path(path).stem}"
        used[stem] += 1
        files[path] = stem if used[stem] == 1 else f"{stem}_{used[stem]}"

    def draw(photo: TaggedPhoto) -> None:
        mapped = map_photo(read_image(photo.path), photo.result, run.categories, run.num_classes, names)
        save(maps_figure([mapped], run.classes), Path(folder) / files[photo.path])

    return draw


def _ignore(photo: TaggedPhoto) -> None:
    """Draw nothing."""
