"""Tables say what the runs' folders say; a study runs what is missing of it and nothing else."""
from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
from pathlib import Path

import pytest

import ablate
from datasets.files import DataError, write_json
from engine.command_line.data_flags import fill_defaults
from engine.command_line.method_flags import method_title
from engine.command_line.older_runs import complete_flags
from engine.command_line.train_flags import default_flags, get_args_parser, parse_args
from engine.methods import method_scores
from engine.results.finished_runs import collect_runs, reference_group, settings_of
from engine.results.paper_tables import (
    ablation_table,
    choices_table,
    hyper_table,
    main_table,
    write_table,
)
from engine.results.runs_table import f1_table, runs_table
from engine.results.studies import STUDIES, Variant
from engine.results.tables import Number, Statistic, Table
from tests.engine.training.test_training import run_script


def leave_run(folder: Path, last: float, seed: int = 0, dataset: str = "voc2007", method: str = "bac_gcn",
              title: str = "BAC-GCN", weights: str = "ViT-B-16.pt", digest: str = "a" * 64, zoomed: float | None = None,
              data: str | None = None, tags: dict | None = None, **flags) -> Path:
    """What a train script leaves for the tables; `tags` are its threshold and F1, which older runs have not."""
    command = ["--method", method, *(["--backbone", flags["backbone"]] if "backbone" in flags else [])]
    args = vars(parse_args(get_args_parser(dataset, None), command))
    args.update(flags, seed=seed, output_dir=str(folder))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"args": args, "weights_sha256": digest,
                                                      **({"data_sha256": data} if data else {})}))
    (folder / "result.json").write_text(json.dumps({
        "dataset": dataset, "method": method, "title": title, "weights": weights, "seed": seed,
        "epochs": args["epochs"], "last_mAP": last, "best_mAP": last + 1, "best_epoch": 3, "zero_shot_mAP": 80.0,
        "zoom_mAP": zoomed, **(tags or {})}))
    return folder


def leave_evaluation(folder: Path, method: str, last: float, tags: dict | None = None, **flags) -> Path:
    """What `eval.py` leaves of a method without training."""
    args = fill_defaults(argparse.Namespace(**complete_flags(
        {"method": method, "dataset": "voc2007", "prompt_words": None, **flags})), trained=False)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"args": vars(args), "weights_sha256": "a" * 64}))
    (folder / "result.json").write_text(json.dumps({
        "dataset": "voc2007", "method": method, "title": method_title(args, "ViT-B/16", trained=False),
        "weights": "ViT-B-16.pt", "seed": 0, "epochs": 0, "last_mAP": last, **(tags or {})}))
    return folder


def found(of1: float, cf1: float) -> dict:
    """Of a result.json: F1 at the threshold that the rule found."""
    return {"threshold": 0.2, "last_OF1": of1, "last_CF1": cf1}


def rows_of(table: Table):
    """Rows as text by their first cell."""
    return {str(row[0]): [str(cell) for cell in row[1:]] for row in table.rows}


# ---- collecting ----------------------------------------------------------------------------------------------------

def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path):
    for seed, value in enumerate([90.0, 92.0, 97.0]):
        leave_run(tmp_path / "deep" / f"seed_{seed}", value, seed, device=f"cuda:{seed}")
    leave_run(tmp_path / "k8", 50.0, k=8)
    first, second = sorted(collect_runs([tmp_path]).groups, key=lambda group: -len(group.runs))
    assert first.seeds == [0, 1, 2] and first.statistic("last_mAP") == (93.0, pytest.approx(math.sqrt(13)), 3)
    assert first.statistic("zoom_mAP") is None
    assert second.off_defaults == {"k": 8} and first.off_defaults == {}


def test_runs_of_the_same_flags_on_other_data_are_not_averaged(tmp_path):
    for seed, (value, data) in enumerate([(90.0, "1" * 64), (92.0, None), (50.0, "2" * 64), (94.0, "1" * 64)]):
        leave_run(tmp_path / f"seed_{seed}", value, seed, data=data, train_split_file=f"{data}.txt")
    groups = {group.experiment.split: group.seeds for group in collect_runs([tmp_path]).groups}
    assert groups == {"test_cls.txt, data 11111111": [0, 3], "test_cls.txt, data unknown": [1],
                      "test_cls.txt, data 22222222": [2]}
    assert any("data 11111111" in title for title in main_table(collect_runs([tmp_path])).header)
    assert collect_runs([tmp_path / "seed_0", tmp_path / "seed_1"]).groups[0].seeds == [0, 1], "an old run has none"


def test_a_flag_that_is_younger_than_a_run_is_at_its_default(tmp_path):
    """Runs from before and after `--gcn_layer` in one table: the old one is a reference, not a variant or a copy."""
    old = leave_run(tmp_path / "old", 90.0)
    leave_run(tmp_path / "new", 92.0, seed=1)
    leave_run(tmp_path / "sage", 50.0, gcn_layer="sage")
    config = json.loads((old / "config.json").read_text())
    for younger in ("gcn_layer", "lr_schedule"):
        del config["args"][younger]
    (old / "config.json").write_text(json.dumps(config))
    collection = collect_runs([tmp_path])
    assert collection.left_out == []
    first, second = sorted(collection.groups, key=lambda group: -len(group.runs))
    assert first.seeds == [0, 1] and first.off_defaults == {} and first.statistic("last_mAP").mean == 91.0
    assert second.off_defaults == {"gcn_layer": "sage"}
    run = ablate.PlannedRun("BAC-GCN", argparse.Namespace(**{
        **vars(parse_args(get_args_parser("voc2007", None), [])), "output_dir": str(old)}))
    assert run.is_done()


def test_a_study_takes_no_run_of_other_data_for_its_own(tmp_path):
    run, split = leave_run(tmp_path / "run", 90.0), tmp_path / "split.txt"
    flags = {**vars(parse_args(get_args_parser("voc2007", None), ["--output_dir", str(run)])),
             "train_split_file": str(split)}
    config = json.loads((run / "config.json").read_text())
    config["args"]["train_split_file"] = str(split)
    (run / "config.json").write_text(json.dumps(config))

    def done(**changed) -> bool:
        return ablate.PlannedRun("", argparse.Namespace(**{**flags, **changed})).is_done()

    assert done()
    split.write_text("a\n")
    os.utime(split, (0, 0))
    assert done()
    for flag in ("train_split_file", "val_img_root", "model_path", "caption_root"):  # the train script is to judge
        assert not done(**{flag: "elsewhere"}), flag
    os.utime(split)  # written after the run
    os.utime(run / "result.json", (0, 0))
    assert not done()
    with pytest.raises(DataError, match="made with --dataset voc2007"):
        done(dataset="voc2012")


def test_the_reference_of_a_study_is_the_run_in_its_folder(tmp_path):
    """... and not the variant, though that is nearer to the defaults."""
    leave_run(tmp_path / "full" / "seed_0", 60.0, k=8)
    leave_run(tmp_path / "k_4" / "seed_0", 70.0)
    assert reference_group(collect_runs([tmp_path]).groups).settings["k"] == 8


def test_runs_without_a_store_are_those_with_one(tmp_path):
    leave_run(tmp_path / "stored", 90.0)
    leave_run(tmp_path / "live", 92.0, seed=1, no_feature_store=True)
    leave_run(tmp_path / "int8", 50.0, patch_dtype="int8")
    assert sorted(group.seeds for group in collect_runs([tmp_path]).groups) == [[0], [0, 1]]


def test_flags_that_do_nothing_beside_others_tell_no_runs_apart(tmp_path):
    """--gamma does nothing with --no_reso: two such runs are one group, and the control of a run with crops."""
    leave_run(tmp_path / "one", 90.0, no_reso=True, gamma=0.9)
    leave_run(tmp_path / "other", 92.0, seed=1, no_reso=True)
    group, = collect_runs([tmp_path]).groups
    assert group.seeds == [0, 1] and group.off_defaults == {"no_reso": True}


def test_what_does_not_count_is_said(tmp_path):
    leave_run(tmp_path / "one", 90.0)
    leave_run(tmp_path / "same_again", 70.0)
    unfinished = leave_run(tmp_path / "unfinished", 80.0, seed=1)
    config = json.loads((unfinished / "config.json").read_text())
    config["args"]["epochs"] += 1
    (unfinished / "config.json").write_text(json.dumps(config))
    group, = (collection := collect_runs([tmp_path, tmp_path / "one"])).groups
    assert group.statistic("last_mAP") == (90.0, None, 1)
    assert [reason.split(":")[0] for reason in sorted(collection.left_out)] == \
        [str(tmp_path / "same_again"), str(tmp_path / "unfinished")]


def test_other_weights_of_the_same_name_are_another_experiment(tmp_path):
    leave_run(tmp_path / "old", 60.0, seed=0, digest="1" * 64)
    leave_run(tmp_path / "new", 70.0, seed=1, digest="2" * 64)
    groups = collect_runs([tmp_path]).groups
    assert sorted(group.experiment.weights for group in groups) == ["ViT-B-16.pt 11111111", "ViT-B-16.pt 22222222"]


def test_runs_on_another_activation_are_another_experiment(tmp_path):
    leave_run(tmp_path / "old", 60.0)  # from before it was recorded
    gelu = leave_run(tmp_path / "gelu", 70.0, seed=1, digest="2" * 64, activation="gelu")
    result = json.loads((gelu / "result.json").read_text())
    (gelu / "result.json").write_text(json.dumps({**result, "activation": "gelu"}))
    groups = collect_runs([tmp_path]).groups
    assert sorted(group.experiment.weights for group in groups) == ["ViT-B-16.pt", "ViT-B-16.pt, gelu"]
    assert all(group.off_defaults == {} for group in groups)
    flags = vars(parse_args(get_args_parser("voc2007", None), ["--activation", "quick_gelu"]))
    assert ablate.PlannedRun("", argparse.Namespace(**{**flags, "output_dir": str(tmp_path / "old")})).is_done()
    with pytest.raises(DataError, match="made without --activation quick_gelu"):
        ablate.PlannedRun("", argparse.Namespace(**{**flags, "seed": 1, "output_dir": str(gelu)})).is_done()


@pytest.mark.parametrize("content, message", [
    ("{}", "not the result.json of a run"), ("[", "not valid JSON"), ("[]", "not the result.json of a run")])
def test_damaged_result_is_named(tmp_path, content, message):
    (leave_run(tmp_path / "run", 90.0) / "result.json").write_text(content)
    with pytest.raises(DataError, match=message):
        collect_runs([tmp_path])


def test_nothing_to_collect(tmp_path):
    with pytest.raises(DataError, match="no finished run"):
        collect_runs([tmp_path])


# ---- the tables ----------------------------------------------------------------------------------------------------

def test_main_table_sets_ours_beside_the_papers(tmp_path):
    for seed, value in enumerate([92.0, 93.0]):
        leave_run(tmp_path / f"voc_{seed}", value, seed)
    leave_run(tmp_path / "coco", 70.0, dataset="coco2014")
    leave_run(tmp_path / "variant", 99.0, no_reso=True)
    leave_run(tmp_path / "cdul", 60.0, method="cdul", title="CDUL port (frozen-CLIP head)", backbone="clip")
    leave_run(tmp_path / "coco_cdul", 61.0, dataset="coco2014", method="cdul", title="CDUL")
    table = main_table(collect_runs([tmp_path]))
    assert table.header == ("method", "CLIP weights", "VOC2007 (trainval / test): paper",
                            "VOC2007 (trainval / test): ours", "COCO2014 (train2014 / val2014): paper",
                            "COCO2014 (train2014 / val2014): ours")
    assert rows_of(table) == {
        "TaI-DPT": ["-", "88.9", "-", "68.0", "-"],
        "TagCLIP": ["-", "92.8", "-", "68.8", "-"],
        "SPARC": ["-", "88.7", "-", "67.4", "-"],
        "CLIP zero-shot": ["ViT-B-16.pt", "-", "80.0", "-", "80.0"],
        "CDUL": ["ViT-B-16.pt", "89.0", "-", "69.2", "61.0"],
        "CDUL port (frozen-CLIP head)": ["ViT-B-16.pt", "-", "60.0", "-", "-"],
        "BAC-GCN": ["ViT-B-16.pt", "93.0", "92.5 ± 0.7", "72.2", "70.0"],
        "BAC-GCN, best epoch (chosen on the test images)": ["ViT-B-16.pt", "-", "93.5 ± 0.7", "-", "71.0"],
    }
    assert list(rows_of(table))[-2] == "BAC-GCN"
    assert "Left out: 1 configuration further from the defaults; --table runs has all." in table.notes


def test_main_table_names_the_flags_of_a_run_off_its_defaults(tmp_path):
    leave_run(tmp_path / "run", 90.0, k=8, val_split_file="imageset/voc2007/difficult_negative_test_cls.txt")
    table = main_table(collect_runs([tmp_path]))
    assert "BAC-GCN (--k 8)" in rows_of(table)
    assert table.header[-1] == "VOC2007 (trainval / test), difficult_negative_test_cls.txt: ours"


def test_zoom_has_rows_of_its_own(tmp_path):
    leave_run(tmp_path / "zoom_2", 90.0, 0, zoom=2, zoomed=91.0)
    for seed, value in ((1, 94.0), (2, 96.0)):
        leave_run(tmp_path / f"zoom_3_{seed}", 90.0, seed, zoom=3, zoomed=value)
    leave_run(tmp_path / "plain", 90.0, 3)
    stopped = leave_run(tmp_path / "stopped", 90.0, 4, zoom=3, zoomed=10.0)  # asked for zoom 3 and not there yet
    result = json.loads((stopped / "result.json").read_text())
    (stopped / "result.json").write_text(json.dumps({**result, "zoom": 5}))
    rows = rows_of(main_table(collect_runs([tmp_path])))
    assert rows["BAC-GCN"][-1] == "90.0"
    assert rows["BAC-GCN, zoom 2 (extension, not in the paper)"][-1] == "91.0"
    assert rows["BAC-GCN, zoom 3 (extension, not in the paper)"][-1] == "95.0 ± 1.4"


def test_ablation_compares_seed_by_seed(tmp_path):
    for seed in (0, 1):
        leave_run(tmp_path / "full" / f"{seed}", 90.0 + 4 * seed, seed, epochs=8)
        leave_run(tmp_path / "no_gcn" / f"{seed}", 89.0 + 6 * seed, seed, epochs=8, no_gcn=True)
    leave_run(tmp_path / "no_edges", 93.0, 1, epochs=8, adjacency="identity")
    leave_run(tmp_path / "own", 80.0, 0, epochs=8, no_gcn=True, loss="ranking")
    leave_run(tmp_path / "k", 80.0, 0, epochs=8, k=8)
    table = ablation_table(collect_runs([tmp_path]))
    assert rows_of(table) == {
        "BAC-GCN": ["-", "92.00 ± 2.83", "-", "0, 1"],
        "GCN without edges": ["--adjacency identity", "93.00", "-1.00", "1"],
        "without the GCN": ["--no_gcn", "92.00 ± 4.24", "+0.00 ± 1.41", "0, 1"],
        "with --loss ranking --no_gcn": ["--loss ranking --no_gcn", "80.00", "-10.00", "0"],
    }
    assert list(rows_of(table))[:3] == ["BAC-GCN", "GCN without edges", "without the GCN"]
    assert "all with --epochs 8" in table.notes[0]


def test_choices_have_a_table_of_their_own(tmp_path):
    leave_run(tmp_path / "full", 90.0)
    leave_run(tmp_path / "no_gcn", 80.0, no_gcn=True)
    leave_run(tmp_path / "k", 85.0, k=8)
    leave_run(tmp_path / "faster", 88.0, lr=3e-3)
    leave_run(tmp_path / "votes", 91.0, labels="votes")
    collection = collect_runs([tmp_path])
    assert list(rows_of(ablation_table(collection))) == ["BAC-GCN", "without the GCN"]
    assert rows_of(choices_table(collection)) == {
        "BAC-GCN": ["-", "90.00", "-", "0"],
        "votes of the six prompts as labels": ["--labels votes", "91.00", "+1.00", "0"],
        "three times the learning rate": ["--lr 0.003", "88.00", "-2.00", "0"],
    }


def test_hyper_table_orders_the_values(tmp_path):
    leave_run(tmp_path / "full", 90.0)
    for value in (16, 1):
        leave_run(tmp_path / f"k{value}", 80.0 + value, k=value)
    leave_run(tmp_path / "gamma", 91.0, gamma=0.5)
    leave_run(tmp_path / "no_gcn", 70.0, no_gcn=True)
    table = hyper_table(collect_runs([tmp_path]))
    assert [[str(cell) for cell in row[1:4]] for row in table.rows] == [
        ["1", "81.00", "-9.00"], ["4 (reference)", "90.00", "-"], ["16", "96.00", "+6.00"],
        ["0.5", "91.00", "+1.00"], ["0.7 (reference)", "90.00", "-"]]


def test_tags_of_all_methods_are_compared_at_the_threshold_of_one_rule(tmp_path):
    for seed, of1 in enumerate([60.0, 62.0]):
        leave_run(tmp_path / f"{seed}", 90.0, seed, tags=found(of1, 50.0))
    leave_run(tmp_path / "coco", 70.0, dataset="coco2014", tags=found(40.0, 30.0))
    leave_evaluation(tmp_path / "clip", "clip", 80.0, found(55.0, 56.0))
    leave_evaluation(tmp_path / "sparc", "sparc", 85.0, {**found(99.0, 99.0), "threshold": None})
    leave_run(tmp_path / "old", 88.0, method="cdul", title="CDUL", tags={"last_OF1": 99.0, "last_CF1": 99.0})
    collection = collect_runs([tmp_path])
    table = f1_table(collection)
    assert table.header[2:] == ("VOC2007 (trainval / test): OF1", "VOC2007 (trainval / test): CF1",
                                "COCO2014 (train2014 / val2014): OF1", "COCO2014 (train2014 / val2014): CF1")
    assert rows_of(table) == {
        "CLIP zero-shot": ["ViT-B-16.pt", "55.0", "56.0", "-", "-"],
        "SPARC (transductive)": ["ViT-B-16.pt", "-", "-", "-", "-"],
        "CDUL": ["ViT-B-16.pt", "-", "-", "-", "-"],
        "BAC-GCN": ["ViT-B-16.pt", "61.0 ± 1.4", "50.0", "40.0", "30.0"]}
    assert list(rows_of(table))[-1] == "BAC-GCN" and "one rule for all methods" in table.notes[-1]
    table = runs_table(collection)
    assert table.header[4:] == ("mAP", "pseudo_mAP", "pseudo_AP", "OF1", "CF1", "seeds")
    assert {row[2]: (str(row[4]), *map(str, row[7:9])) for row in table.rows if "VOC" in row[0]} == {
        "CLIP zero-shot": ("80.00", "55.00", "56.00"), "SPARC (transductive)": ("85.00", "-", "-"),
        "CDUL": ("88.00", "-", "-"), "BAC-GCN": ("90.00", "61.00 ± 1.41", "50.00")}


def test_some_of_the_seeds_are_not_the_mean_of_all(tmp_path):
    leave_run(tmp_path / "older", 90.0, 0)
    leave_run(tmp_path / "younger", 92.0, 1, tags=found(60.0, 50.0))
    row, = runs_table(collect_runs([tmp_path])).rows
    assert tuple(map(str, row[4:])) == ("91.00 ± 1.41", "-", "-", "-", "-", "0, 1")


def test_tags_at_a_threshold_that_was_given_are_not_compared(tmp_path):
    leave_evaluation(tmp_path / "found", "clip", 80.0, found(55.0, 56.0))
    leave_evaluation(tmp_path / "given", "clip", 80.0, found(99.0, 99.0), threshold=0.2)
    assert rows_of(f1_table(collect_runs([tmp_path]))) == {"CLIP zero-shot": ["ViT-B-16.pt", "55.0", "56.0"]}
    assert [tuple(map(str, row[3:9])) for row in runs_table(collect_runs([tmp_path])).rows] == [
        ("-", "80.00", "-", "-", "55.00", "56.00"), ("--threshold 0.2", "80.00", "-", "-", "-", "-")]


def test_clip_without_training_is_named_by_the_prompts_and_the_classes_it_was_measured_with(tmp_path):
    """Of two runs that are one flag off the defaults each, both zero-shot numbers stand under their own names."""
    for number, flags in enumerate(({"prompts": "ensemble"}, {"min_positives": 5}, {"k": 8})):
        folder = leave_run(tmp_path / str(number), 90.0, **flags)
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps({**result, "zero_shot_mAP": 70.0 + number}))
    leave_evaluation(tmp_path / "clip", "clip", 70.0, prompts="ensemble")
    rows = rows_of(main_table(collect_runs([tmp_path])))
    assert {name: cells[-1] for name, cells in rows.items() if "zero-shot" in name} == {
        "CLIP zero-shot, prompt ensemble": "70.0", "CLIP zero-shot (--min_positives 5)": "71.0",
        "CLIP zero-shot": "72.0"}


@pytest.mark.parametrize("method, flags, name", [
    ("clip", {"min_positives": 5}, "CLIP zero-shot (--min_positives 5)"),
    ("clip", {"prompts": "ensemble", "raw_cosine": True}, "CLIP zero-shot, prompt ensemble, raw cosine"),
    ("clip", {"prompts": "mine"}, "CLIP zero-shot, prompts mine"),
    ("tagclip", {"max_patches": 100}, "TagCLIP (--max_patches 100)"),
    ("tagclip", {"prompt_words": "ours"}, "TagCLIP, our words"),
    ("sparc", {"resolution": 448}, "SPARC (transductive), 448 px"),
    ("sparc", {"compounds": "my.txt"}, "SPARC (transductive), compounds of a file (--compounds my.txt)"),
    ("cdul", {"zeta": 0.3}, "CDUL initialisation (--zeta 0.3)")])
def test_two_ways_of_a_method_without_training_are_never_one_row(tmp_path, method, flags, name):
    plain = leave_evaluation(tmp_path / "plain", method, 80.0)
    other = leave_evaluation(tmp_path / "other", method, 60.0, **flags)
    title = json.loads((plain / "result.json").read_text())["title"]
    means = {f"{row[2]}, {row[3]}": row[4].statistic.mean for row in runs_table(collect_runs([tmp_path])).rows}
    assert sorted(means.values()) == [60.0, 80.0]
    assert rows_of(main_table(collect_runs([plain])))[title][-1] == "80.0"
    assert rows_of(main_table(collect_runs([other])))[name][-1] == "60.0"
    assert rows_of(main_table(collect_runs([tmp_path])))[title][-1] == "80.0"


def test_single_run_has_nothing_to_compare(tmp_path):
    leave_run(tmp_path / "full", 90.0)
    for build in (ablation_table, hyper_table):
        with pytest.raises(DataError, match="ablate.py"):
            build(collect_runs([tmp_path]))


# ---- formats -------------------------------------------------------------------------------------------------------

TABLE = Table("mAP in %", ("method", "a|b", "our mAP"),
              [("CDUL_x & more", "92.0", Number(Statistic(91.256, 0.5, 3))),
               ("--no_gcn", "-", Number(Statistic(-1.0, None, 1), signed=True))], ("50% of it.",))


def test_markdown():
    assert TABLE.to_markdown() == """**mAP in %**

| method        | a\\|b |      our mAP |
| ------------- | ---: | -----------: |
| CDUL_x & more | 92.0 | 91.26 ± 0.50 |
| --no_gcn      |    - |        -1.00 |

50% of it.
"""


def test_latex():
    lines = TABLE.to_latex().splitlines()
    assert r"  \caption{mAP in \%. 50\% of it.}" in lines and r"  \begin{tabular}{lrr}" in lines
    assert r"    CDUL\_x \& more & 92.0 & $91.26 \pm 0.50$ \\" in lines
    assert r"    -{}-no\_gcn & - & $-1.00$ \\" in lines


def test_csv_keeps_the_numbers_apart():
    header, first, second = TABLE.to_csv()
    assert header == ["method", "a|b", "our mAP", "our mAP: standard deviation", "our mAP: seeds"]
    assert first == ["CDUL_x & more", "92.0", "91.2560", "0.5000", "3"]
    assert second == ["--no_gcn", "", "-1.0000", "", "1"]


def test_eval_writes_three_files(tmp_path, capsys):
    leave_run(tmp_path / "runs" / "one", 90.0)
    run_script("eval", "--table", "main", "--runs", tmp_path / "runs", "--output_dir", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"main.md", "main.tex", "main.csv"}
    assert (tmp_path / "out" / "main.md").read_text() in capsys.readouterr().out
    rows = list(csv.reader(io.StringIO((tmp_path / "out" / "main.csv").read_text())))
    assert len({len(row) for row in rows}) == 1


def test_results_of_real_scripts_are_collected_from_their_default_folders(tiny_world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_script("train_voc07", *tiny_world.flags, "--epochs", "1")
    run_script("eval", "--method", "clip", *tiny_world.flags)
    run_script("eval", "--method", "clip", *tiny_world.flags, "--raw_cosine", "--zoom", "2")
    run_script("eval", "--method", "cdul", *tiny_world.flags)
    run_script("train_voc07", "--method", "cdul", "--backbone", "clip", *tiny_world.flags, "--epochs", "1")
    text = write_table("main", ["runs"], "tables")
    assert "left out" not in text
    for title in ("BAC-GCN (--epochs 1)", "CLIP zero-shot", "CDUL initialisation",
                  "CLIP zero-shot, raw cosine, zoom 2 (extension, not in the paper)",
                  "CDUL port to a frozen-CLIP head (labels by tiny) (--epochs 1)"):
        assert f"| {title} " in text
    assert {path.name for path in Path("runs").iterdir()} == {
        "voc2007", "voc2007_clip", "voc2007_clip_cosine_zoom2", "voc2007_cdul_initial", "voc2007_cdul_clip"}


def test_eval_does_not_write_over_a_training_run(tmp_path, capsys):
    (tmp_path / "checkpoint.pth").touch()
    with pytest.raises(SystemExit):
        run_script("eval", "--method", "clip", "--dataset", "voc2007", "--output_dir", tmp_path)
    assert f"{tmp_path}: holds the results of a training run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_a_stop_between_its_two_files_leaves_no_result_beside_other_flags(tiny_world, tmp_path, monkeypatch):
    command = ["eval", "--method", "clip", *tiny_world.flags, "--output_dir", tmp_path]
    run_script(*command)
    assert collect_runs([tmp_path]).groups[0].title == "CLIP zero-shot"

    def stop(path, *content, **options) -> None:
        if path.name == "result.json":
            raise KeyboardInterrupt
        write_json(path, *content, **options)

    monkeypatch.setattr(method_scores, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        run_script(*command, "--raw_cosine")
    assert json.loads((tmp_path / "config.json").read_text())["args"]["raw_cosine"]
    with pytest.raises(DataError, match="no finished run"):
        collect_runs([tmp_path])


# ---- studies -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("study", STUDIES)
def test_every_variant_of_a_study_sets_flags_that_exist(study, tmp_path):
    defaults = settings_of(default_flags("mini"))
    plan = ablate.plan_study("mini", study, seeds=2, output_dir=tmp_path, flags=["--epochs", "8", "--seed", "5"])
    assert {run.args.seed for run in plan} == {5, 6} and len({run.folder for run in plan}) == len(plan)
    for run in plan:
        settings = {flag: value for flag, value in vars(run.args).items() if flag in defaults}
        changed = {flag for flag in defaults if settings[flag] != defaults[flag]} - {"epochs"}
        assert settings.keys() == defaults.keys() and settings["epochs"] == 8
        assert len(changed) == (0 if run.folder.parent.name == "full" else 1), run


def test_a_part_of_a_study(tmp_path):
    plan = ablate.plan_study("mini", "choices", 1, tmp_path, [], ["sage", "cosine"])
    assert [run.folder.parent.name for run in plan] == ["full", "sage", "cosine"]
    with pytest.raises(DataError, match="--only sgae: no variant of --study choices; there are labels_fused, "):
        ablate.plan_study("mini", "choices", 1, tmp_path, [], ["cosine", "sgae"])


def test_study_runs_what_is_missing_and_skips_what_is_done(tiny_world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "variants", lambda study: [Variant("no_gcn", "without the GCN", {"no_gcn": True})])
    command = ["--dataset", "voc2007", "--seeds", "2", "--output_dir", str(tmp_path), "--epochs", "1",
               *tiny_world.flags[2:]]
    ablate.main([*command, "--dry_run"])
    assert "4 runs, 0 of them done" in capsys.readouterr().out and not list(tmp_path.iterdir())
    ablate.main(command)
    assert "without the GCN | --no_gcn" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("ablation.*")} == {"ablation.md", "ablation.tex", "ablation.csv"}
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.pth")}
    assert len(stamps) == 4
    (tmp_path / "no_gcn" / "seed_1" / "result.json").unlink()
    ablate.main(command)
    assert "4 runs, 3 of them done" in capsys.readouterr().out
    done = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns == stamp}
    assert tmp_path / "full" / "seed_0" / "checkpoint.pth" in done and len(done) >= 3
    with pytest.raises(DataError, match="made without --lr 0.5"):
        ablate.main([*command, "--lr", "0.5"])
