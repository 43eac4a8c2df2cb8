"""The feature store: what it holds, what it survives, and how it is read."""
from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import List

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import clip
from datasets.files import DataError, write_json
from datasets.images import image_transform
from datasets.split_file import ImageList, read_image_ids
from engine.features import feature_store, store_writer
from engine.features.extraction import LiveFeatures, extract_features, extract_train_and_test
from engine.features.feature_set import FeatureSet
from engine.features.feature_store import FeatureStore, pack, store_arrays, unpack
from engine.features.store_writer import StoreWriter
from models.encoder import CLIPEncoder, Features
from models.masks import high_attention
from tests.engine.forked import start_forked

ROWS, CHUNK = 20, 4


class CountingEncoder(CLIPEncoder):
    """Remembers how many images it was given."""

    encoded = 0

    def forward(self, images):
        self.encoded += len(images)
        return super().forward(images)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(store_writer, "CHUNK_ROWS", CHUNK)


@pytest.fixture
def encoder(tiny_world) -> CountingEncoder:
    return CountingEncoder(clip.load(str(tiny_world.path("--model_path")))[0])


@pytest.fixture
def images(tiny_world) -> ImageList:
    return ImageList(tiny_world.path("--train_img_root"), read_image_ids(tiny_world.path("--train_split_file")),
                     image_transform(64))


def flags(root: Path, **changes) -> argparse.Namespace:
    return argparse.Namespace(**{"feature_root": str(root), "patch_dtype": "fp16", "no_feature_store": False,
                                 "encode_batch_size": 3, "num_workers": 0, **changes})


def content(store: FeatureStore) -> dict:
    return {path.name: path.read_bytes() for path in store.folder.glob("*.npy")}


def numbered_store(folder: Path, rows: List[int]) -> FeatureStore:
    """A store whose features of every row are all the row's number."""
    arrays = store_arrays(len(rows), 6, 8, "fp16")
    with StoreWriter(folder, arrays) as writer:
        for chunk in writer.chunks_to_do():
            values = torch.tensor([rows[row] for row in chunk], dtype=torch.float32)[:, None, None]
            writer.write(chunk, pack(Features(values.expand(-1, 6, 8), values.expand(-1, 3, 8)), "fp16"))
    writer.finish({"grid": [2, 3]})
    return FeatureStore(folder)


def test_store_holds_what_the_encoder_says(encoder, images, tmp_path, small_chunks):
    store = extract_features(encoder, images, "train", flags(tmp_path))
    rows = [7, 0, 19, 7]
    expected = encoder(torch.stack([images[row][0] for row in rows]))
    for stored, computed in zip(store[rows], expected):
        assert stored.dtype == torch.float32
        torch.testing.assert_close(stored, computed, rtol=1e-3, atol=1e-5)
    assert len(store) == ROWS and store.grid == (4, 4)
    assert torch.equal(store.plain_globals(), store[range(ROWS)].global_embeddings[:, 0])
    assert not (store.folder / "done").exists()


def test_estimate_comes_first(encoder, images, tmp_path, capsys):
    store = extract_features(encoder, images, "train", flags(tmp_path))
    size = sum(path.stat().st_size for path in store.folder.glob("*.npy"))
    assert "20 images x 1.22 kB = 24.3 kB" in capsys.readouterr().out
    assert 0 <= size - ROWS * (16 + 3) * 32 * 2 <= 512


def test_second_run_encodes_nothing(encoder, images, tmp_path):
    first = extract_features(encoder, images, "train", flags(tmp_path))
    encoder.encoded = 0
    second = extract_features(encoder, images, "test", flags(tmp_path, encode_batch_size=7, num_workers=1))
    assert encoder.encoded == 0 and second.folder == first.folder


def test_another_encoder_mask_or_image_list_gets_another_store(tiny_world, encoder, images, tmp_path):
    folders = [extract_features(encoder, images, "train", flags(tmp_path)).folder]
    folders.append(extract_features(encoder, images, "train", flags(tmp_path, patch_dtype="int8")).folder)
    for change in ({"mask_share": 0.5}, {"mask_threshold": 0.5}, {"attention_layer": 0}, {"mask_mode": "token"},
                   {"patch_attention": "full"}, {"precision": "bf16"}):
        other = CLIPEncoder(encoder.clip, **change)
        folders.append(extract_features(other, images, "train", flags(tmp_path)).folder)
    backwards = ImageList(tiny_world.path("--train_img_root"), images.image_ids[::-1], images.transform)
    folders.append(extract_features(encoder, backwards, "train", flags(tmp_path)).folder)
    larger = ImageList(tiny_world.path("--train_img_root"), images.image_ids, image_transform(80))
    folders.append(extract_features(encoder, larger, "train", flags(tmp_path)).folder)
    shutil.copytree(tiny_world.path("--train_img_root"), tmp_path / "edited")
    with (tmp_path / "edited" / f"{images.image_ids[3]}.jpg").open("ab") as file:
        file.write(b"\0")
    edited = ImageList(tmp_path / "edited", images.image_ids, images.transform)
    folders.append(extract_features(encoder, edited, "train", flags(tmp_path)).folder)
    encoder.clip.visual.proj += 1e-6
    folders.append(extract_features(encoder, images, "train", flags(tmp_path)).folder)
    assert len(set(folders)) == len(folders) == 12


def extract_in_process(images: ImageList, world, feature_root: Path, output: Path, dies_at: int = -1) -> ForkProcess:
    """Extraction as a process of its own: prints how many images it encoded, or kills itself at some write."""
    def main() -> None:
        write, writes = StoreWriter._write, []

        def dying_write(*args) -> None:
            if len(writes) == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            writes.append(None)
            write(*args)

        StoreWriter._write = dying_write
        encoder = CountingEncoder(clip.load(str(world.path("--model_path")))[0])
        extract_features(encoder, images, "train", flags(feature_root))
        print("encoded", encoder.encoded)

    return start_forked(main, output)


def test_killed_extraction_ends_with_the_same_bytes(tiny_world, encoder, images, tmp_path, small_chunks):
    whole = extract_features(encoder, images, "train", flags(tmp_path / "whole"))
    killed = extract_in_process(images, tiny_world, tmp_path / "killed", tmp_path / "output", dies_at=5)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert not feature_store.is_complete(tmp_path / "killed" / whole.folder.name)
    encoder.encoded = 0
    resumed = extract_features(encoder, images, "train", flags(tmp_path / "killed"))
    assert content(resumed) == content(whole)
    assert encoder.encoded == ROWS - 2 * CHUNK, "a chunk of 4 rows takes two writes, a batch of 3 and one of 1"


def test_of_two_runs_at_once_one_computes(tiny_world, encoder, images, tmp_path, small_chunks):
    outputs = [tmp_path / "first", tmp_path / "second"]
    for run in [extract_in_process(images, tiny_world, tmp_path / "shared", output) for output in outputs]:
        run.join()
    assert sorted(int(output.read_text().split()[-1]) for output in outputs) == [0, ROWS]
    alone = extract_features(encoder, images, "train", flags(tmp_path / "alone"))
    assert content(FeatureStore(tmp_path / "shared" / alone.folder.name)) == content(alone)


def test_disk_without_room_is_refused_before_work_starts(encoder, images, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=24_000))
    with pytest.raises(DataError, match=r"need 24.3 kB for train, 24 kB are free, 320 B are missing; make room .*"
                                        r"--feature_root, or .*--patch_dtype int8, or .*--no_feature_store"):
        extract_features(encoder, images, "train", flags(tmp_path))
    assert encoder.encoded == 0 and not list(tmp_path.rglob("*.npy"))


RESO = {"no_reso": False, "epochs": 16, "reso_epoch": 11, "gamma": 0.7, "positive_threshold": 0.5, "max_crops": None,
        "output_dir": "run"}
LABELS = torch.tensor([[0.6, 0.5, 0.9, 0.4]] * 20)


def test_train_and_test_need_room_together(encoder, images, tmp_path, monkeypatch):
    some = images.only(images.image_ids[:8])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=30_000))
    with pytest.raises(DataError, match="24.3 kB for train and 9.73 kB for test, 30 kB are free, 4.05 kB are missing"):
        extract_train_and_test(encoder, images, some, LABELS, flags(tmp_path, **RESO))
    assert encoder.encoded == 0


def test_advice_does_not_orphan_a_store_that_is_there(encoder, images, tmp_path, monkeypatch):
    extract_features(encoder, images, "train", flags(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=8_000))
    with pytest.raises(DataError, match="need 9.73 kB for test, .*move .* to a larger disk") as refusal:
        extract_train_and_test(encoder, images, images.only(images.image_ids[:8]), LABELS, flags(tmp_path, **RESO))
    assert "int8" not in str(refusal.value) and "--no_feature_store" not in str(refusal.value)


@pytest.mark.parametrize("change, warned", [({}, True), ({"max_crops": 1}, False), ({"no_reso": True}, False)])
def test_crops_that_may_find_no_room_are_a_warning(encoder, images, tmp_path, monkeypatch, capsys, change, warned):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=51_000))
    extract_train_and_test(encoder, images, images.only(images.image_ids[::-1]), LABELS,
                           flags(tmp_path, **{**RESO, **change}))
    out = capsys.readouterr().out
    assert ("crops may be 3 from epoch 11 on, whose features take 3.65 kB, and 2.36 kB will be left" in out) == warned


def test_disk_that_cannot_be_reserved_leaves_nothing_behind(encoder, images, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(DataError, match="patch_embeddings.npy: the features cannot be written .*--feature_root"):
            extract_features(encoder, images, "train", flags(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("*.npy")) and not list(tmp_path.rglob("*.part"))
    assert len(extract_features(encoder, images, "train", flags(tmp_path))) == ROWS


def test_features_that_overflow_are_refused(tmp_path):
    with pytest.raises(DataError, match="patch embeddings of images 0 to 1 are not finite; .*--precision"):
        numbered_store(tmp_path, [1, 70_000])
    assert not feature_store.is_complete(tmp_path)


def test_damaged_store_says_what_to_do(tmp_path):
    numbered_store(tmp_path, [1, 2])
    with (tmp_path / "patch_embeddings.npy").open("r+b") as file:
        file.truncate(200)
    with pytest.raises(DataError, match="delete the folder"):
        FeatureStore(tmp_path)


def test_int8_keeps_the_direction_of_patches():
    torch.manual_seed(0)
    patches = torch.randn(5, 7, 64) * torch.logspace(-3, 2, 7)[:, None]
    patches[0, 0] = 0
    features = Features(patches, torch.randn(5, 3, 64))
    packed = pack(features, "int8")
    assert packed["patch_embeddings"].dtype == torch.int8
    restored = unpack(packed)
    step = patches.abs().amax(dim=-1, keepdim=True) / 127
    assert ((restored.patch_embeddings - patches).abs() <= 0.58 * step + 1e-4).all(), \
        "half a step, and the rounding to fp16 of value and scale"
    cosines = F.cosine_similarity(restored.patch_embeddings, patches, dim=-1)
    assert cosines[1:].min() > 0.9998
    assert (restored.patch_embeddings[0, 0] == 0).all()


@pytest.mark.parametrize("fp16_goes", [False, True])
def test_a_store_in_fp16_becomes_the_int8_one_that_encoding_gives(encoder, images, tmp_path, monkeypatch, small_chunks,
                                                                  capsys, fp16_goes):
    encoded = extract_features(encoder, images, "train", flags(tmp_path / "encoded", patch_dtype="int8"))
    wide = extract_features(encoder, images, "train", flags(tmp_path))
    encoder.encoded, write, written = 0, StoreWriter.write, []

    def stop(writer, rows, packed):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(rows)
        write(writer, rows, packed)

    monkeypatch.setattr(StoreWriter, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        extract_features(encoder, images, "train", flags(tmp_path, patch_dtype="int8"))
    monkeypatch.setattr(StoreWriter, "write", write)
    if fp16_goes:
        shutil.rmtree(wide.folder)
    converted = extract_features(encoder, images, "train", flags(tmp_path, patch_dtype="int8"))
    assert content(converted) == content(encoded) and converted.meta == {**encoded.meta, "of": converted.meta["of"]}
    assert (encoder.encoded == 0) != fp16_goes and encoder.encoded < len(images)
    assert f"--remove {wide.folder.name}\n" in capsys.readouterr().out or fp16_goes


def test_live_features_are_those_of_the_store(encoder, images, tmp_path):
    store = extract_features(encoder, images, "train", flags(tmp_path))
    live = extract_features(encoder, images, "train", flags(tmp_path / "none", no_feature_store=True))
    assert isinstance(live, LiveFeatures) and not (tmp_path / "none").exists()
    rows = np.array([3, 19, 0, 4])
    for stored, computed in zip(store[rows], live[rows]):
        torch.testing.assert_close(stored, computed, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(live.plain_globals(), store.plain_globals(), rtol=1e-3, atol=1e-5)
    assert live.grid == store.grid and len(live) == len(store)


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_give_every_row_once_with_its_own_features(tmp_path, shuffled):
    data = FeatureSet([numbered_store(tmp_path / "images", list(range(10))),
                       numbered_store(tmp_path / "crops", list(range(10, 13)))],
                      torch.arange(13.0)[:, None].expand(-1, 2))
    generator = torch.Generator().manual_seed(0) if shuffled else None
    batches = list(data.batches(4, generator))
    assert [len(batch.rows) for batch in batches] == [4, 4, 4, 1]
    rows = torch.cat([batch.rows for batch in batches])
    assert rows.sort().values.tolist() == list(range(13)) and (rows.tolist() != list(range(13))) == shuffled
    for batch in batches:
        numbers = batch.rows.float()
        assert torch.equal(batch.targets, numbers[:, None].expand(-1, 2))
        assert torch.equal(batch.features.patch_embeddings, numbers[:, None, None].expand(-1, 6, 8))
        assert torch.equal(batch.features.global_embeddings, numbers[:, None, None].expand(-1, 3, 8))


@pytest.mark.parametrize("can_tell", [True, False], ids=["asks what is in memory", "waits for all"])
def test_rows_are_read_whether_or_not_they_are_in_memory(tmp_path, monkeypatch, can_tell):
    store = numbered_store(tmp_path, list(range(300)))
    if not can_tell:
        monkeypatch.setattr(feature_store, "_NO_WAIT", None)
    rows = torch.randperm(300).tolist()
    for _ in range(2):  # from the disk, then from memory
        features = store[rows]
        assert features.patch_embeddings[:, 0, 0].tolist() == features.global_embeddings[:, 0, 0].tolist() == rows
        for path in tmp_path.glob("*.npy"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of the process from /proc")
def test_reading_does_not_hold_the_store_in_memory(tmp_path):
    arrays = store_arrays(2000, 196, 128, "fp16")  # 100 MB
    with StoreWriter(tmp_path, arrays):
        pass
    write_json(tmp_path / "store.json", {"arrays": arrays, "grid": [14, 14]})
    data = FeatureSet([FeatureStore(tmp_path)], torch.zeros(2000, 1))

    def mapped() -> int:
        line, = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile"))
        return int(line.split()[1]) * 1024

    before = mapped()
    largest = max(mapped() - before for _ in data.batches(50, torch.Generator().manual_seed(0)))
    assert largest < 30e6


@pytest.mark.parametrize("mask", [{"mask_share": 0.3}, {"mask_threshold": 0.4}, {"mask_threshold": 2.0}])
def test_token_mode_drops_the_tokens_of_one_part_after_the_other(encoder, images, mask):
    batch = torch.stack([images[row][0] for row in range(6)])
    by_token = CLIPEncoder(encoder.clip, mask_mode="token", **mask)(batch)
    by_pixel = CLIPEncoder(encoder.clip, mask_mode="pixel", **mask)(batch)
    assert torch.equal(by_token.patch_embeddings, by_pixel.patch_embeddings)
    assert torch.equal(by_token.global_embeddings[:, 0], by_pixel.global_embeddings[:, 0])
    high = high_attention(encoder.clip.encode_image_dense(batch).cls_attention, **{
        name.replace("mask_", ""): value for name, value in mask.items()})
    for row, image in enumerate(batch):
        for place, kept in ((1, high[row]), (2, ~high[row])):
            alone = encoder.clip.encode_image(image[None], keep=kept.nonzero()[:, 0][None])[0]
            torch.testing.assert_close(by_token.global_embeddings[row, place], alone, rtol=1e-4, atol=1e-5)


def test_half_precision_stays_near(encoder, images):
    batch = torch.stack([images[row][0] for row in range(4)])
    exact, rounded = (CLIPEncoder(encoder.clip, precision=precision)(batch) for precision in ("fp32", "bf16"))
    assert not torch.equal(exact.patch_embeddings, rounded.patch_embeddings)
    for one, other in zip(exact[0].flatten(0, 1), rounded[0].flatten(0, 1).float()):
        assert F.cosine_similarity(one, other, dim=0) > 0.999
    assert F.cosine_similarity(exact[1][:, 0], rounded[1][:, 0].float(), dim=-1).min() > 0.999
