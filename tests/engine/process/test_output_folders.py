"""A folder that cannot be made or written is one line that names it and says why, before anything is computed."""
from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from datasets.build.command import main as build
from datasets.files import DataError, atomic_write, check_folder, make_folder
from tests.conftest import REPOSITORY
from tests.engine.training.test_training import run_script

FILE_IN_THE_WAY = r"{0}/file is a file, not a folder; choose another folder"


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "file"
    path.write_text("in the way")
    return path


@pytest.mark.parametrize("refuse", [check_folder, make_folder, lambda folder: atomic_write(folder / "x").__enter__()])
def test_a_folder_that_cannot_be_made_says_why(file, tmp_path, refuse):
    for folder in (file, file / "below"):
        with pytest.raises(DataError, match=f"^{folder}: {FILE_IN_THE_WAY.format(tmp_path)}$"):
            refuse(folder)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(DataError, match="link is something else, not a folder"):
        refuse(tmp_path / "link")
    if Path("/proc/self").exists():  # the system says there that a folder which is to be made is not there
        with pytest.raises(DataError, match="^/proc/x: nothing can be written in /proc "):
            refuse(Path("/proc/x"))


def test_a_look_leaves_nothing_and_makes_nothing(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_folders_for_results_are_made_in_one_place():
    made = [f"{path.relative_to(REPOSITORY)}" for room in ("datasets", "models", "engine", "mini")
            for path in (REPOSITORY / room).rglob("*.py") if "mkdir(parents" in path.read_text(encoding="utf-8")]
    assert made == ["datasets/files.py"]


@pytest.mark.parametrize("script, command", [
    ("train_voc07", "--output_dir FILE"),
    ("train_voc07", "--method tai_dpt --output_dir FILE/below"),
    ("eval", "--method clip --output_dir FILE"),
    ("eval", "--method clip --image PHOTOS --csv FILE/tags.csv"),
    ("eval", "--method clip --image PHOTOS --output_dir FILE"),
    ("ablate", "--output_dir FILE"),
    ("reproduce", "--output_dir FILE"),
])
def test_scripts_say_it_before_they_compute(tiny_world, file, tmp_path, capsys, script, command):
    places = {"FILE": str(file), "PHOTOS": str(tiny_world.root / "val")}
    words = [re.sub("FILE|PHOTOS", lambda name: places[name[0]], word) for word in command.split()]
    with pytest.raises(SystemExit) as stop:
        run_script(script, *tiny_world.flags, *words)
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and [line[:7] for line in lines] == ["error: "], lines
    assert FILE_IN_THE_WAY.format(tmp_path) in lines[0]


def test_making_split_files_says_what_cannot_be_written(file, tiny_world, tmp_path, capsys, monkeypatch):
    (tmp_path / "words.txt").write_text("dog\ncat\n")
    command = ["--photos", str(tiny_world.root / "val"), "--classes", str(tmp_path / "words.txt"), "--name", "shop"]
    assert build([*command, "--output_root", str(file)]) == 2
    assert FILE_IN_THE_WAY.format(tmp_path) in capsys.readouterr().err

    def full(*args, **options) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "train_cls.txt")

    monkeypatch.setattr("datasets.build.command.write_split_file", full)
    assert build([*command, "--output_root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: train_cls.txt: cannot be written (No space left") and error.count("\n") == 1


def test_ctrl_c_ends_the_making_of_split_files_quietly(tiny_world, tmp_path, capsys, monkeypatch):
    def stop(*args, **options) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("datasets.build.command.read_originals", stop)
    assert build(["--dataset", "voc2007", "--output_root", str(tmp_path)]) == 130
    assert capsys.readouterr().err.startswith("stopped by SIGINT")
