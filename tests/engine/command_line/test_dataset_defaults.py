"""Defaults that depend on the dataset, and what runs did before they had a flag."""
from __future__ import annotations

import pytest

from datasets.registry import DATASETS
from engine.command_line.older_runs import complete_flags
from engine.command_line.train_flags import default_flags


@pytest.mark.parametrize("dataset", DATASETS)
def test_masked_patches_are_black_as_in_the_paper_but_for_the_embedded_world(dataset):
    assert default_flags(dataset)["mask_mode"] == ("token" if dataset == "mini" else "pixel")


def test_older_baselines_keep_what_they_did_before_they_had_a_flag():
    assert complete_flags({"method": "tagclip", "dataset": "voc2007"})["prompt_words"] == "ours"
    older = complete_flags({"method": "tai_dpt", "dataset": "nuswide", "epochs": 20})
    assert older["image_scale"] == 50 and default_flags("nuswide", "tai_dpt")["image_scale"] == 4
