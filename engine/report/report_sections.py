"""The sections of a report: what went in, examples, results, masks, maps, graph and crops."""
from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import List, Sequence, Tuple

import numpy as np
from PIL import ImageDraw
from torch import Tensor

from datasets.captions.io import Captions
from datasets.files import counted
from datasets.images import read_image
from datasets.plotting import graph_figure
from engine.evaluation.predictor import class_ap
from engine.pictures.charts import per_class_figure
from engine.pictures.drawings import VIEW_NOTES, Scale, Score, fit, overlay, top_scores
from engine.pictures.figure_data import draw_curves, map_photo
from engine.report import html
from engine.report.material import Material
from engine.results.finished_runs import Collection, RunGroup
from engine.results.paper_tables import main_table
from engine.results.tables import Number
from models.reso import INDEX_NAME, Crop, read_index

EXAMPLES, MASKED, MAPPED, CROPS = 6, 2, 4, 12
"""Images in each gallery."""


def _evenly(count: int, wanted: int) -> List[int]:
    """So many of `count` rows, evenly spaced, so that nobody picks them."""
    wanted = min(count, wanted)
    return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]


def summary(material: Material) -> str:
    """What was done and how well, in three sentences."""
    own = material.runs[0]
    gain = round(_mean(own, "last_mAP"), 1) - round(_mean(own, "zero_shot_mAP"), 1)  # as the tiles below show them
    return ("No training image was labelled by hand. Captions were turned into noisy labels, and a small graph network "
            "on top of a frozen CLIP learned from them. On images that it has never seen it is "
            f"{abs(gain):.1f} mAP {'better' if gain >= 0 else 'worse'} than CLIP alone.")


def _mean(group: RunGroup, key: str) -> float:
    statistic = group.statistic(key)
    return float("nan") if statistic is None else statistic.mean


def tiles(material: Material) -> str:
    """The numbers of summary.json."""
    own = material.runs[0]
    measured = [(own, "zero_shot_mAP", "mAP of CLIP zero-shot on the test images", ""),
                (own, "last_mAP", f"mAP of {own.title} on the test images", " main")]
    measured += [(other, "last_mAP", "mAP of the same epochs without ReSO's crops" if other.title == own.title
                  else f"mAP of {other.title}, our recipe", "") for other in material.runs[1:]]
    measured.append((own, "zoom_mAP", f"mAP of {own.title} with zoom, an extension of ours", ""))
    tiles = [(f"{material.pseudo_label_map:.1f}", "mAP of the labels made from captions, on the training images", "")]
    for group, key, text, kind in measured:
        statistic = group.statistic(key)
        if statistic is not None:
            tiles.append((str(Number(statistic, digits=1)), text, kind))
    return "".join(f'<div class="tile{kind}"><b>{number}</b><small>{text}</small></div>'
                   for number, text, kind in tiles)


def _went_in(material: Material) -> str:
    predictor, args, own = material.predictor, material.args, material.runs[0]
    classes, backgrounds = predictor.spec.classes, predictor.categories[predictor.num_classes:]
    names = f"<span class=class>{counted(len(classes), 'class')}</span> to be found: {html.words(classes)}."
    if backgrounds:
        names += (f"<br><span class=background>{len(backgrounds)} backgrounds</span> beside them: "
                  f"{html.words(backgrounds)}.")
    captions = _captions_each(material.captions)
    return html.section(
        "What went in",
        f"<b>{counted(len(material.train.image_ids), 'training image')}</b> with {captions} and no labels; "
        f"<b>{counted(len(material.test.image_ids), 'test image')}</b>, whose labels serve for scoring alone; a "
        f"frozen CLIP (<code>{escape(Path(args.model_path).name)}</code>). {counted(args.epochs, 'epoch')}, "
        f"{'seed' if len(own.seeds) == 1 else 'seeds'} {', '.join(map(str, own.seeds))}.", f"<p>{names}</p>")


def _captions_each(captions: Captions) -> str:
    fewest, most = min(map(len, captions.values())), max(map(len, captions.values()))
    if fewest == most:
        return f"{most} captions each" if most > 1 else "one caption each"
    return f"{fewest} to {most} captions each"


def _examples(material: Material) -> str:
    cards = [_example(material, row) for row in _evenly(len(material.train.image_ids), EXAMPLES)]
    return html.section(
        "Captions become labels",
        "Training images, evenly spaced in the list, with their captions and what the filter makes of them: "
        "<span class='chip hit'>✓ named and true</span> <span class='chip extra'>+ named, not true</span> "
        "<span class='chip missed'>– true, not named</span> <span class='chip place'>background</span>. Numbers "
        f"are the label's score; from {material.args.positive_threshold:g} on it counts as named here. Training uses "
        "the score itself, and never the truth.",
        f'<div class="cards">{"".join(cards)}</div>')


def _example(material: Material, row: int) -> str:
    categories, true = material.predictor.categories, set(material.train.labels[row])
    chips = []
    for category, (name, score) in enumerate(zip(categories, material.pseudo.targets[row].tolist())):
        named, is_class = score >= material.args.positive_threshold, category < material.predictor.num_classes
        if is_class and (named or category in true):
            kind, mark = ("missed", "– ") if not named else ("hit", "✓ ") if category in true else ("extra", "+ ")
        elif named:
            kind, mark = "place", ""
        else:
            continue
        chips.append(f'<span class="chip {kind}">{mark}{escape(name)} {score:.2f}</span>')
    texts = [f"<li>{escape(text)}</li>" for text in material.captions[material.train.image_ids[row]]]
    alt = "training image with " + ", ".join(categories[category] for category in sorted(true))
    photo = html.photo(np.asarray(read_image(material.train_images.path(row))))
    more = ("" if len(texts) <= 3 else f"<details><summary>{counted(len(texts) - 3, 'more caption')}</summary>"
            f'<ol start="4">{"".join(texts[3:])}</ol></details>')
    return (f'<div class="card">{html.figure(photo, alt)}<div class="chips">{"".join(chips)}</div>'
            f'<ol>{"".join(texts[:3])}</ol>{more}</div>')


def _results(material: Material) -> str:
    own, classes = material.runs[0], material.predictor.spec.classes
    others = [run for run in material.runs if run.title != own.title]
    has_control = len(material.runs) > 1 + len(others)
    ours, zero_shot = class_ap(material.predictor)
    curves = html.figure(
        html.chart(draw_curves(material.runs)),
        "line chart of the mAP after every epoch, over that of CLIP zero-shot", kind="chart")
    bars = html.figure(
        html.chart(per_class_figure(classes, ours, zero_shot, own.title, "CLIP zero-shot")),
        "bar chart of the average precision of every class, beside CLIP zero-shot", kind="chart bars")
    better = f"{int((ours > zero_shot).sum())} of {counted(len(classes), 'class')} are better than with CLIP alone"
    return "".join((
        '<div class="two">',
        html.section("mAP per epoch", "On the test images." + " Until the crops join, the lines with and without them "
                     "are the same." * has_control, curves),
        html.section("Class by class", f"AP on the test images, seed {own.seeds[0]}: {better}.", bars),
        "</div>",
        html.section("The table", "The last epoch counts. The best one was chosen on the test images (or, where "
                     "training images were held out, by their pseudo-labels); it stands there to compare with papers "
                     "that report it.", html.results_table(main_table(Collection([own, *others], []))))))


def _masks(material: Material) -> str:
    if material.args.no_masked_globals:
        return ""
    predictor, blocks, share = material.predictor, [], 0.0
    for row in _evenly(len(material.test.image_ids), MASKED):
        views = predictor.masked_views(read_image(material.test_images.path(row)))
        share = views.share
        tops = [top_scores(logits, predictor.categories, predictor.num_classes) for logits in views.logits]
        axis = _axis([score.value for top in tops for score in top])
        cells = []
        for note, picture, top in zip(VIEW_NOTES, views.pictures, tops):
            shown = html.figure(html.photo(picture), f"test image, {note}", note)
            cells.append(f"<div>{shown}{_dots(top, axis)}</div>")
        blocks.append(f'<div class="triple">{"".join(cells)}</div>')
    return html.section(
        "Two masked views",
        f"CLIP's attention splits each image: the {share:.0%} of the patches that it looks at most, and the rest. The "
        "global features of both views become nodes of the graph. Dots are CLIP's five highest logits, 100 times the "
        "cosine (<span class=class>class</span>, <span class=background>background</span>), on one axis for the three "
        "views of an image.", "".join(blocks))


def _axis(values: Sequence[float]) -> Tuple[int, int]:
    """The ends of an axis of logits: whole tens that hold all values."""
    low, high = 10 * math.floor(min(values) / 10), 10 * math.ceil(max(values) / 10)
    return low, max(high, low + 10)


def _dots(scores: Sequence[Score], axis: Tuple[int, int]) -> str:
    """A line a score, with its dot on the axis and its value, and the ends of the axis below."""
    low, high = axis
    lines = "".join(
        f'<span>{escape(score.name)}</span><div class="track{"" if score.is_class else " other"}">'
        f'<i style="left:{(score.value - low) / (high - low):.0%}"></i></div><span>{score.rounded}</span>'
        for score in scores)
    ends = f'<div class="ends" aria-hidden="true"><span>{low}</span><span>{high}</span></div>'
    return f'<div class="dots">{lines}{ends}</div>'


def _maps(material: Material) -> str:
    predictor, blocks, photos = material.predictor, [], []
    for row in _evenly(len(material.test.image_ids), MAPPED):
        photo = read_image(material.test_images.path(row))
        photos.append((map_photo(photo, predictor.tag(photo), predictor.categories, predictor.num_classes),
                       [predictor.categories[category] for category in material.test.labels[row]]))
    scale = Scale.of(similarity for mapped, _ in photos for similarity in mapped.maps.values())
    for mapped, true in photos:
        cells = [html.figure(html.photo(np.asarray(mapped.photo)), f"test image with {', '.join(true)}",
                             f"true: {html.words(true)}")]
        for name, similarity in mapped.maps.items():
            kind, mark = "class" if name in predictor.spec.classes else "background", " ✓" if name in true else ""
            cells.append(html.figure(html.photo(overlay(mapped.photo, similarity, scale)), f"similarity map of {name}",
                                     f"<span class={kind}>{escape(name)}{mark}</span> {mapped.scores[name]:.2f}"))
        blocks.append(f'<div class="maps">{"".join(cells)}</div>')
    return html.section(
        "Where it looks",
        "Similarity maps of the classes and backgrounds with the highest scores, on test images: bright patches look "
        "most like the category, and the brightest few are pooled into its node. All maps have one scale, from a "
        f"cosine of {scale.low:.2f} (dark) to {scale.high:.2f} (bright). ✓ marks a class that is truly there.",
        "".join(blocks))


def _graph(material: Material) -> str:
    categories, num_classes = material.predictor.categories, material.predictor.num_classes
    drawing = html.chart(graph_figure(material.pseudo.graph.numpy(), categories, num_classes))
    told = "; ".join(f"{escape(given)} → {escape(named)} {value:.0%}"
                     for given, named, value in _strongest_edges(material.pseudo.graph, categories, 5))
    return html.section(
        "The graph that the captions draw",
        f"How often the captions name i, given that they name j. The strongest edges (given → named): {told}.",
        html.figure(drawing, "matrix of the probabilities of all classes and backgrounds given each other",
                    kind="chart wide"))


def _strongest_edges(graph: Tensor, categories: Sequence[str], count: int) -> List[Tuple[str, str, float]]:
    """(j, i, P(i given j)) of the strongest edges between different categories."""
    edges = graph.clone().fill_diagonal_(-1).flatten().topk(min(count, graph.numel()))
    return [(categories[index % len(categories)], categories[index // len(categories)], value)
            for value, index in zip(edges.values.tolist(), edges.indices.tolist())]


def _crops(material: Material) -> str:
    folder = Path(material.args.output_dir) / "reso"
    if material.args.no_reso or not (folder / INDEX_NAME).exists():
        return ""
    crops = read_index(folder)
    if not crops:
        return html.section("Small objects", "ReSO found no small region at these settings.", "")
    row_of = {image_id: row for row, image_id in enumerate(material.train.image_ids)}
    true = [crop.category in material.train.labels[row_of[crop.image_id]] for crop in crops]
    cells = [_crop(material, folder, crops[index], true[index], row_of[crops[index].image_id])
             for index in _evenly(len(crops), CROPS)]
    return html.section(
        "Small objects that ReSO found",
        f"Before epoch {material.args.reso_epoch} the model's own maps are searched for small regions of the classes "
        f"that the captions name. That gave {counted(len(crops), 'crop')} of "
        f"{counted(len({crop.image_id for crop in crops}), 'image')} "
        f"to train on as well. {np.mean(true):.0%} of them were cut for a class that is truly in the image (✓). Evenly "
        "spaced in the list, not picked.",
        f'<div class="crops">{"".join(cells)}</div>')


def _crop(material: Material, folder: Path, crop: Crop, is_true: bool, row: int) -> str:
    name = material.predictor.spec.classes[crop.category]
    photo = fit(read_image(material.train_images.path(row)), html.THUMBNAIL)
    left, top, right, bottom = (share * side for share, side in zip(crop.box, photo.size * 2))
    for inset, colour in enumerate(("black", "white", "white", "black")):  # seen on any ground
        ImageDraw.Draw(photo).rectangle([left + inset, top + inset, right - 1 - inset, bottom - 1 - inset],
                                        outline=colour)
    whole = html.figure(html.photo(np.asarray(photo)), f"training image with a box around {name}")
    cut = html.figure(html.photo(np.asarray(read_image(folder / f"{crop.file}.jpg"))), f"crop for {name}")
    return (f'<div><div class="pair">{whole}{cut}</div><div class="soft"><span class=class>{escape(name)}</span> '
            f'{"✓" if is_true else "✗"}, {crop.area:.0%} of the patches</div></div>')


SECTIONS = (_went_in, _examples, _results, _masks, _maps, _graph, _crops)
"""In the order of the page."""
