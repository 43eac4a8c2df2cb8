"""What a run says of itself: the code of each part, the data it was made of, its best epoch."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from engine.training import provenance
from engine.training.provenance import data_facts
from tests.engine.training.test_training import assert_same_weights, log, run_script, train


def config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def error_of(stop: pytest.ExceptionInfo, capsys) -> str:
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_config_tells_the_code_of_each_part_and_repeating_a_command_changes_nothing(tiny_world, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    for epochs, revision in ((1, "a" * 40), (2, "a" * 40), (3, "b" * 40)):
        monkeypatch.setattr(provenance, "git_revision", lambda: revision)  # noqa: B023
        train(tiny_world, folder, "--epochs", epochs)
    parts = [(part["after_epoch"], part["git_revision"][0]) for part in config(folder)["parts"]]
    assert parts == [(0, "a"), (2, "b")] and config(folder)["git_revision"] == "b" * 40
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(provenance, "git_revision", lambda: "c" * 40)
    for again in (["--epochs", 3], ["--epochs", 2, "--num_workers", 1]):
        train(tiny_world, folder, *again)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    train(tiny_world, folder, "--epochs", 3, "--zoom", 2)
    assert config(folder) == {**json.loads(before[folder / "config.json"]),
                              "args": {**json.loads(before[folder / "config.json"])["args"], "zoom": 2}}

    train(tiny_world, tmp_path / "second", "--resume", folder / "checkpoint.pth", "--epochs", 4)
    parts = [(part["after_epoch"], part["git_revision"][0]) for part in config(tmp_path / "second")["parts"]]
    assert parts == [(0, "a"), (2, "b"), (3, "c")]


@pytest.fixture
def moved(tiny_world, tmp_path):
    """The tiny world in another place."""
    root = tmp_path / "moved"
    shutil.copytree(tiny_world.root, root, ignore=shutil.ignore_patterns("features"))
    return tiny_world._replace(root=root, flags=[flag.replace(str(tiny_world.root), str(root))
                                                 for flag in tiny_world.flags])


def test_a_run_goes_on_where_its_data_have_moved_to_and_not_with_other_data(tiny_world, moved, tmp_path, capsys):
    run = train(tiny_world, tmp_path / "run", "--epochs", 1)
    assert config(run)["data_sha256"]
    train(moved, run, "--epochs", 2)
    assert [record["epoch"] for record in log(run)] == [1, 2]
    assert_same_weights(run, train(tiny_world, tmp_path / "unmoved", "--epochs", 2))

    scores = moved.root / "caption" / "voc2007" / "train_label_scores.json"
    labels = json.loads(scores.read_text())
    labels["train_000"][0] = 1.0 - labels["train_000"][0]
    scores.write_text(json.dumps(labels))
    with pytest.raises(SystemExit) as stop:
        train(moved, run, "--epochs", 3)
    assert "made with other images, test labels or captions" in error_of(stop, capsys)


def test_a_run_without_a_digest_goes_on_in_its_place_only(tiny_world, moved, tmp_path, capsys):
    run = train(tiny_world, tmp_path / "run", "--epochs", 1)
    checkpoint = torch.load(run / "checkpoint.pth", weights_only=True)
    del checkpoint["data_sha256"]
    torch.save(checkpoint, run / "checkpoint.pth")
    with pytest.raises(SystemExit) as stop:
        train(moved, run, "--epochs", 2)
    assert "made with --train_img_root" in error_of(stop, capsys)
    train(tiny_world, run, "--epochs", 2)


def test_digest_of_data():
    values = torch.tensor([[0.5, 1.0]])
    digests = [data_facts(*parts)["data_sha256"] for parts in (
        [values], [values.double()], [values.T], [values, values], [values + 1e-6], [values > 0])]
    assert len(set(digests)) == 6 and data_facts(values.clone()) == {"data_sha256": digests[0]}


def with_best(path: Path, best: int) -> None:
    """Let an epoch of a checkpoint be the best one."""
    checkpoint = torch.load(path, weights_only=True)
    for record in checkpoint["history"]:
        record["mAP"] = 90.0 if record["epoch"] == best else 10.0
    torch.save(checkpoint, path)


def test_the_best_epoch_comes_along_from_another_folder(tiny_world, tmp_path, capsys):
    first = train(tiny_world, tmp_path / "first", "--epochs", 1)
    with_best(first / "checkpoint.pth", 1)
    shutil.copy(first / "checkpoint.pth", first / "best.pth")
    train(tiny_world, first, "--epochs", 2)
    with_best(first / "checkpoint.pth", 1)
    resume = ["--resume", first / "checkpoint.pth", "--epochs", 3]
    second = train(tiny_world, tmp_path / "second", *resume)
    assert json.loads((second / "result.json").read_text())["best_epoch"] == 1
    assert torch.load(second / "best.pth", weights_only=True)["epoch"] == 1
    weights = torch.load(first / "best.pth", weights_only=True)["model"]
    assert all(torch.equal(value, weights[name])
               for name, value in torch.load(second / "best.pth", weights_only=True)["model"].items())

    (first / "best.pth").unlink()
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, tmp_path / "third", *resume)
    assert "its best epoch is 1 of 2, and the best.pth beside it is missing" in error_of(stop, capsys)
    assert not (tmp_path / "third").exists()
    with_best(first / "checkpoint.pth", 2)  # it is its own best
    third = train(tiny_world, tmp_path / "third", *resume)
    assert torch.load(third / "best.pth", weights_only=True)["epoch"] == 2


def test_resume_does_not_write_over_another_run(tiny_world, tmp_path, capsys):
    first = train(tiny_world, tmp_path / "first", "--epochs", 1)
    second = train(tiny_world, tmp_path / "second", "--epochs", 1, "--seed", 1)
    before = {path: path.read_bytes() for path in second.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, second, "--resume", first / "checkpoint.pth")
    assert f"{second}: holds another run, which did not begin with --resume" in error_of(stop, capsys)
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, second, "--seed", 1, "--resume", second / "checkpoint.pth", "--overwrite")
    assert "--overwrite would remove it" in error_of(stop, capsys)
    with pytest.raises(SystemExit) as stop:
        train(tiny_world, second, "--resume", tmp_path / "nowhere.pth", "--overwrite")
    assert "nowhere.pth: no such checkpoint" in error_of(stop, capsys)
    assert {path: path.read_bytes() for path in second.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("script, flags", [
    ("train_voc07", []), ("train_voc07", ["--method", "cdul", "--backbone", "clip"]), ("eval", ["--method", "clip"])])
def test_a_test_split_without_labels_is_refused_before_anything_is_made(tiny_world, tmp_path, capsys, script, flags):
    (tmp_path / "unlabelled.txt").write_text("val_000\nval_001\n")
    with pytest.raises(SystemExit) as stop:
        run_script(script, *tiny_world.flags, "--val_split_file", tmp_path / "unlabelled.txt", "--output_dir",
                   tmp_path / "run", *flags)
    assert f"{tmp_path / 'unlabelled.txt'}: no image has a label, so there is no mAP" in error_of(stop, capsys)
    assert not (tmp_path / "run").exists()
