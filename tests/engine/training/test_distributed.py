"""Several processes do what one does."""
from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Dict, List

import pytest
import torch

from engine.features.feature_set import FeatureSet
from engine.process import distributed
from engine.process.distributed import World
from tests.engine.features.test_features import numbered_store
from tests.engine.forked import launch_together, run_together

SHORT = ["--epochs", "4", "--reso_epoch", "3", "--batch_size", "8", "--epsilon", "0.15", "--encode_batch_size", "3"]


def files(folder: Path, *patterns: str) -> Dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for pattern in patterns for path in folder.rglob(pattern)}


def log(folder: Path) -> List[dict]:
    return [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]


def weights(folder: Path) -> Dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pth", weights_only=True)["model"]


SCRIPT = """
import runpy, sys, time
sys.path.insert(0, '.')
from engine.features import store_writer
from engine.process import distributed
store_writer.CHUNK_ROWS = 4
runpy.run_path('train_voc07.py', run_name='__main__')
sys.argv[1:] = ['--checkpoint', 'CHECKPOINT']
runpy.run_path('eval.py', run_name='__main__')
if distributed.is_main():
    distributed.leave()
    time.sleep(1)
    distributed.barrier()  # the others have ended
    print('alone')
"""


@pytest.fixture(scope="module")
def outputs(tiny_world, tmp_path_factory) -> Dict[int, Path]:
    """Folders of the same run in one and in two processes; chunks of 4 rows, so that both processes get some."""
    runs = {}
    for processes in (1, 2):
        folder = tmp_path_factory.mktemp(f"processes_{processes}")
        flags = [*tiny_world.flags, "--feature_root", folder / "features", "--output_dir", folder / "run", *SHORT]
        script = folder / "script.py"
        script.write_text(SCRIPT.replace("CHECKPOINT", str(folder / "run" / "checkpoint.pth")))

        def run(script=script, flags=flags) -> None:
            sys.argv = list(map(str, [script, *flags]))
            runpy.run_path(str(script))

        printed = launch_together(2, run, folder) if processes == 2 else run_together(1, run, folder)
        assert printed.count("everything is in") == 1, "only the main process prints"
        *lines, last = printed.splitlines()
        assert last == "alone"
        (folder / "evaluation.txt").write_text("\n".join(lines[-3:]))
        runs[processes] = folder
    return runs


def test_two_processes_give_the_same_map_as_one(outputs):
    one, two = log(outputs[1] / "run"), log(outputs[2] / "run")
    assert [record["images"] for record in one] == [record["images"] for record in two]
    for ours, theirs in zip(one, two):
        assert ours["mAP"] == pytest.approx(theirs["mAP"], abs=1e-4)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    ours, theirs = weights(outputs[1] / "run"), weights(outputs[2] / "run")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


def test_two_processes_fill_the_same_stores_and_cut_the_same_crops(outputs):
    stores = files(outputs[1] / "features", "*.npy")
    assert len(stores) == 4 and files(outputs[2] / "features", "*.npy") == stores
    crops = files(outputs[1] / "run" / "reso", "*.jpg", "index.json")
    assert len(crops) > 1 and files(outputs[2] / "run" / "reso", "*.jpg", "index.json") == crops


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_repeats_the_last_map_of_the_log(outputs, processes):
    other_measures, images, last_line = (outputs[processes] / "evaluation.txt").read_text().splitlines()
    assert images.startswith("12 test images of ") and last_line == f"mAP {log(outputs[processes] / 'run')[-1]['mAP']}"
    assert other_measures.startswith("OP ")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shares_of_shuffled_batches_make_the_whole(tmp_path, size):
    data = FeatureSet([numbered_store(tmp_path, list(range(13)))], torch.zeros(13, 2))
    shares = [list(data.batches(4, torch.Generator().manual_seed(0), world=World(rank, size))) for rank in range(size)]
    alone = list(data.batches(4, torch.Generator().manual_seed(0)))
    assert [batch.share for batch in alone] == [1.0] * 4
    for whole, parts in zip(alone, zip(*shares)):
        assert all(torch.equal(part.whole, whole.rows) and len(part.rows) > 0 for part in parts)
        assert sum(part.share for part in parts) == pytest.approx(1)
        counted = torch.cat([part.rows for part in parts if part.share > 0])
        assert counted.sort().values.tolist() == whole.rows.sort().values.tolist()
        means = [part.share * float(part.features.global_embeddings.mean()) for part in parts]
        assert sum(means) == pytest.approx(float(whole.features.global_embeddings.mean()))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_batches_in_order_are_dealt_whole(tmp_path, size):
    data = FeatureSet([numbered_store(tmp_path, list(range(13)))], torch.zeros(13, 2))
    dealt = [batch.rows.tolist() for rank in range(size) for batch in data.batches(4, world=World(rank, size))]
    assert sorted(dealt) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]


def test_a_single_process_exchanges_nothing():
    assert distributed.world() == World(0, 1) and distributed.is_main()
    values = torch.tensor([1.0, 2.0])
    assert distributed.sum_over_processes(values) is values
    assert distributed.from_main(lambda: 3) == 3 and distributed.gather([1, 2]) == [1, 2]
    assert distributed.any_process(True) and not distributed.any_process(False)
