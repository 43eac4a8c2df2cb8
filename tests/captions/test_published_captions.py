"""Fetching the authors' captions, from a local server."""
from __future__ import annotations

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets.captions.io import load_captions
from datasets.captions.published import PUBLISHED, PublishedFile, fetch_captions
from datasets.files import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data" / "caption"
NAMES = ("voc2007/voc2007_captions.json", "voc2007/voc2007_re_captions.json")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """The folder that is served, and its address."""
    folder = tmp_path / "served"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"000012.": [f"{name} {number}" for number in range(6)]}))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def published(served):
    folder, _ = served
    return {name: _describe((folder / name).read_bytes()) for name in NAMES}


def _describe(content):
    return PublishedFile(len(content), hashlib.sha256(content).hexdigest())


def test_files_arrive_as_they_are_and_a_second_fetch_needs_no_server(served, published, tmp_path, capsys):
    folder, source = served
    root = tmp_path / "caption"
    fetch_captions("voc2007", root, source, published)
    for name in NAMES:
        assert (root / name).read_bytes() == (folder / name).read_bytes()
    assert list(load_captions(root, "voc2007")) == ["000012"]
    fetch_captions("voc2007", root, "http://127.0.0.1:9", published)
    assert "1 image\n" in capsys.readouterr().out


@pytest.mark.parametrize("change, message", [
    (lambda content: content[:-9], "bytes instead of"),
    (lambda content: content.replace(b"000012", b"000013"), "SHA-256 differs"),
])
def test_another_content_is_refused_and_leaves_nothing(served, published, tmp_path, change, message):
    folder, source = served
    changed = folder / NAMES[1]
    changed.write_bytes(change(changed.read_bytes()))
    with pytest.raises(DataError, match=message):
        fetch_captions("voc2007", tmp_path / "caption", source, published)
    assert [path.name for path in (tmp_path / "caption" / "voc2007").iterdir()] == ["voc2007_captions.json"]


def test_own_captions_are_not_written_over(served, published, tmp_path):
    _, source = served
    own = tmp_path / NAMES[0]
    own.parent.mkdir()
    own.write_text("{}")
    with pytest.raises(DataError, match="another file is there already"):
        fetch_captions("voc2007", tmp_path, source, published)
    assert own.read_text() == "{}"


def test_a_missing_file_and_a_missing_server_are_one_line(served, published, tmp_path):
    folder, source = served
    (folder / NAMES[0]).unlink()
    for address in (source, "http://127.0.0.1:9"):
        with pytest.raises(DataError, match="cannot be downloaded.*save it as") as error:
            fetch_captions("voc2007", tmp_path / "caption", address, published)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "caption").exists()


def test_datasets_without_published_captions_are_told_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match="voc2007, voc2012 only.*--dataset coco2014 --stage caption"):
        fetch_captions("coco2014", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_pinned_digests_are_those_of_the_published_files(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip("the authors' captions are not in ../shared")
    assert PUBLISHED[name] == _describe(path.read_bytes())
