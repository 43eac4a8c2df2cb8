"""The captioner against the libraries' own `generate`, on their real classes with tiny random parts."""
from __future__ import annotations

import io
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datasets.captions.prompts import DECODING, first_prompts, re_prompts
from datasets.files import DataError
from datasets.images import read_image
from models.captioners import lavis_blip2
from models.captioners.halving_batches import HalvingBatches
from models.captioners.lavis_blip2 import LavisCaptioner
from models.captioners.load_captioner import load_captioner
from tests.captions.tiny_blip2 import (
    available_backend,
    lavis_captioner,
    lavis_model,
    write_images,
    write_transformers_model,
)

BACKEND = available_backend()
needs_lavis = pytest.mark.skipif(BACKEND != "lavis", reason="LAVIS is not installed here")
needs_transformers = pytest.mark.skipif(BACKEND != "transformers", reason="no transformers with BLIP-2 here")
needs_either = pytest.mark.skipif(BACKEND is None, reason="neither LAVIS nor a transformers with BLIP-2 is installed")

QUESTIONS = first_prompts()[:5] + re_prompts(["dog", "potted plant"])[1:3]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return write_transformers_model(folder) if BACKEND == "transformers" else folder


@pytest.fixture(scope="module")
def captioner(model_folder):
    if BACKEND == "lavis":
        return lavis_captioner(model_folder)
    return load_captioner("transformers", str(model_folder), torch.device("cpu"))


@pytest.fixture(scope="module")
def images(captioner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return torch.stack([captioner.transform(read_image(folder / f"{image_id}.png"))
                        for image_id in write_images(folder, 3)])


@pytest.fixture(scope="module")
def captions(captioner, images):
    return captioner.answer(captioner.encode(images), [QUESTIONS] * len(images))


@needs_either
def test_the_tiny_model_tells_images_and_prompts_apart(captions):
    assert len({tuple(of_image) for of_image in captions}) == len(captions)
    assert len(set(captions[0])) > 3
    assert any(len(text.split()) < 25 for of_image in captions for text in of_image), "no caption ends early"


@needs_lavis
def test_captions_equal_those_of_lavis_generate(images, captions, tmp_path):
    untouched = lavis_model(tmp_path)  # a captioner changes how its own model decodes
    assert "prepare_inputs_for_generation" not in vars(untouched.opt_model)
    for row, image in enumerate(images):
        own = [untouched.generate({"image": image[None], "prompt": question})[0] for question in QUESTIONS]
        assert captions[row] == own


@needs_lavis
def test_lavis_decodes_one_new_token_at_a_time_and_encodes_each_image_once(captioner, images, monkeypatch):
    decoder = captioner.model.opt_model.model.decoder
    lengths, encoded = [], []
    monkeypatch.setattr(decoder, "forward", _spy(decoder.forward, lambda **inputs: lengths.append(
        inputs["input_ids"].shape[1] + (0 if inputs["query_embeds"] is None else inputs["query_embeds"].shape[1]))))
    hook = captioner.model.visual_encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    captioner.answer(captioner.encode(images), [QUESTIONS[:2]] * len(images))
    hook.remove()
    assert encoded == [len(images)]
    assert set(lengths[1:DECODING["max_new_tokens"]]) == {1}
    assert lengths[0] > 1


def _spy(function, note):
    def noted(*args, **kwargs):
        note(*args, **kwargs)
        return function(*args, **kwargs)
    return noted


@needs_transformers
def test_captions_equal_those_of_transformers_generate(captioner, model_folder, images, captions):
    from transformers import Blip2Processor

    processor = Blip2Processor.from_pretrained(model_folder)
    line_break = processor.tokenizer("\n").input_ids[-1]
    for row, image in enumerate(images):
        for question, caption in zip(QUESTIONS, captions[row]):
            text = processor.tokenizer.decode([2]) + question  # an OPT text starts with </s>
            prompt_ids = processor(images=_any_image(), text=text, return_tensors="pt").input_ids
            own = captioner.model.generate(pixel_values=image[None], input_ids=prompt_ids, eos_token_id=line_break,
                                           attention_mask=torch.ones_like(prompt_ids), **DECODING)
            new = own[0, prompt_ids.shape[1]:]
            assert processor.tokenizer.decode(new, skip_special_tokens=True).strip() == caption


def _any_image():
    from PIL import Image
    return Image.new("RGB", (28, 28))


@needs_lavis
def test_lavis_is_asked_for_its_blip2_opt_and_its_image_processor(captioner, monkeypatch):
    import lavis.models
    asked = []

    def load_model_and_preprocess(**arguments):
        asked.append(arguments)
        return captioner.model, {"train": None, "eval": captioner.transform}, None

    monkeypatch.setattr(lavis.models, "load_model_and_preprocess", load_model_and_preprocess)
    cpu = torch.device("cpu")
    loaded = load_captioner("lavis", "caption_coco_opt6.7b", cpu)
    assert asked == [{"name": "blip2_opt", "model_type": "caption_coco_opt6.7b", "is_eval": True, "device": cpu}]
    assert loaded.transform is captioner.transform and loaded.dtype == torch.float32


@needs_either
def test_half_precision_gives_captions_too(captioner, model_folder, images, tmp_path):
    cpu = torch.device("cpu")
    if BACKEND == "lavis":
        half = LavisCaptioner(lavis_captioner(tmp_path).model, captioner.transform, cpu, torch.bfloat16)
    else:
        half = load_captioner("transformers", str(model_folder), cpu, "bf16")
    queries = half.encode(images)
    assert queries.dtype == torch.bfloat16
    full = captioner.encode(images)
    assert torch.allclose(queries.float(), full, atol=0.05 * full.abs().max().item())
    assert any(half.answer(queries, [QUESTIONS] * len(images))[0])


@needs_either
def test_batches_change_no_caption(captioner, images, captions):
    one_by_one = [captioner.answer(captioner.encode(image[None]), [[question]])[0][0]
                  for image in images for question in QUESTIONS]
    assert one_by_one == sum(captions, [])


@needs_either
def test_out_of_memory_halves_and_goes_on(captioner, images, captions, monkeypatch):
    generate, sizes = captioner._generate, []

    def generate_at_most_two(queries, prompt_ids):
        sizes.append(len(prompt_ids))
        if len(prompt_ids) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return generate(queries, prompt_ids)

    monkeypatch.setattr(captioner, "_generate", generate_at_most_two)
    monkeypatch.setattr(captioner, "_caption_batches", HalvingBatches("caption"))
    assert captioner.answer(captioner.encode(images), [QUESTIONS] * len(images)) == captions
    assert max(sizes) > 2
    assert max(sizes[sizes.index(max(sizes)) + 2:]) <= 2, "the smaller batch is kept"


def test_halving_gives_up_at_one_item_and_passes_other_errors_on():
    def never_fits(items):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    def broken(items):
        raise RuntimeError("shape mismatch")

    with pytest.raises(DataError, match="out of memory with 1 caption"):
        HalvingBatches("caption").run(never_fits, [1, 2, 3])
    with pytest.raises(RuntimeError, match="shape mismatch"):
        HalvingBatches("caption").run(broken, [1, 2, 3])


def test_halving_keeps_order_and_covers_odd_remainders():
    def at_most_three(items):
        if len(items) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return [item * 10 for item in items]

    batches = HalvingBatches("caption")
    assert batches.run(at_most_three, range(11)) == [item * 10 for item in range(11)]
    assert batches.limit == 2


@pytest.mark.parametrize("flags, message", [
    (("blip", "pretrain_opt2.7b", "auto"), "--captioner blip: choose lavis, transformers, vlm"),
    (("lavis", "pretrain_opt2.7b", "fp8"), "--precision fp8"),
    (("lavis", "pretrain_opt2.7b", "fp16"), "fp16 needs a GPU"),
])
def test_flags_are_checked_before_anything_is_loaded(flags, message):
    name, model_type, precision = flags
    with pytest.raises(DataError, match=message):
        load_captioner(name, model_type, torch.device("cpu"), precision)


def test_a_library_that_is_not_there_is_one_line():
    missing = {"lavis": "transformers", "transformers": "lavis", None: "lavis"}[BACKEND]
    with pytest.raises(DataError, match="pip install"):
        load_captioner(missing, "pretrain_opt2.7b", torch.device("cpu"))


@needs_transformers
def test_a_folder_without_a_model_is_one_line(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be loaded"):
        load_captioner("transformers", str(tmp_path), torch.device("cpu"))


@needs_lavis
def test_an_unknown_lavis_model_is_one_line():
    with pytest.raises(DataError, match="pretrain_opt2.7b"):
        load_captioner("lavis", "opt13b", torch.device("cpu"))


def test_a_lavis_checkpoint_that_holds_code_is_not_loaded(monkeypatch):
    """LAVIS reads its checkpoints by torch.load, which refuses whatever is no tensor."""
    def load(**flags):
        torch.load(io.BytesIO(pickle.dumps(print, protocol=2)), weights_only=True)

    monkeypatch.setattr(lavis_blip2, "import_library", lambda *names: SimpleNamespace(load_model_and_preprocess=load))
    with pytest.raises(DataError, match="pretrain_opt2.7b: its checkpoint in torch's cache holds more than tensors"):
        lavis_blip2.load_lavis("pretrain_opt2.7b", torch.device("cpu"), torch.float32)
