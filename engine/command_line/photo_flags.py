"""The flags of `eval.py --image`: photos of one's own, their words, and where their tags go."""
from __future__ import annotations

import argparse
from pathlib import Path

from datasets.files import DataError, check_folder
from datasets.registry import DatasetSpec

_FILES = ("csv", "json", "html")

PHOTO_FLAGS = ("words", *_FILES, "maps", "link_thumbnails")
"""Flags that only `--image` reads."""

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".ppm", ".heic",
                  ".heif", ".avif")
"""What counts as a photo in a folder, in small or capital letters. The last three cannot be read: they are listed, so
that nobody takes them for tagged."""

TAG_WITHOUT_TRAINING = ("clip", "tagclip", "sparc")
"""Methods that tag photos without a checkpoint."""


def add_photo_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that go with `--image`."""
    group = parser.add_argument_group("photos (--image, see docs/tags.md)")
    group.add_argument("--words", nargs="+", metavar="WORD",
                       help="with --method clip or tagclip: classes of your own, or a file with one a line")
    group.add_argument("--csv", metavar="FILE", help="a table with a row a photo: tags, and the scores of all classes")
    group.add_argument("--json", metavar="FILE", help="the same as JSON")
    group.add_argument("--html", metavar="FILE", help="a page to look through the photos by their tags")
    group.add_argument("--link_thumbnails", action="store_true",
                       help="keep the page's small pictures in a folder beside it, for thousands of photos")
    group.add_argument("--maps", action="store_true",
                       help="draw the similarity maps of every photo (default: of up to ten, without a file)")


def check_photo_flags(args: argparse.Namespace) -> None:
    """Refuse flags that would do nothing, and files that cannot be written.

    Raises:
        DataError: a flag goes with others that are not given, or a file is a folder or is named twice.
    """
    if args.link_thumbnails and not args.html:
        raise DataError("--link_thumbnails goes with --html; leave it out")
    files = [getattr(args, flag) for flag in _FILES if getattr(args, flag)]
    for path in map(Path, files):
        if path.is_dir():
            raise DataError(f"{path}: a folder; name a file in it")
        if path.suffix.lower() in PHOTO_SUFFIXES:
            raise DataError(f"{path}: ends like a photo, and would be written over; end it in .csv, .json or .html")
        check_folder(path.parent)
    if len({Path(path).absolute() for path in files}) < len(files):
        raise DataError("--csv, --json and --html name the same file; give each its own")


def words_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in what the entry of a dataset would: weights, and a folder for results.

    Raises:
        DataError: `--words` meets a flag that brings classes of its own.
    """
    for flag, given in (("checkpoint", args.checkpoint), ("dataset", args.dataset)):
        if given:
            raise DataError(f"--words and --{flag} {given}: both name the classes; leave one of them out")
    args.model_path = args.model_path or DatasetSpec.model_path
    args.output_dir = args.output_dir or f"runs/words_{args.method}"
    return args
