"""Figures show the data that they were given, and eval.py draws each of them."""
from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from datasets.images import image_transform, read_image
from datasets.plotting import BLUE, ORANGE, graph_figure, save_figure
from datasets.split_file import ImageList, read_image_ids
from engine.command_line.method_flags import RECIPES
from engine.evaluation.predictor import MaskedViews, Predictor, load_predictor
from engine.features.extraction import extract_features
from engine.features.feature_set import FeatureSet
from engine.pictures.charts import curves_figure, per_class_figure
from engine.pictures.drawings import MappedPhoto, Scale, fit, maps_figure, masks_figure, overlay
from engine.pictures.figure_data import baseline_title, draw_curves
from engine.results.finished_runs import collect_runs
from engine.training.checkpoint import load_checkpoint
from engine.training.prediction import predict
from models.encoder import CLIPEncoder
from tests.engine.results.test_tables import leave_run
from tests.engine.training.test_training import run_script, train


@pytest.fixture(scope="module")
def run_folder(tiny_world, tmp_path_factory) -> Path:
    return train(tiny_world, tmp_path_factory.mktemp("runs") / "run", "--epochs", "3")


@pytest.fixture(scope="module")
def predictor(run_folder) -> Predictor:
    checkpoint = load_checkpoint(run_folder / "checkpoint.pth")
    args = argparse.Namespace(**checkpoint["args"], checkpoint=run_folder / "checkpoint.pth")
    return load_predictor(args, checkpoint)


@pytest.fixture
def photo() -> Image.Image:
    """As large as the tiny CLIP's input: nothing is resized on the way to it."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def gray(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 90, 90))


# ---- what the model says of a photo --------------------------------------------------------------------------------

def test_masked_views_part_the_photo_and_are_scored_as_they_look(predictor, photo):
    predictor = dataclasses.replace(predictor, encoder=CLIPEncoder(predictor.encoder.clip, mask_mode="pixel"))
    views = predictor.masked_views(photo)
    original, high, others = views.pictures
    assert (original == np.asarray(photo)).all() and (high.astype(int) + others == original).all()
    kept = high.reshape(4, 16, 4, 16, 3).any(axis=(1, 3, 4))
    assert kept.sum() == math.ceil(0.15 * 16) and views.share == pytest.approx(kept.mean())
    transform, text = image_transform(64), F.normalize(predictor.text_embeddings, dim=-1)
    for picture, logits in zip(views.pictures, views.logits):
        embedding = F.normalize(predictor.encoder.clip.encode_image(transform(Image.fromarray(picture))[None]), dim=-1)
        assert torch.allclose(logits, 100 * (embedding @ text.T)[0], atol=1e-3)


def test_tags_of_a_photo_are_the_models_predictions(predictor):
    args = predictor.args
    images = ImageList(args.val_img_root, read_image_ids(args.val_split_file), image_transform(64))
    store = extract_features(predictor.encoder, images, "test", args)
    logits = predict(predictor.model, FeatureSet([store], torch.zeros(len(images), 20)), args, torch.device("cpu"))
    for row in (0, 7):
        tags = predictor.tag(read_image(images.path(row)))
        assert torch.allclose(tags.scores, logits[row].sigmoid(), atol=5e-3)
        assert tags.maps.shape == (len(predictor.categories), 4, 4)


# ---- drawing -------------------------------------------------------------------------------------------------------

def test_overlay_is_bright_where_the_map_is_high():
    similarity = torch.zeros(4, 5)
    similarity[3, 1] = 1
    brightness = overlay(gray(100, 80), similarity).sum(axis=-1)
    y, x = np.unravel_index(brightness.argmax(), brightness.shape)
    assert brightness.shape == (80, 100) and 60 <= y < 80 and 20 <= x < 40
    assert np.ptp(overlay(gray(10, 8), torch.ones(4, 5))) < 256, "a flat map draws"


def test_fit_keeps_the_shape_and_never_enlarges():
    assert fit(gray(900, 300), 300).size == (300, 100)
    assert fit(gray(20, 10), 300).size == (20, 10)


def test_masks_figure_shows_the_five_highest_logits():
    logits = torch.arange(24.0).view(3, 8)
    names = [f"name {number}" for number in range(8)]
    black = np.zeros((30, 40, 3), dtype=np.uint8)
    figure = masks_figure([MaskedViews([black, black, black], logits, 0.15)] * 2, names, num_classes=5)
    dots = [axes for axes in figure.axes if axes.lines]
    assert len(dots) == 6
    assert [label.get_text() for label in dots[0].get_yticklabels()] == [f"name {row}" for row in (7, 6, 5, 4, 3)]
    assert [dot.get_xdata()[0] for dot in dots[0].lines] == [7, 6, 5, 4, 3]
    assert [dot.get_color() for dot in dots[0].lines] == [ORANGE] * 3 + [BLUE] * 2
    assert len({axes.get_xlim() for axes in dots}) == 1, "all have one axis"
    low, high = dots[0].get_xlim()
    assert low < 3 and high > 23
    assert [axes.get_xlabel() for axes in dots] == [""] * 3 + ["CLIP's logit (100 cosine)"] * 3


def test_maps_figure_has_a_titled_picture_for_each_category():
    maps = {name: torch.rand(4, 4) for name in ("dog", "car", "grass", "sky")}
    photo = MappedPhoto(gray(40, 30), maps, dict.fromkeys(maps, 0.25))
    known = photo._replace(true=frozenset({"dog", "person"}))
    figure = maps_figure([photo, known], classes=("dog", "car"), most_columns=3)
    assert [axes.get_title() for axes in figure.axes[:5]] == ["photo", "dog  0.25", "car  0.25", "grass  0.25",
                                                             "sky  0.25"]
    assert [axes.get_title() for axes in figure.axes[5:7]] == ["true: dog, person", "dog ✓  0.25"]
    assert figure.axes[1].title.get_color() == BLUE and figure.axes[3].title.get_color() == ORANGE
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(min(box.x0, box.y0) > -1e-3 and max(box.x1, box.y1) < 1.001 for box in boxes)
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[number + 1:])


@pytest.mark.parametrize("size", [(1, 300), (300, 1)])
def test_a_photo_of_any_shape_makes_a_page_of_bounded_size(size):
    photo = MappedPhoto(Image.new("RGB", size), {"dog": torch.rand(4, 4)}, {"dog": 0.5})
    views = MaskedViews([np.zeros((*size[::-1], 3), dtype=np.uint8)] * 3, torch.rand(3, 6), 0.2)
    for figure in (maps_figure([photo], classes=("dog",)), masks_figure([views], list("abcdef"), 4)):
        assert 0.5 < figure.get_size_inches()[1] < 12


def test_maps_are_on_one_scale():
    dim, bright = torch.full((4, 4), 0.2), torch.full((4, 4), 0.6)
    photo = MappedPhoto(gray(40, 30), {"dog": dim, "car": bright}, {"dog": 0.1, "car": 0.9})
    figure = maps_figure([photo], classes=("dog", "car"))
    pictures = [axes.images[0].get_array() for axes in figure.axes[1:3]]
    assert pictures[0].mean() < pictures[1].mean() - 50, "0.2 is dark beside 0.6"
    bar = figure.axes[-1]
    assert bar.get_xlim() == pytest.approx((0.2, 0.6)) and "cosine" in bar.get_xlabel()
    assert (overlay(gray(8, 8), dim, Scale(0.2, 0.6)) == overlay(gray(8, 8), bright, Scale(0.6, 1.0))).all()


def test_many_curves_are_equally_wide_and_named_apart():
    curves = {f"variant {number}": [[(1, 10.0), (2, 20.0 + 0.01 * number)]] for number in range(6)}
    figure = curves_figure(curves, zero_shot=20.0, crops_from=None)
    axes, = figure.axes
    lines = [line for line in axes.lines if line.get_label() in curves]
    assert len({line.get_linewidth() for line in lines}) == 1 and len({line.get_marker() for line in lines}) == 6
    figure.canvas.draw()
    names = [text for text in axes.texts if text.get_text()]
    assert len(names) == 7 and "variant 5 20.1" in {text.get_text() for text in names}
    boxes = [text.get_window_extent() for text in names]
    assert not any(a.overlaps(b) for number, a in enumerate(boxes) for b in boxes[number + 1:])
    assert all(box.x1 < figure.bbox.x1 and box.y0 > 0 and box.y1 < figure.bbox.y1 for box in boxes)


def test_curves_show_mean_and_deviation():
    runs = [[(1, 10.0), (2, 20.0), (3, 30.0)], [(1, 14.0), (2, 20.0)]]  # the second was trained for less
    figure = curves_figure({"BAC-GCN": runs, "other": [runs[0]]}, zero_shot=12.0, crops_from=2)
    axes, = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    mean = lines["BAC-GCN"]
    assert list(mean.get_xdata()) == [1, 2] and mean.get_ydata().tolist() == [12, 20]
    assert lines["other"].get_ydata().tolist() == [10, 20, 30]
    assert list(lines["CLIP zero-shot"].get_ydata()) == [12, 12]
    assert {"BAC-GCN 20.0", "other 30.0", "CLIP zero-shot 12.0"} <= {text.get_text() for text in axes.texts}
    assert "mean of 1 to 2 seeds" in axes.get_xlabel()
    band = axes.collections[0].get_paths()[0].vertices
    assert band[band[:, 0] == 1][:, 1].max() == pytest.approx(12 + math.sqrt(8))
    assert any(text.get_text() == "ReSO's crops join" and text.xy[0] == 1.5 for text in axes.texts)


@pytest.mark.parametrize("count, columns", [(3, 1), (80, 2)])
def test_per_class_bars_are_sorted_and_marked(count, columns):
    ours, baseline = np.linspace(20, 90, count), np.full(count, 50.0)
    ours[0] = np.nan
    figure = per_class_figure([f"class {row}" for row in range(count)], ours, baseline, "ours", "theirs")
    assert len(figure.axes) == columns
    widths = [bar.get_width() for axes in figure.axes for bar in axes.patches]
    assert widths == pytest.approx(sorted(ours[1:], reverse=True)), "no bar for a class without a positive"
    first = figure.axes[0]
    assert first.get_yticklabels()[0].get_text() == f"class {count - 1}" and first.texts[0].get_text() == "+40.0"
    assert set(first.lines[0].get_xdata()) == {50.0}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0].startswith("ours: mAP") and names[1:] == ["theirs: mAP 50.0", "ours minus theirs"]


def test_graph_figure_and_files(tmp_path):
    graph = np.array([[1, 0.5, 0.25], [0.125, 1, 0], [0, 0.75, 1]])
    figure = graph_figure(graph, ["dog", "tv_monitor", "grass"], num_classes=2)
    axes = figure.axes[0]
    assert (axes.images[0].get_array() == graph).all()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["dog", "tv_monitor", "grass"]
    assert {line.get_xdata()[0] for line in axes.lines} >= {1.5}
    pdf, png = save_figure(figure, tmp_path / "new" / "graph")
    first = pdf.read_bytes(), png.read_bytes()
    assert first[0].startswith(b"%PDF") and matplotlib.image.imread(png).shape[1] > 600
    save_figure(graph_figure(graph, ["dog", "tv_monitor", "grass"], 2), tmp_path / "new" / "graph")
    assert (pdf.read_bytes(), png.read_bytes()) == first


# ---- the command line ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("figure", ["masks", "maps", "graph", "per_class"])
def test_eval_draws(run_folder, figure):
    run_script("eval", "--figure", figure, "--checkpoint", run_folder / "checkpoint.pth")
    assert all((run_folder / "figures" / f"{figure}.{kind}").stat().st_size > 1000 for kind in ("pdf", "png"))


def test_eval_draws_the_method(tiny_world, run_folder, tmp_path):
    labels = tiny_world.root / "caption" / "voc2007"
    shutil.copytree(labels, tmp_path / "caption" / "voc2007")
    image_ids = [f"train_{number:03d}" for number in range(20)]
    for kind in ("captions", "re_captions"):
        (tmp_path / "caption" / "voc2007" / f"voc2007_{kind}.json").write_text(
            json.dumps({image_id: [f"a dog by a road {prompt}" for prompt in range(6)] for image_id in image_ids}))
    for figure, shape in (("method", (3600, 2160)), ("method_narrow", (1800, 4320))):
        run_script("eval", "--figure", figure, "--checkpoint", run_folder / "checkpoint.pth", "--caption_root",
                   tmp_path / "caption", "--output_dir", tmp_path)
        with Image.open(tmp_path / f"{figure}.png") as drawn:
            assert drawn.size == shape and drawn.convert("L").resize((60, 60)).entropy() > 2


def test_curves_of_another_method_have_its_title_and_those_of_a_variant_what_is_changed(tmp_path):
    for name, title, flags in (("full", "BAC-GCN", {}), ("k", "BAC-GCN", {"k": 8}), ("no_reso", "BAC-GCN", {
            "no_reso": True}), ("plus", "BAC-GCN+", {"recipe": "plus", **RECIPES["plus"].flags})):
        folder = leave_run(tmp_path / name, 70.0, title=title, **flags)
        (folder / "log.txt").write_text("".join(f'{{"epoch": {epoch}, "mAP": {60 + epoch}}}\n' for epoch in (1, 2)))
    axes, = draw_curves(collect_runs([tmp_path]).groups).axes
    names = {text.get_text() for text in axes.texts}
    assert {"BAC-GCN 62.0", "with --k 8 62.0", "without ReSO (same epochs, no crops) 62.0", "BAC-GCN+ 62.0"} <= names


def test_eval_draws_curves_of_all_runs_below_a_folder(tiny_world, run_folder, tmp_path):
    train(tiny_world, run_folder.parent / "no_reso", "--epochs", "3", "--no_reso")
    run_script("eval", "--figure", "curves", "--runs", run_folder.parent, "--output_dir", tmp_path)
    assert (tmp_path / "curves.pdf").exists()


def test_nested_runs_can_be_left_out(tiny_world, run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run" / "seed_1")
    train(tiny_world, tmp_path / "run" / "no_reso", "--epochs", "3", "--no_reso")
    assert len(collect_runs([tmp_path / "run"]).groups) == 2
    group, = collect_runs([tmp_path / "run"], nested=False).groups
    assert group.runs[0].folder == tmp_path / "run" / "seed_1"
    run_script("eval", "--figure", "curves", "--runs", tmp_path / "run", "--no_nested", "--output_dir", tmp_path)


def test_eval_draws_masks_without_a_checkpoint(tiny_world, tmp_path, photo):
    photo.save(tmp_path / "photo.png")
    run_script("eval", *tiny_world.flags, "--figure", "masks", "--image", tmp_path / "photo.png",
               "--output_dir", tmp_path / "out")
    assert (tmp_path / "out" / "masks.png").exists()


def test_eval_tags_a_photo(run_folder, photo, tmp_path, capsys):
    photo.save(tmp_path / "my photo.png")
    run_script("eval", "--checkpoint", run_folder / "checkpoint.pth", "--image", tmp_path / "my photo.png",
               "--output_dir", tmp_path)
    out = capsys.readouterr().out
    assert str(tmp_path / "my photo.png") in out and "background:" in out
    assert (tmp_path / "tags_my photo.png").exists()


def test_per_class_baseline_from_a_file(run_folder, tmp_path, capsys):
    run_script("eval", "--checkpoint", run_folder / "checkpoint.pth")
    table = run_folder / "per_class_bac_gcn.csv"
    flags = ["--figure", "per_class", "--checkpoint", run_folder / "checkpoint.pth", "--output_dir", tmp_path]
    run_script("eval", *flags, "--baseline", table)
    (tmp_path / "other.csv").write_text(table.read_text().replace("aeroplane", "zebra"))
    with pytest.raises(SystemExit):
        run_script("eval", *flags, "--baseline", tmp_path / "other.csv")
    assert "other.csv: of 20 other classes" in capsys.readouterr().err


def test_a_baseline_is_not_named_after_the_run_in_whose_folder_it_lies(tmp_path):
    """`eval.py --method clip --checkpoint` leaves CLIP's numbers beside BAC-GCN's."""
    (tmp_path / "result.json").write_text('{"method": "bac_gcn", "title": "BAC-GCN"}')
    assert baseline_title(tmp_path / "per_class_bac_gcn.csv") == "BAC-GCN"
    assert baseline_title(tmp_path / "per_class_clip.csv") == "clip"
    assert baseline_title(tmp_path / "per_class_bac_gcn_on_voc2012_val_cls.csv") == "bac_gcn_on_voc2012_val_cls"


@pytest.mark.parametrize("flags, message", [
    (["--figure", "maps", "--dataset", "voc2007"], "--checkpoint is missing"),
    (["--figure", "maps", "--checkpoint", "RUN", "--categories", "zebra"], "--categories 'zebra'"),
    (["--image", "nowhere.jpg", "--checkpoint", "RUN"], "nowhere.jpg: no such image"),
    (["--figure", "curves", "--runs", "nowhere"], "nowhere: no such folder"),
])
def test_what_is_missing_is_named(run_folder, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        run_script("eval", *[run_folder / "checkpoint.pth" if flag == "RUN" else flag for flag in flags])
    assert stop.value.code == 2 and message in capsys.readouterr().err
