"""Chat-style models as captioners: two families of transformers' real classes, tiny and random."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import caption
from datasets.captions.prompts import CHAT_DECODING, chat_question, first_prompts, re_prompts
from datasets.files import DataError
from models.captioners.chat_model import LONGEST_SIDE, to_pixels
from models.captioners.load_captioner import load_captioner
from tests.captions.tiny_blip2 import available_backend, write_images
from tests.captions.tiny_chat import FAMILIES, write_chat_model

pytestmark = pytest.mark.skipif(available_backend() != "transformers", reason="no transformers with chat models here")

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=list(FAMILIES))
def folder(request, tmp_path_factory):
    return write_chat_model(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def captioner(folder):
    return load_captioner("vlm", str(folder), CPU)


def photos():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)) for shape in ((30, 40, 3), (64, 28, 3))]


PROMPTS = [first_prompts()[:2], re_prompts(["dog", "potted plant"])[3:]]


def test_each_answer_is_the_models_own_for_its_photo_and_question(captioner):
    answers = captioner.answer(captioner.encode([captioner.transform(photo) for photo in photos()]), PROMPTS)
    model, processor = captioner.model, captioner.processor
    for photo, prompts, of_photo in zip(photos(), PROMPTS, answers):
        for prompt, answer in zip(prompts, of_photo):
            text = processor.apply_chat_template([{"role": "user", "content": [
                {"type": "image"}, {"type": "text", "text": chat_question(prompt)}]}], add_generation_prompt=True)
            inputs = processor(text=[text], images=[photo], return_tensors="pt")
            tokens = model.generate(**inputs, **CHAT_DECODING)[0, inputs["input_ids"].shape[1]:]
            assert answer == " ".join(processor.decode(tokens, skip_special_tokens=True).split()) != ""


def test_where_memory_runs_out_the_answers_are_the_same(captioner, monkeypatch):
    images = captioner.encode([captioner.transform(photo) for photo in photos()])
    expected, generate = captioner.answer(images, PROMPTS), captioner.model.generate

    def scarce(**inputs):
        if len(inputs["input_ids"]) > 1:
            raise RuntimeError("CUDA out of memory")
        return generate(**inputs)

    monkeypatch.setattr(captioner.model, "generate", scarce)
    assert captioner.answer(images, PROMPTS) == expected


def test_the_question_is_asked_without_blip2s_frame():
    assert chat_question(first_prompts()[0]) == "What is in the photo? Answer in one sentence."
    assert chat_question(re_prompts(["dog"])[2]) == "Tell us about the photo, excluding dog? Answer in one sentence."


def test_large_photos_are_scaled_down():
    assert to_pixels(Image.new("RGB", (3000, 1500))).shape == (3, LONGEST_SIDE // 2, LONGEST_SIDE)
    assert to_pixels(Image.new("RGB", (40, 30), (1, 2, 3)))[:, 0, 0].tolist() == [1, 2, 3]


def test_the_script_goes_on_and_shards_make_the_same_files(folder, tmp_path):
    image_ids = write_images(tmp_path / "images", 3)
    (tmp_path / "split.txt").write_text("".join(f"{image_id}\n" for image_id in image_ids))
    flags = ["--dataset", "voc2007", "--captioner", "vlm", "--model_type", str(folder), "--device", "cpu",
             "--train_img_root", str(tmp_path / "images"), "--train_split_file", str(tmp_path / "split.txt"),
             "--caption_batch_size", "2", "--num_workers", "0"]
    for shard in "01":
        caption.main(["--stage", "caption", "--caption_root", str(tmp_path / "two"), *flags, "--num_shards", "2",
                      "--shard", shard])
    caption.main(["--stage", "merge", "--caption_root", str(tmp_path / "two"), *flags, "--num_shards", "2"])
    caption.main(["--stage", "caption", "--caption_root", str(tmp_path / "one"), *flags])
    journal = next((tmp_path / "one" / "voc2007").glob("*.jsonl"))
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))  # killed after a batch
    caption.main(["--stage", "caption", "--caption_root", str(tmp_path / "one"), *flags])
    for name in ("captions", "re_captions", "captions.meta"):
        one, two = ((tmp_path / part / "voc2007" / f"voc2007_{name}.json").read_text() for part in ("one", "two"))
        assert one == two
    assert json.loads(one)["decoding"] == CHAT_DECODING


def test_faults_are_one_line(captioner, tmp_path):
    with pytest.raises(DataError, match="a BLIP-2, which does not chat"):
        load_captioner("vlm", "pretrain_opt2.7b", CPU)
    with pytest.raises(DataError, match="cannot be loaded"):
        load_captioner("vlm", str(tmp_path), CPU)
    captioner.model.save_pretrained(tmp_path)
    captioner.processor.save_pretrained(tmp_path)
    for path in tmp_path.glob("*chat_template*"):
        path.unlink()
    for path in tmp_path.glob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.pop("chat_template", None):
            path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no chat template"):
        load_captioner("vlm", str(tmp_path), CPU)
