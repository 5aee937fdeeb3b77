"""What is built: the metadata, the files, and what a user's folder may hide of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import featvis
from featvis.installed import check_own_package

ROOT = Path(__file__).parent.parent


def test_our_own_package_is_ours() -> None:
    check_own_package("objectives")


@pytest.mark.parametrize("place", ["objectives.py", "objectives/__init__.py"])
def test_a_file_of_the_users_that_hides_ours_is_named(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise RuntimeError('imported')\n")  # it is not even run
    done = subprocess.run(
        [sys.executable, "-c", "import featvis"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {path} hides featvis's own package objectives: ")


def test_extras_are_as_they_are_called() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = declared["optional-dependencies"]
    named = re.compile(r"(?:featvis|\.)\[([a-z, ]+)\]")
    for folder in ("featvis", "experiments", ".github", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", "") and path.is_file():
                for found in named.finditer(path.read_text(encoding="utf-8", errors="replace")):
                    assert {one.strip() for one in found[1].split(",")} <= {*known}, path
    assert declared["version"] == featvis.__version__


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, as hatchling builds them."""
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("built")
    for target in ("sdist", "wheel"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return out


def test_the_wheel_has_the_packages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()
    folders = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert folders == {"featvis", "featvis_command", "objectives"}
    assert {"featvis/py.typed", "objectives/py.typed"} <= {*names}
    assert re.search(r"^Project-URL: Repository, https://", text, re.MULTILINE)
    # On an index page a link is an address, and what it names is in the repository.
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    for link in links:
        found = re.fullmatch(r"https://[^/]+/[^/]+/[^/]+/(?:raw|blob)/main/(.+)", link)
        assert found, link
        assert (ROOT / found[1]).is_file(), link


def test_the_sdist_builds_again_and_has_the_picture(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for name in ("README.md", ".github/units.jpg", "experiments/guide/extending.md", "tests"):
        assert (folder / name).exists(), name
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
