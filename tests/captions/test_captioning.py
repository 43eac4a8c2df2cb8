"""Captioning runs: killed, sharded, resumed with other settings, over unreadable images."""
from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

import caption
from datasets.captions.io import caption_paths
from datasets.captions.journal import read_journal
from datasets.captions.own_files import read_any_captions
from datasets.captions.prompts import NUM_PROMPTS, first_prompts, re_prompts
from datasets.files import DataError
from datasets.registry import get_dataset
from datasets.split_file import ImageList
from engine import captioning
from engine.captioning import Shard, caption_images, category_finder, merge_shards, run_settings
from engine.process.distributed import World
from models.captioners.load_captioner import load_captioner
from tests.captions.tiny_blip2 import available_backend, lavis_captioner, write_images, write_transformers_model
from tests.engine.forked import run_together

BACKEND = available_backend()
pytestmark = pytest.mark.skipif(BACKEND is None, reason="neither LAVIS nor a transformers with BLIP-2 is installed")

WHOLE = Shard(0, 1)
SPEC = get_dataset("voc2007")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Forked children must not wait for threads that only their parent has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    if BACKEND == "lavis":
        return lavis_captioner(folder)
    return load_captioner("transformers", str(write_transformers_model(folder, seed=2)), torch.device("cpu"))


@pytest.fixture(scope="module")
def find_categories():
    return category_finder(SPEC)


@pytest.fixture(scope="module")
def img_root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, 9)
    return folder


class Runs:
    """Captioning runs over the same images and model."""

    def __init__(self, captioner, img_root, find_categories):
        self.captioner = captioner
        self.find_categories = find_categories
        self.images = ImageList(img_root, sorted(path.stem for path in img_root.iterdir()), _as_it_is)

    def settings(self, **changes):
        settings = run_settings(SPEC.name, self.images.image_ids, self.captioner, BACKEND, "tiny", batch_size=2)
        return {**settings, **changes}

    def caption(self, caption_root, shard=WHOLE, num_workers=0, **changes):
        return caption_images(self.captioner, self.images, self.find_categories, self.settings(**changes),
                              caption_root, shard, num_workers)

    def merge(self, caption_root, num_shards=1):
        return merge_shards(caption_root, SPEC.name, self.images.image_ids, num_shards)


def _as_it_is(image):
    return image


@pytest.fixture(scope="module")
def runs(captioner, img_root, find_categories):
    return Runs(captioner, img_root, find_categories)


@pytest.fixture(scope="module")
def unbroken(runs, tmp_path_factory):
    """The folder of an unbroken run."""
    root = tmp_path_factory.mktemp("unbroken")
    assert runs.caption(root) == {}
    assert runs.merge(root) == {}
    return root


def files(caption_root):
    """Name to content of the caption files and the metadata."""
    return {path.name: path.read_bytes() for path in sorted((caption_root / SPEC.name).glob("*.json"))}


def test_the_processes_of_torchrun_are_shards_and_merged_at_the_end(runs, unbroken, img_root, tmp_path, monkeypatch):
    monkeypatch.setattr(captioning, "load_captioner", lambda *flags: runs.captioner)
    (tmp_path / "split.txt").write_text("".join(f"{image_id} 0\n" for image_id in runs.images.image_ids))
    command = ["--dataset", SPEC.name, "--caption_root", str(tmp_path), "--img_root", str(img_root), "--split_file",
               str(tmp_path / "split.txt"), "--captioner", BACKEND, "--model_type", "tiny", "--device", "cpu",
               "--caption_batch_size", "2", "--num_workers", "0"]
    printed = run_together(2, lambda: caption.main([*command, "--stage", "caption"]), tmp_path)
    assert files(tmp_path) == files(unbroken)
    journals = [Shard(rank, 2).journal_path(tmp_path, SPEC.name) for rank in (0, 1)]
    assert all(len(read_journal(path)[1]) >= 2 for path in journals), "both had batches"
    assert printed.count("captions of 9 images") == 1
    for flags, words in ((["--stage", "caption", "--num_shards", "2"], "whose processes are the shards"),
                         (["--stage", "all"], "with torchrun caption and filter")):
        monkeypatch.setattr(captioning, "world", lambda: World(1, 2))
        with pytest.raises(DataError, match=words):
            caption.main([*command, *flags])


def test_files_have_the_authors_layout_and_say_how_they_were_made(runs, unbroken):
    paths = caption_paths(unbroken, SPEC.name)
    for path in paths:
        captions = read_any_captions(path)
        assert list(captions) == runs.images.image_ids
        assert {len(texts) for texts in captions.values()} == {NUM_PROMPTS}
    meta = json.loads((unbroken / SPEC.name / "voc2007_captions.meta.json").read_text())
    assert meta["prompts"] == first_prompts()
    assert meta["decoding"]["num_beams"] == 5 and meta["decoding"]["max_new_tokens"] == 30
    assert meta["library"].split()[0] == {"lavis": "salesforce-lavis", "transformers": "transformers"}[BACKEND]


def test_re_captions_exclude_what_the_filter_finds_in_the_first_captions(runs, unbroken):
    paths = caption_paths(unbroken, SPEC.name)
    first, re_captions = read_any_captions(paths.first), read_any_captions(paths.re)
    excluded = {image_id: runs.find_categories(texts) for image_id, texts in first.items()}
    assert any(excluded.values()), "the tiny model names no category: the test shows nothing"
    for index, image_id in enumerate(runs.images.image_ids):
        queries = runs.captioner.encode(runs.captioner.transform(runs.images[index][0])[None])
        assert re_captions[image_id] == runs.captioner.answer(queries, [re_prompts(excluded[image_id])])[0]


def test_categories_are_found_in_index_order(find_categories):
    assert list(find_categories(["a dog on a sofa", "a cat", "a street covered in snow"])) == [
        "cat", "dog", "sofa", "snow", "street"]
    assert list(find_categories(["nothing to see"])) == []


def test_a_run_killed_three_times_ends_in_the_same_files(runs, unbroken, tmp_path):
    journal = WHOLE.journal_path(tmp_path, SPEC.name)
    chance = random.Random(0)
    killed_at = []
    for _ in range(3):
        lines = _count_lines(journal)
        child = multiprocessing.get_context("fork").Process(target=runs.caption, args=(tmp_path,))
        child.start()
        deadline = time.monotonic() + 60
        while _count_lines(journal) == lines and child.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        killed_at.append(_count_lines(journal))
    assert files(tmp_path) == {}, "caption files appear only once the run is complete"
    assert 0 < killed_at[0] <= killed_at[2] < _count_lines(WHOLE.journal_path(unbroken, SPEC.name))
    runs.caption(tmp_path)
    runs.merge(tmp_path)
    assert files(tmp_path) == files(unbroken)


def _count_lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("kept_lines", [0, 3])
def test_a_line_that_was_cut_short_is_written_again(runs, unbroken, tmp_path, kept_lines):
    whole = WHOLE.journal_path(unbroken, SPEC.name).read_bytes().splitlines(keepends=True)
    journal = WHOLE.journal_path(tmp_path, SPEC.name)
    journal.parent.mkdir()
    journal.write_bytes(b"".join(whole[:kept_lines]) + whole[kept_lines][:-20])
    runs.caption(tmp_path)
    assert journal.read_bytes() == b"".join(whole)


def test_two_shards_merged_equal_one_run(runs, unbroken, tmp_path):
    runs.caption(tmp_path, Shard(1, 2), num_workers=2)
    with pytest.raises(DataError, match="shard0of2.jsonl: no such journal"):
        runs.merge(tmp_path, num_shards=2)
    runs.caption(tmp_path, Shard(0, 2))
    runs.merge(tmp_path, num_shards=2)
    assert files(tmp_path) == files(unbroken)


@pytest.mark.parametrize("num_images, batch_size, count", [(11, 2, 2), (11, 3, 4), (3, 8, 2), (8, 2, 1), (1, 1, 3)])
def test_shards_share_the_batches_of_one_run(num_images, batch_size, count):
    of_one_run = WHOLE.batches(num_images, batch_size)
    of_shards = [batch for index in range(count) for batch in Shard(index, count).batches(num_images, batch_size)]
    assert sorted(of_shards) == of_one_run
    assert sum(of_one_run, []) == list(range(num_images))


def test_an_unfinished_shard_is_not_merged(runs, unbroken, tmp_path):
    lines = WHOLE.journal_path(unbroken, SPEC.name).read_bytes().splitlines(keepends=True)
    journal = WHOLE.journal_path(tmp_path, SPEC.name)
    journal.parent.mkdir()
    journal.write_bytes(b"".join(lines[:3]))
    with pytest.raises(DataError, match="5 of 9 images without captions so far"):
        runs.merge(tmp_path)
    assert files(tmp_path) == {}


@pytest.mark.parametrize("changes, message", [
    ({"precision": "bfloat16"}, "made with precision 'float32', not 'bfloat16'"),
    ({"caption_batch_size": 4}, "made with caption_batch_size '2', not '4'"),
    ({"decoding": {"num_beams": 1}}, "made with decoding"),
])
def test_other_settings_are_refused(runs, unbroken, changes, message):
    before = WHOLE.journal_path(unbroken, SPEC.name).read_bytes()
    with pytest.raises(DataError, match=message):
        runs.caption(unbroken, **changes)
    assert WHOLE.journal_path(unbroken, SPEC.name).read_bytes() == before


def test_shards_of_other_images_are_not_merged(runs, unbroken):
    with pytest.raises(DataError, match="made with images '9', not '8'"):
        merge_shards(unbroken, SPEC.name, runs.images.image_ids[1:], 1)


def test_caption_files_of_another_origin_are_spared(runs, tmp_path):
    path = caption_paths(tmp_path, SPEC.name).first
    path.parent.mkdir()
    path.write_text("the authors' captions")
    with pytest.raises(DataError, match="no journal of a captioning run beside it"):
        runs.caption(tmp_path)
    assert path.read_text() == "the authors' captions"


def test_a_damaged_line_is_named(runs, unbroken, tmp_path):
    lines = WHOLE.journal_path(unbroken, SPEC.name).read_bytes().splitlines(keepends=True)
    journal = WHOLE.journal_path(tmp_path, SPEC.name)
    journal.parent.mkdir()
    journal.write_bytes(lines[0] + b"{}\n" + lines[1])
    with pytest.raises(DataError, match="jsonl:2: damaged line"):
        runs.caption(tmp_path)


def test_unreadable_images_are_listed_skipped_and_taken_up_once_mended(captioner, find_categories, tmp_path):
    img_root = tmp_path / "images"
    write_images(img_root, 4)
    runs = Runs(captioner, img_root, find_categories)
    good = (img_root / "000001.png").read_bytes()
    (img_root / "000001.png").write_bytes(good[:60])
    (img_root / "000003.png").unlink()
    unreadable = runs.caption(tmp_path)
    assert list(unreadable) == ["000001", "000003"]
    assert "000001.png" in unreadable["000001"] and "no such image" in unreadable["000003"]
    assert list(runs.merge(tmp_path)) == ["000001", "000003"]
    assert list(read_any_captions(caption_paths(tmp_path, SPEC.name).first)) == ["000000", "000002"]
    assert list(json.loads(files(tmp_path)["voc2007_captions.meta.json"])["unreadable"]) == ["000001", "000003"]

    (img_root / "000001.png").write_bytes(good)
    assert list(runs.caption(tmp_path)) == ["000003"]
    assert list(runs.merge(tmp_path)) == ["000003"]
    assert list(read_any_captions(caption_paths(tmp_path, SPEC.name).re)) == ["000000", "000001", "000002"]


def test_a_finished_run_captions_nothing_again(runs, unbroken, monkeypatch):
    _, batches = read_journal(WHOLE.journal_path(unbroken, SPEC.name))
    assert sum(len(batch.captions) for batch in batches) == len(runs.images)
    monkeypatch.setattr(runs.captioner, "encode", None)
    assert runs.caption(unbroken) == {}
