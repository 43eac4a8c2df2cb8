"""What the documents say of the code: their commands, flags, files, links and published numbers."""
from __future__ import annotations

import ast
import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Iterator, List, Set, Tuple

import pytest

from tests.conftest import REPOSITORY

DOCUMENTS = sorted(path for pattern in ("*.md", "docs/*.md", "*/README.md") for path in REPOSITORY.glob(pattern)
                   if path.parent.name != "tests" and not path.parent.name.startswith("."))
SCRIPTS = {path.name for path in REPOSITORY.glob("*.py")}
ALL_FLAGS = sorted((REPOSITORY / "engine/command_line").glob("*_flags.py"))
SPECIFIC = {"caption.py": ["captioning_flags"], "eval.py": ["data_flags", "eval_flags", "method_flags", "photo_flags"],
            "train": ["data_flags", "train_flags", "method_flags"], "ablate.py": ["data_flags", "train_flags",
                                                                                 "method_flags"]}
"""The files of `engine/command_line` that hold the flags of a script."""


@cache
def flags_in(path: Path) -> Set[str]:
    """The flags that a file defines."""
    return {text.value for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(call, ast.Call)
            for text in call.args if isinstance(text, ast.Constant) and str(text.value).startswith("--")}


def flags_of(command: str) -> Set[str]:
    """The flags of a script, `train_voc07.py`, or of a module, `mini.render`."""
    own = REPOSITORY / (command if command.endswith(".py") else command.replace(".", "/") + ".py")
    sources = [own] if own.is_file() else sorted((REPOSITORY / command.replace(".", "/")).glob("*.py"))
    shared = SPECIFIC.get("train" if command.startswith("train_") else command)
    sources += [path for path in ALL_FLAGS if own.parent == REPOSITORY and (shared is None or path.stem in shared)]
    return {"--help", "--quiet"}.union(*map(flags_in, sources))


def commands_in(text: str) -> Iterator[Tuple[str, List[str]]]:
    """(script or module, the words after it) of each command of this repository, in code blocks and in lines."""
    blocks = re.findall(r"^ *```[a-z]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`([^`]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in lines + [" ".join(code.split()) for code in inline]:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a line of output or of another language
            continue
        for place, word in enumerate(words):
            if word in SCRIPTS:
                yield word, words[place + 1:]
            elif word == "-m" and place + 1 < len(words) and (REPOSITORY / words[place + 1].split(".")[0]).is_dir():
                yield words[place + 1], words[place + 2:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_have_flags_that_are_there(document: Path) -> None:
    unknown = [f"{command} {word}" for command, words in commands_in(document.read_text(encoding="utf-8"))
               for word in words if word.startswith("--") and word.partition("=")[0] not in flags_of(command)]
    assert not unknown


def test_flags_named_alone_are_flags_of_some_script() -> None:
    known = set().union(*(flags_in(path) for folder in (".", "engine", "datasets", "mini", "benchmarks")
                          for path in (REPOSITORY / folder).glob("*.py" if folder == "." else "**/*.py")))
    for document in DOCUMENTS:
        named = re.findall(r"`(--\w+)", document.read_text(encoding="utf-8"))
        foreign = set(named) - known - {"--help", "--quiet"}
        assert document.name == "CHANGELOG.md" or not foreign, f"{document}: {sorted(foreign)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_and_files_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http|#)([^)#\s]+)", text) + re.findall(r'src(?:set)?="([^"]+)"', text)
    assert not [link for link in links if not (document.parent / link).exists()]
    named = re.findall(r"`((?:clip|models|datasets|engine|mini|tests|benchmarks|docs)/[\w/.-]+)`", text)
    assert not [name for name in named if not (REPOSITORY / name).exists()]


def test_the_readme_is_short_and_its_table_is_that_of_the_published_numbers() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 1300
    rows = {cells[0].partition(",")[0]: cells[1:4] for line in text.splitlines() if line.startswith("|")
            if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5}
    published = json.loads((REPOSITORY / "engine/results/published_results.json").read_text(encoding="utf-8"))
    numbers = {entry["method"]: entry["mAP"] for entry in published}
    for name in ("VOC2007", "VOC2012", "COCO2014", "NUS-WIDE"):
        key = name.lower().replace("-", "")
        assert rows[name] == [str(numbers[method].get(key, "-")) for method in ("CDUL", "TagCLIP", "BAC-GCN")]
