"""What ends a script: one line and status 2 where the user can mend it, and no traceback for a strange environment."""
from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, PngImagePlugin

from datasets.build.originals import read_coco_instances, read_voc
from datasets.files import DataError, read_json
from datasets.images import read_image
from datasets.names import COCO_CLASSES
from engine.command_line.train_flags import get_args_parser
from engine.process.distributed import get_device, setup
from engine.process.entry_point import run_main
from engine.process.signals import held_signals
from engine.training.checkpoint import load_checkpoint
from tests.conftest import REPOSITORY


def ends_with(main, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        run_main(main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and error.startswith("error: ")
    return error


def raising(error: BaseException):
    def main() -> None:
        raise error
    return main


def dynamo_error() -> RuntimeError:
    return type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})("no g++\nlong story")


@pytest.mark.parametrize("error, message", [
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "--num_workers"),
    (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5"), "the same command goes"),
    (dynamo_error(), "--compile: the encoder cannot be compiled (no g++)"),
    (ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"), "matplotlib is not installed"),
])
def test_errors_that_the_user_can_mend(capsys, error, message):
    assert message in ends_with(raising(error), capsys)


def test_other_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_main(raising(RuntimeError("a fault of ours")))


def test_letters_that_a_terminal_lacks_do_not_end_a_script(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    run_main(lambda: print("66.0 ± 0.2", flush=True))
    assert stream.buffer.getvalue() == b"66.0 ? 0.2\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_stop_signals_are_held_and_end_a_script_with_their_status(number, capsys):
    def main() -> None:
        with held_signals() as received:
            signal.raise_signal(number)
            assert received == [number]
        pytest.fail("the signal was lost")

    before = signal.signal(number, signal.SIG_DFL)  # nohup may have started the tests
    try:
        with pytest.raises(SystemExit) as stop:
            run_main(main)
    finally:
        signal.signal(number, before)
    assert stop.value.code == 128 + number and f"stopped by {number.name}" in capsys.readouterr().err


def test_nohup_goes_on_ignoring_hangups():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_main(lambda: signal.raise_signal(signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_strange_environment_is_no_hindrance(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert setup("cpu").type == "cpu" and not torch.distributed.is_initialized()
    strange = {**os.environ, "MPLBACKEND": "backend_of_a_notebook"}
    done = subprocess.run([sys.executable, "-c", "import datasets.files, matplotlib.figure"], cwd=REPOSITORY,
                          env=strange, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["gpu", "cuda0", "0"])
def test_devices_are_named(name):
    with pytest.raises(DataError, match=f"--device {name}: take cuda, cuda:1, mps or cpu"):
        get_device(name)


def test_the_old_launcher_points_at_the_new_one(capsys):
    with pytest.raises(SystemExit):
        get_args_parser("voc2007", None).parse_args(["--local-rank=0"])
    assert "start the script with torchrun" in capsys.readouterr().err


def test_files_of_another_kind_are_told(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="config.json: no checkpoint; give the checkpoint.pth beside it"):
        load_checkpoint(tmp_path / "config.json")
    with pytest.raises(DataError, match="a folder; give the JSON file in it"):
        read_json(tmp_path)
    torch.save({"model": Path("x")}, tmp_path / "other.pth")
    with pytest.raises(DataError) as stop:
        load_checkpoint(tmp_path / "other.pth")
    assert str(stop.value).isprintable()


def test_large_texts_and_profiles_of_a_png_are_no_damage(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * (2 << 20), zip=True)
    Image.new("RGB", (4, 4), (200, 10, 10)).save(tmp_path / "a.png", pnginfo=info, icc_profile=b"x" * (3 << 20))
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (200, 10, 10)


def test_originals_with_other_lists_or_without_boxes(tmp_path):
    tree = tmp_path / "VOCdevkit" / "VOC2012"
    (tree / "Annotations").mkdir(parents=True)
    (tree / "ImageSets" / "Main").mkdir(parents=True)
    (tree / "ImageSets" / "Main" / "train.txt").write_text("2008_000001\n")
    with pytest.raises(DataError, match="add --split_source main"):
        read_voc(tmp_path, 2012, "Segmentation")
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": [
        {"id": number, "name": name.replace("_", " ")} for number, name in enumerate(COCO_CLASSES)]}))
    with pytest.raises(DataError, match="instances.json: no image has a box"):
        read_coco_instances(path, "train")


def test_a_start_does_not_wait_for_what_comes_late():
    """scikit-learn and scipy.stats take a second to import; fused labels, other encoders and tables need them."""
    script = ("import sys, train_nus, eval; late = {'sklearn', 'pandas', 'scipy.stats', 'scipy.optimize'} & "
              "set(sys.modules); assert not late, late")
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)
