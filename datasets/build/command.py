"""Make the split files of a dataset.

    python -m datasets.build --dataset voc2007 --download                     from the original annotations
    python -m datasets.build --photos FOLDER --classes FILE --name shop       from photos of your own
    python -m datasets.build --dataset imageset/shop/shop.json --labels CSV   again, by their description
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np

from datasets.build.archives import archives, download
from datasets.build.originals import Original, read_coco, read_nuswide, read_voc
from datasets.build.own_photos import describe, own_splits, read_names
from datasets.description import SUFFIX, check_name, parse_description
from datasets.files import DataError, counted, why_unwritten, write_json
from datasets.flag_parser import FlagParser
from datasets.registry import DATASETS, get_dataset
from datasets.split_file import write_split_file

PUBLISHED_SIZES = {
    "voc2007": {"train": 2501, "val": 2510, "trainval": 5011, "test": 4952},
    "voc2012": {"train": 1464, "val": 1449, "trainval": 2913, "main_train": 5717, "main_val": 5823,
                "main_trainval": 11540},
    "coco2014": {"train": 82081, "val": 40137},
    "nuswide": {"train": 161789, "test": 107859},
}
"""Images in the split files of the complete originals; the summary points out any other number."""


def read_originals(args: argparse.Namespace) -> List[Original]:
    """The lists that the command line asks for. Names of variants that are not the default begin with what they are.

    Raises:
        DataError: the originals are missing or damaged.
    """
    data_root = args.data_root or f"data/{args.dataset}"
    if args.dataset == "coco2014":
        return read_coco(data_root)
    if args.dataset == "nuswide":
        originals = read_nuswide(data_root, args.unlabelled or "keep")
        return _prefix(originals, "labelled_") if args.unlabelled == "drop" else originals
    source = "Segmentation" if args.dataset == "voc2012" and args.split_source != "main" else "Main"
    originals = read_voc(data_root, int(args.dataset[-4:]), source, args.difficult or "positive")
    if args.difficult == "negative":
        originals = _prefix(originals, "difficult_negative_")
    return _prefix(originals, "main_") if args.split_source == "main" else originals


def _prefix(originals: Sequence[Original], prefix: str) -> List[Original]:
    return [original._replace(name=prefix + original.name) for original in originals]


def summary(dataset: str, original: Original) -> str:
    """Sizes, positives a class, and what was left out or is missing, a line each."""
    classes, (image_ids, labels) = DATASETS[dataset].classes, original.split
    positives = np.bincount([label for row in labels for label in row], minlength=len(classes))
    least, most = positives.argmin(), positives.argmax()
    lines = [
        f"{counted(len(image_ids), 'image')}, {sum(not row for row in labels):,} of them without a label",
        f"{positives.sum():,} positives; a class has {positives[least]:,} ({classes[least]}) to {positives[most]:,} "
        f"({classes[most]}), median {np.median(positives):,.0f}",
    ]
    if original.left_out:
        lines.append(f"left out: {original.left_out}")
    published = PUBLISHED_SIZES[dataset].get(original.name.replace("difficult_negative_", ""), len(image_ids))
    if len(image_ids) != published:
        lines.append(f"note: the complete originals give {counted(published, 'image')}")
    return "\n".join(f"  {line}" for line in lines)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line; a flag of another dataset is an error."""
    parser = FlagParser(__doc__, "python -m datasets.build")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dataset", metavar="DATASET",
                      help=f"{', '.join(PUBLISHED_SIZES)}, or the path of a description, whose split files are made")
    what.add_argument("--photos", metavar="FOLDER", help="describe a folder of photos of your own, subfolders included")
    parser.add_argument("--output_root", default="imageset",
                        help="files go to OUTPUT_ROOT/DATASET/ (default: %(default)s)")
    group = parser.add_argument_group("photos of your own (--photos, or --dataset with a description)")
    group.add_argument("--classes", metavar="FILE", help="with --photos: the names of the classes, one a line")
    group.add_argument("--backgrounds", metavar="FILE",
                       help="with --photos: the names of the backgrounds, one a line (default: the 24 of VOC and COCO, "
                            "less the classes)")
    group.add_argument("--name", help="with --photos: what the dataset is called (default: the folder's name)")
    group.add_argument("--labels", metavar="CSV", help="true labels for the test: rows of a photo and its classes")
    group.add_argument("--test_share", type=float, help="part of the (labelled) photos for the test (default: 0.2)")
    group.add_argument("--seed", type=int, help="of the draw of the test photos (default: 0)")
    group = parser.add_argument_group("originals (VOC, COCO and NUS-WIDE)")
    group.add_argument("--data_root", help="folder of the originals (default: data/DATASET)")
    group.add_argument("--download", action="store_true", help="fetch images and annotations first (VOC, COCO)")
    group.add_argument("--difficult", choices=("positive", "negative"),
                       help="VOC: whether objects marked difficult count as labels (default: positive, as in TagCLIP's "
                            "lists; negative, as in TaI-DPT's, goes to difficult_negative_*_cls.txt)")
    group.add_argument("--split_source", choices=("segmentation", "main"),
                       help="lists of VOC2012: segmentation (default; the published captions cover its 1,464 train "
                            "images) or main (5,717 / 5,823, as in CDUL; goes to main_*_cls.txt)")
    group.add_argument("--unlabelled", choices=("keep", "drop"),
                       help="NUS-WIDE: images that show none of the 81 concepts (default: keep; drop goes to "
                            "labelled_*_cls.txt)")
    args = parser.parse_args(argv)
    _refuse_foreign_flags(parser, args)
    return args


_OWN_FLAGS = ("labels", "test_share", "seed")
_DESCRIBING_FLAGS = ("classes", "backgrounds", "name")
_ORIGINAL_FLAGS = ("data_root", "download", "difficult", "split_source", "unlabelled")


def _refuse_foreign_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    own = args.photos is not None or args.dataset.endswith(SUFFIX)
    if not own and args.dataset not in PUBLISHED_SIZES:
        parser.error(f"--dataset {args.dataset}: choose one of {', '.join(PUBLISHED_SIZES)}, or give the path of a "
                     f"description that ends in {SUFFIX}")
    for flags, asked, place in ((_ORIGINAL_FLAGS, not own, "VOC, COCO and NUS-WIDE"),
                                (_OWN_FLAGS, own, "photos of your own"),
                                (_DESCRIBING_FLAGS, args.photos is not None, "--photos")):
        given = [flag for flag in flags if getattr(args, flag) not in (None, False)]
        if given and not asked:
            parser.error(f"--{given[0]} is for {place}")
    if args.photos is not None and args.classes is None:
        parser.error("--classes is missing: a file with the names of the classes, one a line")
    if args.test_share is not None and not 0 < args.test_share < 1:
        parser.error(f"--test_share {args.test_share} is not between 0 and 1")
    if args.seed is not None and args.seed < 0:
        parser.error(f"--seed {args.seed} is less than 0")
    if args.difficult and args.dataset not in ("voc2007", "voc2012"):
        parser.error("--difficult is for VOC")
    if args.split_source and args.dataset != "voc2012":
        parser.error("--split_source is for voc2012")
    if args.unlabelled and args.dataset != "nuswide":
        parser.error("--unlabelled is for nuswide")
    if args.download and args.dataset == "nuswide":
        parser.error(f"NUS-WIDE cannot be downloaded by a program; {DATASETS['nuswide'].get_images}")


def build_originals(args: argparse.Namespace) -> None:
    """Download where asked, read the originals, write their split files."""
    if args.download:
        for archive in archives(args.dataset):
            download(archive, args.data_root or f"data/{args.dataset}")
    originals = read_originals(args)
    for original in originals:
        path = Path(args.output_root) / args.dataset / f"{original.name}_cls.txt"
        if not original.split.image_ids:
            print(f"{path}: not written; {original.left_out}")
            continue
        write_split_file(path, original.split)
        print(f"{path}\n{summary(args.dataset, original)}")
    if args.dataset == "voc2007" and not originals[-1].name.endswith("test"):
        print(f"no test list is here: unpack {archives('voc2007')[-1].url} as well, or add --download")


def build_own(args: argparse.Namespace) -> None:
    """Describe the photos where that is asked for, and write the split files of the description.

    A description that is there is never written over, as somebody may have put synonyms into it.
    """
    content = None
    if args.photos is None:
        path, spec = Path(args.dataset), get_dataset(args.dataset)
    else:
        name = args.name or Path(args.photos).resolve().name
        check_name("--name", name)
        path = Path(args.output_root) / name / f"{name}{SUFFIX}"
        if name in DATASETS:
            raise DataError(f"--name {name}: a dataset of this repository is called so; give another --name")
        if path.exists():
            raise DataError(f"{path}: the description is there already; make its split files again with --dataset "
                            f"{path}, or give another --name")
        backgrounds = None if args.backgrounds is None else read_names(args.backgrounds)
        content = describe(path, args.photos, read_names(args.classes), backgrounds, args.labels is None)
        spec = parse_description(path, content)
    splits, left_out = own_splits(spec, args.labels, 0.2 if args.test_share is None else args.test_share,
                                  args.seed or 0, progress=True)
    for split_file, split in splits.items():
        write_split_file(split_file, split)
        labelled = "" if args.labels is None else f", {sum(map(bool, split.labels)):,} of them with a label"
        print(f"{split_file}: {counted(len(split.image_ids), 'photo')}{labelled}")
    if content is not None:
        write_json(path, content, indent=1)
    for reason in left_out:
        print(f"left out: {reason}")
    if args.labels is None:
        print("no labels: there will be no mAP. A CSV of some gives one: add --labels")
    print(f"{path}: give it as --dataset")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Read, write, tell. Returns the exit status."""
    args = parse_args(argv)
    try:
        if args.dataset in PUBLISHED_SIZES:
            build_originals(args)
        else:
            build_own(args)
    except (DataError, OSError) as error:
        reason = why_unwritten(error) if isinstance(error, OSError) else str(error)
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT; the same command begins anew, less what is downloaded", file=sys.stderr)
        return 130
    return 0
