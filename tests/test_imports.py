"""Imports point one way: objectives, then featvis, then experiments and tests."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("objectives", "featvis", "featvis_command", "experiments", "tests")
#: What a package may not import of ours.
FORBIDDEN = {
    "objectives": {"featvis", "experiments", "tests"},
    "featvis": {"featvis_command", "experiments", "tests"},
    "featvis_command": {"objectives", "experiments", "tests"},
    "experiments": {"tests"},
    "tests": set(),
}


#: The rooms of featvis, from the ground up: each imports from those before it alone.
ROOMS = (
    *(
        "installed",
        "errors",
        "told",
        "cache",
        "checks",
        "digests",
        "dry_runs",
        "files",
        "images",
        "own_pictures",
        "limits",
        "pictures",
    ),
    *("optimizers", "kernels", "weights", "jaxprs", "parameterizations", "transforms"),
    *("models", "zoo", "loading", "generators", "text", "gradients", "results"),
    *("synthesis", "replay", "stores", "natural", "evidence", "methods", "attribution"),
    *("atlas", "pages", "cli"),
)
#: Lines of a file, but for one whole algebra and one whole family of networks.
MOST_LINES = 500
LONG = {"objectives/objective.py", "featvis/zoo/networks/vit.py"}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The top-level packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (
                path.relative_to(ROOT).parts[0] if node.level else (node.module or "").split(".")[0]
            )


def rooms(path: Path) -> Iterator[str]:
    """The rooms of featvis that a file of it imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "featvis":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("featvis."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "featvis"]
            yield from (name.partition(".")[2].partition(".")[0] for name in names)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "featvis").parts[0].removesuffix(".py")


def test_rooms_are_built_from_the_ground_up() -> None:
    inside = [path for path in files("featvis") if room_of(path) != "__init__"]
    assert {room_of(path) for path in inside} == {*ROOMS}
    wrong = [
        f"{path.relative_to(ROOT)} imports from {room or 'featvis itself'}"
        for path in inside
        for room in rooms(path)
        if room != room_of(path) and room not in ROOMS[: ROOMS.index(room_of(path))]
    ]
    assert not wrong


def test_no_file_is_too_long_to_read() -> None:
    long = {
        path.relative_to(ROOT).as_posix()
        for package in ("objectives", "featvis", "featvis_command")
        for path in files(package)
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert long == LONG


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files(package)
        for name in imported(path)
        if name in FORBIDDEN[package]
    ]
    assert not wrong


def test_objectives_need_only_jax_and_numpy() -> None:
    allowed = {"jax", "numpy", "objectives", *sys.stdlib_module_names}
    assert files("objectives")
    found = {name for path in files("objectives") for name in imported(path)}
    assert found - allowed == set()


def test_no_private_part_of_jax() -> None:
    private = [
        path.relative_to(ROOT)
        for package in ("objectives", "featvis", "featvis_command", "experiments")
        for path in files(package)
        if "jax._src" in path.read_text(encoding="utf-8")
    ]
    assert not private


def test_no_file_called_utils() -> None:
    assert not [p for package in PACKAGES for p in files(package) if "util" in p.stem]
