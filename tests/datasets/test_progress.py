"""Bars and lines of progress: shown, resumed, and left out."""
from __future__ import annotations

import pytest

from datasets import progress
from datasets.files import counted
from datasets.flag_parser import FlagParser
from datasets.progress import bar, keep_quiet, say, say_beside_bar


@pytest.fixture(autouse=True)
def at_once(speaking, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(progress, "FILE_SECONDS", 0)


def test_a_bar_goes_on_from_where_the_work_was(capsys):
    with bar("scoring", "image", 100, done=40) as shown:
        shown.update(10)
        counted = shown.format_dict
    assert "scoring: 100%" not in capsys.readouterr().err
    assert (counted["n"], counted["initial"], counted["total"]) == (50, 40, 100), "the rate is that of ten images"


def test_a_bar_counts_what_it_steps_through(capsys):
    assert list(bar("texts", "batch", 3, over=iter("abc"))) == ["a", "b", "c"]
    error = capsys.readouterr().err
    assert "texts: 100%" in error and "3/3" in error and "<" in error, "with the time that is left"


class AtOnce:
    """A timer that does not wait."""

    daemon = False

    def __init__(self, seconds, work):
        self.start, self.seconds = work, seconds

    def cancel(self):
        pass


@pytest.mark.parametrize("keep, left", [(True, "encoding: 100%"), (False, "\r   ")])
def test_a_bar_shows_before_its_first_step(capsys, monkeypatch, keep, left):
    monkeypatch.setattr(progress, "DELAY", 1)
    monkeypatch.setattr(progress, "FILE_SECONDS", 10)
    monkeypatch.setattr(progress, "Timer", AtOnce)
    with bar("encoding", "image", 100, keep=keep) as shown:
        assert "encoding:   0%" in capsys.readouterr().err
        shown.update(100)
    assert left in capsys.readouterr().err, "what was shown is finished, or goes"


def test_a_bar_that_is_closed_shows_no_more(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 1)
    with bar("encoding", "image", 100) as shown:
        late = shown._first
    late.function()
    assert late.finished.is_set() and capsys.readouterr().err == ""


def test_what_a_bar_steps_through_is_counted_by_the_step():
    shown = bar("texts", "batch", 3, over=iter("abc"))
    assert [shown.n for _ in shown] == [0, 1, 2], "a bar that waits tells where it is, not where it was shown last"


def test_quiet_work_is_the_same(capsys):
    keep_quiet()
    assert list(bar("texts", "batch", 3, over=iter("abc"))) == ["a", "b", "c"]
    with bar("scoring", "image", 100) as shown:
        shown.update(10)
    say("epoch 1")
    assert capsys.readouterr() == ("", "")
    say_beside_bar("a result")
    assert capsys.readouterr().out == "a result\n"


def test_a_bar_in_a_file_is_short(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 1)
    monkeypatch.setattr(progress, "FILE_SECONDS", 10)
    assert len(list(bar("texts", "batch", 3000, over=range(3000)))) == 3000
    assert capsys.readouterr().err == "", "nothing that takes less than a second"


def test_a_result_has_its_own_line_in_a_file(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 1)
    with bar("tagging", "photo", 2) as shown:
        say_beside_bar("a result")
        shown.update()
    assert capsys.readouterr() == ("a result\n", "")


def test_every_parser_knows_quiet(capsys):
    parser = FlagParser("words")
    parser.add_argument("--number", type=int, default=1)
    assert vars(parser.parse_args(["--quiet", "--number", "2"])) == {"number": 2} and parser.typed(["--quiet"]) == set()
    say("a line")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("count, thing, expected", [
    (1, "image", "1 image"), (0, "image", "0 images"), (1000, "training image", "1,000 training images"),
    (2, "category", "2 categories"), (1, "class", "1 class"), (3, "class", "3 classes"),
    (2, "batch", "2 batches"), (2, "epoch", "2 epochs")])
def test_things_are_counted_in_words(count, thing, expected):
    assert counted(count, thing) == expected
