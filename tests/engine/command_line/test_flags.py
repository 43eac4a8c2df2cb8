"""Flags that do nothing, abbreviations and impossible values are refused by one line, before anything is written."""
from __future__ import annotations

import argparse
import json
import re

import pytest

import ablate
from datasets.files import DataError
from engine.command_line.eval_flags import READ_IN_MODES, get_eval_parser
from engine.command_line.method_flags import METHODS, RECIPES
from engine.command_line.train_flags import default_flags, get_args_parser, parse_args
from engine.command_line.unread_flags import READ_BY, READ_BY_ALL, SWITCHED_OFF, TAKEN_BACK, check_typed
from engine.results.studies import Variant
from tests.engine.training.test_training import log, run_script

EVAL_ONLY = {"checkpoint", "table", "figure", "image", "runs", "no_nested", "categories", "baseline", "csv", "json",
             "html", "maps", "link_thumbnails"}


def flag_names(parser: argparse.ArgumentParser) -> set:
    return {action.dest for action in parser._actions} - {"help"}


def test_every_flag_says_which_methods_read_it():
    """A new flag belongs into `READ_BY`, or into `READ_BY_ALL`."""
    flags = flag_names(get_args_parser("voc2007", None)) | flag_names(get_eval_parser(None))
    assert flags - EVAL_ONLY - set(READ_BY) - READ_BY_ALL == set()
    assert not set(READ_BY) & READ_BY_ALL
    named = {flag for switch, _, flags in SWITCHED_OFF for flag in (switch, *flags)} | set(READ_IN_MODES)
    assert named | set(READ_BY) | READ_BY_ALL - {"seeds"} <= flags | {"seeds"}
    assert {method for methods in READ_BY.values() for method in methods} == set(METHODS)


@pytest.mark.parametrize("parser", [get_args_parser("voc2007", None), get_eval_parser(None),
                                    ablate.get_ablate_parser()])
def test_help_explains_every_flag_and_tells_its_default(parser):
    text = re.sub(r"\s+", " ", re.sub(r"-\n\s+", "-", parser.format_help()))  # words are broken at a hyphen, too
    assert not [action.dest for action in parser._actions if not action.help]
    untold = [action.dest for action in parser._actions if action.nargs != 0 and action.default is not None
              and "default:" not in action.help and f"(default: {action.default})" not in text]
    assert not untold


def one_line_of(stop: pytest.ExceptionInfo, capsys) -> str:
    """The error, which is one line; bars of progress and a warning of the tiny weights may come before it."""
    lines = [line for line in capsys.readouterr().err.splitlines()
             if line and not line.startswith("warning: ") and "Checking images" not in line]
    assert stop.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.mark.parametrize("command, message", [
    ("--image_size 192", "--image_size does nothing with --method bac_gcn: it is a flag of cdul"),
    ("--zeta 0.5", "a flag of cdul"),  # also at its default
    ("--method tai_dpt --k 4", "--k does nothing with --method tai_dpt: it is a flag of bac_gcn"),
    ("--method cdul --precision bf16", "a flag of bac_gcn and tai_dpt and clip and sparc"),
    ("--no_gcn --gcn_depth 3", "--gcn_depth does nothing with --no_gcn"),
    ("--adjacency identity --global_edge 2", "--global_edge does nothing with --adjacency identity"),
    ("--gcn_depth 1 --gcn_width 64", "--gcn_width does nothing with --gcn_depth 1"),
    ("--mask_threshold 0.5 --mask_share 0.3", "--mask_share does nothing with --mask_threshold 0.5"),
    ("--no_reso --gamma 0.5", "--gamma does nothing with --no_reso"),
    ("--method cdul --backbone clip --image_size 64", "--image_size does nothing with --backbone clip"),
    ("--recipe plus --zoom 2", "--zoom does nothing with --tiles 3, which --recipe plus sets; leave it out, or take "
                               "that back by --tiles 0$"),
    ("--recipe plus --gamma 0.5", "with --no_reso, which --recipe plus sets; .* by --reso$"),
    ("--recipe plus --no_reso --gamma 0.5", "--gamma does nothing with --no_reso; leave it out$"),
    ("--recipe plus --tiles 2 --logits global", "--tiles does nothing with --logits global; leave it out$"),
    ("--encoder timm:resnet18 --mask_share 0.2", "--no_masked_globals, which --encoder timm:resnet18 sets; .* by --m"),
    ("--mask_shar 0.3", "unrecognized arguments: --mask_shar 0.3; `python train_voc07.py --help`"),
    ("--weight_decay -1", "argument --weight_decay: -1 is below 0"),
    ("--method tai_dpt --num_context -3", "argument --num_context: -3 is less than 1"),
    ("--k 65", "--k 65: .*tiny.pt makes 16 patches"),
    ("--attention_layer 7", "--attention_layer 7: .* has the layers 0 to 1, or -1 to -2 from the last"),
])
def test_a_training_that_would_ignore_a_flag_is_refused(tiny_world, tmp_path, capsys, command, message):
    with pytest.raises(SystemExit) as stop:
        run_script("train_voc07", *tiny_world.flags, "--output_dir", tmp_path / "run", *command.split())
    assert re.search(message, one_line_of(stop, capsys))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command, message", [
    ("--method clip --zeta 0.3", "--zeta does nothing with --method clip"),
    ("--method tagclip --raw_cosine", "a flag of clip"),
    ("--method clip --runs runs", "--runs does nothing for an evaluation"),
    ("--table main --dataset mini", "--dataset does nothing for --table"),
    ("--figure curves --image photo.jpg", "--image does nothing for --figure curves"),
    ("--figure graph --dataset mini --baseline x.csv", "--baseline does nothing for --figure graph"),
    ("--image photo.jpg", "--checkpoint is missing: --image takes the checkpoint.pth"),
    ("--figure maps", "--checkpoint is missing: --figure maps takes"),
    ("--checkpoint runs/x.pth --prompts ensemble", "--prompts does nothing with --checkpoint"),
    ("--metho clip", "unrecognized arguments: --metho clip"),
    ("--method clip", "--dataset is missing"),
])
def test_an_evaluation_that_would_ignore_a_flag_is_refused(tmp_path, capsys, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_script("eval", *command.split())
    assert message in one_line_of(stop, capsys) and not list(tmp_path.iterdir())


def test_a_study_of_variants_that_differ_in_nothing(tmp_path, capsys):
    with pytest.raises(DataError, match="the studies are of bac_gcn"):
        ablate.plan_study("mini", "components", 1, tmp_path, ["--method", "cdul"])
    plan = ablate.plan_study("mini", "hyper", 1, tmp_path, ["--no_reso"])
    assert {run.folder.parent.name.rpartition("_")[0] for run in plan} == {"", "k", "mask_share"}
    assert "left out: gamma, threshold of a ReSO region: 0.5 (--gamma does nothing with --no_reso)" \
        in capsys.readouterr().out
    with pytest.raises(SystemExit):
        ablate.get_ablate_parser().parse_args(["--dataset", "mini", "--seeds", "0"])


def test_a_study_does_not_take_a_run_with_a_flag_that_is_no_more(tmp_path):
    args = parse_args(get_args_parser("mini", None), ["--output_dir", str(tmp_path)])
    run = ablate.PlannedRun("BAC-GCN", args)
    result = {"dataset": "mini", "method": "bac_gcn", "title": "BAC-GCN", "weights": "w", "seed": 0,
              "epochs": args.epochs, "last_mAP": 60.0}
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "config.json").write_text(json.dumps({"args": vars(args)}))
    assert run.is_done()
    (tmp_path / "config.json").write_text(json.dumps({"args": {**vars(args), "dropout": 0.5}}))
    with pytest.raises(DataError, match="made with --dropout 0.5"):
        run.is_done()


def test_flags_of_a_config_may_be_those_of_another_method(tmp_path):
    """Only what is typed is refused; and what a config is older than has the default of its method."""
    config = vars(parse_args(get_args_parser("voc2007", None), ["--method", "cdul", "--zeta", "0.3"]))
    for younger in ("weight_decay", "lr_schedule"):
        del config[younger]
    (tmp_path / "config.json").write_text(json.dumps({"args": config}))
    args = parse_args(get_args_parser("voc2007", None), ["--config", str(tmp_path / "config.json")])
    assert (args.method, args.zeta, args.weight_decay, args.lr_schedule) == ("cdul", 0.3, 1e-4, "constant")
    other = parse_args(get_args_parser("voc2007", None), ["--config", str(tmp_path / "config.json"), "--method",
                                                          "bac_gcn", "--k", "8"])
    assert (other.method, other.k) == ("bac_gcn", 8)


def test_a_flag_that_a_config_or_a_checkpoint_switches_off_says_by_which(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"args": {"no_gcn": True}}))
    with pytest.raises(DataError, match=f"^--gcn_depth does nothing with --no_gcn, which --config {config} sets; leave "
                                        "it out$"):
        parse_args(get_args_parser("voc2007", None), ["--config", str(config), "--gcn_depth", "3"])
    args = parse_args(get_args_parser("voc2007", None), ["--recipe", "plus"])
    with pytest.raises(DataError, match="^--zoom does nothing with --tiles 3, which plus.pth sets; leave it out$"):
        check_typed(args, {"zoom"}, dict.fromkeys(vars(args), "plus.pth"))


@pytest.mark.parametrize("flag, words", TAKEN_BACK.items())
def test_what_a_recipe_switches_can_be_taken_back(flag, words):
    plus, back = (vars(parse_args(get_args_parser("voc2007", None), ["--recipe", "plus", *more.split()]))[flag]
                  for more in ("", words))
    assert plus == RECIPES["plus"].flags[flag] and back == default_flags("voc2007")[flag] != plus


def test_tiles_that_a_recipe_brings_are_not_made_where_nothing_reads_them(capsys, speaking, tmp_path):
    args = parse_args(get_args_parser("voc2007", None), ["--recipe", "plus", "--logits", "global", "--zoom", "2"])
    assert (args.tiles, args.zoom) == (0, 2)
    assert capsys.readouterr().out == "no tiles are made: --logits global reads none\n"
    base = parse_args(get_args_parser("voc2007", None), ["--recipe", "plus"])
    run = ablate.with_flags(base, Variant("global", "global logits", {"logits": "global"}), 0, tmp_path)
    assert (run.tiles, base.tiles) == (0, 3)


def test_train_mini_without_crops_trains_that_alone(tiny_world, tmp_path):
    run_script("train_mini", *tiny_world.flags, "--output_dir", tmp_path / "run", "--epochs", 1, "--no_reso")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["args"]["no_reso"] is True
    assert len(log(tmp_path / "run")) == 1 and not (tmp_path / "run" / "no_reso").exists()
