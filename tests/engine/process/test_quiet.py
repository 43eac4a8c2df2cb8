"""`--quiet` over all scripts: nothing of the progress, and the results as ever."""
from __future__ import annotations

import ast
import io
import urllib.request
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import List

import pytest

from datasets.captions.io import caption_paths
from datasets.files import write_json
from datasets.progress import keep_quiet
from engine.features.frozen_clip import fetch_weights
from engine.paper.steps import Step, Task, run_steps
from tests.conftest import REPOSITORY, TinyWorld
from tests.engine.training.test_training import run_script

MAY_PRINT_AT_ONCE = {"datasets/progress.py", "engine/paper/steps.py", "reproduce.py"}
"""The lines of progress; what a command of a step prints; what a step found."""


def called(node: ast.AST) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def test_progress_is_told_in_one_place() -> None:
    """A bar, or a line that is printed at once, is progress, which `datasets.progress` leaves out on demand."""
    elsewhere: List[str] = []
    rooms = [path for room in ("datasets", "models", "engine", "mini") for path in (REPOSITORY / room).rglob("*.py")]
    for path in (*rooms, *REPOSITORY.glob("*.py")):
        name = str(path.relative_to(REPOSITORY))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            at_once = called(node) == "print" and any(keyword.arg == "flush" for keyword in node.keywords)
            if (at_once or called(node) in ("tqdm", "trange")) and name not in MAY_PRINT_AT_ONCE:
                elsewhere.append(f"{name}:{node.lineno}")
    assert elsewhere == []


def tiny_scripts(world: TinyWorld, folder: Path) -> dict:
    """A short command of each script that has one; training and `reproduce.py` have tests of their own."""
    texts = {f"train_{number:03d}": [f"a dog and a chair {prompt}" for prompt in range(6)] for number in range(20)}
    for path in caption_paths(folder / "caption", "voc2007"):
        write_json(path, texts)
    captions = ["--dataset", "voc2007", "--caption_root", folder / "caption"]
    data = [*world.flags, "--activation", "quick_gelu"]
    return {
        "caption": [*captions, "--stage", "filter"],
        "eval": [*data, "--method", "clip", "--output_dir", folder / "eval"],
        "train_voc07": [*data, "--method", "cdul", "--backbone", "clip", "--epochs", 1, "--output_dir",
                        folder / "cdul", "--batch_size", 10],
        "ablate": [*data, "--study", "components", "--dry_run", "--output_dir", folder / "ablation"],
    }


@pytest.mark.parametrize("script", ["caption", "eval", "train_voc07", "ablate"])
def test_scripts_print_results_alone(tiny_world, tmp_path, capsys, speaking, monkeypatch, script):
    monkeypatch.setattr("datasets.progress.DELAY", 0)
    flags = tiny_scripts(tiny_world, tmp_path)[script]
    run_script(script, *flags, "--quiet")
    quiet = capsys.readouterr()
    assert quiet.err == "" and quiet.out, "results, and no bar"
    assert not any(word in quiet.out for word in ("going on", "features (", "image/s", "seed 0,"))


def test_steps_of_a_reproduction_tell_what_they_found_alone(tmp_path, capsys, speaking):
    keep_quiet()
    done = Step("clip", "CLIP", [Task("its mAP", (), lambda: True)])
    run_steps([done], tmp_path, 1, after=lambda step: print("mAP 80.0"))
    assert capsys.readouterr() == ("mAP 80.0\n", "")


def test_the_bar_of_a_download_is_left_out(tmp_path, capsys, speaking, monkeypatch):
    content = b"weights" * 1000

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Answer(content))
    url = f"https://host/{sha256(content).hexdigest()}/ViT.pt"
    fetch_weights(url, tmp_path / "loud", quiet=False)
    assert "ViT.pt: 100%" in capsys.readouterr().err
    fetch_weights(url, tmp_path / "quiet", quiet=True)
    assert capsys.readouterr() == ("", "") and (tmp_path / "quiet" / "ViT.pt").read_bytes() == content


class Answer(io.BytesIO):
    """What a server sends."""

    @property
    def headers(self) -> SimpleNamespace:
        return SimpleNamespace(get=lambda name: str(len(self.getvalue())))
