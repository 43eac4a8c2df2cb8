"""Where the numbers of an epoch go beside log.txt."""
from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Dict, List

import pytest

from datasets.files import DataError
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.process.metric_loggers import LOGGERS, Nowhere
from engine.process.stopwatch import Stopwatch, describe_timing


class StandIn(ModuleType):
    """A module wandb that notes what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: List[Dict[str, Any]] = []
        self.told: List[Any] = []

    def init(self, **settings: Any) -> StandIn:
        self.runs.append(settings)
        return self

    def log(self, values: Dict[str, float], step: int) -> None:
        self.told.append((step, values))

    def finish(self) -> None:
        self.told.append("finished")


def test_wandb_goes_on_with_the_run_of_the_folder(tmp_path, monkeypatch):
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for folder, epoch in (("one", 1), ("one", 2), ("other", 1)):
        logger = LOGGERS["wandb"](tmp_path / folder, {"k": 4}, epoch - 1)
        logger.log(epoch, {"mAP": 50.0 + epoch})
        logger.close()
    first, second, other = wandb.runs
    assert first == second and first["config"] == {"k": 4} and first["resume"] == "allow" and first["name"] == "one"
    assert other["id"] != first["id"]
    assert wandb.told == [(1, {"mAP": 51.0}), "finished", (2, {"mAP": 52.0}), "finished", (1, {"mAP": 51.0}),
                          "finished"]


def test_a_missing_wandb_is_found_before_the_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    parser = get_args_parser("voc2007", None)
    with pytest.raises(DataError, match="^--logger wandb: wandb is not installed; `pip install wandb`, or leave"):
        parse_args(parser, ["--logger", "wandb"])
    assert parse_args(parser, []).logger == "tensorboard"


def test_without_tensorboard_a_line_says_so_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert isinstance(LOGGERS["tensorboard"](tmp_path, {}, 0), Nowhere)
    line, = capsys.readouterr().out.splitlines()
    assert line.startswith("TensorBoard is not installed") and "pip install tensorboard" in line


def test_none_keeps_nothing(tmp_path):
    logger = LOGGERS["none"](tmp_path, {}, 0)
    logger.log(1, {"mAP": 50.0})
    logger.close()
    assert list(tmp_path.iterdir()) == []


def test_a_stopwatch_tells_training_from_the_rest(monkeypatch):
    moments = iter([0.0, 300.0, 300.0, 310.0, 310.0, 312.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    watch = Stopwatch()
    for part in ("mining", "training", "evaluation"):
        with watch.part(part):
            pass
    timing = watch.timing(images=128)
    assert timing == {"seconds": 10.0, "images_per_second": 12.8, "mining_seconds": 300.0, "evaluation_seconds": 2.0}
    assert describe_timing(timing) == "10.0 s  13 images/s  mining 300.0 s  evaluation 2.0 s"
