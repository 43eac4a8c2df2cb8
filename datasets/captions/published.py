"""The captions that the BAC-GCN authors published: VOC2007 trainval and the VOC2012 segmentation train images."""
from __future__ import annotations

import hashlib
import http.client
import urllib.request
from pathlib import Path
from typing import Dict, NamedTuple, Optional

from datasets.captions.io import load_captions
from datasets.files import DataError, PathLike, atomic_write, counted

SOURCE = ("https://raw.githubusercontent.com/yonghyeonjo46/BAC-GCN/"
          "825d9d9bf0b87311ccaa9e4da0d0645cd3575642/caption")
"""The folder of caption files in the authors' repository, at one commit: the files behind it cannot change."""

TIMEOUT = 60
"""Seconds without a byte after which a download is given up."""


class PublishedFile(NamedTuple):
    """What a complete download looks like."""

    size: int
    sha256: Optional[str] = None


PUBLISHED: Dict[str, PublishedFile] = {
    "voc2007/voc2007_captions.json": PublishedFile(
        2_077_327, "72f757eb64a1968895487f552918035562ebdf00583e1f8202a0190e953338fa"),
    "voc2007/voc2007_re_captions.json": PublishedFile(
        2_529_273, "b1e8ed058f0e85326aab3f6d1fcfe671597c3465f020c599297428f686be7f7d"),
    "voc2012/voc2012_captions.json": PublishedFile(534_766),
    "voc2012/voc2012_re_captions.json": PublishedFile(681_546),
}
"""The files below `SOURCE`."""


def fetch_captions(dataset: str, caption_root: PathLike, source: str = SOURCE,
                   published: Dict[str, PublishedFile] = PUBLISHED) -> None:
    """Download the authors' caption files of a dataset into `<caption_root>/<dataset>/`.

    A file that is there and is the published one stays; another one is never written over.

    Raises:
        DataError: nothing is published for the dataset, another file is in the way, the download fails, or what
            came is not the published file.
    """
    names = [name for name in published if name.startswith(f"{dataset}/")]
    if not names:
        have = ", ".join(sorted({name.split("/")[0] for name in published}))
        raise DataError(f"--dataset {dataset}: the authors published captions for {have} only; make them with "
                        f"`python caption.py --dataset {dataset} --stage caption`")
    for name in names:
        _fetch_file(f"{source}/{name}", Path(caption_root) / name, published[name])
    images = len(load_captions(caption_root, dataset))
    print(f"{Path(caption_root) / dataset}: the BAC-GCN authors' captions of {counted(images, 'image')}")


def _fetch_file(url: str, path: Path, expected: PublishedFile) -> None:
    if path.exists():
        fault = _fault(path.read_bytes(), expected)
        if fault:
            raise DataError(f"{path}: another file is there already ({fault}); move it away or give another "
                            "--caption_root")
        return
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: cannot be downloaded ({error}); check the network, or download it elsewhere and "
                        f"save it as {path}") from None
    fault = _fault(content, expected)
    if fault:
        raise DataError(f"{url}: not the published file ({fault}); try again, or download it elsewhere and save it "
                        f"as {path}")
    with atomic_write(path, "wb") as file:
        file.write(content)


def _fault(content: bytes, expected: PublishedFile) -> Optional[str]:
    """How `content` differs from the published file, or None."""
    if len(content) != expected.size:
        return f"{counted(len(content), 'byte')} instead of {expected.size:,}"
    if expected.sha256 is not None and hashlib.sha256(content).hexdigest() != expected.sha256:
        return "its SHA-256 differs"
    return None
