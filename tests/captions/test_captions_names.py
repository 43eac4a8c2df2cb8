"""Which categories a caption names: the lexicon, ambiguous words, negation, echoes."""
from __future__ import annotations

import json

import pytest

from datasets.captions import load_matcher
from datasets.captions.prompts import re_prompts
from datasets.files import DataError
from datasets.filter.grammar import tokenise
from datasets.filter.lexicon import SYNONYM_ROOT, load_lexicon
from datasets.filter.matcher import CategoryMatcher
from datasets.registry import DATASETS, get_dataset
from tests.captions.caption_examples import EXAMPLES

MATCHERS = {name: load_matcher(DATASETS[name]) for name in EXAMPLES}


@pytest.fixture(autouse=True, scope="module")
def _forget() -> None:
    """mutmut tests in forks of a process that has read all captions; what is remembered would hide every change."""
    for matcher in MATCHERS.values():
        matcher._first.clear()
        matcher._re.clear()


def names(caption: str, dataset: str = "coco2014", is_recaption: bool = False) -> set:
    categories = get_dataset(dataset).categories
    return {categories[index] for index in MATCHERS[dataset].name_categories(caption, is_recaption)}


@pytest.mark.parametrize("dataset", EXAMPLES)
def test_every_class_has_a_synonym_and_a_near_miss(dataset):
    assert set(EXAMPLES[dataset]) == set(get_dataset(dataset).classes)
    faults = []
    for category, (named, missed) in EXAMPLES[dataset].items():
        own_name = tokenise(category)
        tokens = tokenise(named)
        assert all(tokens[start:start + len(own_name)] != own_name for start in range(len(tokens))), named
        if category not in names(named, dataset):
            faults.append(f"{named!r} does not name {category}")
        if category in names(missed, dataset):
            faults.append(f"{missed!r} names {category}")
    assert not faults


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_category_is_named_by_its_own_name_in_singular_and_plural(dataset):
    spec = get_dataset(dataset)
    matcher = load_matcher(spec)
    for index, category in enumerate(spec.categories):
        assert index in matcher.name_categories(f"there is a {category} here"), category
    assert {"bus", "person", "sheep"} <= names("buses, women and children, and a flock of sheep", "voc2007")


@pytest.mark.parametrize(("plural", "category"), [
    ("two buses", "bus"), ("knives", "knife"), ("mice and a keyboard", "mouse"), ("geese", "bird"), ("wolves", None),
    ("benches", "bench"), ("firemen", "person"), ("policewomen", "person"), ("children", "person"), ("calves", "cow"),
    ("ponies", "horse"), ("men", "person"), ("TVs", "tvmonitor"), ("specimen", None),
    ("glasses of wine", "wine glass"), ("skis", "skis"), ("bookshelves", "book"),
    ("toothbrushes", "toothbrush"), ("boxes", None), ("gas", None)])
def test_plurals(plural, category):
    found = names(f"a photo of {plural}")
    assert category in found if category else not found


@pytest.mark.parametrize(("caption", "present", "absent"), [
    ("an orange and a banana on a plate", "orange", None),
    ("an orange and white cat", "cat", "orange"),
    ("the boat is painted orange", "boat", "orange"),
    ("oranges in a bowl", "orange", None),
    ("a man trains a dog", "dog", "train"),
    ("a train at the platform", "train", None),
    ("a mouse next to a keyboard", "mouse", None),
    ("a cat playing with a toy mouse", "cat", "mouse"),
    ("an owl with a mouse in its beak", "bird", "mouse"),
    ("a remote on the sofa", "remote", None),
    ("a remote beach", None, "remote"),
    ("a boy swinging a bat at a baseball", "baseball bat", None),
    ("a bat hanging in a cave", None, "baseball bat"),
    ("a hot dog with ketchup", "hot dog", "dog"),
    ("a teddy bear on a chair", "teddy bear", "bear"),
    ("a bear in the woods", "bear", None),
    ("passengers in a dining car", "person", "car"),
    ("a crane lifting steel at a construction site", None, "bird"),
    ("a crane wading in the marsh", "bird", None),
    ("largemouth bass caught by a fisherman", "person", "bird"),
    ("children fly kites on the beach", "kite", None),
    ("a kite with spread wings perched on a post", "bird", "kite"),
    ("he has to tie his shoes", None, "tie"),
    ("a man in a suit and tie", "tie", None),
    ("a man wearing glasses", "person", "wine glass"),
    ("she will watch the game", None, "clock"),
    ("workers plant trees", None, "potted plant"),
    ("a turkey sandwich", "sandwich", "bird"),
    ("istanbul in turkey", None, "bird"),
    ("an apple on a desk", "apple", None),
    ("an apple laptop on a desk", "laptop", "apple"),
    ("a stuffed dog on a bed", "teddy bear", "dog"),
    ("a statue of a horse in the park", None, "horse"),
    ("a painting of a boat above the bed", "bed", "boat"),
    ("a horse statue", None, "horse"),
    ("a bus with a picture of a dog on its side", "bus", "dog"),
    ("a dog in the back seat of a car", "dog", "car"),
    ("people sitting on a bus", "person", "bus"),
    ("people waiting near a bus", "bus", None),
    ("my mother's house", "house", "person"),
    ("a man's hand", "person", None),
    ("a picture taken by a friend", None, "person"),
])
def test_ambiguous_words_are_resolved_by_context(caption, present, absent):
    found = names(caption)
    assert present is None or present in found
    assert absent not in found


@pytest.mark.parametrize(("caption", "expected"), [
    ("a couple kissing", {"person"}),
    ("a couple of dogs", {"dog"}),
    ("a train crossing a bridge", {"train", "bridge"}),
    ("a train crossing sign", {"railway"}),
    ("a bus stopped at a train crossing", {"bus", "railway"}),
    ("a bird watching a cat", {"bird", "cat"}),
    ("people bird watching in the woods", {"person", "tree"}),
    ("a zebra crossing", {"zebra"}),
    ("a zebra crossing the road", {"zebra", "road"}),
    ("people at a zebra crossing", {"person"}),
    ("a pedestrian crossing", set()),
    ("a boy skating on a ramp", {"person", "skateboard"}),
    ("a kite surfer", {"person", "kite", "surfboard"}),
    ("a chocolate donut on a ceramic plate", {"donut"}),
    ("a chocolate bunny and a plush dog", {"teddy bear"}),
    ("a porcelain toilet and a plush couch", {"toilet", "sofa"}),
    ("a toy red car", set()),
    ("a remote controlled car", set()),
    ("a remote control train", set()),
    ("a toaster oven", {"oven"}),
    ("a girl sitting on a car", {"person", "car"}),
    ("a girl sitting in a car", {"person"}),
    ("a girl sitting on a subway car", {"person"}),
    ("a cake shaped like a train with candles", {"cake"}),
    ("a cake in the shape of a dog", {"cake"}),
    ("a bear shaped cake", {"cake"}),
    ("a dog dressed up as a bear on a sofa", {"dog", "sofa"}),
    ("a bus painted to look like a cat", {"bus"}),
    ("it looks like a dog", {"dog"}),
    ("people waiting for a train at the station", {"person"}),
    ("a cat looking for a bird", {"cat"}),
    ("a woman carrying bags", {"person"}),
    ("a woman in a wheelchair", {"person", "chair"}),
])
def test_kinds_of_phrases(caption, expected):
    assert names(caption) == expected


def test_a_subject_that_swims_is_named_too_and_a_fish_is_no_swimmer():
    assert names("a man swimming", "nuswide") == {"person", "swimmers"}
    assert names("clown fish swimming", "nuswide") == {"animal", "fish"}
    assert names("protesters with protest signs", "nuswide") == {"person", "protest", "sign"}


@pytest.mark.parametrize(("caption", "expected"), [
    ("a street with no people", {"street"}),
    ("no one except for a dog", {"dog"}),
    ("nothing, except for the car, which is the only object", {"car"}),
    ("no people other than a man", {"person"}),
    ("Everyone in the photo, except the man in red", {"person"}),
    ("a beach without people, cars or dogs", {"sea"}),
    ("there are no cars and a dog", {"dog"}),
    ("a man with no shirt on a horse", {"person", "horse"}),
    ("the car is not visible, but a bus is", {"bus"}),
    ("a boy who isn't holding a kite", {"person"}),
    ("not only a cat but a dog", {"cat", "dog"}),
    ("I don't know, but it is a dog", {"dog"}),
    ("neither a cat nor a dog on the sofa", {"sofa"}),
    ("everything except for the sky, the road and a truck", set()),
    ("The background of this image, excluding car person, is a wall", {"wall"}),
    ("Question: What is in the photo, excluding dog? Answer: a cat", {"cat"}),
    ("is there a dog in the picture? a cat", {"cat"}),
    ("a dog. Question: What objects are present in this image, excluding bus", {"dog"}),
])
def test_negation_and_questions_name_nothing(caption, expected):
    assert names(caption, is_recaption=True) == expected


def test_repeated_question_names_nothing_but_repetition_counts_once():
    categories = ["dog", "sofa", "dining table", "mountain"]
    for prompt in re_prompts(categories):
        assert names(prompt.replace(" Answer:", ""), is_recaption=True) == set()
    assert names("sofa valley dog? Answer: sofa valley dog", is_recaption=True) == set()
    assert names("Horse person person person person", is_recaption=True) == set()
    assert names("dog dog dog dog", is_recaption=True) == {"dog"}
    assert names("a dog, a cat, a dog, a cat, a dog, a cat", is_recaption=True) == {"dog", "cat"}
    assert names("a railroad bridge over a river", is_recaption=True) == {"railway", "bridge", "river"}
    assert MATCHERS["voc2007"].read("Sofa valley person in a room", True).excluded == (
        get_dataset("voc2007").categories.index("valley"),)


@pytest.mark.parametrize("caption", ["", "...", "?", "Answer:", "question:", "no", "excluding", "'s", "of",
                                     "\u00e9t\u00e9 \u732b \U0001f436"])
def test_odd_captions_name_nothing(caption):
    for is_recaption in (False, True):
        assert names(caption, is_recaption=is_recaption) == set()


def test_spelling_and_punctuation_do_not_matter():
    assert names("A DOUBLE-DECKER bus; a man\u2019s dog!") == {"bus", "person", "dog"}
    assert names("a grey aeroplane") == names("a gray airplane") == {"aeroplane"}


class OwnWords:
    """A synonym folder with the repository's shared files and other synonyms of VOC2007."""

    def __init__(self, folder):
        self.folder = folder
        for path in [*SYNONYM_ROOT.glob("shared_*.json"), SYNONYM_ROOT / "context_rules.json"]:
            (folder / path.name).write_bytes(path.read_bytes())

    def matcher(self, content) -> CategoryMatcher:
        (self.folder / "voc2007_synonyms.json").write_text(json.dumps(content))
        return CategoryMatcher(load_lexicon(get_dataset("voc2007"), self.folder))


def test_a_new_word_is_one_entry(tmp_path):
    content = json.loads((SYNONYM_ROOT / "voc2007_synonyms.json").read_text())
    content["bird"] = ["@bird", "quargle", "flying mouse"]
    matcher = OwnWords(tmp_path).matcher(content)
    bird = get_dataset("voc2007").categories.index("bird")
    assert matcher.name_categories("three quargles") == (bird,)
    assert matcher.name_categories("a flying mouse") == (bird,)
    assert MATCHERS["voc2007"].name_categories("three quargles") == ()


@pytest.mark.parametrize(("entry", "message"), [
    ({"birdie": ["robin"]}, "'birdie' is no category of voc2007"),
    ({"bird": ["@birds of paradise"]}, "no such shared concept"),
    ({"bird": "robin"}, "must map to a list of words"),
    ({"motor bike": None}, "must map to a list of words"),
])
def test_faults_in_synonym_files_are_named(tmp_path, entry, message):
    content = json.loads((SYNONYM_ROOT / "voc2007_synonyms.json").read_text())
    with pytest.raises(DataError, match=message) as error:
        OwnWords(tmp_path).matcher({**content, **entry})
    assert "voc2007_synonyms.json" in str(error.value) and "\n" not in str(error.value)


def test_missing_synonyms_are_named(tmp_path):
    own_words = OwnWords(tmp_path)
    with pytest.raises(DataError, match="voc2007_synonyms.json: no such file"):
        load_lexicon(get_dataset("voc2007"), tmp_path)
    with pytest.raises(DataError, match="'aeroplane' has no words"):
        own_words.matcher({})
    for path in tmp_path.glob("shared_*.json"):
        path.unlink()
    with pytest.raises(DataError, match="shared_"):
        load_lexicon(get_dataset("voc2007"), tmp_path)
