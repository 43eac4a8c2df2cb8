"""Files of earlier runs and of others, damaged in any way: they are refused by one line, and run no code."""
from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.captions.io import load_captions
from datasets.captions.journal import Batch, Journal, read_journal
from datasets.files import DataError
from datasets.filter.lexicon import SYNONYM_ROOT, load_lexicon
from datasets.registry import get_dataset
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.features.feature_store import FeatureStore, pack, store_arrays
from engine.features.store_writer import StoreWriter
from engine.results.finished_runs import collect_runs
from engine.training.checkpoint import load_checkpoint, load_weights
from engine.training.run import Run
from models.encoder import Features
from models.reso import Crop, read_index, write_index

fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), st.text(max_size=8),
                    st.sampled_from(["../x", "/etc/passwd", "nan", "\x00", "a" * 300]))
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.text(max_size=5), inner, max_size=3), max_leaves=6)


@st.composite
def damaged(draw: st.DrawFn, value: Any, others: st.SearchStrategy[Any] = JSON) -> Any:
    """`value` with one to three parts, however deep, removed or replaced."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        value = _damage(draw, value, others)
    return value


def _damage(draw: st.DrawFn, value: Any, others: st.SearchStrategy[Any]) -> Any:
    if not isinstance(value, (dict, list)) or not value or draw(st.integers(0, 9)) == 0:
        return draw(others)
    key = draw(st.sampled_from(sorted(value, key=str))) if isinstance(value, dict) else draw(
        st.integers(0, len(value) - 1))
    if draw(st.integers(0, 3)) == 0:
        del value[key]
    else:
        value[key] = _damage(draw, value[key], others)
    return value


def read_or_refuse(read: Callable[[], Any]) -> None:
    """Call a reader; the only error that may come out of it is a line for the user."""
    try:
        read()
    except DataError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 1000


def new_model() -> Tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), 0.1)


def valid_checkpoint(folder: Path) -> Dict[str, Any]:
    model, optimizer = new_model()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    args = parse_args(get_args_parser("voc2007", None), ["--output_dir", str(folder)])
    return {"epoch": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "history": [{"epoch": 1, "loss": 0.5, "mAP": 30.0}], "progress": {"batches": 0, "loss": torch.zeros(())},
            "args": vars(args), "categories": ["cat", "dog"], "weights_sha256": "0" * 64, "skipped_images": []}


def go_on(folder: Path) -> None:
    """Do what a train script does with the checkpoint in its output folder."""
    args = parse_args(get_args_parser("voc2007", None), ["--output_dir", str(folder)])
    run = Run(args, ["cat", "dog"], {"weights_sha256": "0" * 64, "skipped_images": []})
    model, optimizer = new_model()
    run.restore(model, optimizer)
    run.logger.close()
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()


@fuzz
@given(data=st.data())
def test_damaged_checkpoints(tmp_path, data):
    tensors = st.sampled_from([torch.zeros(0), torch.zeros(3, 2), torch.full((2,), torch.nan), torch.tensor([1, 2])])
    checkpoint = data.draw(damaged(valid_checkpoint(tmp_path), st.one_of(JSON, tensors)))
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    read_or_refuse(lambda: go_on(tmp_path))


@fuzz
@given(data=st.data())
def test_cut_and_flipped_checkpoints(tmp_path, data):
    torch.save(valid_checkpoint(tmp_path), tmp_path / "checkpoint.pth")
    content = bytearray((tmp_path / "checkpoint.pth").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "checkpoint.pth").write_bytes(content[:data.draw(st.integers(0, len(content)))])
    read_or_refuse(lambda: go_on(tmp_path))


def test_the_valid_checkpoint_is_read(tmp_path):
    torch.save(valid_checkpoint(tmp_path), tmp_path / "checkpoint.pth")
    go_on(tmp_path)


@pytest.mark.parametrize("change, message", [
    ({"categories": ["cat", "cow"]}, "trained for other categories .*--dataset"),
    ({"model": {"weight": torch.full((2, 3), torch.nan), "bias": torch.zeros(2)}}, "'weight' is not finite"),
    ({"model": {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}}, "do not fit .*size mismatch"),
    ({"optimizer": {}}, "state of the optimiser does not fit"),
    ({"weights_sha256": "1" * 64}, "made with weights_sha256 '1111.*choose another --output_dir"),
    ({"skipped_images": ["000012"]}, "made with skipped_images .*000012"),
    ({"epoch": 2}, "1 record of 2 epochs"),
])
def test_why_a_checkpoint_is_refused(tmp_path, change, message):
    torch.save({**valid_checkpoint(tmp_path), **change}, tmp_path / "checkpoint.pth")
    with pytest.raises(DataError, match=f"checkpoint.pth: .*{message}"):
        go_on(tmp_path)


def test_a_state_of_the_optimiser_under_another_name_is_refused(tmp_path):
    """A flipped bit once turned exp_avg_sq into another name, which only the next step missed."""
    checkpoint = valid_checkpoint(tmp_path)
    for entry in checkpoint["optimizer"]["state"].values():
        entry["exp_avg_sp"] = entry.pop("exp_avg_sq")
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    with pytest.raises(DataError, match="state of the optimiser does not fit"):
        go_on(tmp_path)


class RunsCode:
    """Pickles as a call of `os.mkdir`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Tuple[Any, Tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run_it(tmp_path):
    torch.save({**valid_checkpoint(tmp_path), "history": RunsCode(tmp_path / "made")}, tmp_path / "checkpoint.pth")
    with pytest.raises(DataError, match="more than tensors"):
        load_checkpoint(tmp_path / "checkpoint.pth")
    assert not (tmp_path / "made").exists()


def test_weights_of_another_architecture(tmp_path):
    with pytest.raises(DataError, match="x.pth: the weights do not fit the model of these flags .*Unexpected key"):
        load_weights(torch.nn.ReLU(), valid_checkpoint(tmp_path), "x.pth")


@fuzz
@given(data=st.data())
def test_damaged_config(tmp_path, data):
    args = vars(parse_args(get_args_parser("voc2007", None), []))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data.draw(damaged({"args": args, "torch": "2"}))))
    read_or_refuse(lambda: parse_args(get_args_parser("voc2007", None), ["--config", str(path)]))


@pytest.mark.parametrize("flags", ["--k 0", "--batch_size 0", "--epochs -1", "--mask_share 2", "--lr nan",
                                   "--gcn_depth 0", "--num_workers -1", "--logit_scale 0", "--encode_batch_size 0",
                                   "--epsilon x"])
def test_impossible_flags(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_args(get_args_parser("voc2007", None), flags.split())
    assert stop.value.code == 2 and flags.split()[0] in capsys.readouterr().err


@fuzz
@given(data=st.data())
def test_damaged_crop_index(tmp_path, data):
    crops = [Crop("a_03", "a", 3, 0.05, [0.0, 0.1, 0.2, 0.3]), Crop("b_00", "b", 0, 0.01, [0.5, 0.5, 1.0, 1.0])]
    write_index(tmp_path, crops)
    content = data.draw(damaged([crop._asdict() for crop in crops]))
    (tmp_path / "index.json").write_text(json.dumps(content))
    read_or_refuse(lambda: read_index(tmp_path))


@fuzz
@given(data=st.data())
def test_damaged_feature_store(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "store"
    if not folder.exists():
        arrays = store_arrays(5, 6, 4, "int8")
        with StoreWriter(folder, arrays) as writer:
            for chunk in writer.chunks_to_do():
                writer.write(chunk, pack(Features(torch.ones(5, 6, 4), torch.ones(5, 3, 4)), "int8"))
        writer.finish({"grid": [2, 3]})
        shutil.copytree(folder, folder.with_name("whole"))
    shutil.copytree(folder.with_name("whole"), folder, dirs_exist_ok=True)
    meta = json.loads((folder / "store.json").read_text())
    name = data.draw(st.sampled_from(["store.json", *(f"{name}.npy" for name in meta["arrays"])]))
    if name == "store.json":
        (folder / name).write_text(json.dumps(data.draw(damaged(meta))))
    elif data.draw(st.booleans()):
        np.save(folder / name, np.zeros(data.draw(st.sampled_from([(), (5,), (4, 6, 4), (5, 6, 8)])), dtype=np.float16))
    else:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:data.draw(st.integers(0, len(content)))])

    def read() -> None:
        store = FeatureStore(folder)
        store[range(len(store))], store.plain_globals(), store.grid

    read_or_refuse(read)


@fuzz
@given(data=st.data())
def test_damaged_results(tmp_path, data):
    config = {"args": {"epochs": 4, "seed": 0, "val_split_file": "test_cls.txt"}, "weights_sha256": "0"}
    result = {"dataset": "voc2007", "method": "bac_gcn", "title": "BAC-GCN", "weights": "w", "seed": 0, "epochs": 4,
              "last_mAP": 90.0, "best_mAP": 91.0, "zero_shot_mAP": 80.0}
    config = data.draw(st.just(config) | damaged(config))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "result.json").write_text(json.dumps(data.draw(damaged(result))))
    read_or_refuse(lambda: collect_runs([tmp_path]))


@fuzz
@given(data=st.data())
def test_damaged_caption_files(tmp_path, data):
    folder = tmp_path / "voc2007"
    folder.mkdir(exist_ok=True)
    captions = {"000012.": ["a dog"] * 6, "000013": ["a red car"] * 6}
    (folder / "voc2007_re_captions.json").write_text(json.dumps(captions))
    (folder / "voc2007_captions.json").write_text(json.dumps(data.draw(damaged(captions))))
    read_or_refuse(lambda: load_captions(tmp_path, "voc2007"))


@fuzz
@given(data=st.data())
def test_damaged_journal(tmp_path, data):
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path, {"dataset": "voc2007"})
    journal.append(Batch({"a": ["a dog"] * 6}, {"a": ["a cat"] * 6}, {"b": "no such image"}))
    journal.close()
    lines = [data.draw(damaged(json.loads(line))) if data.draw(st.booleans()) else json.loads(line)
             for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + data.draw(st.text(max_size=5)))
    read_or_refuse(lambda: read_journal(path))
    read_or_refuse(lambda: Journal(path, {"dataset": "voc2007"}).close())


SYNONYM_FILES: List[str] = sorted(path.name for path in SYNONYM_ROOT.glob("*.json"))


@settings(fuzz, max_examples=25)
@given(data=st.data())
def test_damaged_synonym_files(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "synonyms"
    folder.mkdir(exist_ok=True)
    for name in SYNONYM_FILES:
        shutil.copyfile(SYNONYM_ROOT / name, folder / name)
    name = data.draw(st.sampled_from(SYNONYM_FILES))
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(data.draw(damaged(content))))
    read_or_refuse(lambda: load_lexicon(get_dataset("voc2007"), folder))
