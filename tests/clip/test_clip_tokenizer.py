"""Token ids against independent tokenizers: LAVIS' and open_clip's copies of OpenAI's, and transformers'."""
from __future__ import annotations

import gzip
import html
import importlib.util
import json
import random
from pathlib import Path
from typing import Callable

import ftfy
import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clip
from clip.tokenizer import clean, default_tokenizer

Encode = Callable[[str], "list[int]"]


def lavis_encode() -> Encode:
    package = importlib.util.find_spec("lavis")
    if package is None:
        pytest.skip("lavis is not installed")
    path = Path(package.submodule_search_locations[0]) / "models/clip_models/tokenizer.py"
    spec = importlib.util.spec_from_file_location("lavis_tokenizer", path)  # without the imports of the whole package
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer().encode


def open_clip_encode() -> Encode:
    return pytest.importorskip("open_clip.tokenizer").SimpleTokenizer().encode


def transformers_encode(folder: Path) -> Encode:
    """transformers' tokenizer from files of its own layout; it leaves HTML entities to the caller."""
    transformers = pytest.importorskip("transformers")
    packed = Path(clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(packed.read_bytes()).decode().splitlines()[1:48895]
    alphabet = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    vocabulary = [*alphabet, *(symbol + "</w>" for symbol in alphabet), *(merge.replace(" ", "") for merge in merges),
                  "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    return lambda text: tokenizer.encode(html.unescape(html.unescape(ftfy.fix_text(text))), add_special_tokens=False)


@pytest.fixture(scope="module")
def lavis() -> Encode:
    return lavis_encode()


@pytest.fixture(scope="module", params=["lavis", "open_clip", "transformers"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encode:
    if request.param == "transformers":
        return transformers_encode(tmp_path_factory.mktemp("vocabulary"))
    return lavis_encode() if request.param == "lavis" else open_clip_encode()


LINES = [  # pieces between single spaces
    "a photo of the dog's isn't We'll THEY'VE I'm you'd they're potted plant antidisestablishmentarianism",
    "Straße café naïve ÇA İstanbul ŒUVRE ﬁn Ⅻ ½ x² 東京 の 猫 소년 мама кот اَلسَّلامُ שלום हिन्दी ไทย ᚠ 𝔘𝔫𝔦 ß",
    "ſ's 'ſ K \u212a e\u0301 \u0301 ' ''s 'S 'LL",
    "😀 👩‍👩‍👧‍👦 🇫🇷 ❤️ 👍🏽 🤷🏾‍♀️ ☃ → ∑ € © ™ … “quoted” ‘it’s’ – — « »",
    "&amp; &lt;b&gt; &amp;amp;lt; &eacute; &#233; &#x1F600; &nbsp; &unknown; & &&",
    "Ã©tÃ© â€œquotesâ€ sÃ£o ðŸ˜€ schÃ¶n \x00 \x1b[31m \u200b \ufeff \u2028 \u00ad \ufffd \u3000 \xa0",
    "12345 3.14 1,000 No.5 b2b -- ... !!! ?! #tag @you http://a.b/c?d=e&f=g under_score tab\tnew\nline\r\n",
]
PIECES = [piece for line in LINES for piece in line.split(" ")]


def strings(count: int) -> list[str]:
    """Texts of 0 to 200 pieces: the longest are far over the context length."""
    chance = random.Random(0)
    joiners = [" ", " ", " ", "", "  ", "-", "'"]
    texts = []
    for _ in range(count):
        length = chance.choice([0, 1, 2, 4, 8, 16, 200])
        texts.append("".join(chance.choice(PIECES) + chance.choice(joiners) for _ in range(length)))
    return texts


def test_a_thousand_strings_have_the_same_ids(reference: Encode) -> None:
    texts = strings(1000)
    encode = default_tokenizer().encode
    lengths = []
    for text in texts:
        ids = encode(text)
        assert ids == reference(text), repr(text)
        lengths.append(len(ids))
    assert len(set(texts)) > 800
    assert sum(length > 75 for length in lengths) > 100, "over-long texts are among them"


@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=60))
def test_any_text_has_the_ids_of_openai(lavis: Encode, text: str) -> None:
    assert default_tokenizer().encode(text) == lavis(text)


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.characters(codec="ascii"), max_size=60))
def test_plain_text_is_as_ftfy_would_leave_it(text: str) -> None:
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    assert clean(text) == regex.sub(r"\s+", " ", mended.strip()).strip().lower()


def test_known_ids() -> None:
    """Ids as printed in the documentation of OpenAI's and transformers' CLIP."""
    tokens = clip.tokenize(["a photo of a cat", "a diagram"])
    assert tokens.shape == (2, 77)
    assert tokens.dtype == torch.int32
    assert tokens[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert tokens[1, :5].tolist() == [49406, 320, 22697, 49407, 0]
    assert torch.equal(clip.tokenize("a diagram"), tokens[1:])
    assert clip.tokenize([]).shape == (0, 77)


def test_special_tokens_in_a_text_are_single_tokens() -> None:
    assert default_tokenizer().encode("x <|endoftext|> y")[1] == 49407
    assert len(default_tokenizer().encode("<|startoftext|>")) == 1


def test_over_long_text_is_refused_or_cut() -> None:
    text = "dog " * 76
    with pytest.raises(ValueError, match="78 tokens is longer than the context length 77"):
        clip.tokenize(text)
    assert clip.tokenize("dog " * 75)[0, -1] == 49407
    tokens = clip.tokenize([text, "dog"], truncate=True)
    assert tokens[0].tolist() == [49406, *[1929] * 75, 49407]
    assert tokens[1, :4].tolist() == [49406, 1929, 49407, 0]
    assert clip.tokenize(text, context_length=4, truncate=True).tolist() == [[49406, 1929, 1929, 49407]]


def test_one_long_word_is_quick() -> None:
    assert len(default_tokenizer().encode("ab" * 5000)) > 1000
