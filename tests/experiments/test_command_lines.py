"""Every study's command line: help needs no extras, and a mistake is one line."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"
STUDIES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "studies")
EXTRAS = ("matplotlib", "skimage", "sklearn", "cv2", "torch", "lucent", "horama", "keras", "haiku")


def says_folder(name: str) -> bool:
    """Whether a study takes a folder: its `CommandLine` says what of."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(
        key.arg == "folder"
        for call in calls
        if ast.unparse(call.func) == "studies.CommandLine"
        for key in call.keywords
    )


OF_FOLDERS = [name for name in STUDIES if says_folder(name)]


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXTRAS:
        for loaded in [one for one in sys.modules if one.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, name, None)


def ended(monkeypatch, capsys, study, *words: str) -> tuple[int | str | None, str, str]:
    """Exit code, output and errors of a study's command line."""
    monkeypatch.setattr(sys, "argv", [f"{study.__name__}.py", *words])
    with pytest.raises(SystemExit) as done:
        study.main()
    said = capsys.readouterr()
    return done.value.code, said.out, said.err


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.usefixtures("without_extras")
def test_help_needs_no_extras_and_says_them(name, experiment, monkeypatch, capsys) -> None:
    study = experiment(name)
    code, said, _ = ended(monkeypatch, capsys, study, "--help")
    said = " ".join(said.split())
    assert code == 0
    assert " ".join(study.__doc__.partition("\n")[0].split()) in said
    assert "--quick" in said
    assert "pip install" in said or "It needs featvis alone" in said


@pytest.mark.parametrize("name", OF_FOLDERS)
def test_a_wrong_folder_is_one_line(name, experiment, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    study = experiment(name)
    for package in {*study.studies.PACKAGES.values()}:
        monkeypatch.setitem(sys.modules, package, sys)  # as if it were installed
    # A folder without what is asked for, here pictures or digits, is wrong too.
    for folder in ("nowhere", str(tmp_path)):
        code, said, errors = ended(monkeypatch, capsys, study, folder)
        assert (code, said) == (2, "")
        assert len(errors.splitlines()) == 1
        assert errors.startswith("error: ")
        assert folder in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_extras")
def test_a_missing_package_is_one_line(experiment, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = ended(monkeypatch, capsys, experiment("localisation"))
    named = "opencv-python-headless, matplotlib, scikit-image missing: pip install opencv-python"
    assert code == 2
    assert errors.startswith(f"error: {named}")
    assert len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())
