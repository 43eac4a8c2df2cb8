"""CLIP's byte-pair tokenizer: the same token ids as OpenAI's, from OpenAI's vocabulary file."""
from __future__ import annotations

import gzip
import html
from functools import cache, lru_cache
from importlib import resources
from typing import Sequence

import ftfy
import regex
import torch
from torch import Tensor

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SIZE = 49_408
MERGES = 48_894  # the entries less 2 x 256 bytes and the two special tokens; the file holds more
START, END = "<|startoftext|>", "<|endoftext|>"
# Special tokens, English clitics, runs of letters, single digits, runs of anything else that is not space.
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def tokenize(texts: str | Sequence[str], context_length: int = 77, truncate: bool = False) -> Tensor:
    """Token ids of texts, padded with zeros: (texts, context_length), int32.

    Args:
        texts: one text or several.
        context_length: length of every row.
        truncate: cut texts that are too long, so that they still end with the end-of-text token.

    Raises:
        ValueError: a text is too long and `truncate` is off.
    """
    texts = [texts] if isinstance(texts, str) else texts
    tokenizer = default_tokenizer()
    result = torch.zeros(len(texts), context_length, dtype=torch.int32)
    for row, text in zip(result, texts):
        ids = [tokenizer.start, *tokenizer.encode(text), tokenizer.end]
        if len(ids) > context_length:
            if not truncate:
                raise ValueError(f"text of {len(ids)} tokens is longer than the context length {context_length} "
                                 f"(truncate=True cuts it): {text[:60]!r}")
            ids = [*ids[: context_length - 1], tokenizer.end]
        row[: len(ids)] = torch.tensor(ids)
    return result


@cache
def default_tokenizer() -> Tokenizer:
    """The tokenizer of all released CLIPs, read from the package at first use."""
    packed = resources.files(__package__).joinpath(VOCABULARY_FILE).read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    return Tokenizer([tuple(line.split()) for line in lines[1 : MERGES + 1]])  # the first line is a version


class Tokenizer:
    """Byte-pair encoding of cleaned, lower-cased words; `merges` are pairs of symbols, the most frequent first."""

    def __init__(self, merges: Sequence[tuple[str, ...]]) -> None:
        self._symbols = byte_symbols()
        alphabet = sorted(self._symbols.values())
        vocabulary = [*alphabet, *(symbol + "</w>" for symbol in alphabet), *map("".join, merges), START, END]
        self._ids = {symbol: index for index, symbol in enumerate(vocabulary)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._words = regex.compile(WORDS, regex.IGNORECASE)
        self._encode_word = lru_cache(maxsize=1 << 16)(self._merge)
        self.start, self.end = self._ids[START], self._ids[END]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without start and end of text."""
        return [index for word in self._words.findall(clean(text)) for index in self._encode_word(word)]

    def _merge(self, word: str) -> tuple[int, ...]:
        """Token ids of one word: join the pair of neighbours that ranks first, everywhere, until none is known."""
        if word in (START, END):
            return (self._ids[word],)
        parts = [self._symbols[byte] for byte in word.encode("utf-8")]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(zip(parts, parts[1:]), key=lambda pair: self._ranks.get(pair, MERGES))
            if best not in self._ranks:
                break
            joined: list[str] = []
            for part in parts:
                # A part that has just been joined is longer than best[0], so it is never joined twice.
                if joined and (joined[-1], part) == best:
                    joined[-1] += part
                else:
                    joined.append(part)
            parts = joined
        return tuple(self._ids[part] for part in parts)


def clean(text: str) -> str:
    """Mend mis-decoded Unicode, resolve HTML entities (twice: &amp;amp;), collapse white space, lower the case."""
    if not (text.isascii() and text.isprintable() and "&" not in text):  # there is nothing to mend, and ftfy is slow
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return regex.sub(r"\s+", " ", text.strip()).strip().lower()


def byte_symbols() -> dict[int, str]:
    """A visible character for each of the 256 bytes: itself where it prints, else the next one from U+0100 on."""
    spare = iter(range(256, 512))
    return {byte: chr(byte if _prints(byte) else next(spare)) for byte in range(256)}


def _prints(byte: int) -> bool:
    return 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255
