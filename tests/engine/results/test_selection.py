"""Choosing without a true label: the grid, successive halving, what is trained for it, and the table of all runs."""
from __future__ import annotations

import json

import pytest

import ablate
from datasets.files import DataError
from engine.command_line.method_flags import method_title
from engine.command_line.train_flags import get_args_parser, parse_args
from engine.results.finished_runs import collect_runs
from engine.results.paper_tables import ablation_table, main_table
from engine.results.runs_table import runs_table
from engine.results.selection import CRITERION, budgets, common_criterion, halve, read_grid, selection_score
from engine.results.studies import Variant
from engine.training.run import _best_epoch
from tests.engine.results.test_tables import leave_run, rows_of


def test_grid_is_every_combination():
    variants = read_grid(get_args_parser("voc2007", None), ["k=2,4", "lr=3e-4", "no_gcn=true,false"])
    assert [variant.flags for variant in variants] == [
        {"k": k, "lr": 3e-4, "no_gcn": no_gcn} for k in (2, 4) for no_gcn in (True, False)]
    assert len({variant.name for variant in variants}) == 4


@pytest.mark.parametrize("word", ["k", "nothing=1", "no_gcn=1", "output_dir=a"])
def test_what_is_no_grid_is_refused(word):
    with pytest.raises(DataError, match="--grid"):
        read_grid(get_args_parser("voc2007", None), [word])


def test_halving_trains_the_better_half_on():
    """The first at 4 epochs falls behind at 8; the slow starter that was dropped at once stays behind all."""
    trained = []
    growth = {"a": (50, 0), "b": (40, 2), "c": (45, 1), "d": (10, 9)}

    def score(variant: Variant, epochs: int) -> float:
        trained.append((variant.name, epochs))
        start, slope = growth[variant.name]
        return start + slope * epochs

    rounds = budgets(16, 4)
    assert rounds == [4, 8, 16] and budgets(2, 100) == [1, 2] and budgets(16, 1) == [16]
    ranking = halve([Variant(name, name, {}) for name in "dcba"], rounds, score)
    assert [ranked.variant.name for ranked in ranking] == ["c", "a", "b", "d"]
    assert sorted(trained[:4]) == [("a", 4), ("b", 4), ("c", 4), ("d", 4)]
    assert sorted(trained[4:]) == [("a", 8), ("c", 8), ("c", 16)]


def test_selection_trains_ranks_and_leaves_a_config(tiny_world, tmp_path, capsys):
    command = ["--dataset", "voc2007", "--select", "--grid", "lr=1e-9,1e-2", "--output_dir", str(tmp_path), "--epochs",
               "2", "--val_share", "0.4", *tiny_world.flags[2:]]
    ablate.main(command)
    printed = capsys.readouterr().out
    logs = {lr: [selection_score(json.loads(line), CRITERION) for line in
                 (tmp_path / f"lr_{lr}" / "seed_0" / "log.txt").read_text().splitlines()] for lr in (1e-9, 1e-2)}
    best = max(logs, key=lambda lr: logs[lr][0])
    assert sorted(map(len, logs.values())) == [1, 2] and len(logs[best]) == 2, "the better half went on"
    assert f"chosen: --lr {best}" in printed and "1 seed each" in printed
    assert "Variants by the mean of pseudo_mAP and pseudo_AP in percent" in printed
    assert all(f"{score:.2f}" in printed for score in (*logs[best], logs[min(logs, key=lambda lr: logs[lr][0])][0]))
    args = parse_args(get_args_parser("voc2007", None), ["--config", str(tmp_path / "chosen.json")])
    assert args.lr == best and args.val_share is None and args.epochs == 2
    ablate.main(command)
    assert "epoch" not in capsys.readouterr().out.split("**Variants")[0], "nothing is trained again"
    with pytest.raises(DataError, match="made without --k 2"):
        ablate.main([*command, "--k", "2"])


def test_the_score_is_the_mean_of_both_unless_one_is_from_before():
    both, before = {"pseudo_mAP": 60.0, "pseudo_AP": 70.0}, {"pseudo_mAP": 64.0}
    assert selection_score(both, common_criterion([both, both])) == 65
    for older in (before, {**before, "pseudo_AP": None}):
        criterion = common_criterion([both, older])
        assert [selection_score(record, criterion) for record in (both, older)] == [60, 64]


def test_the_best_epoch_is_that_of_the_highest_score():
    history = [{"epoch": 1, "mAP": 9.0, "pseudo_mAP": 60.0, "pseudo_AP": 50.0},
               {"epoch": 2, "mAP": 8.0, "pseudo_mAP": 59.0, "pseudo_AP": 55.0},
               {"epoch": 3, "mAP": 7.0, "pseudo_mAP": 58.0, "pseudo_AP": 56.0}]
    assert _best_epoch(history)["epoch"] == 2, "of equal ones the first"
    older = [{name: value for name, value in history[0].items() if name != "pseudo_AP"}, *history[1:]]
    assert _best_epoch(older)["epoch"] == 1, "by pseudo_mAP alone"
    assert _best_epoch([{"epoch": 1, "mAP": 9.0}, {"epoch": 2, "mAP": 8.0}])["epoch"] == 1
    assert _best_epoch([{"epoch": 1}, {"epoch": 2}])["epoch"] == 2


@pytest.mark.parametrize("from_before, chosen, title", [
    (False, "--k 4", "the mean of pseudo_mAP and pseudo_AP"), (True, "--k 2", "pseudo_mAP")])
def test_selection_goes_on_from_logs_without_pseudo_ap(tmp_path, from_before, chosen, title):
    """The first is better by pseudo_mAP, the second by the mean; only the second's second seed is from before."""
    base = ablate.base_flags("voc2007", ["--epochs", "2", "--val_share", "0.1"])
    candidates = read_grid(get_args_parser("voc2007", None), ["k=2,4"])
    for variant, scores in zip(candidates, ((60.0, 50.0), (58.0, 56.0))):
        for seed in (0, 1):
            folder = tmp_path / variant.name / f"seed_{seed}"
            folder.mkdir(parents=True)
            args = ablate.with_flags(base, variant, seed, folder)
            (folder / "config.json").write_text(json.dumps({"args": vars(args)}))
            names = CRITERION[:1] if from_before and variant.name == "k_4" and seed == 1 else CRITERION
            (folder / "log.txt").write_text("".join(
                json.dumps({"epoch": epoch, **dict(zip(names, scores))}) + "\n" for epoch in (1, 2)))

    def train(args):
        raise AssertionError("all of them are there")

    said = ablate.select(base, candidates, 2, tmp_path, train)
    assert f"Variants by {title} in percent" in said and ("no pseudo_AP" in said) == from_before
    first = next(line for line in said.splitlines() if line.startswith("|    1 |"))
    assert chosen in first and ("60.00" if from_before else "57.00") in first


def test_selection_reads_no_true_label_of_a_training_image(tiny_world, tmp_path):
    image_ids = [line.split()[0] for line in tiny_world.path("--train_split_file").read_text().splitlines()]
    (tmp_path / "others.txt").write_text("".join(f"{image_id} 7\n" for image_id in image_ids))
    scores = []
    for more in ([], ["--train_split_file", str(tmp_path / "others.txt")]):
        folder = tmp_path / str(len(more))
        ablate.main(["--dataset", "voc2007", "--select", "--grid", "lr=1e-2", "--output_dir", str(folder), "--epochs",
                     "1", "--val_share", "0.4", *tiny_world.flags[2:], *more])
        record = json.loads((folder / "lr_0.01" / "seed_0" / "log.txt").read_text())
        scores.append([record[name] for name in CRITERION])
    assert scores[0] == scores[1]


@pytest.mark.parametrize("pooled, note", [
    ((50.0, 55.0, 50.0, 60.0, 58.0), "the mean of pseudo_mAP and pseudo_AP with the mAP is 1.00; the row that it would "
     "choose is 0.00 mAP below"),
    ((50.0, 55.0, None, 60.0, 58.0), "pseudo_mAP (not all of them have a pseudo_AP) with the mAP is 0.80; the row that "
     "it would choose is 0.50 mAP below")])
def test_table_of_runs_says_how_far_the_score_ranks_them(tmp_path, pooled, note):
    """Where a row is from before pseudo_AP, all are ranked by pseudo_mAP."""
    pairs = [(60.0, 70.0), (61.0, 72.0), (62.0, 71.0), (65.0, 74.5), (66.0, 74.0)]
    for number, ((pseudo, true), ap) in enumerate(zip(pairs, pooled)):
        leave_run(tmp_path / str(number), true, k=number + 1, val_share=0.1, tags={
            "pseudo_mAP": pseudo, **({} if ap is None else {"pseudo_AP": ap})})
    leave_run(tmp_path / "without", 99.0)
    table = runs_table(collect_runs([tmp_path]))
    assert [str(row[4]) for row in table.rows] == ["99.00", "74.50", "74.00", "72.00", "71.00", "70.00"]
    assert [str(row[5]) for row in table.rows][:2] == ["-", "65.00"]
    assert [str(row[6]) for row in table.rows][:2] == ["-", "60.00"]
    assert f"over the 5 rows with held-out images the rank correlation of {note}" in table.notes[0]


def test_recipes_are_never_in_one_row(tmp_path):
    plus = parse_args(get_args_parser("voc2007", None), ["--recipe", "plus", "--k", "8"])
    assert (plus.lr_schedule, plus.k) == ("cosine", 8) and plus.output_dir == "runs/voc2007_plus"
    undone = parse_args(get_args_parser("voc2007", None), ["--recipe", "plus", "--masked_globals", "--reso"])
    assert plus.no_masked_globals and plus.no_reso and not undone.no_masked_globals and not undone.no_reso
    leave_run(tmp_path / "paper", 70.0)
    flags = vars(parse_args(get_args_parser("voc2007", None), ["--recipe", "plus"]))
    leave_run(tmp_path / "plus", 75.0, title="BAC-GCN+", **{
        flag: value for flag, value in flags.items() if flag not in ("seed", "method", "dataset", "backbone")})
    collection = collect_runs([tmp_path])
    assert all(group.off_defaults == {} for group in collection.groups)
    rows = rows_of(main_table(collection))
    assert rows["BAC-GCN"][-1] == "70.0" and rows["BAC-GCN+"][-1] == "75.0"


def test_what_is_taken_back_from_a_recipe_is_told_alone(tmp_path):
    """Not the flags as well that are read again, at their defaults."""
    for name, words, value in (("full/seed_0", [], 75.0), ("crops", ["--reso", "--masked_globals"], 76.0),
                               ("gamma", ["--reso", "--gamma", "0.5"], 77.0)):
        flags = vars(parse_args(get_args_parser("voc2007", None), ["--recipe", "plus", *words]))
        leave_run(tmp_path / name, value, title="BAC-GCN+", **{
            flag: value for flag, value in flags.items() if flag not in ("seed", "method", "dataset", "backbone")})
    collection = collect_runs([tmp_path])
    assert [(str(row[3]), str(row[4])) for row in runs_table(collection).rows] == [
        ("--reso --gamma 0.5", "77.00"), ("--masked_globals --reso", "76.00"), ("-", "75.00")]
    assert rows_of(main_table(collection))["BAC-GCN+"][-1] == "75.0"
    table = rows_of(ablation_table(collection))
    assert [(name, row[0]) for name, row in table.items()][1:] == [
        ("with --masked_globals --reso", "--masked_globals --reso"), ("with --reso --gamma 0.5", "--reso --gamma 0.5")]


def test_encoders_are_never_in_one_row(tmp_path):
    parser, network = get_args_parser("voc2007", None), ["--encoder", "timm:resnet50"]
    flags = vars(parse_args(parser, network))
    assert flags["output_dir"] == "runs/voc2007_resnet50" and flags["model_path"] is None
    assert method_title(parse_args(parser, [*network, "--recipe", "plus"]), "") == "BAC-GCN+ on resnet50"
    leave_run(tmp_path / "clip", 70.0)
    leave_run(tmp_path / "resnet", 75.0, title="BAC-GCN on resnet50", **{
        flag: value for flag, value in flags.items() if flag not in ("seed", "method", "dataset", "backbone")})
    collection = collect_runs([tmp_path])
    assert all(group.off_defaults == {} for group in collection.groups)
    rows = rows_of(main_table(collection))
    assert rows["BAC-GCN"][-1] == "70.0" and rows["BAC-GCN on resnet50"][-1] == "75.0"
    assert rows["CLIP zero-shot"][-1] == rows["Caption prototypes on resnet50, no training"][-1] == "80.0"
    with pytest.raises(DataError, match="--kernel_start text: timm:resnet50 embeds no text"):
        parse_args(parser, [*network, "--kernel_start", "text"])


def test_a_config_is_of_one_recipe(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"args": {"recipe": "plus", "k": 2}}))
    with pytest.raises(DataError, match="made by --recipe plus"):
        parse_args(get_args_parser("voc2007", None), ["--config", str(tmp_path / "config.json"), "--recipe", "paper"])
