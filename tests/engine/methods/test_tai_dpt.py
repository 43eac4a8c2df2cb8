"""TaI-DPT's prompts, scores and loss against CLIP's own text encoder and against loops."""
from __future__ import annotations

import json
import math
import shutil
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import clip
from clip.model import CLIP, Architecture
from datasets.names import prompt_name
from datasets.registry import get_dataset
from engine.command_line.train_flags import default_flags
from engine.evaluation.evaluation_set import EvaluationSet
from engine.methods.tai_dpt_training import TextBank, learning_rate, load_texts, template_texts
from models.baselines.tai_dpt import Content, DualPrompts, class_scores, pair_ranking_loss, text_content
from tests.engine.training.test_training import assert_same_weights, log, run_script


@pytest.fixture(scope="module")
def model() -> CLIP:
    torch.manual_seed(0)
    return CLIP(Architecture(embed_dim=16, image_resolution=32, patch_size=16, vision_width=64, vision_layers=1,
                             text_width=64, text_layers=2)).eval().requires_grad_(False)


def test_contexts_of_real_words_are_real_prompts(model):
    prompts = DualPrompts(model, ["cat", "tv monitor", "potted plant"], num_context=4)
    first, second = "a photo of a", "one more big old"
    with torch.no_grad():
        for context, words in zip(prompts.contexts, (first, second)):
            context.copy_(model.token_embedding(clip.tokenize(words)[0, 1:5]))
    for words, embeddings in zip((first, second), prompts(model)):
        texts = clip.tokenize([f"{words} cat.", f"{words} tv monitor.", f"{words} potted plant."])
        torch.testing.assert_close(embeddings, F.normalize(model.encode_text(texts), dim=-1))


def test_contexts_alone_are_learned_and_saved(model):
    prompts = DualPrompts(model, ["cat", "dog"])
    assert {name: tuple(value.shape) for name, value in prompts.state_dict().items()} == {"contexts": (2, 16, 64)}
    prompts(model).sum().backward()
    assert prompts.contexts.grad.abs().amax(dim=(1, 2)).gt(0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_text_content(model):
    tokens = clip.tokenize(["a cat", "two dogs on a long road"])
    content = text_content(model, tokens)
    torch.testing.assert_close(content.global_embeddings, model.encode_text(tokens))
    ends = tokens.argmax(dim=1)
    assert content.local_embeddings.shape[1] == int(ends.max()) + 1
    assert content.valid.sum(dim=1).tolist() == (ends + 1).tolist()
    torch.testing.assert_close(content.local_embeddings[0, ends[0]], content.global_embeddings[0])


def test_texts_are_the_same_from_memory_and_live(model):
    tokens = clip.tokenize(["a cat", "two dogs on a long road", "a boat at sea", "one"])
    rows = torch.tensor([3, 0, 2])
    kept, live = (TextBank(model, tokens, 2, budget)[rows] for budget in (10**6, 0))
    assert torch.equal(kept.valid, live.valid)
    torch.testing.assert_close(kept.global_embeddings, live.global_embeddings, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(kept.local_embeddings[kept.valid], live.local_embeddings[live.valid], atol=2e-3,
                               rtol=1e-3)


def test_scores_in_loops():
    generator = torch.Generator().manual_seed(0)
    classes = F.normalize(torch.randn(2, 3, 8, generator=generator), dim=-1)
    content = Content(torch.randn(2, 8, generator=generator), torch.randn(2, 5, 8, generator=generator),
                      torch.tensor([[True] * 5, [True, True, False, True, False]]))
    scores = class_scores(classes, content, scale=7.0)
    for image in range(2):
        for c in range(3):
            expected = 4 * float(F.cosine_similarity(content.global_embeddings[image], classes[0, c], dim=0))
            assert float(scores.global_scores[image, c]) == pytest.approx(expected, abs=1e-5)
            cosines = [float(F.cosine_similarity(token, classes[1, c], dim=0)) for token, valid
                       in zip(content.local_embeddings[image], content.valid[image]) if valid]
            weights = [math.exp(7 * cosine) for cosine in cosines]
            expected = 4 * sum(weight * cosine for weight, cosine in zip(weights, cosines)) / sum(weights)
            assert float(scores.local_scores[image, c]) == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(scores.merged, (scores.global_scores + scores.local_scores) / 2)


def test_loss_by_hand():
    scores = torch.tensor([[2.0, 0.5, 1.5], [0.0, 3.0, 0.0]])
    positive = torch.tensor([[True, False, True], [True, True, False]])
    # Row 0: pairs (0, 1) and (2, 1): max(0, 1 - 2 + .5) + max(0, 1 - 1.5 + .5) = 0. Row 1: (0, 2): 1; (1, 2): 0.
    assert float(pair_ranking_loss(scores, positive)) == pytest.approx(0.5)
    assert float(pair_ranking_loss(torch.zeros(1, 3), positive[:1])) == pytest.approx(2)


def test_learning_rate():
    rates = [learning_rate(1.0, epoch, 20) for epoch in range(1, 23)]
    assert rates[0] == 1e-5 and rates[10] == pytest.approx(0.5)
    assert rates[1:] == sorted(rates[1:], reverse=True) and rates[20:] == [pytest.approx(0, abs=1e-9)] * 2


def test_training_on_texts_names_the_classes_of_texts(model):
    """A few steps make the classes that texts name rank first; no image takes part."""
    torch.manual_seed(1)
    texts = ["a cat sits there", "a dog on the road", "a cat and a dog", "one old boat"]
    positive = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    prompts = DualPrompts(model, ["cat", "dog", "boat"], num_context=4)
    optimizer = torch.optim.Adam(prompts.parameters(), 0.02)
    content = text_content(model, clip.tokenize(texts))
    losses = []
    for _ in range(40):
        loss = sum(pair_ranking_loss(part, positive) for part in class_scores(prompts(model), content, 50.0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.fixture(scope="module")
def caption_root(tiny_world, tmp_path_factory) -> Path:
    """The tiny world's labels with captions that tell image and prompt."""
    root = tmp_path_factory.mktemp("captions")
    shutil.copytree(tiny_world.root / "caption" / "voc2007", root / "voc2007")
    for file, word in (("voc2007_captions", "first"), ("voc2007_re_captions", "again")):
        captions = {f"train_{image:03d}.": [f"{word} {prompt} of {image}" for prompt in range(6)]
                    for image in range(20)}
        (root / "voc2007" / f"{file}.json").write_text(json.dumps(captions))
    return root


def train_tai_dpt(world, caption_root: Path, output_dir: Path, *flags) -> Path:
    run_script("train_voc07", "--method", "tai_dpt", *world.flags, "--caption_root", caption_root, "--output_dir",
               output_dir, "--epochs", "3", "--batch_size", "512", *flags)
    return output_dir


@pytest.fixture(scope="module")
def finished(tiny_world, caption_root, tmp_path_factory) -> Path:
    return train_tai_dpt(tiny_world, caption_root, tmp_path_factory.mktemp("tai_dpt") / "run")


def test_texts_are_both_answers_to_a_prompt_with_its_labels(model, caption_root):
    labels = json.loads((caption_root / "voc2007" / "train_label_dictionary.json").read_text())
    test = EvaluationSet(Namespace(caption_root=str(caption_root), output_dir=""), get_dataset("voc2007"),
                         torch.device("cpu"), SimpleNamespace(text_tower=model), None, torch.zeros(0, 20), [])
    texts = load_texts(test, ["train_007", "train_003"])
    expected = [(f"first {prompt} of {image}. again {prompt} of {image}", sorted(c for c in named if c < 20))
                for image in (7, 3) for prompt, named in enumerate(labels[f"train_{image:03d}"])]
    expected = [(text, classes) for text, classes in expected if classes]
    expected += [(text, [row]) for row, name in enumerate(get_dataset("voc2007").classes)
                 for text in template_texts(prompt_name(name))]
    assert torch.equal(texts.tokens, clip.tokenize([text for text, _ in expected]))
    assert [row.nonzero()[:, 0].tolist() for row in texts.positive] == [classes for _, classes in expected]


def test_every_class_has_nine_default_texts_and_those_of_imagenet():
    texts = template_texts("tv monitor")
    assert texts[:9] == ["a photo of a tv monitor."] * 9
    assert len(texts) == 89
    assert texts[9] == "a bad photo of a tv monitor." and texts[-1] == "a tattoo of the tv monitor."


@pytest.mark.parametrize("dataset, lr, image_scale", [("voc2007", 1e-4, 40), ("coco2014", 1e-4, 40),
                                                      ("nuswide", 1e-3, 4)])
def test_defaults_are_the_authors(dataset, lr, image_scale):
    flags = default_flags(dataset, "tai_dpt")
    assert (flags["lr"], flags["image_scale"], flags["batch_size"], flags["epochs"]) == (lr, image_scale, 512, 20)


def test_image_scale_changes_how_images_are_scored_and_not_the_training(tiny_world, caption_root, finished, tmp_path):
    other = log(train_tai_dpt(tiny_world, caption_root, tmp_path / "run", "--epochs", 1, "--image_scale", 0.5))[0]
    assert other["loss"] == log(finished)[0]["loss"] and other["mAP"] != log(finished)[0]["mAP"]


def test_run_and_eval(finished, capsys):
    records = log(finished)
    assert records[2]["loss"] < records[0]["loss"] and 60 < records[0]["images"] - 20 * 89 <= 120
    assert "port" in json.loads((finished / "result.json").read_text())["title"]
    run_script("eval", "--checkpoint", finished / "checkpoint.pth")
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"mAP {records[-1]['mAP']}"


def test_run_goes_on_where_it_stopped_and_learns_nothing_from_training_images(tiny_world, caption_root, finished,
                                                                              tmp_path):
    folder = train_tai_dpt(tiny_world, caption_root, tmp_path / "run", "--epochs", 1, "--train_img_root", "nowhere")
    train_tai_dpt(tiny_world, caption_root, folder, "--train_img_root", "nowhere")
    learned = [[(record["loss"], record["mAP"]) for record in log(run)] for run in (folder, finished)]
    assert learned[0] == learned[1]
    assert_same_weights(folder, finished)
    assert "threshold" in log(finished)[0] and "threshold" not in log(folder)[0], "that alone asks for them"


def test_a_checkpoint_of_another_method_is_refused(finished, capsys):
    with pytest.raises(SystemExit) as stop:
        run_script("eval", "--checkpoint", finished / "checkpoint.pth", "--method", "cdul")
    assert stop.value.code == 2 and "a checkpoint of tai_dpt" in capsys.readouterr().err
