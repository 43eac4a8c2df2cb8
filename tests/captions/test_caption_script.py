"""`caption.py` as users run it, with a local tiny BLIP-2 of transformers' real class."""
from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import caption
from datasets.files import DataError
from tests.captions.tiny_blip2 import available_backend, write_images, write_transformers_model

pytestmark = pytest.mark.skipif(available_backend() != "transformers", reason="no transformers with BLIP-2 here")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """The command line but for `--stage` and `--caption_root`: 7 images, the sixth is damaged."""
    folder = tmp_path_factory.mktemp("world")
    image_ids = write_images(folder / "images", 7)
    damaged = folder / "images" / f"{image_ids[5]}.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    (folder / "split.txt").write_text("".join(f"{image_id} 0\n" for image_id in image_ids))
    model = write_transformers_model(folder / "model", seed=2)
    return ["--dataset", "voc2007", "--captioner", "transformers", "--model_type", str(model), "--device", "cpu",
            "--img_root", str(folder / "images"), "--split_file", str(folder / "split.txt"),
            "--caption_batch_size", "2", "--num_workers", "0", "--skip_unreadable"]


def run(stage, root, flags):
    caption.main(["--stage", stage, "--caption_root", str(root), *flags])


@pytest.fixture(scope="module")
def unbroken(flags, tmp_path_factory):
    root = tmp_path_factory.mktemp("unbroken")
    run("caption", root, flags)
    return root


def files(root):
    return {path.name: path.read_bytes() for path in sorted((root / "voc2007").glob("*.json"))}


def start(root, flags):
    return subprocess.Popen([sys.executable, "caption.py", "--stage", "caption", "--caption_root", str(root), *flags],
                            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_script_killed_three_times_ends_in_the_same_files_and_names_the_damaged_image(flags, unbroken, tmp_path):
    journal = tmp_path / "voc2007" / "voc2007_captions.shard0of1.jsonl"
    chance = random.Random(1)
    for _ in range(3):
        size = journal.stat().st_size if journal.exists() else 0
        script = start(tmp_path, flags)
        while script.poll() is None and not (journal.exists() and journal.stat().st_size > size):
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.1))
        script.send_signal(signal.SIGKILL)
        script.communicate()
    script = start(tmp_path, flags)
    _, errors = script.communicate()
    assert script.returncode == 0
    *listed, last = [line for line in errors.splitlines() if line][-2:]
    assert listed[0].startswith("000005: ") and "000005.png" in listed[0]
    assert last.startswith("1 image could not be read")
    assert files(tmp_path) == files(unbroken)
    assert set(files(tmp_path)) == {"voc2007_captions.json", "voc2007_re_captions.json", "voc2007_captions.meta.json"}


def test_two_shards_and_a_merge_equal_one_run(flags, unbroken, tmp_path):
    shards = ["--num_shards", "2"]
    caption.main(["--stage", "caption", "--caption_root", str(tmp_path), "--shard", "1", *shards, *flags])
    run("caption", tmp_path, [*flags, *shards])
    run("merge", tmp_path, [*flags, *shards])
    assert files(tmp_path) == files(unbroken)


def test_all_goes_on_to_the_labels(flags, unbroken, tmp_path):
    run("all", tmp_path, flags)
    labels = {"train_label_dictionary.json", "train_co_occurrence_counts.json", "train_count_dict.json"}
    assert labels < set(files(tmp_path))
    assert files(unbroken).items() < files(tmp_path).items()


def test_an_unreadable_image_stops_the_script_before_the_model_is_loaded(flags, tmp_path, capsys):
    with pytest.raises(DataError, match="1 of 7 images cannot be read .*--skip_unreadable"):
        run("caption", tmp_path, [*flags[:-1], "--model_type", "nowhere"])
    assert "'000005': " in capsys.readouterr().out and not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize("more, message", [
    (["--stage", "caption", "--num_shards", "2", "--shard", "2"], "shards are numbered from 0 to 1"),
    (["--stage", "all", "--num_shards", "2"], "take the stages caption, merge and filter"),
    (["--stage", "caption", "--precision", "bf16"], "made with precision 'float32', not 'bfloat16'"),
])
def test_flags_that_do_not_fit_are_one_line(flags, unbroken, more, message):
    with pytest.raises(DataError, match=message):
        caption.main(["--caption_root", str(unbroken), *flags, *more])


def test_a_batch_of_no_image_is_one_line(flags, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        caption.main(["--caption_root", str(tmp_path), *flags, "--stage", "caption", "--caption_batch_size", "0"])
    assert caught.value.code == 2 and "--caption_batch_size: 0 is less than 1" in capsys.readouterr().err
