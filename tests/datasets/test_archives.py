"""Originals off a server: whole or not at all, and nowhere but in their folder."""
from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Dict, Iterator

import pytest

from datasets.build import archives, command
from datasets.files import DataError
from datasets.split_file import read_split_file
from tests.datasets.test_build import coco, put, run_build, voc_xml


@pytest.fixture()
def host(tmp_path: Path) -> Iterator[Path]:
    """A folder that `serve` puts archives in; an HTTP server on this machine hands them out."""
    folder = tmp_path / "host"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        (folder / "port").write_text(str(server.server_port))
        yield folder
        server.shutdown()
        thread.join()


def serve(host: Path, name: str, members: Dict[str, str]) -> archives.Archive:
    """Put a tar or zip on the server, unpacked like VOC's (into a folder of its name) or COCO's."""
    path = host / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in members.items():
                archive.writestr(member, text)
    else:
        with tarfile.open(path, "w") as archive:
            for member, text in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))
    return served(host, name)


def served(host: Path, name: str) -> archives.Archive:
    digest = hashlib.md5((host / name).read_bytes()).hexdigest()
    url = f"http://127.0.0.1:{(host / 'port').read_text()}/{name}"
    return archives.Archive(url, digest, name[:-4] if name.endswith(".tar") else "")


def test_download_then_build(tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = serve(host, "VOCtrainval_11-May-2012.tar", {
        "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt": "2007_000032\n",
        "VOCdevkit/VOC2012/Annotations/2007_000032.xml": voc_xml([("aeroplane", 0)])})
    zips = [serve(host, f"{name}.zip", {f"annotations/instances_{name}2014.json": json.dumps(coco([(9, 1)]))})
            for name in ("train", "val")]
    monkeypatch.setattr(command, "archives", lambda dataset: [tar] if dataset == "voc2012" else zips)
    for dataset in ("voc2012", "coco2014"):
        assert run_build(dataset, tmp_path / dataset, tmp_path, "--download") == 0
    assert (tmp_path / "voc2012/VOCtrainval_11-May-2012/VOCdevkit/VOC2012/ImageSets").is_dir()
    assert read_split_file(tmp_path / "voc2012/train_cls.txt", 20).labels == [[0]]
    assert read_split_file(tmp_path / "coco2014/val_cls.txt", 80).labels == [[0]]


def test_an_interrupted_download_is_made_good(tmp_path: Path, host: Path) -> None:
    entry = serve(host, "a.zip", {"a.txt": "whole"})
    put(tmp_path / "out/a.zip", "the first half")
    archives.download(entry, tmp_path / "out")
    assert (tmp_path / "out/a.txt").read_text() == "whole"
    (host / "a.zip").unlink()
    archives.download(entry, tmp_path / "out")  # there and whole: nothing is fetched


def test_download_faults(tmp_path: Path, host: Path) -> None:
    good = serve(host, "a.zip", {"a.txt": "a"})
    with pytest.raises(DataError, match="a.zip: download failed"):
        archives.download(good._replace(md5="0" * 32), tmp_path / "out")
    with pytest.raises(DataError, match="missing.zip: download failed .*404"):
        archives.download(good._replace(url=good.url.replace("a.zip", "missing.zip")), tmp_path / "out")
    for name in ("b.tar", "b.zip"):
        put(host / name, "no archive")
        with pytest.raises(DataError, match=f"{name}: cannot be unpacked"):
            archives.download(served(host, name), tmp_path / "out")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["../evil.txt", "/{root}/evil.txt", "in/../../evil.txt"])
def test_archives_cannot_write_outside_their_folder(tmp_path: Path, host: Path, suffix: str, name: str) -> None:
    evil = serve(host, f"a{suffix}", {name.format(root=tmp_path): "evil"})
    with contextlib.suppress(DataError):
        archives.download(evil, tmp_path / "deep" / "out")
    assert all((tmp_path / "deep" / "out") in path.parents for path in tmp_path.rglob("evil.txt"))
