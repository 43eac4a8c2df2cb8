"""The archives of the originals: fetched, checked and unpacked."""
from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import List, NamedTuple

from datasets.files import DataError, PathLike
from datasets.progress import others_bars


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
    from torchvision.datasets.voc import DATASET_YEAR_DICT  # imports torch, which takes seconds

    known = [DATASET_YEAR_DICT[key] for key in (("2007", "2007-test") if dataset == "voc2007" else ("2012",))]
    return [Archive(entry["url"], entry["md5"], entry["filename"].rsplit(".", 1)[0]) for entry in known]


def download(archive: Archive, data_root: PathLike) -> None:
    """Fetch an archive into `data_root`, check its MD5, and unpack it. An archive that is there and whole stays.

    Raises:
        DataError: it cannot be fetched, has another checksum, or cannot be unpacked.
    """
    from torchvision.datasets.utils import download_url

    path = Path(data_root) / archive.url.rsplit("/", 1)[-1]
    try:
        with others_bars():
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
