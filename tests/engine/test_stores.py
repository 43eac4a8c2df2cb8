"""`python -m engine.stores` as users run it."""
from __future__ import annotations

import pytest

from datasets.files import DataError
from engine import stores
from engine.features.feature_store import store_arrays
from engine.features.store_writer import StoreWriter, owned
from tests.engine.features.test_features import numbered_store


@pytest.fixture
def root(tmp_path):
    """A finished store, one in a run's folder, and an unfinished one."""
    numbered_store(tmp_path / "features" / "aaaa", [1, 2])
    numbered_store(tmp_path / "runs" / "x" / "reso" / "features" / "bbbb", [1])
    with owned(tmp_path / "features" / "cccc"), StoreWriter(tmp_path / "features" / "cccc",
                                                            store_arrays(9, 6, 8, "fp16")):
        pass
    (tmp_path / "features" / "checked").mkdir()
    return tmp_path


def test_stores_are_listed_with_size_use_and_place(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    stores.main([])
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line for line in lines[2:5]}
    assert set(listed) == {"aaaa", "bbbb", "cccc"} and "unfinished" in listed["cccc"]
    assert "finished" in listed["aaaa"] and "20" in listed["aaaa"] and "runs/x/reso/features" in listed["bbbb"]
    assert lines[-1].endswith("in all")


def test_stores_that_are_named_are_removed(root, capsys):
    below = ["--below", str(root)]
    with pytest.raises(DataError, match="zzzz: no such store"):
        stores.main([*below, "--remove", "aaaa", "zzzz"])
    assert (root / "features" / "aaaa" / "store.json").exists(), "all or none"
    stores.main([*below, "--remove", "aaaa", "cccc"])
    assert "are free again" in capsys.readouterr().out
    assert sorted(path.name for path in (root / "features").iterdir()) == ["checked"]


def test_a_store_that_is_being_computed_stays(root):
    with owned(root / "features" / "cccc"), pytest.raises(DataError, match="cccc: a run is computing this store"):
        stores.main(["--below", str(root), "--remove", "cccc"])
    assert (root / "features" / "cccc").exists()
