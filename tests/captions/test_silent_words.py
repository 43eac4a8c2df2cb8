"""Which words a caption denies, excludes, depicts or likens, word by word: where each phrase starts and ends."""
from __future__ import annotations

import pytest

from datasets.filter.depiction import depicted_positions, likeness_positions
from datasets.filter.negation import silent_positions


def words_at(caption: str, positions: set[int]) -> str:
    return " ".join(caption.split()[position] for position in sorted(positions))


@pytest.mark.parametrize(("caption", "silent"), [
    ("taken by a friend of the family and a dog", "a friend of the family"),
    ("photo by john . a dog", "john"),
    ("photo by . a dog", ""),
    # The exception to a denial is there; the denial has to be of the same sentence.
    ("a dog . nobody except a cat", ""),
    ("no dog . everything except a cat", "dog a cat"),
    ("there is none . everything except a cat", "a cat"),
    # What is excluded goes on after a comma with an item of up to three words, and not with a clause.
    ("excluding sky , car", "sky , car"),
    ("excluding sky ,", "sky"),
    ("excluding sky , the red car", "sky , the red car"),
    ("excluding sky , a big red car", "sky"),
    ("excluding sky , car , a tree is here", "sky , car"),
    ("excluding the sky , the red car , a cat is here", "the sky , the red car"),
    ("excluding the sky , a big red car , a tree", "the sky"),
    ("excluding the sky , and a dog stands there", "the sky"),
    ("excluding sky , a car or a big dog", "sky , a car or a big dog"),
    # What is denied goes on after a comma where "or" or "nor" holds a list together.
    ("no dogs , cats nor birds .", "dogs , cats nor birds"),
    ("no dogs , cats", "dogs"),
    ("no dogs , but a cat", "dogs"),
    ("no dogs , the cat or a bird", "dogs"),
    ("no dogs , cats in trees or grass", "dogs"),
    # The subject that is not shown: its clause.
    ("the car is not visible", "the car is"),
    ("a bus . the car is not visible", "the car is"),
    ("a bus , the car is not visible", "the car is"),
    ("a bus but the car is not visible", "the car is"),
    ("a bus . the car , which is not visible", "the car , which is"),
    ("a bus . the man , who is not visible", "the man , who is"),
    ("a bus . the car , that is not visible", "the car , that is"),
])
def test_what_is_denied_or_excluded(caption, silent):
    assert words_at(caption, silent_positions(caption.split())) == silent


@pytest.mark.parametrize(("caption", "silent"), [
    ("there is a statue of a horse next to a dog", "a horse"),
    ("a statue of horse . a dog", "horse"),
    ("a statue of . a dog", ""),
    ("a man with a cup of coffee", ""),
    ("a dog with ball , picture of a cat", ""),
    ("with a picture of a dog , a bus", "a dog"),
])
def test_what_is_depicted(caption, silent):
    assert words_at(caption, depicted_positions(caption.split(), {"statue"})) == silent


@pytest.mark.parametrize(("caption", "silent"), [
    ("a cake in the shape of a bear", "a bear"),
    ("in the shape of a bear", "a bear"),
    ("in a field a dog", ""),
    ("a shape with many dogs", ""),
    ("as a dog is painted", ""),
    ("looks like a dog that", ""),  # cut off at a length: what comes last is not what comes before
    ("to look like a dog", "a dog"),
    ("they look like a dog", ""),
    ("dressed up as a bear", "a bear"),
    ("a cake that looks like a dog", "a dog"),
    ("a cake which looks like a dog", "a dog"),
])
def test_what_something_has_the_looks_of(caption, silent):
    assert words_at(caption, likeness_positions(caption.split())) == silent
