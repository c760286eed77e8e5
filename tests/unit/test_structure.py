"""The structure of the source: arrows point downward, no import circle, and nothing too long to read."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

# The floor on which each package or module stands. The longest name that fits counts. A module may import modules of
# its own package, and of packages on lower floors. docs/architecture.md shows the same as a picture.
LAYERS = {
    "decant_host": 0,
    "decant": 0,  # the package itself, which holds nothing
    "decant.errors": 0,
    "decant.app.model": 0,
    "decant.preview.events": 0,
    "decant.settings.model": 1,
    "decant.app": 2,
    "decant.host": 3,
    "decant.ssh": 4,
    "decant.rollout": 5,
    "decant.clouds": 6,
    "decant.settings": 7,
    "decant.deploy": 8,
    "decant.program": 9,
    "decant.ci": 10,
    "decant.preview": 10,
    "decant.cli": 11,
    "decant.leave": 11,  # the module's old name, in delete commands of states made by the release before
    "decant.verbs": 12,
    "infra.__main__": 12,
    "rehearsal": 13,
    "bench": 14,
}
# What runs on machines shares only this module with what runs where `pulumi` runs.
SHARED = {"decant_host", "decant_host.protocol"}

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
TABLES = {"infra/decant/settings/table.py"}  # rows of one table, which nobody reads from top to bottom
# Scripts for interpreters of gunicorn and of the ACME client on machines, and what other tools are given to compare.
NOT_IMPORTED = ("infra/decant/host/gunicorn/", "infra/decant/host/acme/", "bench/peers/", "bench/serve/")


@dataclass(frozen=True)
class Module:
    """One Python file: its dotted name, its path in the project, its syntax tree."""

    name: str
    path: str
    tree: ast.Module
    lines: int

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]


@cache
def modules() -> dict[str, Module]:
    """Every module in infra/, rehearsal/ and bench/ by its dotted name."""
    found = {}
    for folder, root in (("infra", "infra"), ("rehearsal", "."), ("bench", ".")):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            name = path.relative_to(PROJECT).as_posix()
            if name.startswith(NOT_IMPORTED) or any(part.startswith(".") for part in Path(name).parts):
                continue
            dotted = ".".join(path.relative_to(PROJECT / root).with_suffix("").parts).removesuffix(".__init__")
            if dotted == "__main__":
                dotted = "infra.__main__"
            text = path.read_text(encoding="utf-8")
            found[dotted] = Module(dotted, name, ast.parse(text), len(text.splitlines()))
    return found


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Names that a module imports, with the line: inside functions and under TYPE_CHECKING, too.

    `from package import name` is an import of `package.name` where that is a module, else of `package`.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                start = module.package.split(".")
                start = start[: len(start) - node.level + 1]
                base = ".".join([*start, base] if base else start)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield (inner if inner in modules() else base), node.lineno


def layer(name: str) -> tuple[str, int] | None:
    """The entry of LAYERS that a module belongs to, and its floor."""
    fitting = [entry for entry in LAYERS if name == entry or (name.startswith(entry + ".") and entry != "decant")]
    best = max(fitting, key=len, default=None)
    return None if best is None else (best, LAYERS[best])


def functions(module: Module) -> Iterator[tuple[str, int]]:
    """Functions and methods with their length in lines, decorators left out."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_every_module_has_a_layer() -> None:
    homeless = [module.path for module in modules().values() if layer(module.name) is None]
    assert not homeless, f"give these a floor in LAYERS: {homeless}"


def test_every_layer_has_a_module() -> None:
    used = {entry[0] for name in modules() if (entry := layer(name))}
    assert set(LAYERS) - used <= {"decant", "decant.leave"}


def test_every_arrow_points_downward() -> None:
    upward = []
    for module in modules().values():
        here = layer(module.name)
        for name, line in imports(module):
            there = layer(name)
            if here and there and here[0] != there[0] and here[1] <= there[1]:
                upward.append(f"{module.path}:{line} imports {name}")
    assert not upward, "\n".join(["a module imports lower floors and its own package alone:", *upward])


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module.name: sorted({name for name, _ in imports(module) if name in modules() and name != module.name})
        for module in modules().values()
    }
    done: set[str] = set()
    circles = []

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            circles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for there in graph[name]:
                walk(there, [*path, name])
            done.add(name)

    for name in graph:
        walk(name, [])
    assert not circles, "\n".join(circles)


def test_the_machines_program_imports_the_standard_library_alone() -> None:
    foreign = [
        f"{module.path}:{line} imports {name}"
        for module in modules().values()
        if layer(module.name) == ("decant_host", 0)
        for name, line in imports(module)
        if name.partition(".")[0] not in sys.stdlib_module_names | {"decant_host"}
    ]
    assert not foreign


def test_nothing_but_the_protocol_is_shared_with_the_machines_program() -> None:
    borrowed = [
        f"{module.path}:{line} imports {name}"
        for module in modules().values()
        if not module.name.startswith("decant_host")
        for name, line in imports(module)
        if name.startswith("decant_host") and name not in SHARED
    ]
    assert not borrowed


def test_the_protocol_and_the_errors_import_nothing_of_decant() -> None:
    for name in ("decant.errors", "decant_host.protocol"):
        own = [there for there, _ in imports(modules()[name]) if there.startswith(("decant", "rehearsal", "bench"))]
        assert not own, f"{name} imports {own}"


def test_only_the_settings_read_pulumis_configuration() -> None:
    readers = []
    for module in modules().values():
        named = [
            node
            for node in ast.walk(module.tree)
            if (isinstance(node, ast.Attribute) and node.attr == "Config" and ast.unparse(node.value) == "pulumi")
            or (
                isinstance(node, ast.ImportFrom)
                and node.module == "pulumi"
                and "Config" in {a.name for a in node.names}
            )
        ]
        if named and not module.name.startswith("decant.settings"):
            readers.append(module.path)
    assert not readers


COMMON_TO_CLOUDS = {
    "__init__", "__pycache__", "base", "changes", "checks", "ci", "costs", "inventory", "lost", "reviews",
    "runner_access",
    "user_data",
}  # fmt: skip


def test_only_the_clouds_import_a_clouds_package() -> None:
    folder = PROJECT / "infra/decant/clouds"
    clouds = {path.stem for path in folder.iterdir() if path.stem not in COMMON_TO_CLOUDS}
    assert {"aws", "digitalocean", "ssh"} <= clouds
    own = {f"decant.clouds.{cloud}" for cloud in clouds} | {f"pulumi_{cloud}" for cloud in clouds}
    strangers = [
        f"{module.path}:{line} imports {name}"
        for module in modules().values()
        if not module.name.startswith("decant.clouds")
        for name, line in imports(module)
        if any(name == one or name.startswith(one + ".") for one in own)
    ]
    assert not strangers


def test_settings_know_no_cloud_but_by_its_specification() -> None:
    """The specifications are handed over; the page of settings, a program of its own, asks for all of them."""
    known = [
        f"{module.path}:{line} imports {name}"
        for module in modules().values()
        if module.name.startswith("decant.settings") and module.name != "decant.settings.docs"
        for name, line in imports(module)
        if name.startswith("decant.clouds") and name != "decant.clouds.base"
    ]
    assert not known


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_module_is_too_long(name: str) -> None:
    module = modules()[name]
    if module.path not in TABLES:
        assert module.lines <= LONGEST_MODULE, f"{module.path} has {module.lines} lines"


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_function_is_too_long(name: str) -> None:
    long = {function: lines for function, lines in functions(modules()[name]) if lines > LONGEST_FUNCTION}
    assert not long, f"{modules()[name].path}: {long}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_begins_with_one_sentence(name: str) -> None:
    module = modules()[name]
    docstring = ast.get_docstring(module.tree)
    if docstring is None and not module.tree.body:
        return  # a file that only makes a folder a package
    assert docstring, f"{module.path} does not say what is in it"
    first = docstring.splitlines()[0]
    assert re.fullmatch(r".*[^.]\.", first), f"{module.path}: the first line must be a whole sentence: {first}"
    assert not re.search(r"(?<!e\.g)(?<!i\.e)[.!?] [A-Z`]", first), f"{module.path}: one sentence, not more: {first}"


def test_an_upward_arrow_and_a_circle_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above read imports inside functions and under TYPE_CHECKING."""
    low = Module("decant.errors", "low.py", ast.parse("def f():\n    from decant import program\n"), 2)
    high = Module(
        "decant.program",
        "high.py",
        ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import decant.errors\n"),
        3,
    )
    monkeypatch.setattr(sys.modules[__name__], "modules", lambda: {low.name: low, high.name: high})
    with pytest.raises(AssertionError, match=r"low.py:2 imports decant.program"):
        test_every_arrow_points_downward()
    with pytest.raises(AssertionError, match=r"decant.errors -> decant.program -> decant.errors"):
        test_no_modules_import_each_other_in_a_circle()
