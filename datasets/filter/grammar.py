"""Step 1 and 3 of the filter: tokens, their tags as far as names depend on them, and singular forms.

A full part-of-speech tagger would take most of the time of the whole stage. Names depend on little of it: which words
are function words, and whether a word that can be noun, verb or adjective stands as a noun. Short local tests settle
that in the plain sentences of a captioner.
"""
from __future__ import annotations

import re
from typing import Container, Iterator, List, Mapping, Sequence

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[.,;:?!]")

DETERMINERS = frozenset(
    "a an the this that these those my your his her its our their some any each every all both another several many "
    "few two three four five six seven eight nine ten one no either neither various multiple numerous".split())
PREPOSITIONS = frozenset(
    "in on at with from by over under near behind beside besides between through into onto along across around above "
    "below against inside outside during after before off up down out for to toward towards upon atop among beneath "
    "underneath within via like next as about past of".split())
WH_WORDS = frozenset("what who whom whose which where when why how that if whether because while since".split())
BE_VERBS = frozenset("is are was were be been being am isn't aren't wasn't weren't it's there's that's".split())
AUXILIARIES = frozenset(
    "do does did don't doesn't didn't have has had can could will would shall should may might must can't cannot "
    "couldn't won't wouldn't".split())
SUBJECT_PRONOUNS = frozenset("i you he she we they it who".split())
CONJUNCTIONS = frozenset("and or but nor so yet".split())
PUNCTUATION = frozenset(".,;:?!")
SENTENCE_ENDS = frozenset(".;:?!")

_BLANKS = "".join(chr(code) if chr(code).isalnum() or chr(code) in PUNCTUATION else " " for code in range(128))

FUNCTION_WORDS = (DETERMINERS | PREPOSITIONS | WH_WORDS | BE_VERBS | AUXILIARIES | SUBJECT_PRONOUNS | CONJUNCTIONS
                  | frozenset("not there here very too also just only more most other him them us me".split()))

COLOURS = frozenset(
    "black white red green blue yellow orange brown gray grey pink purple silver gold golden beige tan cream maroon "
    "violet turquoise teal navy ginger striped spotted tabby calico tortoiseshell colorful colourful".split())

# After these a gerund leads on to an object or a way: "a train crossing a bridge", "a zebra crossing over to the herd".
_AFTER_PARTICIPLES = DETERMINERS | frozenset(
    "it him her them us me over through across into onto along past towards toward from up down away".split())

# A compound noun of place stands after these: "people at a zebra crossing".
_BEFORE_PLACES = frozenset("at on in near by over to with past through under along across toward towards beside behind "
                           "of from".split())

# "to" starts an infinitive, but not after these: "next to train tracks", "close to plant pots".
_BEFORE_PLAIN_TO = frozenset("next close adjacent attached tied connected hooked similar due down up over back "
                             "chained leashed strapped according opposed".split())


def tokenise(caption: str) -> List[str]:
    """Lower-case words and sentence punctuation, in order. Hyphens separate words: "double-decker" is two."""
    text = caption.lower()
    if not text.isascii() or "'" in text:
        return _TOKEN.findall(text.replace("\u2019", "'"))
    for mark in PUNCTUATION:  # the same in a third of the time
        if mark in text:
            text = text.replace(mark, f" {mark} ")
    return text.translate(_BLANKS).split()


def is_verb(tokens: Sequence[str], start: int, end: int, plural: bool) -> bool:
    """Whether tokens[start:end], a word that can be noun or verb ("train", "watch"), stands as a verb.

    A verb follows a subject pronoun, an auxiliary or the "to" of an infinitive, or stands between a bare noun and the
    determiner of its object: "a man trains a dog", "people train the horses".
    """
    before = tokens[start - 1] if start else ""
    if before in DETERMINERS:
        return False
    if before == "to":
        return start < 2 or tokens[start - 2] not in _BEFORE_PLAIN_TO and not _is_noun_like(tokens, end)
    if before in SUBJECT_PRONOUNS or before in AUXILIARIES and before not in ("has", "have", "had"):
        return True
    after = tokens[end] if end < len(tokens) else ""
    follows_noun = bool(before) and before not in FUNCTION_WORDS and before not in PUNCTUATION \
        and before not in COLOURS and not before.endswith("ing")
    return follows_noun and after in DETERMINERS and (plural or before.endswith("s") or before in ("people", "men"))


def _is_noun_like(tokens: Sequence[str], position: int) -> bool:
    return position < len(tokens) and tokens[position] not in FUNCTION_WORDS and tokens[position] not in PUNCTUATION


def is_participle(tokens: Sequence[str], start: int, end: int, animal: bool) -> bool:
    """Whether tokens[start:end], a noun and a gerund ("train crossing"), is a thing that does something.

    It is where an object or a way follows ("a train crossing a bridge"), or where an animal is the subject, with an
    article, and nothing follows ("a zebra crossing"); else it is a compound noun ("a train crossing sign", "at a zebra
    crossing", "bird watching in the woods").
    """
    after = tokens[end] if end < len(tokens) else "."
    if after in _AFTER_PARTICIPLES:
        return True
    ends = after in SENTENCE_ENDS or after in (",", "and")
    is_subject = start > 0 and tokens[start - 1] in DETERMINERS and (
        start < 2 or tokens[start - 2] not in _BEFORE_PLACES)
    return animal and ends and is_subject


def is_modifier(tokens: Sequence[str], start: int, end: int) -> bool:
    """Whether tokens[start:end], a word that can be noun or adjective ("orange"), stands as an adjective.

    It does before a noun ("an orange cat"), joined to a colour ("orange and white"), after a colour or a shade
    ("bright orange"), and alone after a form of "be" ("the cat is orange").
    """
    before = tokens[start - 1] if start else ""
    after = tokens[end] if end < len(tokens) else ""
    if before in COLOURS or before in ("bright", "dark", "light", "pale", "deep", "neon", "burnt"):
        return True
    if before in ("and", "or") and start > 1 and tokens[start - 2] in COLOURS:
        return True
    if after in ("and", "or") and end + 1 < len(tokens) and tokens[end + 1] in COLOURS:
        return True
    if after == "," and end + 1 < len(tokens) and tokens[end + 1] in COLOURS:
        return True
    if before in BE_VERBS or before in ("painted", "colored", "coloured", "dyed"):
        return True
    return _is_noun_like(tokens, end) and not after.endswith("ing") and after not in ("sits", "lies", "sit", "lie")


class Singular(dict):
    """Token to singular form; fills itself, so that each distinct word is worked out once.

    The lexicon's own words decide between the possible singulars: "horses" is "horse" and not "hors", "buses" is
    "bus", and "bus" stays as it is. Words outside the lexicon follow the common spelling rules.

    Args:
        known: the words that the lexicon writes.
        irregular: plural to singular.
    """

    def __init__(self, known: Container[str], irregular: Mapping[str, str]) -> None:
        super().__init__((word, word) for word in FUNCTION_WORDS | PUNCTUATION)
        self._known = known
        self._irregular = irregular

    def __missing__(self, token: str) -> str:
        word = token[:-2] if token.endswith("'s") else token
        lemma = self._singular(word)
        self[token] = lemma
        return lemma

    def _singular(self, word: str) -> str:
        if word in self._irregular:
            return self._irregular[word]
        candidates = list(singular_candidates(word))
        for candidate in candidates:
            if candidate in self._known:
                return candidate
        if word in self._known or not candidates or len(word) < 4 or word.endswith(("ss", "us", "is", "men")):
            return word  # "gas", "specimen": too short or too odd to be a plural for its spelling alone
        return candidates[0]


def singular_candidates(word: str) -> Iterator[str]:
    """Possible singular forms of `word` by English spelling, the likeliest first; none where it is no plural."""
    if word.endswith("men"):
        yield word[:-3] + "man"
    if len(word) < 3 or not word.endswith("s") or word[:-1] in FUNCTION_WORDS:
        return
    if word.endswith("ies"):
        yield word[:-3] + "y"
    if word.endswith("ves"):
        yield word[:-3] + "f"
        yield word[:-3] + "fe"
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        yield word[:-2]
        if word.endswith(("sses", "zzes")):
            yield word[:-3]
    yield word[:-1]
