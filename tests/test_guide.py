"""README and guide: every block of Python runs, and every line of the shell is a command there is.

A page's blocks run in order in one namespace, in a folder with photographs, on a stand-in for the
default network: layers of its names, of the right numbers of channels, and its classes. The same on
the network itself is a slow test.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import re
import shlex
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

import featvis as fv
from featvis import loading, transforms
from featvis.cli.app import load_commands, main
from featvis.cli.command import app
from featvis.methods import recipe

pytestmark = [
    pytest.mark.usefixtures("quick_to_compile"),
    pytest.mark.filterwarnings("always::featvis.NameTakenWarning"),
]

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "experiments" / "guide").glob("*.md"))]
#: Libraries that not every environment of the tests has, and the blocks that need them.
OPTIONAL = {"haiku", "keras"}
#: Words of the shell that are run here: they compile nothing.
CHEAP = (("models",), ("layers", "efficientnet_lite0"), ("layers", "resnet18"))


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: one.start(1)].count("\n") + 1, one[1]) for one in found]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every line of the shell that calls featvis."""
    for _, block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                if words[:1] == ["featvis"]:
                    yield words[1:]


def missing(block: str) -> bool:
    """Whether a block imports an optional library that is not here."""
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    return any(importlib.util.find_spec(name) is None for name in names & OPTIONAL)


@pytest.fixture(scope="module")
def stand_in() -> fv.Model:
    """A network with the layers of EfficientNet-Lite0, of a few operations each."""
    real = loading.outline("efficientnet_lite0")
    shapes = {name: shape for name, shape in real.layers((64, 64)).items() if "/" not in name}
    rng = np.random.default_rng(0)

    def kernel(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.5, shape).astype(np.float32)

    weights = {name: kernel(8, shape[-1]) for name, shape in shapes.items()}
    weights["patches"] = kernel(3, 8)

    def apply(params, image):
        rows, columns = (side // 8 * 8 for side in image.shape[1:3])
        x = image[:, :rows, :columns].reshape(len(image), rows // 8, 8, columns // 8, 8, 3)
        x = np.tanh(1) * (x.mean((2, 4)) - 0.5) @ params["patches"]
        found = {name: x @ params[name] for name in shapes}
        return {
            name: value if len(shapes[name]) == 3 else value.mean((1, 2))
            for name, value in found.items()
        }

    given = fv.Input(size=real.input.size, min_size=32)
    return fv.from_function(
        apply, weights, input=given, name="efficientnet_lite0", labels=real.labels
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pages are read in: with photographs, and with nothing of ours kept."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for name in ("cat.jpg", "dog.jpg", "meadow.jpg", "face.png", "photographs/a.png"):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((240, 240), Image.Resampling.BICUBIC).save(tmp_path / name)
    monkeypatch.setattr(fv, "enable_cache", lambda: None)
    monkeypatch.setattr("featvis.cli.output.enable_cache", lambda: None)
    load_commands()
    # What a page adds is the page's.
    monkeypatch.setattr(recipe, "_PRESETS", copy.deepcopy(recipe._PRESETS))
    monkeypatch.setattr(app, "registered_commands", [*app.registered_commands])
    return tmp_path


def run(page: Path) -> None:
    """Run the blocks of a page in order; what fails is named by page and line."""
    module = types.ModuleType(f"page_{page.stem.replace('-', '_').lower()}")
    sys.modules[module.__name__] = module  # where classes look for their module
    try:
        for line, block in blocks(page, "python"):
            if not missing(block):
                code = compile("\n" * line + block, str(page), "exec")
                exec(code, module.__dict__)
    finally:
        del sys.modules[module.__name__]


@pytest.mark.thorough
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page, folder, stand_in, monkeypatch) -> None:
    real = loading.load

    def load(name, weights=None):
        return stand_in if name == "efficientnet_lite0" else real(name, weights)

    for place in (fv, loading):
        monkeypatch.setattr(place, "load", load)
    # The default transform takes most of the time to compile, and has tests of its own.
    monkeypatch.setitem(transforms.PRESETS, "affine", lambda size: transforms.Compose(()))
    run(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run_on_the_network_itself(page, folder) -> None:
    run(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_lines_of_the_shell_are_commands(page, capsys) -> None:
    program = typer.main.get_command(load_commands())
    for words in commands(page):
        if words[0].startswith("-"):
            assert words[0] in {option for one in program.params for option in one.opts}
            continue
        with typer.Context(program) as context:
            program.commands[words[0]].make_context(words[0], words[1:], parent=context)
        if any(tuple(words[: len(cheap)]) == cheap for cheap in CHEAP):
            assert main(words) == 0
    capsys.readouterr()


def test_examples_of_the_help_are_commands(capsys) -> None:
    program = typer.main.get_command(load_commands())
    for name, command in program.commands.items():
        assert main([name, "--help"]) == 0
        text = capsys.readouterr().out
        examples = [line.strip() for line in text.splitlines() if line.startswith("    featvis ")]
        assert examples, name
        for example in examples:
            words = shlex.split(example)[1:]
            assert words[0] == name
            with typer.Context(program) as context:
                command.make_context(name, words[1:], parent=context)


@pytest.mark.thorough
def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            target = link.partition("#")[0]
            if target and not target.startswith("https://"):
                assert (page.parent / target).exists(), f"{page.name}: {link}"
    readme = PAGES[0].read_text(encoding="utf-8")
    assert all(f"experiments/guide/{page.name}" in readme for page in PAGES[1:])
