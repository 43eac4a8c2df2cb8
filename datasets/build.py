"""Make the split files from the original annotations: `python -m datasets.build --dataset voc2007 --download`."""
from __future__ import annotations

import argparse
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

import numpy as np
from torchvision.datasets.utils import download_url
from torchvision.datasets.voc import DATASET_YEAR_DICT

from datasets.files import DataError, PathLike
from datasets.originals import Original, read_coco, read_nuswide, read_voc
from datasets.registry import DATASETS
from datasets.split_file import write_split_file

PUBLISHED_SIZES = {
    "voc2007": {"train": 2501, "val": 2510, "trainval": 5011, "test": 4952},
    "voc2012": {"train": 1464, "val": 1449, "trainval": 2913, "main_train": 5717, "main_val": 5823,
                "main_trainval": 11540},
    "coco2014": {"train": 82081, "val": 40137},
    "nuswide": {"train": 161789, "test": 107859},
}
"""Images in the split files of the complete originals; the summary points out any other number."""


class Archive(NamedTuple):
    """One archive of originals, and the folder below the data root that it unpacks into."""

    url: str
    md5: str
    folder: str = ""


def archives(dataset: str) -> List[Archive]:
    """What `--download` fetches: VOC from the addresses that torchvision keeps, COCO from its own host."""
    if dataset == "coco2014":
        host = "http://images.cocodataset.org"
        return [
            Archive(f"{host}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88"),
            Archive(f"{host}/zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3"),
            Archive(f"{host}/annotations/annotations_trainval2014.zip", "0a379cfc70b0e71301e0f377548639bd"),
        ]
    known = [DATASET_YEAR_DICT[key] for key in (("2007", "2007-test") if dataset == "voc2007" else ("2012",))]
    return [Archive(entry["url"], entry["md5"], entry["filename"].rsplit(".", 1)[0]) for entry in known]


def download(archive: Archive, data_root: PathLike) -> None:
    """Fetch an archive into `data_root`, check its MD5, and unpack it. An archive that is there and whole stays.

    Raises:
        DataError: it cannot be fetched, has another checksum, or cannot be unpacked.
    """
    path = Path(data_root) / archive.url.rsplit("/", 1)[-1]
    try:
        download_url(archive.url, str(data_root), path.name, archive.md5)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{archive.url}: download failed ({error}); try again, or put it in {data_root}") from None
    try:
        unpack(path, Path(data_root) / archive.folder)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); is there room on the disk?") from None


def unpack(path: Path, folder: Path) -> None:
    """Unpack a zip or tar archive; no member can write outside `folder`.

    Raises:
        tarfile.FilterError: a tar member would. (A zip member is written inside, without the `..` of its name.)
    """
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    else:
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")


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
        f"{len(image_ids):,} images, {sum(not row for row in labels):,} of them without a label",
        f"{positives.sum():,} positives; a class has {positives[least]:,} ({classes[least]}) to {positives[most]:,} "
        f"({classes[most]}), median {np.median(positives):,.0f}",
    ]
    if original.left_out:
        lines.append(f"left out: {original.left_out}")
    published = PUBLISHED_SIZES[dataset].get(original.name.replace("difficult_negative_", ""), len(image_ids))
    if len(image_ids) != published:
        lines.append(f"note: the complete originals give {published:,} images")
    return "\n".join(f"  {line}" for line in lines)


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line; a flag of another dataset is an error."""
    parser = argparse.ArgumentParser(prog="python -m datasets.build", description=__doc__)
    parser.add_argument("--dataset", required=True, choices=PUBLISHED_SIZES)
    parser.add_argument("--data_root", help="folder of the originals (default: data/DATASET)")
    parser.add_argument("--output_root", default="imageset",
                        help="files go to OUTPUT_ROOT/DATASET/*_cls.txt (default: %(default)s)")
    parser.add_argument("--download", action="store_true", help="fetch images and annotations first (VOC, COCO)")
    voc = parser.add_argument_group("VOC")
    voc.add_argument("--difficult", choices=("positive", "negative"),
                     help="whether objects marked difficult count as labels (default: positive, as in TagCLIP's "
                          "lists; negative, as in TaI-DPT's, goes to difficult_negative_*_cls.txt)")
    voc.add_argument("--split_source", choices=("segmentation", "main"),
                     help="lists of VOC2012: segmentation (default; the published captions cover its 1,464 train "
                          "images) or main (5,717 / 5,823, as in CDUL; goes to main_*_cls.txt)")
    nus = parser.add_argument_group("NUS-WIDE")
    nus.add_argument("--unlabelled", choices=("keep", "drop"),
                     help="images that show none of the 81 concepts (default: keep; drop goes to labelled_*_cls.txt)")
    args = parser.parse_args(argv)
    if args.difficult and args.dataset not in ("voc2007", "voc2012"):
        parser.error("--difficult is for VOC")
    if args.split_source and args.dataset != "voc2012":
        parser.error("--split_source is for voc2012")
    if args.unlabelled and args.dataset != "nuswide":
        parser.error("--unlabelled is for nuswide")
    if args.download and args.dataset == "nuswide":
        parser.error(f"NUS-WIDE cannot be downloaded by a program; {DATASETS['nuswide'].get_images}")
    return args


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Download where asked, read, write, tell. Returns the exit status."""
    args = parse_args(argv)
    try:
        if args.download:
            for archive in archives(args.dataset):
                download(archive, args.data_root or f"data/{args.dataset}")
        originals = read_originals(args)
        for original in originals:
            path = Path(args.output_root) / args.dataset / f"{original.name}_cls.txt"
            write_split_file(path, original.split)
            print(f"{path}\n{summary(args.dataset, original)}")
        if args.dataset == "voc2007" and not originals[-1].name.endswith("test"):
            print(f"no test list is here: unpack {archives('voc2007')[-1].url} as well, or add --download")
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
