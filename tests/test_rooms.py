"""The structure of the code: which room may import which, and how large rooms and files may grow."""
from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, List, Set

from tests.conftest import REPOSITORY

ROOMS = ("clip", "datasets", "models", "engine", "mini")
FLOORS = ["clip", "datasets", "datasets.filter", "datasets.captions", "datasets.build", "models", "models.baselines",
          "models.captioners", "models.backbones",
          "engine.process", "engine.features", "engine.command_line", "engine.results", "engine.training",
          "engine.evaluation", "engine.methods", "engine.pictures", "engine.tagging", "engine.report", "engine.paper",
          "engine", "mini"]
"""From the ground up: a room imports from itself and from the floors below."""
LONG = ("mini/objects.py", "mini/backdrops.py")
"""Long lists of shapes."""
MOST_FILES, MOST_LINES = 10, 300


def python_files() -> List[Path]:
    return [path for room in ROOMS for path in sorted((REPOSITORY / room).rglob("*.py"))]


def room_of(module: str) -> str:
    """The innermost room that a module lies in."""
    return max((room for room in FLOORS if module == room or module.startswith(room + ".")), key=len, default="")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).replace(".__init__", "")


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_no_room_imports_from_a_floor_above() -> None:
    upward = []
    for path in python_files():
        own = room_of(module_name(path))
        for module in imported_modules(path):
            other = room_of(module)
            if other and FLOORS.index(other) > FLOORS.index(own):
                upward.append(f"{path.relative_to(REPOSITORY)} imports {module}")
    assert not upward, upward


def test_no_circle_of_modules() -> None:
    modules = {module_name(path): path for path in python_files()}
    edges: Dict[str, Set[str]] = {}
    for name, path in modules.items():
        targets = {module if module in modules else module.rpartition(".")[0] for module in imported_modules(path)}
        edges[name] = {target for target in targets if target in modules and target != name}
    waiting = dict(edges)
    while True:  # take away what imports nothing that is left
        free = [name for name, targets in waiting.items() if not targets & waiting.keys()]
        if not free:
            break
        for name in free:
            del waiting[name]
    assert not waiting, f"these import each other in a circle, or hang on one: {sorted(waiting)}"


def test_no_two_files_of_one_name() -> None:
    counts = Counter(path.name for path in python_files() if path.name != "__init__.py")
    assert [name for name, count in counts.items() if count > 1] == []


def test_rooms_and_files_stay_small() -> None:
    files = Counter(path.parent.relative_to(REPOSITORY) for path in python_files() if path.name != "__init__.py")
    assert {str(room): count for room, count in files.items() if count > MOST_FILES} == {}
    lines = {str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines())
             for path in python_files()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES and name not in LONG} == {}
