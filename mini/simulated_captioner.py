"""A simulated captioner for the mini world, in place of BLIP-2, which takes gigabytes and hours.

It is told what is in a scene and pretends to look: the larger an object, the more surely it is noticed; small ones
are overlooked, taken for something that is common in such a place, or invented. What it noticed it tells six times,
in answer to the six questions of the method, with the habits of BLIP-2 that are seen in real captions of VOC2007:
the same short sentence twice, a list, a long sentence, chatter without content, repetition, and, in the re-captions,
echoes of the question. It never writes a label down: all that later stages get is English.
"""
from __future__ import annotations

import math
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from mini.backdrops import BACKDROPS
from mini.drawing import pick
from mini.scenes import Scene

Noun = Tuple[str, str]
"""Singular and plural."""

NOUNS: Dict[str, Tuple[Noun, ...]] = {
    "aeroplane": (("airplane", "airplanes"), ("plane", "planes"), ("airplane", "airplanes"), ("plane", "planes"),
                  ("jet", "jets"), ("aeroplane", "aeroplanes"), ("airliner", "airliners"), ("aircraft", "aircraft")),
    "bicycle": (("bicycle", "bicycles"), ("bike", "bikes"), ("bicycle", "bicycles"),
                ("mountain bike", "mountain bikes")),
    "bird": (("bird", "birds"), ("bird", "birds"), ("bird", "birds"), ("seagull", "seagulls"), ("duck", "ducks"),
             ("pigeon", "pigeons"), ("crow", "crows"), ("goose", "geese")),
    "boat": (("boat", "boats"), ("boat", "boats"), ("sailboat", "sailboats"), ("ship", "ships"),
             ("fishing boat", "fishing boats"), ("yacht", "yachts")),
    "bottle": (("bottle", "bottles"), ("bottle", "bottles"), ("wine bottle", "wine bottles"),
               ("beer bottle", "beer bottles"), ("bottle of wine", "bottles of wine"),
               ("glass bottle", "glass bottles")),
    "bus": (("bus", "buses"), ("bus", "buses"), ("double decker bus", "double decker buses"),
            ("city bus", "city buses"), ("coach", "coaches")),
    "car": (("car", "cars"), ("car", "cars"), ("car", "cars"), ("sedan", "sedans"), ("sports car", "sports cars"),
            ("taxi", "taxis")),
    "cat": (("cat", "cats"), ("cat", "cats"), ("kitten", "kittens"), ("kitty", "kitties"),
            ("tabby cat", "tabby cats")),
    "chair": (("chair", "chairs"), ("chair", "chairs"), ("armchair", "armchairs"), ("wooden chair", "wooden chairs"),
              ("seat", "seats")),
    "cow": (("cow", "cows"), ("cow", "cows"), ("bull", "bulls"), ("calf", "calves"), ("cow", "cattle")),
    "dog": (("dog", "dogs"), ("dog", "dogs"), ("puppy", "puppies"), ("labrador", "labradors"),
            ("terrier", "terriers")),
    "horse": (("horse", "horses"), ("horse", "horses"), ("pony", "ponies"), ("mare", "mares")),
    "kite": (("kite", "kites"), ("kite", "kites"), ("colorful kite", "colorful kites")),
    "person": (("person", "people"), ("man", "men"), ("woman", "women"), ("man", "men"), ("woman", "people"),
               ("boy", "boys"), ("girl", "girls"), ("child", "children"), ("guy", "guys"), ("lady", "ladies")),
    "potted plant": (("potted plant", "potted plants"), ("plant", "plants"), ("houseplant", "houseplants"),
                     ("flower pot", "flower pots"), ("plant in a pot", "plants in pots")),
    "sheep": (("sheep", "sheep"), ("sheep", "sheep"), ("lamb", "lambs"), ("ram", "sheep")),
    "train": (("train", "trains"), ("train", "trains"), ("locomotive", "locomotives"),
              ("passenger train", "passenger trains"), ("steam engine", "steam engines")),
    "umbrella": (("umbrella", "umbrellas"), ("umbrella", "umbrellas"), ("parasol", "parasols")),
}
"""What people call the classes, common words more than once."""

SCENERY: Dict[str, Tuple[str, ...]] = {
    "building": ("buildings", "a building", "houses", "tall buildings"),
    "cloud": ("clouds", "a cloudy sky", "some clouds"), "field": ("a field", "fields", "an open field"),
    "grass": ("grass", "green grass", "a lawn"), "mountain": ("mountains", "a mountain", "hills", "a mountain range"),
    "railway": ("railroad tracks", "train tracks", "a railway"), "road": ("a road", "a street", "the road", "asphalt"),
    "room": ("a room", "the room", "an interior"), "sand": ("sand", "a sandy beach", "the beach"),
    "sky": ("the sky", "a blue sky", "sky"), "snow": ("snow", "the snow"),
    "tree": ("trees", "a tree", "a forest", "some trees"), "wall": ("a wall", "the wall", "walls"),
    "water": ("water", "the water", "the sea", "a lake"),
}
"""How the backgrounds are spoken of."""

_CONFUSED: Dict[str, Tuple[str, ...]] = {
    "aeroplane": ("bird", "kite"), "bicycle": ("person", "chair"), "bird": ("aeroplane", "kite", "boat"),
    "boat": ("bird", "car"), "bottle": ("potted plant", "person"), "bus": ("car", "train"), "car": ("bus", "train"),
    "cat": ("dog", "bird"), "chair": ("bottle", "person"), "cow": ("horse", "sheep", "dog"),
    "dog": ("cat", "sheep", "horse"), "horse": ("cow", "dog"), "kite": ("bird", "aeroplane", "umbrella"),
    "person": ("bird", "dog", "bottle"), "potted plant": ("bottle", "chair"), "sheep": ("cow", "dog"),
    "train": ("bus", "car"), "umbrella": ("kite", "person"),
}
_DOING: Dict[str, Tuple[str, ...]] = {
    "aeroplane": ("flying",), "bicycle": ("parked", "leaning"), "bird": ("flying", "sitting", "perched"),
    "boat": ("sailing", "floating"), "bottle": ("sitting", "standing"), "bus": ("driving", "parked"),
    "car": ("parked", "driving"), "cat": ("sitting", "lying"), "chair": ("sitting",), "cow": ("standing", "grazing"),
    "dog": ("standing", "sitting", "running"), "horse": ("standing", "walking"), "kite": ("flying",),
    "person": ("standing", "walking"), "potted plant": ("sitting",), "sheep": ("grazing", "standing"),
    "train": ("traveling", "stopped"), "umbrella": ("standing",),
}
_GROUPS = {"sheep": "flock", "cow": "herd", "bird": "flock", "horse": "herd"}
_COLOURS = ("red", "blue", "white", "black", "brown", "small", "large", "yellow", "green", "old", "little")
_CLUTTER = ("a fence", "a rock", "a bush", "a sign", "a shadow", "a light", "a flower", "a box", "a cup", "a picture",
            "a window", "a post")
_CHATTER = ("the photo was taken in the summer of 2009", "i don't know, but it is a nice picture",
            "this photo was taken during a trip to germany", "the photo was taken from the side",
            "it's a beautiful day", "a picture that i took last weekend",
            "what is in the photo? what is in the photo?", "the photo is about a story",
            "this is one of my favorite photos", "the view from our hotel")


class Sighting(NamedTuple):
    """A class that the captioner believes to see, whether there are several, and its prominence from 0 to 1."""

    name: str
    several: bool
    prominence: float


class SceneCaptions(NamedTuple):
    """The six captions of a scene and its six re-captions."""

    captions: List[str]
    re_captions: List[str]


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def look_at(scene: Scene, rng: np.random.Generator) -> List[Sighting]:
    """What the captioner makes of the scene, the most prominent first: some objects missed, mistaken or invented."""
    homes = BACKDROPS[scene.setting].homes
    sightings: Dict[str, Sighting] = {}
    sizes = scene.sizes()
    for name, size in sizes.items():
        clearness = math.log(size / 0.15)
        drowned = 0.0 if size == max(sizes.values()) else 0.7
        if rng.random() > _logistic(1.4 + 2.4 * clearness - drowned):
            continue
        several = sum(item.name == name for item in scene.objects) > 1
        if rng.random() < 0.35 * _logistic(-3.0 * clearness):
            known = [other for other in _CONFUSED[name] if other in homes]
            name = pick(rng, known or _CONFUSED[name])
        sightings[name] = Sighting(name, several, min(1.0, size / 0.5))
    if rng.random() < 0.13:
        names = list(homes)
        weights = np.array(list(homes.values()))
        invented = names[int(rng.choice(len(names), p=weights / weights.sum()))]
        sightings.setdefault(invented, Sighting(invented, False, rng.uniform(0.05, 0.5)))
    return sorted(sightings.values(), key=lambda sighting: -sighting.prominence)


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _noun_phrase(sighting: Sighting, rng: np.random.Generator) -> str:
    singular, plural = pick(rng, NOUNS[sighting.name])
    if sighting.several and rng.random() < 0.75:
        group = _GROUPS.get(sighting.name, "group")
        return pick(rng, (f"two {plural}", plural, f"several {plural}", f"a {group} of {plural}", f"some {plural}"))
    if rng.random() < 0.25:
        return _article(f"{pick(rng, _COLOURS)} {singular}")
    return _article(singular)


def _mentioned(sightings: Sequence[Sighting], rng: np.random.Generator, eagerness: float,
               most: int) -> List[Sighting]:
    """The sightings that one caption finds worth a word."""
    chosen = [s for i, s in enumerate(sightings)
              if rng.random() < _logistic(eagerness + 3.2 * (s.prominence - 0.35) + (1.6 if i == 0 else 0.0))]
    return chosen[:most]


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _where(scene: Scene, rng: np.random.Generator) -> str:
    if rng.random() < 0.75:
        return pick(rng, BACKDROPS[scene.setting].words)
    return pick(rng, SCENERY[pick(rng, scene.backgrounds)])


def _short(scene: Scene, sightings: Sequence[Sighting], rng: np.random.Generator) -> str:
    """A clause such as "a man and a dog walking in a park"."""
    chosen = _mentioned(sightings, rng, 0.6, 3)
    where = _where(scene, rng)
    if not chosen:
        return pick(rng, (where, f"a view of {where}", f"a picture of {where}"))
    subject = _noun_phrase(chosen[0], rng)
    rest = [_noun_phrase(s, rng) for s in chosen[1:]]
    doing = f" {pick(rng, _DOING[chosen[0].name])}" if rng.random() < 0.6 else ""
    preposition = pick(rng, ("in", "on", "near", "in front of", "by"))
    if rest and rng.random() < 0.5:
        return f"{_join([subject, *rest])} {preposition} {where}"
    tail = f" with {_join(rest)}" if rest else ""
    place = f" {preposition} {where}" if rng.random() < 0.8 else ""
    return f"{subject}{doing}{place}{tail}"


def _list(scene: Scene, sightings: Sequence[Sighting], rng: np.random.Generator) -> str:
    """An enumeration, which at times does not find its end."""
    parts = [_noun_phrase(s, rng) for s in _mentioned(sightings, rng, 1.3, 5)]
    parts += [pick(rng, SCENERY[name]) for name in scene.backgrounds if rng.random() < 0.4]
    parts += [pick(rng, _CLUTTER) for _ in range(int(rng.integers(0, 3)))]
    parts = parts or [_where(scene, rng)]
    if rng.random() < 0.15:
        parts = (parts * 8)[:12]
    return ", ".join(parts)


def _background(scene: Scene, sightings: Sequence[Sighting], rng: np.random.Generator, lead: str) -> str:
    """An answer to the question about the background, which as often names the foreground."""
    seen = [pick(rng, SCENERY[name]) for name in scene.backgrounds if rng.random() < 0.5]
    if rng.random() < 0.45:
        return f"{lead} {_short(scene, sightings, rng)}"
    return f"{lead} {_join(seen or [_where(scene, rng)])}"


def _answer(question: int, scene: Scene, sightings: Sequence[Sighting], rng: np.random.Generator) -> str:
    """The answer to question 0 to 5."""
    if question != 3 and rng.random() < (0.16 if question == 2 else 0.04):
        return pick(rng, _CHATTER)
    if question in (0, 1):
        return _short(scene, sightings, rng)
    if question == 2:
        return pick(rng, ("this is a photo of ", "the photo is of ", "we saw ", "")) + _short(scene, sightings, rng)
    if question == 3:
        return _list(scene, sightings, rng)
    if question == 4:
        text = pick(rng, ("this is a photo of ", "this is a picture of ", "")) + _short(scene, sightings, rng)
        more = [pick(rng, SCENERY[name]) for name in scene.backgrounds if rng.random() < 0.35]
        return text + (f", with {_join(more)} in the background" if more else "")
    lead = pick(rng, ("the background of this image is", "it is", "it's", "the background is"))
    return _background(scene, sightings, rng, lead)


def describe(scene: Scene, rng: np.random.Generator) -> SceneCaptions:
    """Six captions, and six re-captions from a second look that is asked to leave out what the first one named."""
    sightings = look_at(scene, rng)
    captions = [_answer(question, scene, sightings, rng) for question in range(6)]
    if rng.random() < 0.5:  # beam search often gives the first two questions the same answer
        captions[1] = captions[0]
    excluded = [s.name for s in sightings] + [name for name in scene.backgrounds if rng.random() < 0.5]
    named = {s.name for s in sightings}
    second_look = [s for s in sightings if rng.random() < 0.8]  # the same eyes: little is new
    second_look += [s for s in look_at(scene, rng) if s.name not in named and rng.random() < 0.35]
    re_captions = []
    for question in range(6):
        text = _answer(question, scene, second_look, rng)
        if excluded and rng.random() < 0.2:
            echo = " ".join(excluded)
            text = pick(rng, (f"the background of this image, excluding {echo}, is {text}",
                              " ".join([echo] * 4), f"everything in the photo, excluding {echo}",
                              f"what is in the photo, excluding {echo}?"))
        re_captions.append(text)
    return SceneCaptions(captions, re_captions)


def web_caption(scene: Scene, rng: np.random.Generator) -> str:
    """One caption as the web has them under pictures: mostly the prominent object, sometimes nothing of use."""
    if rng.random() < 0.06:
        return pick(rng, (f"img {int(rng.integers(1000, 9999))}", "my holidays", "photo of the day", "untitled",
                          *_CHATTER[:5]))
    sightings = look_at(scene, rng)
    style = rng.random()
    if style < 0.16:
        return _list(scene, sightings, rng)
    if style < 0.3:
        chosen = _mentioned(sightings, rng, 1.0, 1)
        return f"a photo of {_noun_phrase(chosen[0], rng)}." if chosen else f"a photo of {_where(scene, rng)}."
    if style < 0.38:
        return f"a photo of {pick(rng, SCENERY[pick(rng, scene.backgrounds)])}."
    lead = pick(rng, ("", "", "a photo of ", "a picture of ", "photo: ", "look at "))
    return lead + _short(scene, sightings, rng)


def portrait_caption(name: str, rng: np.random.Generator) -> str:
    """One caption as the web has them under a picture of a single thing."""
    lead = pick(rng, ("a photo of ", "a photo of ", "a picture of ", "photo: ", ""))
    subject = _noun_phrase(Sighting(name, False, 1.0), rng)
    doing = f" {pick(rng, _DOING[name])}" if rng.random() < 0.2 else ""
    return f"{lead}{subject}{doing}" + ("." if lead.startswith("a photo") else "")
