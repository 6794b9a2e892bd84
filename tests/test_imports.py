"""What imports what, as the sources say it: no circles, and no arrow against the direction of `FLOORS`.

Every import counts: those inside functions, those for type checkers alone, and relative ones.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastnet

# Each part of the package, a folder or a file, imports from the floors below its own, and from none beside it.
FLOORS = (
    ("_tools",),
    ("backends",),
    ("functions", "differentiation", "perceptron", "saving", "datasets"),
    ("layers", "optimizers"),
    ("plotting", "networks"),
    ("checking", "training"),
    ("cli", "book"),
    ("__init__", "__main__"),
)
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
ONLY_IMPORTER = {"fastnet._core": "fastnet.backends._cpp"}

Graph = dict[str, set[str]]


def read_graph(folder: Path) -> Graph:
    """Each module of the package in `folder`, and what it imports of the package; a folder's name is its face."""
    files = {_module_of(folder, file): file for file in sorted(folder.rglob("*.py"))}
    modules = {*files, *ONLY_IMPORTER}
    return {module: set(_imports(module, file, modules)) for module, file in files.items()}


def _module_of(folder: Path, file: Path) -> str:
    parts = (folder.name, *file.relative_to(folder).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(module: str, file: Path, modules: set[str]) -> Iterator[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in modules)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*above, *([source] if source else [])])
            for name in node.names:
                inner = f"{source}.{name.name}"  # a module of that package, or else a name that its face hands on
                yield from (found for found in [inner if inner in modules else source] if found in modules)


def part_of(module: str) -> str:
    """The part of the package that a module is in; `__init__` for the package's own face."""
    return [*module.split("."), "__init__"][1]


def find_faults(graph: Graph) -> list[str]:
    """One line for each arrow that is not allowed, and for each knot of circles."""
    faults = []
    for module, targets in graph.items():
        for target in sorted(targets):
            arrow, own, other = f"{module} imports {target}", part_of(module), part_of(target)
            if target in ONLY_IMPORTER:
                if module != ONLY_IMPORTER[target]:
                    faults.append(f"{arrow}, which {ONLY_IMPORTER[target]} alone does")
            elif module.startswith(f"{target}."):
                faults.append(f"{arrow}, the face of its own folder")
            elif own != other and FLOOR_OF[own] <= FLOOR_OF[other]:
                faults.append(f"{arrow}, which is not below it")
    reached = {module: _reach(graph, module) for module in graph}
    circles = {frozenset(m for m in reached[module] if module in reached.get(m, ())) for module in graph}
    faults += [f"a circle: {', '.join(sorted(circle))}" for circle in circles if circle]
    return faults


def _reach(graph: Graph, module: str) -> set[str]:
    """All that `module` imports, and what that imports, and so on; itself if it is in a circle."""
    reached: set[str] = set()
    todo = [*graph[module]]
    while todo:
        target = todo.pop()
        if target not in reached:
            reached.add(target)
            todo += graph.get(target, ())
    return reached


def test_the_package_imports_downwards_alone():
    graph = read_graph(Path(fastnet.__file__).parent)
    assert len(graph) > 50
    assert sum(map(len, graph.values())) > 150
    assert {part_of(module) for module in graph} == FLOOR_OF.keys()
    assert find_faults(graph) == []


# The checker itself ---------------------------------------------------------------------------------------

GOOD = {
    "__init__.py": "from fastnet import layers\nfrom fastnet.networks import Net",
    "_tools/__init__.py": "",
    "_tools/text.py": "import re",
    "backends/__init__.py": "from fastnet.backends.choice import active",
    "backends/choice.py": "from fastnet._tools import text",
    "backends/_cpp.py": "from fastnet import _core",
    "layers/__init__.py": "from .base import Layer",
    "layers/base.py": "from fastnet import backends",
    "networks/__init__.py": "from fastnet.networks.net import Net",
    "networks/net.py": "from fastnet.layers import Layer\nfrom fastnet.networks import base",
    "networks/base.py": "import fastnet.layers.base",
}


def faults_of(folder: Path, **changed: str) -> list[str]:
    for name, text in (GOOD | changed).items():
        file = folder / "fastnet" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
    return find_faults(read_graph(folder / "fastnet"))


def test_a_good_package_has_no_faults(tmp_path):
    assert faults_of(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "from fastnet.networks.net import Net",
        "from fastnet.networks import net",
        "from fastnet.networks import Net",
        "from fastnet import networks",
        "import fastnet.networks.net as net",
        "from ..networks.net import Net",
        "from .. import networks",
        "def late():\n    from fastnet.networks.net import Net",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fastnet.networks import Net",
        "try:\n    import fastnet.networks\nexcept ImportError:\n    pass",
    ],
)
def test_every_kind_of_import_upwards_is_found(tmp_path, text):
    faults = faults_of(tmp_path, **{"layers/other.py": text})
    assert len(faults) == 1
    assert faults[0].startswith("fastnet.layers.other imports fastnet.networks")
    assert faults[0].endswith("which is not below it")


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("_tools/text.py", "import fastnet", "fastnet._tools.text imports fastnet, the face of its own folder"),
        ("layers/own.py", "from fastnet.layers import Layer", "imports fastnet.layers, the face of its own folder"),
        ("layers/own.py", "from . import Layer", "imports fastnet.layers, the face of its own folder"),
        ("backends/x/y.py", "from fastnet.backends import active", "fastnet.backends, the face of its own folder"),
        ("optimizers.py", "import fastnet.layers.base", "imports fastnet.layers.base, which is not below it"),
        (
            "backends/info.py",
            "from fastnet import _core",
            "imports fastnet._core, which fastnet.backends._cpp alone does",
        ),
        (
            "networks/base.py",
            "from fastnet.networks import net",
            "a circle: fastnet.networks.base, ",
        ),
    ],
)
def test_planted_faults_are_found(tmp_path, name, text, fault):
    faults = faults_of(tmp_path, **{name: text})
    assert any(fault in found for found in faults), faults
